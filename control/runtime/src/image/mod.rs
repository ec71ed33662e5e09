//! The image store: OCI images by content, their layers unpacked once, and names that point at them.
//!
//! `store` keeps the files, `import` reads OCI layouts and archives, `layer` unpacks hostile tars, `reference` completes
//! names, `digest` computes SHA-256. Everything below is blocking; [`ImageStore`] is the asynchronous face.

mod compression;
mod digest;
mod import;
mod layer;
mod reference;
mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use reference::Reference;

use crate::error::ImageError;
use crate::protocol::ImageRoot;
use store::Store;

/// One image that can be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Digest of its configuration: the image's identity, whatever it is called.
    pub id: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Completed references with tags, in order.
    pub references: Vec<String>,
    /// Size of its blobs.
    pub size_bytes: u64,
}

impl ImageRecord {
    /// `repository@digest` for every repository that has it (`imageID` of a container status).
    pub fn repository_digests(&self) -> Vec<String> {
        let mut repositories: Vec<_> =
            self.references.iter().filter_map(|text| Reference::parse(text).ok()).map(|it| it.repository).collect();
        repositories.dedup();
        repositories.into_iter().map(|repository| format!("{repository}@{}", self.digest)).collect()
    }
}

/// The images of one data directory. Cheap to clone; safe to use from several processes at once.
#[derive(Debug, Clone)]
pub struct ImageStore {
    store: Arc<Store>,
}

impl ImageStore {
    /// Opens the store, making its directories if need be.
    pub fn open(image_dir: &Path) -> Result<Self, ImageError> {
        Ok(Self { store: Arc::new(Store::open(image_dir)?) })
    }

    /// Imports every image of an OCI layout directory, an OCI archive or a docker archive (both may be gzipped).
    pub async fn import(&self, path: &Path) -> Result<Vec<ImageRecord>, ImageError> {
        let path = path.to_owned();
        self.blocking(move |store| import::import(store, &path)).await
    }

    pub async fn list(&self) -> Result<Vec<ImageRecord>, ImageError> {
        self.blocking(Store::list).await
    }

    /// Finds an image by reference (completed as usual), by identifier or by manifest digest.
    pub async fn resolve(&self, image: &str) -> Option<ImageRecord> {
        let image = image.to_owned();
        self.blocking(move |store| store.resolve(&image)).await.unwrap_or_else(|error| {
            tracing::error!(error = %crate::error::chain(&error), "image store cannot be read");
            None
        })
    }

    /// Removes a name, or an image with all its names, and what nothing needs any more. Layers of existing containers
    /// stay until those are removed.
    pub async fn remove(&self, image: &str) -> Result<(), ImageError> {
        let image = image.to_owned();
        self.blocking(move |store| store.remove(&image)).await
    }

    /// Removes blobs and layers that no name and no container needs; returns the bytes of blobs freed.
    pub async fn gc(&self) -> Result<u64, ImageError> {
        self.blocking(Store::gc).await
    }

    /// What a shim needs of an image, with a lease that keeps its layers for a container.
    pub(crate) async fn lease(
        &self,
        image: &ImageRecord,
        container: &str,
        state_dir: &Path,
    ) -> Result<ImageRoot, ImageError> {
        let (digest, container, state_dir) = (image.digest.clone(), container.to_owned(), state_dir.to_owned());
        self.blocking(move |store| store.lease(&digest, &container, &state_dir)).await
    }

    pub(crate) async fn release(&self, container: &str) -> Result<(), ImageError> {
        let container = container.to_owned();
        self.blocking(move |store| store.release(&container)).await
    }

    pub(crate) fn layer_dir(&self) -> PathBuf {
        self.store.layer_dir()
    }

    async fn blocking<T, F>(&self, work: F) -> Result<T, ImageError>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> Result<T, ImageError> + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}
