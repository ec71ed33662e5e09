//! The files of the image store.
//!
//! ```text
//! blobs/sha256/<hex>    manifests, configurations and layers as they came
//! layers/<hex>/         a layer unpacked, by the digest of its uncompressed tar (diff ID)
//! names.json            reference -> manifest digest; replaced as a whole. `repository@digest` came from a registry, where
//!                       the digest may be that of an index
//! downloads/            blobs that a registry is sending, or was when it broke off: the next pull goes on from there
//! leases/<container>    an image that a container uses: its layers stay
//! staging/              work in progress; whatever is found here was left by a crash
//! lock                  held by the one process that imports or removes
//! sweep.lock            held while something is deleted; shared by those that take a lease, who need not wait for imports
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use oci_spec::image::{ImageConfiguration, ImageManifest};
use serde::{Deserialize, Serialize};

use super::digest::{self, HashingReader};
use super::reference::Reference;
use super::{ImageRecord, layer};
use crate::error::{ImageError, IoContext};
use crate::layout::{is_plain_name, new_id, read_record, remove_tree, write_record};
use crate::protocol::ImageRoot;

/// Documents (indexes, manifests, configurations) larger than this are refused.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Fewest hex digits that name an image by the start of its identifier.
const SHORT_ID_LENGTH_MIN: usize = 12;
/// A download that nobody has gone on with for so long is forgotten.
const DOWNLOAD_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Reference → manifest digest.
type Names = BTreeMap<String, String>;

#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
}

