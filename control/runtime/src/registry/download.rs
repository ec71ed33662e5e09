//! One blob into a file: hashed while it comes, taken up where it broke off, now or in a later pull.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::CONTENT_RANGE;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use nix::fcntl::{Flock, FlockArg};
use oci_spec::image::Descriptor;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::time::timeout;

use super::error::PullError;
use super::progress::Progress;
use super::session::{Get, PATIENCE, Session};
use crate::error::{ImageError, IoContext};
use crate::layout::hex;

/// Attempts in a row that bring nothing.
const FRUITLESS_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
const READ_BYTES: usize = 1 << 20;

/// Leaves the whole blob, checked, at `path`.
pub(super) async fn blob(
    session: &Session,
    descriptor: &Descriptor,
    path: &Path,
    progress: &Progress,
) -> Result<(), PullError> {
    let digest = descriptor.digest().to_string();
    let size = descriptor.size();
    let mut part = Part::open(path, size).await?;
    progress.bytes.fetch_add(part.length, Ordering::Relaxed);
    let mut fruitless = 0;
    while part.length < size {
        let before = part.length;
        let Err(error) = fetch(session, &digest, size, &mut part, progress).await else { break };
        if !error.can_resume() {
            return Err(error);
        }
        fruitless = if part.length > before { 0 } else { fruitless + 1 };
        if fruitless == FRUITLESS_MAX {
            return Err(error);
        }
        tracing::info!(registry = %session.endpoint.registry, blob = %digest, at = part.length, %error, "resuming a blob");
        tokio::time::sleep(PAUSE * (fruitless + 1)).await;
    }
    let result = part.check(&digest, size).await;
    if result.is_err() {
        // What is wrong once stays wrong.
        let _ = fs::remove_file(path);
    }
    result?;
    progress.blobs.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// One answer of the registry, up to its end or its first trouble.
async fn fetch(
    session: &Session,
    digest: &str,
    size: u64,
    part: &mut Part,
    progress: &Progress,
) -> Result<(), PullError> {
    let path = format!("blobs/{digest}");
    let response = session.get(Get { path: &path, from: part.length, ..Get::default() }).await?;
    if part.length > 0 && !continues(&response, part.length) {
        // It does not do ranges.
        progress.bytes.fetch_sub(part.length, Ordering::Relaxed);
        part.restart().await?;
    }
    let mut body = response.into_body();
    loop {
        let broken = |part: &Part, detail: String| PullError::Truncated {
            digest: digest.to_owned(),
            length: part.length,
            size,
            detail,
        };
        match timeout(PATIENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let Ok(bytes) = frame.into_data() else { continue };
                part.append(&bytes).await?;
                progress.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                if part.length > size {
                    // More than was promised: the check will say so.
                    return Ok(());
                }
            }
            Ok(Some(Err(error))) => return Err(broken(part, crate::error::chain(&error))),
            Ok(None) if part.length < size => return Err(broken(part, "the registry has ended it".to_owned())),
            Ok(None) => return Ok(()),
            Err(_) => {
                let registry = session.endpoint.registry.clone();
                return Err(PullError::Stalled { registry, patience: PATIENCE });
            }
        }
    }
}

/// Whether an answer begins at this byte.
fn continues(response: &Response<Incoming>, at: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()) == Some(at)
}

/// A blob in the making. Whoever else wants the same one waits until this value is dropped.
struct Part {
    path: PathBuf,
    file: tokio::fs::File,
    hash: Sha256,
    length: u64,
    _lock: Flock<File>,
}

impl Part {
    async fn open(path: &Path, size: u64) -> Result<Self, PullError> {
        let path = path.to_owned();
        let work = move || open(&path, size).map(|(file, hash, length)| (path, file, hash, length));
        let opened = tokio::task::spawn_blocking(work).await.map_err(io::Error::other);
        let (path, lock, hash, length) = opened.at("cannot open", "a download")??;
        let file = lock.try_clone().at("cannot share", &path)?;
        Ok(Self { path, file: tokio::fs::File::from_std(file), hash, length, _lock: lock })
    }

    async fn append(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        self.file.write_all(bytes).await.at("cannot write", &self.path)?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), PullError> {
        self.file.set_len(0).await.at("cannot empty", &self.path)?;
        self.file.rewind().await.at("cannot rewind", &self.path)?;
        (self.hash, self.length) = (Sha256::new(), 0);
        Ok(())
    }

    async fn check(&mut self, expected: &str, size: u64) -> Result<(), PullError> {
        self.file.flush().await.at("cannot write", &self.path)?;
        let expected = expected.to_owned();
        if self.length != size {
            return Err(ImageError::SizeMismatch { digest: expected, expected: size, actual: self.length }.into());
        }
        let actual = format!("sha256:{}", hex(&self.hash.clone().finalize()));
        if actual != expected {
            return Err(ImageError::DigestMismatch { expected, actual }.into());
        }
        Ok(())
    }
}

/// The file, alone in our hands, with what it already holds.
fn open(path: &Path, size: u64) -> Result<(Flock<File>, Sha256, u64), PullError> {
    loop {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let file = file.at("cannot open", path)?;
        let mut file =
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).at("cannot lock", path)?;
        // Another pull may have taken it into the store while we waited.
        let ours = file.metadata().at("cannot look at", path)?;
        if !fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino())) {
            continue;
        }
        if ours.len() > size {
            file.set_len(0).at("cannot empty", path)?;
        }
        let mut hash = Sha256::new();
        let mut length = 0;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = file.read(&mut buffer).at("cannot read", path)?;
            if count == 0 {
                return Ok((file, hash, length));
            }
            hash.update(&buffer[..count]);
            length += count as u64;
        }
    }
}
