//! The gateway: listeners, TLS, routing and proxying on pingora and rustls.
