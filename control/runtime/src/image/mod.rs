//! The image store: OCI images by content, their layers unpacked once, and names that point at them.
//!
//! `store` keeps the files, `import` reads OCI layouts and archives, `archive` spreads out tars, `layer` unpacks hostile
//! ones, `platform` chooses among manifests, `reference` completes names, `digest` computes SHA-256. Everything below is
//! blocking; [`ImageStore`] is the asynchronous face.

mod archive;
mod compression;
mod digest;
mod import;
mod layer;
mod platform;
mod reference;
mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use oci_spec::image::Descriptor;

pub(crate) use digest::of_bytes as digest_of;
pub(crate) use platform::{DOCKER_LIST, choose, is_index};
pub use reference::Reference;
pub(crate) use store::{DOCUMENT_BYTES_MAX, parse_document};

use crate::error::ImageError;
use crate::protocol::ImageRoot;
use crate::registry::pull::pull;
use crate::registry::{Credentials, PullError, Registries};
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
    /// `repository@digest` as it came from registries; an imported image has none.
    #[serde(default)]
    pub pulled: Vec<String>,
    /// Size of its blobs.
    pub size_bytes: u64,
}

impl ImageRecord {
    /// `repository@digest` for every repository that has it (`imageID` of a container status).
    pub fn repository_digests(&self) -> Vec<String> {
        if !self.pulled.is_empty() {
            return self.pulled.clone();
        }
        let mut repositories: Vec<_> =
            self.references.iter().filter_map(|text| Reference::parse(text).ok()).map(|it| it.repository).collect();
        repositories.dedup();
        repositories.into_iter().map(|repository| format!("{repository}@{}", self.digest)).collect()
    }
}

impl ImageRecord {
    /// What a container's status says that it runs: the digest in the registry that it came from, if it did.
    pub(crate) fn identity(&self, image: &str) -> &str {
        let repository = Reference::parse(image).map(|reference| format!("{}@", reference.repository));
        let same = |name: &&String| repository.as_ref().is_ok_and(|repository| name.starts_with(repository));
        self.pulled.iter().find(same).or(self.pulled.first()).unwrap_or(&self.id)
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

    /// Fetches an image from its registry, as far as it is not here, and names it. Each of the credentials is tried.
    pub async fn pull(
        &self,
        registries: &Registries,
        image: &Reference,
        credentials: &[Credentials],
    ) -> Result<ImageRecord, PullError> {
        self.blocking(|store| {
            store.forget_downloads();
            Ok(())
        })
        .await?;
        pull(self, registries, image, credentials).await
    }

    /// Imports every image of an OCI layout directory, an OCI archive or a docker archive (both may be compressed).
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

    pub(crate) fn has_blob(&self, digest: &str) -> Result<bool, ImageError> {
        self.store.has_blob(digest)
    }

    /// Where a blob is put before it is taken in.
    pub(crate) fn download_path(&self, digest: &str) -> Result<PathBuf, ImageError> {
        self.store.download_path(digest)
    }

    /// Takes in an image whose missing blobs have been downloaded, and gives it these names.
    pub(crate) async fn take_in(
        &self,
        descriptor: Descriptor,
        manifest: Vec<u8>,
        names: Vec<String>,
    ) -> Result<ImageRecord, ImageError> {
        self.blocking(move |store| import::take_in(store, &descriptor, &manifest, names)).await
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