/// Proof that this process alone changes the store.
pub(super) struct Locked(#[expect(dead_code, reason = "held for its release on drop")] Flock<File>);

#[derive(Debug, Serialize, Deserialize)]
struct Lease {
    digest: String,
    state_dir: PathBuf,
}

impl Store {
    pub(super) fn open(root: &Path) -> Result<Self, ImageError> {
        for dir in ["blobs/sha256", "layers", "leases", "staging", "downloads/blobs/sha256"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).at("cannot create", &dir)?;
        }
        Ok(Self { root: root.canonicalize().at("cannot find", root)? })
    }

    pub(super) fn layer_dir(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(super) fn lock(&self) -> Result<Locked, ImageError> {
        self.lock_file("lock", FlockArg::LockExclusive).map(Locked)
    }

    fn lock_file(&self, name: &str, kind: FlockArg) -> Result<Flock<File>, ImageError> {
        let path = self.root.join(name);
        let file = File::options().create(true).truncate(false).write(true).open(&path).at("cannot open", &path)?;
        Ok(Flock::lock(file, kind).map_err(|(_, errno)| errno).at("cannot lock", &path)?)
    }

    /// An empty directory for work in progress.
    pub(super) fn stage(&self, _: &Locked) -> Result<PathBuf, ImageError> {
        let staging = self.root.join("staging");
        // The lock is ours, so whatever is there was left by a process that ended half-way.
        remove_tree(&staging)?;
        let dir = staging.join(new_id());
        fs::create_dir_all(&dir).at("cannot create", &dir)?;
        Ok(dir)
    }

    pub(super) fn list(&self) -> Result<Vec<ImageRecord>, ImageError> {
        let mut by_digest: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, digest) in self.names()? {
            by_digest.entry(digest).or_default().push(name);
        }
        by_digest.into_iter().map(|(digest, names)| self.record(digest, names)).collect()
    }

    pub(super) fn resolve(&self, image: &str) -> Result<Option<ImageRecord>, ImageError> {
        let names = self.names()?;
        if let Some(wanted) = identifier(image) {
            return Ok(self.list()?.into_iter().find(|record| matches_identifier(record, wanted)));
        }
        let Ok(reference) = Reference::parse(image) else { return Ok(None) };
        let digest = match &reference.digest {
            Some(digest) => {
                let named = names.get(&format!("{}@{digest}", reference.repository));
                named.or_else(|| names.values().find(|known| *known == digest)).cloned()
            }
            None => names.get(&reference.to_string()).cloned(),
        };
        digest.map(|digest| self.record(digest.clone(), names_of(&names, &digest))).transpose()
    }

    /// Points names at a manifest whose blobs and layers are all there.
    pub(super) fn publish(&self, _: &Locked, images: &[(String, String)]) -> Result<(), ImageError> {
        let mut names = self.names()?;
        names.extend(images.iter().cloned());
        Ok(write_record(&self.names_path(), &names)?)
    }

    pub(super) fn remove(&self, image: &str) -> Result<(), ImageError> {
        let lock = self.lock()?;
        let record = self.resolve(image)?.ok_or_else(|| ImageError::NotFound(image.to_owned()))?;
        let mut names = self.names()?;
        match Reference::parse(image) {
            Ok(reference) if identifier(image).is_none() && reference.digest.is_none() => {
                names.remove(&reference.to_string());
            }
            _ => names.retain(|_, digest| *digest != record.digest),
        }
        // Without a tag, nobody would think that the image is still there.
        if !names.iter().any(|(name, digest)| *digest == record.digest && !is_pulled(name)) {
            names.retain(|_, digest| *digest != record.digest);
        }
        write_record(&self.names_path(), &names)?;
        self.sweep(&lock)?;
        Ok(())
    }

    pub(super) fn gc(&self) -> Result<u64, ImageError> {
        let lock = self.lock()?;
        self.sweep(&lock)
    }

    pub(super) fn lease(&self, digest: &str, container: &str, state_dir: &Path) -> Result<ImageRoot, ImageError> {
        let _lock = self.lock_file("sweep.lock", FlockArg::LockShared)?;
        let root = self.image_root(digest)?;
        let lease = Lease { digest: digest.to_owned(), state_dir: state_dir.to_owned() };
        write_record(&self.lease_path(container), &lease)?;
        Ok(root)
    }

    pub(super) fn release(&self, container: &str) -> Result<(), ImageError> {
        match fs::remove_file(self.lease_path(container)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).at("cannot remove", self.lease_path(container))?
            }
            _ => Ok(()),
        }
    }

    /// Looks like an OCI layout, from which the image is then imported.
    pub(super) fn download_dir(&self) -> PathBuf {
        self.root.join("downloads")
    }

    pub(super) fn download_path(&self, digest: &str) -> Result<PathBuf, ImageError> {
        Ok(self.download_dir().join("blobs/sha256").join(digest::hex_part(digest)?))
    }

    /// Whether a path is the store's own, to be moved rather than copied.
    pub(super) fn owns(&self, path: &Path) -> bool {
        path.starts_with(&self.root)
    }

    /// Removes downloads that were given up.
    pub(super) fn forget_downloads(&self) {
        let entries = fs::read_dir(self.download_dir().join("blobs/sha256"));
        for entry in entries.into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|found| found.modified()).ok().and_then(|time| time.elapsed().ok());
            if age.is_some_and(|age| age > DOWNLOAD_AGE_MAX) {
                // If it cannot be removed, it can be tomorrow.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    pub(super) fn has_blob(&self, digest: &str) -> Result<bool, ImageError> {
        Ok(self.blob_path(digest)?.exists())
    }

    /// Moves a file into the store if it has the promised content. Returns whether the blob is new.
    pub(super) fn adopt_blob(&self, _: &Locked, staged: &Path, expected: &str, size: u64) -> Result<bool, ImageError> {
        let target = self.blob_path(expected)?;
        if target.exists() {
            return Ok(false);
        }
        let mut reader = HashingReader::new(File::open(staged).at("cannot open", staged)?);
        io::copy(&mut reader, &mut io::sink()).at("cannot read", staged)?;
        let (actual, length) = reader.finish();
        if length != size {
            return Err(ImageError::SizeMismatch { digest: expected.to_owned(), expected: size, actual: length });
        }
        if actual != expected {
            return Err(ImageError::DigestMismatch { expected: expected.to_owned(), actual });
        }
        fs::rename(staged, &target).at("cannot move into the store", &target)?;
        Ok(true)
    }

    /// Unpacks a layer that is not yet unpacked. Returns whether it is new.
    pub(super) fn unpack_layer(
        &self,
        _: &Locked,
        staging: &Path,
        digest: &str,
        diff_id: &str,
    ) -> Result<bool, ImageError> {
        let target = self.layer_dir().join(digest::hex_part(diff_id)?);
        if target.exists() {
            return Ok(false);
        }
        let blob = self.blob_path(digest)?;
        let unpacked = staging.join(new_id());
        layer::unpack(&blob, &unpacked, diff_id)?;
        fs::rename(&unpacked, &target).at("cannot move into the store", &target)?;
        Ok(true)
    }

    /// Takes back what a failed import added.
    pub(super) fn discard(&self, _: &Locked, blobs: &[String], layers: &[String]) {
        for digest in blobs {
            if let Ok(path) = self.blob_path(digest) {
                // Unreferenced blobs only take space; the next sweep finds them too.
                let _ = fs::remove_file(path);
            }
        }
        for diff_id in layers {
            if let Ok(hex) = digest::hex_part(diff_id) {
                let _ = fs::remove_dir_all(self.layer_dir().join(hex));
            }
        }
    }

    pub(super) fn manifest(&self, digest: &str) -> Result<ImageManifest, ImageError> {
        parse_document("image manifest", &self.document(digest)?)
    }

    pub(super) fn configuration(&self, digest: &str) -> Result<ImageConfiguration, ImageError> {
        parse_document("image configuration", &self.document(digest)?)
    }

    fn document(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let path = self.blob_path(digest)?;
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ImageError::MissingBlob(digest.to_owned())),
            other => Ok(other.at("cannot read", &path)?),
        }
    }

    fn record(&self, digest: String, names: Vec<String>) -> Result<ImageRecord, ImageError> {
        let (pulled, references) = names.into_iter().partition(|name| is_pulled(name));
        let manifest = self.manifest(&digest)?;
        let blobs = manifest.layers().iter().map(|layer| layer.size()).sum::<u64>();
        let id = manifest.config().digest().to_string();
        Ok(ImageRecord { id, digest, references, pulled, size_bytes: blobs + manifest.config().size() })
    }

    fn image_root(&self, digest: &str) -> Result<ImageRoot, ImageError> {
        let manifest = self.manifest(digest)?;
        let id = manifest.config().digest().to_string();
        let configuration = self.configuration(&id)?;
        let mut layers = Vec::new();
        for diff_id in configuration.rootfs().diff_ids() {
            let hex = digest::hex_part(diff_id)?;
            if !self.layer_dir().join(hex).exists() {
                return Err(ImageError::MissingBlob(diff_id.clone()));
            }
            layers.push(hex.to_owned());
        }
        let config = configuration.config().clone().unwrap_or_default();
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(ImageRoot {
            id,
            layers,
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            env: config.env().clone().unwrap_or_default(),
            working_dir: filled(config.working_dir()),
            user: filled(config.user()),
            stop_signal: filled(config.stop_signal()),
        })
    }

    /// Removes everything that neither a name nor a living container leads to.
    fn sweep(&self, _: &Locked) -> Result<u64, ImageError> {
        let _no_new_lease = self.lock_file("sweep.lock", FlockArg::LockExclusive)?;
        let mut roots: BTreeSet<String> = self.names()?.into_values().collect();
        roots.extend(self.leased()?);
        let mut blobs = BTreeSet::new();
        let mut layers = BTreeSet::new();
        for digest in &roots {
            let manifest = self.manifest(digest)?;
            let config = manifest.config().digest().to_string();
            for diff_id in self.configuration(&config)?.rootfs().diff_ids() {
                layers.insert(digest::hex_part(diff_id)?.to_owned());
            }
            for used in
                [digest.clone(), config].into_iter().chain(manifest.layers().iter().map(|l| l.digest().to_string()))
            {
                blobs.insert(digest::hex_part(&used)?.to_owned());
            }
        }
        let mut freed = 0;
        for path in unlisted(&self.root.join("blobs/sha256"), &blobs)? {
            freed += path.metadata().map_or(0, |metadata| metadata.len());
            fs::remove_file(&path).at("cannot remove", &path)?;
        }
        for path in unlisted(&self.layer_dir(), &layers)? {
            remove_tree(&path)?;
        }
        Ok(freed)
    }

    /// Manifests that containers use; leases of containers that are gone are dropped.
    fn leased(&self) -> Result<Vec<String>, ImageError> {
        let dir = self.root.join("leases");
        let mut digests = Vec::new();
        for path in unlisted(&dir, &BTreeSet::new())? {
            let Some(container) = path.file_name().and_then(|name| name.to_str()).filter(|name| is_plain_name(name))
            else {
                continue;
            };
            match read_record::<Lease>(&path) {
                Ok(lease) if lease.state_dir.join(container).exists() => digests.push(lease.digest),
                _ => fs::remove_file(&path).at("cannot remove", &path)?,
            }
        }
        Ok(digests)
    }

    fn names(&self) -> Result<Names, ImageError> {
        let path = self.names_path();
        if !path.exists() {
            return Ok(Names::new());
        }
        Ok(read_record(&path)?)
    }

    fn names_path(&self) -> PathBuf {
        self.root.join("names.json")
    }

    fn lease_path(&self, container: &str) -> PathBuf {
        self.root.join("leases").join(container)
    }

    fn blob_path(&self, digest: &str) -> Result<PathBuf, ImageError> {
        Ok(self.root.join("blobs/sha256").join(digest::hex_part(digest)?))
    }
}

