//! Import of images: OCI layout directories, OCI archives and docker archives.
//!
//! An archive is first spread out in the staging directory, under names that cannot leave it; from there on it is a
//! directory like any other. Names are published last, all at once, so an import shows nothing or everything.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, DescriptorBuilder, ImageIndex, ImageManifestBuilder, MediaType, Sha256Digest};
use serde::Deserialize;

use super::ImageRecord;
use super::archive::{self, plain_path};
use super::digest::{self, HashingReader};
use super::platform;
use super::reference::Reference;
use super::store::{DOCUMENT_BYTES_MAX, Locked, Store, parse_document};
use crate::error::{ImageError, IoContext};
use crate::layout::{new_id, write_atomically};

/// An index that points at an index that points at an index … ends here.
const INDEX_DEPTH_MAX: usize = 4;
/// Annotations that name an image; the first is containerd's, always in full.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

pub(super) fn import(store: &Store, path: &Path) -> Result<Vec<ImageRecord>, ImageError> {
    let metadata = fs::metadata(path).at("cannot find", path)?;
    transact(store, |import| {
        if metadata.is_dir() {
            return import.directory(path, &stem(path));
        }
        let spread = import.staging.join("archive");
        let result = archive::unpack(path, &spread).and_then(|()| import.directory(&spread, &stem(path)));
        result.map_err(|error| in_archive(error, path))
    })
}

/// Takes in one image whose missing blobs are among the downloads.
pub(super) fn take_in(
    store: &Store,
    descriptor: &Descriptor,
    manifest: &[u8],
    names: Vec<String>,
) -> Result<ImageRecord, ImageError> {
    let digest = descriptor.digest().to_string();
    let source = store.download_dir();
    let mut images = transact(store, |import| {
        write_atomically(&source_blob_path(&source, &digest)?, manifest, 0o644)?;
        import.image(&source, descriptor)?;
        Ok(names.into_iter().map(|name| (name, digest.clone())).collect())
    })?;
    // What two pulls at once have both downloaded.
    let parsed = store.manifest(&digest)?;
    for blob in [descriptor, parsed.config()].into_iter().chain(parsed.layers()) {
        if let Ok(path) = source_blob_path(&source, blob.digest().as_ref()) {
            // It is gone already, as a rule.
            let _ = fs::remove_file(path);
        }
    }
    images.pop().ok_or(ImageError::NotFound(digest))
}

/// Runs an import that shows all of its images in the end, or nothing.
fn transact(
    store: &Store,
    work: impl FnOnce(&mut Import<'_>) -> Result<Vec<Named>, ImageError>,
) -> Result<Vec<ImageRecord>, ImageError> {
    let lock = store.lock()?;
    let staging = store.stage(&lock)?;
    let mut import = Import { store, lock: &lock, staging: &staging, blobs: Vec::new(), layers: Vec::new() };
    let result = work(&mut import).and_then(|images| store.publish(&lock, &images).map(|()| images));
    if result.is_err() {
        store.discard(&lock, &import.blobs, &import.layers);
    }
    // Left-overs are also removed by the next import.
    let _ = fs::remove_dir_all(&staging);
    let images = result?;
    drop(lock);
    let digests: Vec<_> = images.into_iter().map(|(_, digest)| digest).collect();
    Ok(store.list()?.into_iter().filter(|record| digests.contains(&record.digest)).collect())
}

struct Import<'a> {
    store: &'a Store,
    lock: &'a Locked,
    staging: &'a Path,
    /// What this import added, to be taken back if it fails.
    blobs: Vec<String>,
    layers: Vec<String>,
}

/// (completed reference, manifest digest)
type Named = (String, String);

