//! The image store on real files: what comes in, what is refused, what goes. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its files has failed")]

mod harness;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use control_runtime::{ImageError, ImageStore};
use harness::{Image, Layer, Node, hex_digest};
use serde_json::json;

fn store(dir: &Path) -> ImageStore {
    ImageStore::open(&dir.join("images")).unwrap()
}

/// A small image whose one layer holds one file.
fn image(name: &str, content: &str) -> Image {
    let mut layer = Layer::new();
    layer.file("file", content.as_bytes(), 0o644);
    Image { layers: vec![layer.finish()], config: json!({ "Cmd": ["/file"] }), name: name.to_owned() }
}

fn layout(dir: &Path, image: &Image) -> PathBuf {
    let path = dir.join("layout");
    image.write_layout(&path);
    path
}

fn tar_of(dir: &Path) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all(".", dir).unwrap();
    tar.into_inner().unwrap()
}

/// Files in the store that are neither its lock nor empty directories.
fn content(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for sub in ["blobs/sha256", "layers", "staging"] {
        let entries = fs::read_dir(dir.join("images").join(sub)).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| format!("{sub}/{}", entry.file_name().to_string_lossy())));
    }
    found
}

#[tokio::test]
async fn layouts_and_archives_give_the_same_image() {
    let dir = tempfile::tempdir().unwrap();
    let source = layout(dir.path(), &image("tidegate/echo:dev", "x"));
    let plain = dir.path().join("image.tar");
    fs::write(&plain, tar_of(&source)).unwrap();
    let zipped = dir.path().join("image.tar.gz");
    let mut gzip = flate2::write::GzEncoder::new(fs::File::create(&zipped).unwrap(), flate2::Compression::fast());
    gzip.write_all(&tar_of(&source)).unwrap();
    gzip.finish().unwrap();
    let mut records = Vec::new();
    for path in [&source, &plain, &zipped] {
        let store = ImageStore::open(&dir.path().join(format!("store-{}", records.len()))).unwrap();
        records.push(store.import(path).await.unwrap().remove(0));
        assert_eq!(store.list().await.unwrap(), records[records.len() - 1..]);
        // Importing again changes nothing.
        assert_eq!(store.import(path).await.unwrap().remove(0), records[0]);
    }
    assert!(records.iter().all(|record| *record == records[0]));
    assert_eq!(records[0].references, ["docker.io/tidegate/echo:dev"]);
    assert_eq!(records[0].repository_digests(), [format!("docker.io/tidegate/echo@{}", records[0].digest)]);
}

#[tokio::test]
async fn docker_archives_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let mut layer = Layer::new();
    layer.file("file", b"from docker", 0o600);
    let layer = layer.finish();
    let diff_id = format!("sha256:{}", hex_digest(&layer));
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/file"] },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    })
    .to_string();
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["old/app:1", "old/app:2"], "Layers": ["abc/layer.tar"] }]);
    let mut archive = Layer::new();
    archive.file("c.json", config.as_bytes(), 0o644);
    archive.file("abc/layer.tar", &layer, 0o644);
    archive.file("manifest.json", manifest.to_string().as_bytes(), 0o644);
    let path = dir.path().join("app.tar");
    fs::write(&path, archive.finish()).unwrap();
    let store = store(dir.path());
    let record = store.import(&path).await.unwrap().remove(0);
    assert_eq!(record.references, ["docker.io/old/app:1", "docker.io/old/app:2"]);
    assert_eq!(record.id, format!("sha256:{}", hex_digest(config.as_bytes())));
    let unpacked = dir.path().join("images/layers").join(hex_digest(&layer)).join("file");
    assert_eq!(fs::read(unpacked).unwrap(), b"from docker");
}

#[tokio::test]
async fn images_are_found_by_every_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let record = store.import(&layout(dir.path(), &image("busybox", "x"))).await.unwrap().remove(0);
    // A bare word in an index is a tag of an image called like the directory.
    assert_eq!(record.references, ["docker.io/library/layout:busybox"]);
    let short = &record.id[7..19];
    let by_digest = format!("whatever/name@{}", record.digest);
    for name in ["layout:busybox", "docker.io/library/layout:busybox", &record.id, short, &by_digest, &record.digest] {
        assert_eq!(store.resolve(name).await.as_ref(), Some(&record), "{name}");
    }
    for name in ["layout", "busybox", "", "sha256:", "../../etc"] {
        assert_eq!(store.resolve(name).await, None, "{name}");
    }
}

#[tokio::test]
async fn a_damaged_image_leaves_no_trace() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 4] = [
        ("content", |dir| {
            let path = blob_with(dir, "precious");
            let changed = String::from_utf8_lossy(&fs::read(&path).unwrap()).replace("precious", "poisoned");
            fs::write(path, changed).unwrap();
        }),
        ("length", |dir| {
            let path = blob_with(dir, "precious");
            let mut longer = fs::read(&path).unwrap();
            longer.extend([0; 512]);
            fs::write(path, longer).unwrap();
        }),
        ("missing", |dir| fs::remove_file(blob_with(dir, "precious")).unwrap()),
        ("config", |dir| fs::write(blob_with(dir, "diff_ids"), "{}").unwrap()),
    ];
    for (name, damage) in cases {
        let dir = tempfile::tempdir().unwrap();
        let source = layout(dir.path(), &image("a/b:c", "precious"));
        damage(&source);
        let store = store(dir.path());
        let error = store.import(&source).await.unwrap_err();
        let expected = matches!(
            (name, &error),
            ("content", ImageError::DigestMismatch { .. })
                | ("length", ImageError::SizeMismatch { .. })
                | ("missing", ImageError::MissingBlob(_))
                | ("config", ImageError::SizeMismatch { .. } | ImageError::DigestMismatch { .. })
        );
        assert!(expected, "{name}: {error}");
        assert!(store.list().await.unwrap().is_empty());
        assert_eq!(content(dir.path()), Vec::<String>::new(), "{name}");
    }
}

