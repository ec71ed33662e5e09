//! Every byte that the kernel programs and user space share: map keys, values and their layout versions.
