//! A node alone, for development against any API server: `node ARGS...` as `tidegate node`, and the shim it starts.

use clap::Parser;

#[derive(Debug, Parser)]
enum Cli {
    /// Run pods.
    Node(Box<control_kubelet::Args>),
    /// Hold one pod (started by `node`).
    Shim(control_runtime::shim::Args),
}

fn main() -> anyhow::Result<()> {
    daemon::logging::init();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::parse() {
        Cli::Node(args) => tokio::runtime::Runtime::new()?.block_on(control_kubelet::run(*args)),
        Cli::Shim(args) => control_runtime::shim::main(args),
    }
}
