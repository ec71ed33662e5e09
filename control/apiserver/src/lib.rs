//! The HTTP surface of the Kubernetes API server.
