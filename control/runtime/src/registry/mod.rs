//! Images from registries, by the OCI distribution protocol.
//!
//! ```text
//! pull ── resolve: tag or digest → manifest for this machine ── session: requests, authentication, redirects, retries
//!    └─── download: a blob into a file, hashed on the way, resumed where it broke off ──┘        │
//!    └─── image store: everything is there, so take it in and name it                      connect: TLS, proxies
//!                                                                                                │
//!                                                                              dial: sockets, if need be by another
//! ```

mod challenge;
mod connect;
pub mod dial;
mod download;
mod endpoint;
mod error;
mod progress;
pub(crate) mod pull;
mod resolve;
mod session;

use std::fmt;
use std::sync::{Arc, OnceLock};

pub use dial::Dialer;
pub use error::PullError;

/// How to authenticate with a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

/// Names whose it is, never the secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Fetches images. Cheap to clone.
#[derive(Clone)]
pub struct Registries {
    dialer: Dialer,
    /// Made by the first pull: many a node never pulls anything.
    http: Arc<OnceLock<connect::Http>>,
}

impl Registries {
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer, http: Arc::default() }
    }

    fn http(&self) -> Result<connect::Http, PullError> {
        if let Some(http) = self.http.get() {
            return Ok(http.clone());
        }
        let http = connect::client(self.dialer.clone())?;
        Ok(self.http.get_or_init(|| http).clone())
    }
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registries").field("dialer", &self.dialer).finish_non_exhaustive()
    }
}
