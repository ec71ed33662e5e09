//! Images made by tests: layers, documents, layouts and docker archives.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The architecture of this machine, as images name it.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// One piece of an image, by its digest.
#[derive(Debug, Clone)]
pub struct Blob {
    pub digest: String,
    pub bytes: Vec<u8>,
    pub media_type: &'static str,
}

impl Blob {
    #[must_use]
    pub fn new(bytes: Vec<u8>, media_type: &'static str) -> Self {
        Self { digest: digest(&bytes), bytes, media_type }
    }

    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }

    #[must_use]
    pub fn hex(&self) -> &str {
        self.digest.trim_start_matches("sha256:")
    }
}

/// An image that can be run: busybox, and a file that tells it from others.
#[derive(Debug, Clone)]
pub struct Image {
    pub manifest: Blob,
    pub config: Blob,
    pub layers: Vec<Blob>,
    /// The layers as they are unpacked.
    tars: Vec<Vec<u8>>,
}

impl Image {
    /// # Panics
    /// If busybox is not installed.
    #[must_use]
    pub fn new(word: &str) -> Self {
        let busybox = fs::read("/bin/busybox").expect("busybox-static is installed by `cargo xtask setup`");
        let mut base = tar::Builder::new(Vec::new());
        append(&mut base, "bin/busybox", &busybox, 0o755);
        for applet in ["sh", "cat", "sleep", "echo"] {
            let mut header = header(tar::EntryType::Symlink, 0o777, 0);
            base.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("a tar in memory takes anything");
        }
        let mut top = tar::Builder::new(Vec::new());
        append(&mut top, "word", word.as_bytes(), 0o644);
        let tars: Vec<Vec<u8>> =
            [base, top].map(|tar| tar.into_inner().expect("a tar in memory takes anything")).into();
        let layers: Vec<Blob> = tars.iter().map(|tar| Blob::new(gzip(tar), LAYER)).collect();
        let diff_ids: Vec<String> = tars.iter().map(|tar| digest(tar)).collect();
        let config = json!({
            "architecture": ARCHITECTURE, "os": "linux",
            "config": {"Cmd": ["sh", "-c", "echo $(cat /word); exec sleep 1000"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = Blob::new(config.to_string().into_bytes(), CONFIG);
        let descriptors: Vec<Value> = layers.iter().map(Blob::descriptor).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(), "layers": descriptors,
        });
        let manifest = Blob::new(manifest.to_string().into_bytes(), MANIFEST);
        Self { manifest, config, layers, tars }
    }

    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().chain([&self.config, &self.manifest])
    }

    /// An index that also lists an image for another machine, which nobody has.
    #[must_use]
    pub fn index(&self) -> Blob {
        let other = if ARCHITECTURE == "amd64" { "arm64" } else { "amd64" };
        let mut own = self.manifest.descriptor();
        own["platform"] = json!({"os": "linux", "architecture": ARCHITECTURE});
        let mut foreign = Blob::new(b"foreign".to_vec(), MANIFEST).descriptor();
        foreign["platform"] = json!({"os": "linux", "architecture": other});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [foreign, own]});
        Blob::new(index.to_string().into_bytes(), INDEX)
    }

    /// Writes an OCI layout directory that holds the image under this name.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write_layout(&self, dir: &Path, name: &str) {
        fs::create_dir_all(dir.join("blobs/sha256")).expect("cannot make a layout");
        for blob in self.blobs() {
            fs::write(dir.join("blobs/sha256").join(blob.hex()), &blob.bytes).expect("cannot write a blob");
        }
        let mut descriptor = self.manifest.descriptor();
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        fs::write(dir.join("index.json"), index.to_string()).expect("cannot write the index");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("cannot write the layout file");
    }

    /// What `docker save` wrote before version 25: a layer that was there before is a link to it.
    #[must_use]
    pub fn docker_archive(&self, tag: &str) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut names = Vec::new();
        for (number, tar) in self.tars.iter().enumerate() {
            let name = format!("{number}/layer.tar");
            if number == 0 {
                append(&mut archive, "shared/layer.tar", tar, 0o644);
                let mut header = header(tar::EntryType::Symlink, 0o777, 0);
                archive.append_link(&mut header, &name, "../shared/layer.tar").expect("a tar in memory takes anything");
            } else {
                append(&mut archive, &name, tar, 0o644);
            }
            names.push(name);
        }
        let config = format!("{}.json", self.config.hex());
        append(&mut archive, &config, &self.config.bytes, 0o644);
        let manifest = json!([{"Config": config, "RepoTags": [tag], "Layers": names}]);
        append(&mut archive, "manifest.json", manifest.to_string().as_bytes(), 0o644);
        archive.into_inner().expect("a tar in memory takes anything")
    }
}

/// A directory as an archive.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn tar_of(dir: &Path) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", dir).expect("cannot read the directory");
    archive.into_inner().expect("a tar in memory takes anything")
}

/// # Panics
/// Never: it writes to memory.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes anything");
    encoder.finish().expect("memory takes anything")
}

#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8], mode: u32) {
    let mut header = header(tar::EntryType::Regular, mode, content.len());
    archive.append_data(&mut header, path, content).expect("a tar in memory takes anything");
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size as u64);
    header
}
