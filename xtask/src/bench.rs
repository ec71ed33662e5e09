//! `cargo xtask bench`: figures against peers. Each is a ratio of medians from one interleaved run on this machine, since
//! only such ratios mean anything on another one.

mod ingress;
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
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Ingress => "ingress",
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
        Suite::Quick | Suite::Ingress => ingress::measure(pace)?,
    };
    let report = Report { suite: args.suite.name(), measures };
    print!("{}", report.table());
    args.json.as_deref().map_or(Ok(()), |file| report.write(file))
}
