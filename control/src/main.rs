//! The `tidegate` program: every part of Tidegate behind one command line.
fn main() {}