pub(crate) fn parse_document<T: serde::de::DeserializeOwned>(what: &'static str, text: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(text).map_err(|error| ImageError::BadDocument { what, detail: error.to_string() })
}

fn names_of(names: &Names, digest: &str) -> Vec<String> {
    names.iter().filter(|(_, known)| *known == digest).map(|(name, _)| name.clone()).collect()
}

/// Whether a name is what a registry calls an image, for ever.
fn is_pulled(name: &str) -> bool {
    name.contains('@')
}

/// The hex digits of an image named by identifier, in full or shortened.
fn identifier(image: &str) -> Option<&str> {
    let digits = image.strip_prefix("sha256:").unwrap_or(image);
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (is_hex && (SHORT_ID_LENGTH_MIN..=64).contains(&digits.len())).then_some(digits)
}

fn matches_identifier(record: &ImageRecord, digits: &str) -> bool {
    [&record.id, &record.digest].into_iter().any(|full| digest::hex_part(full).is_ok_and(|hex| hex.starts_with(digits)))
}

/// Entries of a directory whose names are not in the list.
fn unlisted(dir: &Path, listed: &BTreeSet<String>) -> Result<Vec<PathBuf>, ImageError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).at("cannot list", dir)? {
        let entry = entry.at("cannot list", dir)?;
        if !entry.file_name().to_str().is_some_and(|name| listed.contains(name)) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_told_from_names() {
        let full = "0".repeat(64);
        assert_eq!(identifier(&format!("sha256:{full}")), Some(full.as_str()));
        assert_eq!(identifier("0123456789ab"), Some("0123456789ab"));
        assert_eq!(identifier("busybox"), None);
        // Too short to be meant as an identifier.
        assert_eq!(identifier("cafe"), None);
    }
}
