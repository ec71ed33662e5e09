//! Building the kernel objects: the road is chosen by looking at what is installed.
//!
//! Either Debian's own compiler, which carries `core` for BPF, or a nightly toolchain of rustup with `rust-src`, which
//! builds it. The results go to `target/ebpf/objects`, where the agent's build embeds them from; they are touched only
//! when their content changes, so that nothing is compiled again for nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::exec::{self, command};

const TARGET: &str = "bpfel-unknown-none";
const OBJECTS: [&str; 2] = ["socket", "pod"];
/// What the objects are made from; `Cargo.lock` because it decides about aya-ebpf.
const SOURCES: [&str; 3] = ["dataplane-ebpf", "Cargo.toml", "Cargo.lock"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that can build for BPF.
#[derive(Debug)]
enum Road {
    /// Debian's compiler, with `core` for BPF in its sysroot.
    Debian,
    /// rustup's nightly, which builds `core` from its sources.
    Nightly,
}

/// Builds the objects, unless they are there and nothing they depend on has changed.
///
/// # Errors
/// If a prerequisite is missing (the message names the command that installs it), or the build fails.
pub(crate) fn build() -> anyhow::Result<()> {
    let road = road()?;
    let linker = exec::tools().join("bin/bpf-linker");
    if !linker.is_file() {
        bail!("bpf-linker is missing: run `cargo xtask setup`");
    }
    let out = exec::root().join("target/ebpf");
    let objects = out.join("objects");
    let stamp = out.join("stamp");
    let inputs = fingerprint(&road, &linker)?;
    let complete = OBJECTS.iter().all(|name| object(&objects, name).is_file());
    if complete && fs::read_to_string(&stamp).is_ok_and(|last| last == inputs) {
        return Ok(());
    }
    println!("build: kernel programs");
    exec::run(&mut compile(&road, &linker, &out))?;
    fs::create_dir_all(&objects).with_context(|| format!("cannot make {}", objects.display()))?;
    for name in OBJECTS {
        install(&out.join(TARGET).join("release").join(name), &object(&objects, name))?;
    }
    fs::write(&stamp, inputs).with_context(|| format!("cannot write {}", stamp.display()))
}

fn road() -> anyhow::Result<Road> {
    if sysroot(command(DEBIAN_RUSTC)).is_some_and(|root| root.join("lib/rustlib").join(TARGET).is_dir()) {
        return Ok(Road::Debian);
    }
    let mut nightly = command("rustup");
    nightly.args(["run", "nightly", "rustc"]);
    if sysroot(nightly).is_some_and(|root| root.join("lib/rustlib/src/rust/library/core").is_dir()) {
        return Ok(Road::Nightly);
    }
    bail!(
        "no compiler for kernel programs: run `cargo xtask setup` (Debian), or \
         `rustup toolchain install nightly --component rust-src` elsewhere"
    )
}

fn sysroot(mut rustc: Command) -> Option<PathBuf> {
    let path = exec::read(rustc.args(["--print", "sysroot"])).ok()?;
    Some(PathBuf::from(path.trim()))
}

fn compile(road: &Road, linker: &Path, out: &Path) -> Command {
    let mut cargo = match road {
        Road::Debian => {
            let mut cargo = command("cargo");
            // The compiler is a stable one; its `core` for BPF uses features that only a bootstrap build may.
            cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1").arg("build");
            cargo
        }
        Road::Nightly => {
            let mut cargo = command("rustup");
            cargo.env_remove("RUSTC").args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"]);
            cargo
        }
    };
    cargo.args(["--quiet", "--release", "--package", "dataplane-ebpf", "--target", TARGET, "--target-dir"]).arg(out);
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags().join("\u{1f}"));
    cargo.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3");
    for other in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(other);
    }
    cargo
}

/// Debug information becomes BTF, which describes the maps; paths in it must not depend on the machine.
fn flags() -> Vec<String> {
    let mut flags: Vec<String> =
        ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"].into_iter().map(str::to_owned).collect();
    flags.push(format!("--remap-path-prefix={}=.", exec::root().display()));
    if let Some(home) = std::env::var_os("HOME") {
        flags.push(format!("--remap-path-prefix={}=~", home.to_string_lossy()));
    }
    flags
}

/// A digest of everything that decides about the objects.
fn fingerprint(road: &Road, linker: &Path) -> anyhow::Result<String> {
    let mut digest = Sha256::new();
    digest.update(format!("{road:?} {:?}", flags()));
    if matches!(road, Road::Debian) {
        digest.update(exec::read(command(DEBIAN_RUSTC).arg("-vV"))?);
    }
    digest.update(exec::read(command(linker).arg("--version"))?);
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&exec::root().join(source), &mut files)?;
    }
    files.sort();
    for file in files {
        digest.update(file.to_string_lossy().as_bytes());
        digest.update(fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

fn object(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).with_extension("o")
}

fn install(built: &Path, object: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(object).is_ok_and(|last| last == bytes) {
        return Ok(());
    }
    // Renamed into its place, so that nobody ever reads half an object.
    let new = object.with_extension("o.new");
    fs::write(&new, bytes)
        .and_then(|()| fs::rename(&new, object))
        .with_context(|| format!("cannot write {}", object.display()))
}