impl Import<'_> {
    fn directory(&mut self, dir: &Path, fallback: &str) -> Result<Vec<Named>, ImageError> {
        if dir.join("index.json").is_file() {
            self.oci_layout(dir, fallback)
        } else if dir.join("manifest.json").is_file() {
            self.docker_archive(dir, fallback)
        } else {
            Err(ImageError::UnknownFormat(dir.to_owned()))
        }
    }

    fn oci_layout(&mut self, dir: &Path, fallback: &str) -> Result<Vec<Named>, ImageError> {
        let index: ImageIndex = parse_document("index.json", &read_document(&dir.join("index.json"))?)?;
        let mut images = Vec::new();
        // Of an image for many machines, an archive may hold one variant beside the others' names.
        let several = index.manifests().len() > 1;
        for descriptor in index.manifests().iter().filter(|it| !several || platform::fits(it)) {
            let name = reference_of(descriptor, fallback)?;
            let descriptor = self.select_manifest(dir, descriptor.clone())?;
            self.image(dir, &descriptor)?;
            images.push((name, descriptor.digest().to_string()));
        }
        if images.is_empty() {
            // Says which platform there is none for, if there are others.
            platform::choose(&index)?;
        }
        Ok(images)
    }

    /// Follows indexes to the manifest for this machine.
    fn select_manifest(&mut self, dir: &Path, mut descriptor: Descriptor) -> Result<Descriptor, ImageError> {
        for _ in 0..INDEX_DEPTH_MAX {
            if !platform::is_index(descriptor.media_type()) {
                return Ok(descriptor);
            }
            let text = self.source_document(dir, &descriptor)?;
            let index: ImageIndex = parse_document("image index", &text)?;
            descriptor = platform::choose(&index)?.clone();
        }
        Err(ImageError::BadDocument { what: "image index", detail: "indexes are nested too deeply".to_owned() })
    }

    /// Takes in one image: blobs checked, layers unpacked and checked.
    fn image(&mut self, dir: &Path, descriptor: &Descriptor) -> Result<(), ImageError> {
        self.blob(dir, descriptor)?;
        let manifest = self.store.manifest(descriptor.digest().as_ref())?;
        if manifest.config().size() > DOCUMENT_BYTES_MAX {
            return Err(too_large("image configuration"));
        }
        self.blob(dir, manifest.config())?;
        let configuration = self.store.configuration(manifest.config().digest().as_ref())?;
        let diff_ids = configuration.rootfs().diff_ids();
        if diff_ids.len() != manifest.layers().len() {
            let detail = format!("{} diff IDs for {} layers", diff_ids.len(), manifest.layers().len());
            return Err(ImageError::BadDocument { what: "image configuration", detail });
        }
        for (layer, diff_id) in manifest.layers().iter().zip(diff_ids) {
            self.blob(dir, layer)?;
            if self.store.unpack_layer(self.lock, self.staging, layer.digest().as_ref(), diff_id)? {
                self.layers.push(diff_id.clone());
            }
        }
        Ok(())
    }

    fn blob(&mut self, dir: &Path, descriptor: &Descriptor) -> Result<(), ImageError> {
        let digest = descriptor.digest().to_string();
        if self.store.has_blob(&digest)? {
            return Ok(());
        }
        let source = source_blob(dir, &digest)?;
        let staged = self.staging.join(new_id());
        if self.store.owns(dir) {
            fs::rename(&source, &staged).at("cannot move", &source)?;
        } else {
            fs::copy(&source, &staged).at("cannot copy", &source)?;
        }
        if self.store.adopt_blob(self.lock, &staged, &digest, descriptor.size())? {
            self.blobs.push(digest);
        }
        Ok(())
    }

    /// Reads an index of the source, checked, without keeping it.
    fn source_document(&self, dir: &Path, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let expected = descriptor.digest().to_string();
        let text = read_document(&source_blob(dir, &expected)?)?;
        let actual = digest::of_bytes(&text);
        if actual != expected {
            return Err(ImageError::DigestMismatch { expected, actual });
        }
        Ok(text)
    }

    /// The format of `docker save` before version 25: a list of configurations and uncompressed layers. It gets the
    /// manifest that it lacks and then goes the usual way.
    fn docker_archive(&mut self, dir: &Path, fallback: &str) -> Result<Vec<Named>, ImageError> {
        let list: Vec<DockerImage> = parse_document("manifest.json", &read_document(&dir.join("manifest.json"))?)?;
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).at("cannot create", &blobs)?;
        let mut images = Vec::new();
        for image in list {
            let config = self.docker_blob(dir, &image.config, MediaType::ImageConfig)?;
            let layers = image
                .layers
                .iter()
                .map(|path| self.docker_blob(dir, path, MediaType::ImageLayer))
                .collect::<Result<Vec<_>, _>>()?;
            let manifest = ImageManifestBuilder::default()
                .schema_version(2u32)
                .media_type(MediaType::ImageManifest)
                .config(config)
                .layers(layers)
                .build()
                .map_err(|error| ImageError::BadDocument { what: "manifest.json", detail: error.to_string() })?;
            let text = serde_json::to_vec(&manifest)
                .map_err(|error| ImageError::BadDocument { what: "manifest.json", detail: error.to_string() })?;
            let descriptor = descriptor(MediaType::ImageManifest, &digest::of_bytes(&text), text.len() as u64)?;
            let path = source_blob_path(dir, descriptor.digest().as_ref())?;
            write_atomically(&path, &text, 0o644)?;
            self.image(dir, &descriptor)?;
            let digest = descriptor.digest().to_string();
            let tags = image.repo_tags.unwrap_or_default();
            if tags.is_empty() {
                images.push((complete(fallback)?, digest.clone()));
            }
            for tag in tags {
                images.push((complete(&tag)?, digest.clone()));
            }
        }
        Ok(images)
    }

    /// Puts a file of a docker archive where a blob of an OCI layout would be.
    fn docker_blob(&self, dir: &Path, name: &str, media_type: MediaType) -> Result<Descriptor, ImageError> {
        let path = plain_path(Path::new(name)).ok_or_else(|| ImageError::MissingBlob(name.to_owned()))?;
        let source = dir.join(path);
        let file = File::open(&source).map_err(|_| ImageError::MissingBlob(name.to_owned()))?;
        let mut reader = HashingReader::new(file);
        io::copy(&mut reader, &mut io::sink()).at("cannot read", &source)?;
        let (digest, size) = reader.finish();
        let target = source_blob_path(dir, &digest)?;
        if !target.exists() {
            fs::hard_link(&source, &target).at("cannot link", &target)?;
        }
        descriptor(media_type, &digest, size)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn source_blob_path(dir: &Path, digest: &str) -> Result<PathBuf, ImageError> {
    Ok(dir.join("blobs/sha256").join(digest::hex_part(digest)?))
}

fn source_blob(dir: &Path, digest: &str) -> Result<PathBuf, ImageError> {
    let path = source_blob_path(dir, digest)?;
    if path.is_file() { Ok(path) } else { Err(ImageError::MissingBlob(digest.to_owned())) }
}

fn read_document(path: &Path) -> Result<Vec<u8>, ImageError> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut text))
        .at("cannot read", path)?;
    if text.len() as u64 > DOCUMENT_BYTES_MAX { Err(too_large("image document")) } else { Ok(text) }
}

