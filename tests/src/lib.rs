//! Harness and tests that cross crates.
