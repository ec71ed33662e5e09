//! A whole pull: resolve, download what is missing, take it in, name it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use futures::{StreamExt, TryStreamExt};
use oci_spec::image::Descriptor;

use super::endpoint::Endpoint;
use super::error::PullError;
use super::progress::Progress;
use super::resolve::{Resolved, resolve};
use super::session::Session;
use super::{Credentials, Registries, download};
use crate::image::{ImageRecord, ImageStore, Reference};

/// Blobs of one image that come at the same time.
const BLOBS_AT_ONCE: usize = 3;

/// Each of the credentials is tried; without any, the registry is asked as a stranger.
pub(crate) async fn pull(
    store: &ImageStore,
    registries: &Registries,
    image: &Reference,
    credentials: &[Credentials],
) -> Result<ImageRecord, PullError> {
    let (session, resolved) = begin(registries, image, credentials).await?;
    let missing = missing(store, &resolved).await?;
    let progress = Progress::default();
    progress.blobs_total.store(missing.len() as u64, Ordering::Relaxed);
    progress.bytes_total.store(missing.iter().map(Descriptor::size).sum(), Ordering::Relaxed);
    let (session, progress) = (&session, &progress);
    let downloads = futures::stream::iter(missing)
        .map(|blob| async move {
            let path = store.download_path(blob.digest().as_ref())?;
            download::blob(session, &blob, &path, progress).await
        })
        .buffer_unordered(BLOBS_AT_ONCE)
        .try_collect::<()>();
    progress.watch(&image.to_string(), downloads).await?;
    let names = names(image, &resolved);
    Ok(store.take_in(resolved.descriptor, resolved.text, names).await?)
}

async fn begin(
    registries: &Registries,
    image: &Reference,
    credentials: &[Credentials],
) -> Result<(Session, Resolved), PullError> {
    let mut attempts: Vec<Option<Credentials>> = credentials.iter().cloned().map(Some).collect();
    if attempts.is_empty() {
        attempts.push(None);
    }
    let last = attempts.len() - 1;
    for (index, credentials) in attempts.into_iter().enumerate() {
        let session = Session::open(registries, Endpoint::of(image), credentials).await?;
        match resolve(&session, image).await {
            Ok(resolved) => return Ok((session, resolved)),
            Err(error) if error.is_about_access() && index < last => {
                tracing::debug!(image = %image, %error, "trying the next credentials");
            }
            Err(error) => return Err(error),
        }
    }
    // Not reached: the last attempt returns either way.
    Err(PullError::NotFound { image: image.to_string() })
}

/// The blobs that the store does not have, each once.
async fn missing(store: &ImageStore, resolved: &Resolved) -> Result<Vec<Descriptor>, PullError> {
    let manifest = &resolved.manifest;
    let mut seen = BTreeSet::new();
    let mut missing = Vec::new();
    for blob in [manifest.config()].into_iter().chain(manifest.layers()) {
        let digest = blob.digest().to_string();
        if !store.has_blob(&digest)? && seen.insert(digest) {
            missing.push(blob.clone());
        }
    }
    Ok(missing)
}

/// The tag, unless the reference names a digest, and the digest of what it leads to.
fn names(image: &Reference, resolved: &Resolved) -> Vec<String> {
    let digest = Reference { tag: None, digest: Some(resolved.root.clone()), repository: image.repository.clone() };
    let tag = image.digest.is_none().then(|| image.to_string());
    tag.into_iter().chain([digest.to_string()]).collect()
}
