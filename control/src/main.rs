//! The `tidegate` program: every part of Tidegate behind one command line.
//!
//! `up`, `down` and `status` handle a bundled cluster; `agent`, `ingress`, `dns`, `node` and `control` are its parts, of which
//! the first two also work alone against any Kubernetes API server; `service`, `endpoint` and `doctor` show what the
//! kernel really holds, `explain` what the gateway would do.

mod addons;
mod cgroup;
mod claim;
mod control;
mod down;
mod explain;
mod identities;
mod layout;
mod namespace;
mod pki;
mod process;
mod status;
mod supervisor;
mod up;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use dataplane_user::inspect;
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::layout::Layout;
use crate::namespace::Namespaces;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// eBPF-accelerated Kubernetes networking and ingress, and a whole small cluster, in one program.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster on this machine.
    Up(up::Args),
    /// End a cluster; its state stays unless --purge is given.
    Down(down::Args),
    /// Show the parts of a cluster.
    Status(status::Args),
    /// Run the API server, the scheduler and the controllers.
    Control(control::Args),
    /// Run the node agent: Services in the kernel, in place of kube-proxy.
    Agent(Box<dataplane_user::agent::Args>),
    /// Run the ingress gateway.
    Ingress(Box<ingress::Args>),
    /// Run the cluster's DNS server.
    Dns(Box<control_dns::Args>),
    /// Run the kubelet of the bundled cluster.
    Node(Box<control_kubelet::Args>),
    /// Hold one pod (started by `node`).
    #[command(hide = true)]
    Shim(control_runtime::shim::Args),
    /// Import, list and remove container images.
    #[command(subcommand)]
    Image(control_runtime::cli::Command),
    /// Say what the ingress gateway would do with a request for a URL, and why.
    Explain(explain::Args),
    #[command(flatten)]
    Inspect(inspect::Command),
}

impl Command {
    /// Whether this only prints and ends, in contrast to the parts that serve.
    fn prints(&self) -> bool {
        matches!(self, Self::Down(_) | Self::Status(_) | Self::Image(_) | Self::Explain(_) | Self::Inspect(_))
    }
}

/// `tidegate status | head` ends quietly with its reader; Rust's own start-up ignores the signal that does so.
fn end_with_the_reader() {
    // SAFETY: this is the only thread so far, and the default action runs no code of ours.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

fn main() -> ExitCode {
    daemon::logging::init();
    // Several dependencies bring rustls; the provider is chosen once, here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    if command.prints() {
        end_with_the_reader();
    }
    match command {
        Command::Up(args) => up::run(args),
        Command::Down(args) => down::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Control(args) => runtime()?.block_on(control::run(args)),
        Command::Agent(args) => runtime()?.block_on(dataplane_user::agent::run(*args)),
        Command::Ingress(args) => ingress::run(*args),
        Command::Dns(args) => runtime()?.block_on(control_dns::run(*args)),
        Command::Node(args) => runtime()?.block_on(control_kubelet::run(*args)),
        Command::Shim(args) => control_runtime::shim::main(args),
        Command::Image(command) => control_runtime::cli::run(command),
        Command::Explain(args) => explain::run(args),
        Command::Inspect(command) => look_into(command),
    }
}

/// A sandboxed node's BPF pins are in its own mount namespace.
fn look_into(command: inspect::Command) -> anyhow::Result<()> {
    let name = command.node_name()?;
    let layout = Layout::new(&name, Path::new("/var/lib/tidegate"))?;
    Namespaces::open(&layout)?.enter()?;
    inspect::run(command)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")
}

/// A client for the API server of this kubeconfig; the fields it writes belong to this name.
async fn client(kubeconfig: &Path, name: &'static str) -> anyhow::Result<kube::Client> {
    let file = kube::config::Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("cannot read kubeconfig {}", kubeconfig.display()))?;
    let mut config = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(name)));
    Ok(kube::Client::try_from(config)?)
}
