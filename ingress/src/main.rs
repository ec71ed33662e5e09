//! The gateway as a program of its own, for images that hold nothing else; `tidegate ingress` is the same.

use clap::Parser;

// As in `tidegate`, so that both cost the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
