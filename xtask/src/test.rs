//! `cargo xtask test`: set-up, then every test, each layer counted.

use std::time::Instant;

use anyhow::bail;

use crate::exec::{self, command};
use crate::{build, demo, setup, tidy};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Leave out the demo cluster.
    #[arg(long)]
    no_demo: bool,
}

/// A layer of tests: its name and what runs it.
type Layer<'a> = (&'static str, Box<dyn Fn() -> anyhow::Result<()> + 'a>);

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    setup::run()?;
    let mut layers: Vec<Layer<'_>> = vec![
        ("format", Box::new(|| exec::run(command("cargo").args(["fmt", "--all", "--check"])))),
        ("tidy", Box::new(tidy::run)),
        ("build", Box::new(build::run)),
        ("unit, property and component tests", Box::new(|| suite(&[]))),
        ("packet, namespace and kubectl tests", Box::new(|| suite(&["--package", "tidegate-tests"]))),
    ];
    if !args.no_demo {
        layers.push(("demo", Box::new(|| demo::run(&demo::Args::check()))));
    }
    let total = layers.len();
    let mut failed = Vec::new();
    for (name, layer) in layers {
        println!("\n=== {name}");
        let started = Instant::now();
        let result = layer();
        let word = if result.is_ok() { "passed" } else { "FAILED" };
        println!("=== {name}: {word} after {} s", started.elapsed().as_secs());
        if let Err(error) = result {
            println!("{error:#}");
            failed.push(name);
        }
    }
    println!("\nlayers: {} passed, {} failed", total - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// Runs test binaries with nextest where it is installed, with cargo's own runner elsewhere. The release profile is used
/// because the program is built with it anyway: every dependency is compiled once.
fn suite(selection: &[&str]) -> anyhow::Result<()> {
    let nextest =
        exec::output(command("cargo").args(["nextest", "--version"])).is_ok_and(|found| found.status.success());
    let mut cargo = command("cargo");
    if nextest {
        cargo.args(["nextest", "run", "--no-fail-fast", "--cargo-profile", "release"]);
    } else {
        cargo.args(["test", "--no-fail-fast", "--release"]);
    }
    exec::run(cargo.args(selection))
}
