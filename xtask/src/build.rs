//! `cargo xtask build`: kernel objects, then the program that embeds them, then the sample images.

use crate::exec::{self, command};
use crate::{ebpf, image};

pub(crate) fn run() -> anyhow::Result<()> {
    ebpf::build()?;
    println!("build: tidegate (release)");
    // All default members: the tests select them all, and a smaller selection would compile dependencies with other
    // features, that is twice.
    exec::run(command("cargo").args(["build", "--release"]))?;
    println!("build: sample images");
    image::build()
}
