//! `cargo xtask bench`: figures against peers. Each is a ratio of medians from one interleaved run on this machine, since
//! only such ratios mean anything on another one.

mod cluster;
mod ingress;
mod pods;
mod report;

use std::path::PathBuf;

use crate::bench::report::Report;
use crate::{build, setup};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    suite: Suite,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fewer and shorter runs; figures are coarser.
    #[arg(long)]
    quick: bool,
    /// Use what is already built.
    #[arg(long)]
    no_build: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    /// Every suite, with few and short runs: a couple of minutes.
    Quick,
    /// The gateway against nginx and against a bare pingora proxy.
    Ingress,
    /// Pod to Service against pod to pod, and pod to pod against a plain Linux bridge.
    Pods,
    /// Start-up times and memory of the bundled cluster.
    Cluster,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Ingress => "ingress",
            Self::Pods => "pods",
            Self::Cluster => "cluster",
        }
    }
}

/// How much to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Quick,
    Full,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !args.no_build {
        setup::run()?;
        build::run()?;
    }
    setup::rivals::run()?;
    let pace = if args.quick || args.suite == Suite::Quick { Pace::Quick } else { Pace::Full };
    let measures = match args.suite {
        Suite::Quick => [pods::measure(pace)?, ingress::measure(pace)?, cluster::measure(pace)?].concat(),
        Suite::Ingress => ingress::measure(pace)?,
        Suite::Pods => pods::measure(pace)?,
        Suite::Cluster => cluster::measure(pace)?,
    };
    let report = Report { suite: args.suite.name(), measures };
    print!("{}", report.table());
    args.json.as_deref().map_or(Ok(()), |file| report.write(file))
}
