//! `cargo xtask demo`: a sandboxed cluster with the sample application; `--check` proves what it promises.

mod certificates;
mod checks;
pub(crate) mod cluster;
mod leftovers;
mod load;
mod names;
mod packet_path;
mod rollout;
mod streams;
mod toolbox;
mod websocket;

use std::time::Instant;

use anyhow::bail;

use crate::demo::cluster::Cluster;
use crate::demo::leftovers::Snapshot;
use crate::{build, setup};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Prove each promise, print a line each, end the cluster and look for leftovers.
    #[arg(long)]
    check: bool,
    /// Use what is already set up and built.
    #[arg(long)]
    no_build: bool,
}

impl Args {
    /// What `cargo xtask test` runs, after it has built everything.
    pub(crate) fn check() -> Self {
        Self { check: true, no_build: true }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("the demo makes namespaces, cgroups and BPF programs: run it as root");
    }
    if !args.no_build {
        setup::run()?;
        build::run()?;
    }
    let before = Snapshot::take()?;
    let started = Instant::now();
    let cluster = Cluster::start()?;
    println!("ok   cluster up, node Ready after {:.1} s", cluster.ready_after().as_secs_f64());
    if !args.check {
        cluster.deploy_sample()?;
        cluster.print_welcome();
        return cluster.stay();
    }
    let result = checks::run(&cluster);
    if result.is_err() {
        cluster.print_trouble();
    }
    let ended = cluster.end();
    result?;
    ended?;
    before.compare()?;
    println!("demo: all promises held ({} s)", started.elapsed().as_secs());
    Ok(())
}
