//! A program that is nothing but a shim, for tests of the runtime; the real one is `tidegate`.

use clap::Parser;

#[derive(Parser)]
enum Cli {
    Shim(control_runtime::shim::Args),
}

fn main() -> anyhow::Result<()> {
    let Cli::Shim(args) = Cli::parse();
    control_runtime::shim::main(args)
}
