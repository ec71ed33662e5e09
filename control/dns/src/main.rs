//! The DNS server as a program of its own, for images that hold nothing else; `tidegate dns` is the same.

use clap::Parser;

#[derive(Parser)]
#[command(name = "tidegate-dns", version, about)]
struct Cli {
    #[command(flatten)]
    args: control_dns::Args,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    daemon::logging::init();
    control_dns::run(Cli::parse().args).await
}
