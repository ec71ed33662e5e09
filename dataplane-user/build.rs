//! Embeds the kernel programs that `cargo xtask build` made, or empty stand-ins where there are none.
//!
//! The objects are looked for in the workspace's `target/ebpf/objects`, or in `TIDEGATE_EBPF_OBJECTS`. Without them the
//! crate still builds, so that a machine without a BPF toolchain can check and lint everything.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

const OBJECTS: [&str; 2] = ["socket", "pod"];
const FOLDER_VARIABLE: &str = "TIDEGATE_EBPF_OBJECTS";

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from);
    let manifest = variable("CARGO_MANIFEST_DIR").unwrap_or_default();
    let out = variable("OUT_DIR").unwrap_or_default();
    let folder = variable(FOLDER_VARIABLE).unwrap_or_else(|| manifest.join("../target/ebpf/objects"));
    // cargo watches only what exists: without this, a build without objects would run again and again.
    fs::create_dir_all(&folder)?;
    println!("cargo::rerun-if-env-changed={FOLDER_VARIABLE}");
    println!("cargo::rerun-if-changed={}", folder.display());
    for name in OBJECTS {
        embed(name, &folder, &out)?;
    }
    Ok(())
}

/// Names the file to include for one object.
fn embed(name: &str, folder: &Path, out: &Path) -> io::Result<()> {
    let object = folder.join(name).with_extension("o");
    let included = out.join(name).with_extension("o");
    if object.is_file() {
        println!("cargo::rerun-if-changed={}", object.display());
        fs::copy(&object, &included)?;
    } else {
        fs::write(&included, [])?;
    }
    println!("cargo::rustc-env=TIDEGATE_OBJECT_{}={}", name.to_uppercase(), included.display());
    Ok(())
}
