//! A node's runtime in a temporary directory, with a busybox image; ends everything that it started.

#![allow(dead_code, reason = "each test program uses its own part of the harness")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its node has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use control_runtime::{Container, ContainerSpec, ContainerState, Dialer, Runtime, RuntimeConfig, Sandbox, SandboxSpec};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

static NODES: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) runtime: Runtime,
    cgroup: String,
}

impl Node {
    /// A runtime whose store holds `busybox`.
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("tidegate-test-{}-{number}", std::process::id());
        let runtime = Runtime::open(config(dir.path(), &cgroup)).await.unwrap();
        let layout = dir.path().join("busybox");
        Image::busybox().write_layout(&layout);
        runtime.images().import(&layout).await.unwrap();
        Self { dir, runtime, cgroup }
    }

    /// Forgets the runtime and opens a new one, as a restarted kubelet does.
    pub(crate) async fn restart(&mut self) {
        self.runtime = Runtime::open(config(self.dir.path(), &self.cgroup)).await.unwrap();
    }

    pub(crate) fn sandbox_spec(&self, name: &str) -> SandboxSpec {
        SandboxSpec {
            pod_namespace: "default".to_owned(),
            pod_name: name.to_owned(),
            pod_uid: format!("uid-{name}"),
            attempt: 0,
            hostname: name.to_owned(),
            host_network: false,
            host_pid: false,
            host_ipc: false,
            share_pid: false,
            sysctls: BTreeMap::new(),
            cgroup: format!("burstable/pod-{name}"),
            labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        }
    }

    pub(crate) async fn sandbox(&self, name: &str) -> Sandbox {
        self.runtime.run_sandbox(self.sandbox_spec(name)).await.unwrap()
    }

    /// A container that runs a shell script.
    pub(crate) fn shell(&self, name: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            name: name.to_owned(),
            image: "busybox".to_owned(),
            command: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
            log_path: self.dir.path().join("logs").join(name).join("0.log"),
            ..ContainerSpec::default()
        }
    }

    pub(crate) async fn start(&self, sandbox: &Sandbox, spec: ContainerSpec) -> String {
        let id = self.runtime.create_container(&sandbox.id, spec).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    pub(crate) async fn exited(&self, id: &str) -> Container {
        self.until(id, |container| container.state == ContainerState::Exited).await
    }

    pub(crate) async fn until(&self, id: &str, wanted: impl Fn(&Container) -> bool) -> Container {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let container = self.runtime.container(id).await.unwrap();
            if wanted(&container) {
                return container;
            }
            assert!(Instant::now() < deadline, "container stays {container:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Runs a container to its end and returns it with the text of its log.
    pub(crate) async fn run(&self, sandbox: &Sandbox, spec: ContainerSpec) -> (Container, String) {
        let path = spec.log_path.clone();
        let id = self.start(sandbox, spec).await;
        let container = self.exited(&id).await;
        (container, log_text(&path))
    }

    pub(crate) async fn exec(&self, id: &str, script: &str) -> (i32, String) {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let output = self.runtime.exec_sync(id, command, PATIENCE, 1 << 20).await.unwrap();
        (output.exit_code, String::from_utf8(output.stdout).unwrap())
    }

    /// Directories of this node's cgroups in every hierarchy.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .flatten()
            .map(|entry| entry.path().join(&self.cgroup))
            .chain([Path::new("/sys/fs/cgroup").join(&self.cgroup)])
            .filter(|path| path.is_dir())
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.dir.path().join("run")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path().join("sandbox.json")).unwrap_or_default();
            let record: Value = serde_json::from_str(&text).unwrap_or_default();
            if let (Some(pid), Some(start)) = (record["shim"]["pid"].as_i64(), record["shim"]["start_time"].as_u64()) {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                if stat.contains(&format!(" {start} ")) {
                    kill(pid as i32);
                }
            }
        }
        let deadline = Instant::now() + PATIENCE;
        for group in self.cgroups() {
            while let Err(error) = remove_group(&group) {
                assert!(Instant::now() < deadline, "{} cannot be removed: {error}", group.display());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

pub(crate) fn kill(pid: i32) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

/// Kills what is in a group and removes it with everything below.
fn remove_group(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove_group(&entry.path())?;
    }
    for pid in fs::read_to_string(group.join("cgroup.procs"))?.lines() {
        kill(pid.parse().unwrap());
    }
    fs::remove_dir(group)
}

fn config(dir: &Path, cgroup: &str) -> RuntimeConfig {
    RuntimeConfig {
        image_dir: dir.join("images"),
        state_dir: dir.join("containers"),
        run_dir: dir.join("run"),
        cgroup_parent: format!("{cgroup}/kubepods"),
        program: env!("CARGO_BIN_EXE_control-runtime-shim").into(),
        dialer: Dialer::Direct,
    }
}

/// The output in a CRI log, without times and tags.
pub(crate) fn log_text(path: &Path) -> String {
    let log = fs::read_to_string(path).unwrap_or_default();
    log.lines().map(|line| format!("{}\n", line.splitn(4, ' ').nth(3).unwrap())).collect()
}

/// An image under construction.
pub(crate) struct Image {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) config: Value,
    pub(crate) name: String,
}

impl Image {
    /// Debian's static busybox with its applets, a few accounts and files.
    pub(crate) fn busybox() -> Self {
        let mut tar = Layer::new();
        for dir in ["bin", "etc", "tmp", "home", "proc", "dev", "sys"] {
            tar.dir(dir);
        }
        tar.file("bin/busybox", &fs::read("/bin/busybox").unwrap(), 0o755);
        for applet in
            ["sh", "cat", "ls", "id", "sleep", "echo", "env", "hostname", "mount", "touch", "head", "dd", "kill"]
                .into_iter()
                .chain([
                    "ps", "ip", "grep", "mkdir", "wc", "tail", "mknod", "chown", "true", "false", "pwd", "tty", "stat",
                    "unshare", "stty", "tr",
                ])
        {
            tar.link(&format!("bin/{applet}"), "busybox");
        }
        tar.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home:/bin/sh\n", 0o644);
        tar.file("etc/group", b"root:x:0:\napp:x:1000:\nstaff:x:50:app\n", 0o644);
        Self {
            layers: vec![tar.finish()],
            config: json!({ "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["sh"] }),
            name: "docker.io/library/busybox:latest".to_owned(),
        }
    }

    /// Writes an OCI layout directory.
    pub(crate) fn write_layout(&self, dir: &Path) {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for layer in &self.layers {
            diff_ids.push(format!("sha256:{}", hex_digest(layer)));
            layers.push(write_blob(dir, layer, "application/vnd.oci.image.layer.v1.tar"));
        }
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = write_blob(dir, config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers });
        let mut descriptor = write_blob(dir, manifest.to_string().as_bytes(), manifest_type);
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": self.name });
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        fs::write(dir.join("index.json"), index.to_string()).unwrap();
    }
}

fn write_blob(dir: &Path, content: &[u8], media_type: &str) -> Value {
    let hex = hex_digest(content);
    fs::write(dir.join("blobs/sha256").join(&hex), content).unwrap();
    json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": content.len() })
}

pub(crate) fn hex_digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn dir(&mut self, path: &str) {
        self.add(path, tar::EntryType::Directory, 0o755, b"");
    }

    pub(crate) fn file(&mut self, path: &str, content: &[u8], mode: u32) {
        self.add(path, tar::EntryType::Regular, mode, content);
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target).unwrap();
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    fn add(&mut self, path: &str, kind: tar::EntryType, mode: u32, content: &[u8]) {
        self.0.append_data(&mut header(kind, mode, content.len()), path, content).unwrap();
    }
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

/// A directory that anyone may write to, for a volume.
pub(crate) fn volume(node: &Node, name: &str) -> PathBuf {
    let path = node.dir.path().join(name);
    fs::create_dir_all(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    path
}