fn blob_with(layout: &Path, text: &str) -> PathBuf {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap().flatten().map(|entry| entry.path());
    blobs.into_iter().find(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).contains(text)).unwrap()
}

#[tokio::test]
async fn an_archive_cut_anywhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let archive = tar_of(&layout(dir.path(), &image("a/b:c", &"x".repeat(5000))));
    let store = store(dir.path());
    let path = dir.path().join("cut.tar");
    // The two empty blocks at the end may be missing; whatever is before them may not.
    for length in (0..archive.len() - 1024).step_by(997) {
        fs::write(&path, &archive[..length]).unwrap();
        assert!(store.import(&path).await.is_err(), "{length} of {}", archive.len());
        assert_eq!(content(dir.path()), Vec::<String>::new(), "{length}");
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    let zipped = gzip.finish().unwrap();
    fs::write(&path, &zipped[..zipped.len() - 20]).unwrap();
    assert!(store.import(&path).await.is_err());
}

#[tokio::test]
async fn archives_cannot_write_outside_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    let name = b"../../../escaped";
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, &b"evil"[..]).unwrap();
    let path = dir.path().join("evil.tar");
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    let error = store(dir.path()).import(&path).await.unwrap_err();
    assert!(matches!(error, ImageError::Damaged { .. }), "{error}");
    assert!(!dir.path().join("escaped").exists());
}

#[test]
fn the_command_line_imports_and_removes() {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(subcommand)]
        command: control_runtime::cli::Command,
    }
    let dir = tempfile::tempdir().unwrap();
    let source = layout(dir.path(), &image("a/b:c", "x"));
    let run = |args: &[&str]| {
        let args = ["image"].iter().chain(args).copied().chain(["--data-dir", dir.path().to_str().unwrap()]);
        control_runtime::cli::run(<Cli as clap::Parser>::try_parse_from(args).unwrap().command)
    };
    run(&["import", source.to_str().unwrap()]).unwrap();
    run(&["ls"]).unwrap();
    assert!(!content(dir.path()).is_empty());
    run(&["rm", "a/b:c"]).unwrap();
    assert!(content(dir.path()).is_empty());
    assert!(run(&["rm", "a/b:c"]).is_err());
}

#[tokio::test]
async fn removal_keeps_what_others_need() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let base = image("app/base:1", "base");
    let mut top = image("app/top:1", "top");
    top.layers.insert(0, base.layers[0].clone());
    store.import(&layout(dir.path(), &base)).await.unwrap();
    fs::remove_dir_all(dir.path().join("layout")).unwrap();
    store.import(&layout(dir.path(), &top)).await.unwrap();
    let shared = dir.path().join("images/layers").join(hex_digest(&base.layers[0]));
    store.remove("app/base:1").await.unwrap();
    assert!(shared.join("file").exists());
    assert!(store.resolve("app/base:1").await.is_none() && store.resolve("app/top:1").await.is_some());
    store.remove("app/top:1").await.unwrap();
    assert_eq!(content(dir.path()), Vec::<String>::new());
    assert!(matches!(store.remove("app/top:1").await, Err(ImageError::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_keeps_its_layers() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node.runtime.create_container(&sandbox.id, node.shell("c", "echo still here")).await.unwrap();
    node.runtime.images().remove("busybox").await.unwrap();
    assert!(node.runtime.images().list().await.unwrap().is_empty());
    node.runtime.start_container(&id).await.unwrap();
    let container = node.exited(&id).await;
    assert_eq!(harness::log_text(&container.log_path), "still here\n");
    node.runtime.remove_container(&id).await.unwrap();
    node.runtime.images().gc().await.unwrap();
    assert_eq!(content(node.dir.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn upper_layers_hide_and_replace_lower_ones() {
    let node = Node::new().await;
    let mut upper = Layer::new();
    upper.file("etc/.wh.group", b"", 0o600);
    upper.file("etc/passwd", b"root:x:0:0::/:/bin/sh\nnew:x:7:8::/:/bin/sh\n", 0o644);
    upper.file("home/.wh..wh..opq", b"", 0o600);
    upper.file("home/only", b"", 0o644);
    let mut image = Image::busybox();
    let mut lower = Layer::new();
    lower.file("home/hidden", b"", 0o644);
    image.layers.extend([lower.finish(), upper.finish()]);
    image.name = "test/layered:1".to_owned();
    image.config["User"] = json!("new");
    image.config["Entrypoint"] = json!(["sh", "-c"]);
    image.config["Cmd"] = json!(["ls /etc /home; id -u; id -g"]);
    let source = node.dir.path().join("layered");
    image.write_layout(&source);
    node.runtime.images().import(&source).await.unwrap();
    let sandbox = node.sandbox("p").await;
    let mut spec = node.shell("c", "");
    spec.image = "test/layered:1".to_owned();
    spec.command.clear();
    let (container, log) = node.run(&sandbox, spec).await;
    assert_eq!(container.exit_code, Some(0), "{log}");
    assert!(log.ends_with("/home:\nonly\n7\n8\n"), "{log}");
    assert!(!log.contains("group") && log.contains("passwd"), "{log}");
}
