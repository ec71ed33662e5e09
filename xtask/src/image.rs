//! The sample images as OCI layouts (image-spec v1) beside the program: `tidegate/echo:dev` and `busybox:dev`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::exec::{self, command};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Every layer entry has the same time, so that the same files give the same digest.
const EPOCH: u64 = 0;

/// Builds both images below `target/release/images`, where `tidegate up` looks for them.
pub(crate) fn build() -> anyhow::Result<()> {
    let images = exec::root().join("target/release/images");
    let mut echo = Layer::new();
    echo.directory("tmp", 0o1777)?;
    echo.directory("etc", 0o755)?;
    echo.file("etc/passwd", b"root:x:0:0:root:/:/echo\nnobody:x:65534:65534:nobody:/:/echo\n", 0o644)?;
    echo.file("echo", &fs::read(echo_program()?)?, 0o755)?;
    write(&images.join("echo"), "tidegate/echo:dev", echo, json!({"Entrypoint": ["/echo"], "Env": ["PATH=/"]}))?;
    let config = json!({"Cmd": ["sh"], "Env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"]});
    write(&images.join("busybox"), "busybox:dev", busybox()?, config)
}

/// The sample application, linked statically so that its image needs nothing else.
fn echo_program() -> anyhow::Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = command("cargo");
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    exec::run(cargo.args(["build", "--release", "--package", "echo", "--target", &target]))?;
    Ok(exec::root().join("target").join(target).join("release/echo"))
}

fn busybox() -> anyhow::Result<Layer> {
    let mut layer = Layer::new();
    for dir in ["bin", "etc", "root"] {
        layer.directory(dir, 0o755)?;
    }
    layer.directory("tmp", 0o1777)?;
    layer.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644)?;
    layer.file("etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644)?;
    layer.file("bin/busybox", &fs::read("/bin/busybox").context("cannot read /bin/busybox")?, 0o755)?;
    for applet in exec::read(command("/bin/busybox").arg("--list"))?.lines().filter(|applet| *applet != "busybox") {
        layer.link(&format!("bin/{applet}"), "busybox")?;
    }
    Ok(layer)
}

/// A layer's tar archive in the making.
struct Layer {
    archive: Builder<Vec<u8>>,
}

impl Layer {
    fn new() -> Self {
        Self { archive: Builder::new(Vec::new()) }
    }

    fn directory(&mut self, path: &str, mode: u32) -> anyhow::Result<()> {
        self.entry(path, EntryType::Directory, mode, &[])
    }

    fn file(&mut self, path: &str, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
        self.entry(path, EntryType::Regular, mode, bytes)
    }

    fn link(&mut self, path: &str, to: &str) -> anyhow::Result<()> {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        Ok(self.archive.append_link(&mut header, path, to)?)
    }

    fn entry(&mut self, path: &str, kind: EntryType, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
        let mut header = header(kind, mode, bytes.len());
        Ok(self.archive.append_data(&mut header, path, bytes)?)
    }
}

/// The header of an entry that belongs to root.
fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(EPOCH);
    header
}

/// Writes an OCI layout that holds one image under one name.
fn write(dir: &Path, name: &str, layer: Layer, config: Value) -> anyhow::Result<()> {
    let _ = fs::remove_dir_all(dir);
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("cannot create {}", blobs.display()))?;
    let plain = layer.archive.into_inner()?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&plain)?;
    let layer = blob(&blobs, LAYER, &gzip.finish()?)?;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest(&plain)]},
    });
    let config = blob(&blobs, CONFIG, config.to_string().as_bytes())?;
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    let mut manifest = blob(&blobs, MANIFEST, manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.join("index.json"), index.to_string())?;
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

/// Stores a blob and returns its descriptor.
fn blob(dir: &Path, media_type: &str, bytes: &[u8]) -> anyhow::Result<Value> {
    let digest = digest(bytes);
    fs::write(dir.join(digest.trim_start_matches("sha256:")), bytes)?;
    Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
