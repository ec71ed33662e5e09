//! `cargo xtask`: set-up, build, demo, tests, benchmarks. One file a command; no shell scripts beside it.

mod bench;
mod build;
mod codegen;
mod demo;
mod ebpf;
mod exec;
mod image;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything a developer of Tidegate runs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what building and testing need (Debian packages, bpf-linker, kubectl). Safe to repeat.
    Setup,
    /// Build the kernel objects, the program (release) and the sample images.
    Build,
    /// Set up, build, start a sandboxed cluster with the sample application, and stay until Ctrl-C.
    Demo(demo::Args),
    /// Set up and run all tests.
    Test(test::Args),
    /// Measure against peers on this machine, and print ratios.
    Bench(bench::Args),
    /// Check the rules of this repository: dependency arrows, module docs, file sizes, machine paths.
    Tidy,
    /// Regenerate the committed tables of API facts.
    Codegen(codegen::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Build => setup::run().and_then(|()| build::run()),
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Tidy => tidy::run(),
        Command::Codegen(args) => codegen::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
