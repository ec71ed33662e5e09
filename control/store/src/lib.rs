//! The revisioned key-value store: etcd semantics behind one trait, an embedded durable engine by default.
