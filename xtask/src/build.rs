//! `cargo xtask build`: kernel objects, then the program that embeds them, then the sample images.

use crate::exec::{self, command};
use crate::{ebpf, image};

pub(crate) fn run() -> anyhow::Result<()> {
    ebpf::build()?;
    println!("build: tidegate (release)");
    exec::run(command("cargo").args(["build", "--release", "--package", "tidegate"]))?;
    println!("build: sample images");
    image::build()
}
