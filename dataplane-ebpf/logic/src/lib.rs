//! What the kernel programs decide, over plain values: tested on the host, compiled into the programs.
