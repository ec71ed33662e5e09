//! `cargo xtask build`: kernel objects, then the program that embeds them, then the sample images.

use crate::exec::{self, command};
use crate::{ebpf, image};

pub(crate) fn run() -> anyhow::Result<()> {
    ebpf::build()?;
    println!("build: tidegate (release)");
    // The selection of the tests: another one would compile dependencies with other features, that is twice.
    exec::run(command("cargo").args(["build", "--release", "--workspace", "--exclude", "dataplane-ebpf"]))?;
    println!("build: sample images");
    image::build()
}
