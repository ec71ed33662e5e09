//! What can go wrong, as the kubelet sees it.

use std::io;
use std::path::{Path, PathBuf};

/// A failed request to the runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("sandbox {0} is not known")]
    NoSandbox(String),
    #[error("container {0} is not known")]
    NoContainer(String),
    #[error("sandbox {0} has ended")]
    SandboxEnded(String),
    #[error("image {0} is not present")]
    NoImage(String),
    /// The request cannot work as it is; repeating it unchanged is useless.
    #[error("{0}")]
    Invalid(String),
    /// The container must not run as root and would, or might.
    #[error("{0}")]
    MayBeRoot(String),
    /// The container's process could not be started; its state says the same.
    #[error("container {id} cannot run: {message}")]
    CannotRun { id: String, message: String },
    #[error("command timed out after {0:?}")]
    Timeout(std::time::Duration),
    #[error("shim cannot be started: {0}")]
    ShimStart(String),
    #[error("shim: {0}")]
    Shim(String),
    #[error("{what} {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// A failed image operation; nothing of a failed import stays visible.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("{what} {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0} is neither an OCI layout, an OCI archive nor a docker archive")]
    UnknownFormat(PathBuf),
    #[error("image archive {path} is damaged: {detail}")]
    Damaged { path: PathBuf, detail: String },
    #[error("blob {expected} has the content of {actual}")]
    DigestMismatch { expected: String, actual: String },
    #[error("blob {digest} is {actual} bytes long instead of {expected}")]
    SizeMismatch { digest: String, expected: u64, actual: u64 },
    #[error("blob {0} is missing")]
    MissingBlob(String),
    #[error("{0} is not a digest")]
    BadDigest(String),
    #[error("{0} is not an image reference")]
    BadReference(String),
    #[error("image has no manifest for {0}")]
    NoPlatform(String),
    #[error("{path} is compressed with {name}; only gzip and zstd are supported")]
    UnsupportedCompression { path: PathBuf, name: &'static str },
    #[error("layer entry {path}: {detail}")]
    BadLayer { path: PathBuf, detail: String },
    #[error("{what} is not valid: {detail}")]
    BadDocument { what: &'static str, detail: String },
    #[error("image {0} is not present")]
    NotFound(String),
}

/// Adds what was tried and where to an I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, FileError>;
}

/// An I/O error with its place, on the way to either public error.
#[derive(Debug)]
pub(crate) struct FileError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, FileError> {
        self.map_err(|source| FileError { what, path: path.as_ref().to_owned(), source: source.into() })
    }
}

impl From<FileError> for RuntimeError {
    fn from(FileError { what, path, source }: FileError) -> Self {
        Self::Io { what, path, source }
    }
}

impl From<FileError> for ImageError {
    fn from(FileError { what, path, source }: FileError) -> Self {
        Self::Io { what, path, source }
    }
}

/// The whole chain of an error in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent wrappers repeat their source.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_names_every_cause_once() {
        let source = io::Error::new(io::ErrorKind::NotFound, "gone");
        let error = RuntimeError::Io { what: "cannot open", path: "/x".into(), source };
        assert_eq!(chain(&error), "cannot open /x: gone");
        let wrapped = RuntimeError::Image(ImageError::MissingBlob("sha256:0".to_owned()));
        assert_eq!(chain(&wrapped), "blob sha256:0 is missing");
    }
}
