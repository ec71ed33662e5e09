//! Controllers: pure reconcile functions and the one runner that applies what they return.
