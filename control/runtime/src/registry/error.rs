//! Why an image did not come.

use std::time::Duration;

use http::StatusCode;

use crate::error::{FileError, ImageError};

/// A failed pull; nothing of the image is visible, but what came of its blobs is kept for the next attempt.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("cannot reach registry {registry}: {detail}")]
    Unreachable { registry: String, detail: String },
    /// Only the registry can know whether it does not exist or is not for us.
    #[error("{image}: not found")]
    NotFound { image: String },
    #[error("registry {registry} refuses {what}: {status}{}", after_colon(.detail))]
    Denied { registry: String, what: String, status: StatusCode, detail: String },
    #[error("registry {registry} answers {what} with {status}{}", after_colon(.detail))]
    Status { registry: String, what: String, status: StatusCode, detail: String },
    #[error("registry {registry}: {detail}")]
    Protocol { registry: String, detail: String },
    #[error("blob {digest} broke off after {length} of {size} bytes: {detail}")]
    Truncated { digest: String, length: u64, size: u64, detail: String },
    #[error("registry {registry} has sent nothing for {0:?}", .patience)]
    Stalled { registry: String, patience: Duration },
    #[error(transparent)]
    Image(#[from] ImageError),
}

fn after_colon(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

impl PullError {
    /// Whether no registry has had a say in it.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether other credentials may help.
    pub(super) fn is_about_access(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::NotFound { .. })
    }

    /// Whether the registry means that the same may succeed a moment later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Status { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            _ => false,
        }
    }

    /// Whether a download may go on from where it is.
    pub(super) fn can_resume(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Stalled { .. } | Self::Truncated { .. }) || self.is_passing()
    }
}

impl From<FileError> for PullError {
    fn from(error: FileError) -> Self {
        Self::Image(error.into())
    }
}
