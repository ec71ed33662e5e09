//! The gateway as a program of its own, for images that hold nothing else; `tidegate ingress` is the same.

use clap::Parser;

#[derive(Parser)]
#[command(name = "tidegate-ingress", version, about)]
struct Cli {
    #[command(flatten)]
    args: ingress::Args,
}

fn main() -> anyhow::Result<()> {
    daemon::logging::init();
    ingress::run(Cli::parse().args)
}
