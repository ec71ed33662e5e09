//! Set-up, build, demo, tests: everything a developer runs.
fn main() {}