fn too_large(what: &'static str) -> ImageError {
    ImageError::BadDocument { what, detail: format!("it is larger than {DOCUMENT_BYTES_MAX} bytes") }
}

fn descriptor(media_type: MediaType, digest: &str, size: u64) -> Result<Descriptor, ImageError> {
    let bad = || ImageError::BadDigest(digest.to_owned());
    let digest: Sha256Digest = digest::hex_part(digest)?.parse().map_err(|_| bad())?;
    DescriptorBuilder::default().media_type(media_type).digest(digest).size(size).build().map_err(|_| bad())
}

/// The name of an image in an index: a full reference, or a mere tag of a layout that is named like its directory.
fn reference_of(descriptor: &Descriptor, fallback: &str) -> Result<String, ImageError> {
    let annotations = descriptor.annotations().as_ref();
    let name = NAME_ANNOTATIONS.iter().find_map(|key| annotations?.get(*key));
    match name {
        Some(name) if name.contains(['/', ':', '@']) => complete(name),
        Some(tag) => complete(&format!("{fallback}:{tag}")),
        None => complete(fallback),
    }
}

fn complete(name: &str) -> Result<String, ImageError> {
    let reference = Reference::parse(name)?;
    // A name is something that can be moved; the digest is found by content anyway.
    let tag = reference.tag.clone().unwrap_or_else(|| "latest".to_owned());
    Ok(Reference { tag: Some(tag), digest: None, ..reference }.to_string())
}

/// What an unnamed image is called: its file's name without extensions.
fn stem(path: &Path) -> String {
    let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = absolute.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
    let name = [".gz", ".zst", ".tgz", ".tzst", ".tar", ".oci"]
        .iter()
        .fold(name.as_str(), |name, end| name.strip_suffix(end).unwrap_or(name));
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let name = name.trim_matches(['.', '_', '-']);
    if name.is_empty() { "imported".to_owned() } else { name.to_owned() }
}

/// Errors inside an archive name the archive, not the staging directory.
fn in_archive(error: ImageError, path: &Path) -> ImageError {
    match error {
        ImageError::UnknownFormat(_) => ImageError::UnknownFormat(path.to_owned()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unnamed_images_are_called_like_their_file() {
        for (path, want) in [
            ("/nowhere/busybox.tar.gz", "busybox"),
            ("/nowhere/busybox.tar.zst", "busybox"),
            ("/nowhere/My App.tar", "my-app"),
            ("/nowhere/echo.oci", "echo"),
            ("/", "imported"),
        ] {
            assert_eq!(stem(Path::new(path)), want);
        }
    }
}
