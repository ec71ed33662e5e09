//! The agent process: sources, the reconciling thread, the pods' endpoints, health and metrics.
//!
//! Killed at any point it loses nothing: programs, links and maps are pinned and go on working; the next start adopts
//! them. Only this module knows processes, threads and time; what it drives does not.

mod conntrack;
mod counters;
mod endpoints;
mod health;
mod metrics;
mod refusals;
mod worker;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::Context;
use daemon::admin::{Admin, Page};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::kernel::{self, Kernel, KernelConfig};
use crate::names::{self, Names};
use crate::reconcile::Reconciler;
use crate::source::Change;
use crate::source::apiserver::{self, Sink};
use crate::source::file;

use conntrack::Collector;
use endpoints::Endpoints;
use health::Health;
use metrics::Metrics;
use refusals::Refusals;

/// Flags of `tidegate agent`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Kubeconfig of the API server; without it the pod's service account is used.
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// This node's name; the host name by default.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Where programs, links and maps are pinned; /sys/fs/bpf/tidegate/<node> by default.
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
    /// The cgroup2 folder whose processes get the socket programs; the root of the cgroup2 mount by default.
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// Run time state; /run/tidegate/<node> by default.
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Metrics, /proxyMode and /status are served here.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: SocketAddr,
    /// /healthz and /livez are served here.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: SocketAddr,
    /// Read Services and EndpointSlices from this YAML or JSON file instead of an API server.
    #[arg(long, value_name = "PATH", conflicts_with = "kubeconfig")]
    pub source_file: Option<PathBuf>,
    /// Seconds between two comparisons of all maps with what they should hold.
    #[arg(long, value_name = "SECONDS", default_value = "300")]
    pub resync_interval: u64,
    /// Remove everything that the agent has ever put into the kernel for this node, then exit.
    #[arg(long)]
    pub cleanup: bool,
}

/// Runs the agent until it is told to end.
///
/// # Errors
/// If the kernel refuses the programs or maps, or an address cannot be bound.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let shutdown = daemon::shutdown::on_signal()?;
    serve(args, shutdown).await
}

/// Runs the agent until the token is cancelled.
///
/// # Errors
/// As [`run`].
pub async fn serve(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let settings = Settings::from(&args)?;
    if args.cleanup {
        return cleanup(&settings);
    }
    std::fs::create_dir_all(&settings.run_dir)
        .with_context(|| format!("cannot make the run folder {}", settings.run_dir.display()))?;
    let mut config = KernelConfig::new(&settings.pin_dir, &settings.cgroup);
    // Nobody reads the ring here: `tidegate flows` will.
    config.events = false;
    let kernel = Kernel::open(&config).context("cannot set up the kernel side")?;
    let names = Names::open(names::path(&settings.run_dir)).context("cannot open the journal of names")?;
    let shared_names = names.shared();
    let reconciler = Reconciler::restore(kernel::Maps::open(&settings.pin_dir)?, names)?;
    tracing::info!(
        node = settings.node,
        pins = %settings.pin_dir.display(),
        cgroup = %settings.cgroup.display(),
        frontends = reconciler.contents().frontends.len(),
        backends = reconciler.contents().backends.len(),
        "agent started"
    );

    let registry = Registry::new();
    let metrics = Metrics::register(&registry)?;
    counters::register(&registry, &settings.pin_dir, shared_names)?;
    let collector = Collector::register(&registry, settings.pin_dir.clone())?;
    let health = Arc::new(Health::default());
    let listeners = Listeners::bind(&args).await?;

    let (changes, queue) = mpsc::channel();
    // A file takes no Events.
    let complaints =
        args.source_file.is_none().then(|| refusals::publish(args.kubeconfig.clone(), settings.node.clone()));
    let refusals = Refusals::new(complaints);
    let worker = worker::Worker::new(reconciler, metrics.clone(), Arc::clone(&health), refusals, args.resync_interval);
    let thread = std::thread::Builder::new().name("reconcile".to_owned()).spawn(move || worker.run(&queue))?;
    let source = tokio::spawn(follow(args.clone(), settings.node.clone(), changes));
    let endpoints = Endpoints::new(kernel, crate::cni::state_dir(&settings.run_dir), metrics);
    let pods = tokio::spawn(endpoints.run(shutdown.clone()));
    let flows = tokio::spawn(collector.run(shutdown.clone()));
    listeners.serve(registry, health, shutdown.clone()).await?;

    // Ending the source closes the queue, and that ends the thread.
    source.abort();
    let _ = source.await;
    pods.await?;
    flows.await?;
    tokio::task::spawn_blocking(move || thread.join())
        .await?
        .map_err(|_| anyhow::anyhow!("the reconciling thread panicked"))?;
    Ok(())
}

/// The flags with their defaults filled in.
struct Settings {
    node: String,
    pin_dir: PathBuf,
    run_dir: PathBuf,
    cgroup: PathBuf,
}

impl Settings {
    fn from(args: &Args) -> anyhow::Result<Self> {
        let node = match &args.node_name {
            Some(name) => name.clone(),
            None => host_name()?,
        };
        let cgroup = match &args.cgroup {
            Some(path) => path.clone(),
            None => cgroup2_mount().context("no cgroup2 file system is mounted; name one with --cgroup")?,
        };
        Ok(Self {
            pin_dir: args.pin_dir.clone().unwrap_or_else(|| default_pin_dir(&node)),
            run_dir: args.run_dir.clone().unwrap_or_else(|| default_run_dir(&node)),
            node,
            cgroup,
        })
    }
}

/// Where a node's pins are unless told otherwise.
#[must_use]
pub fn default_pin_dir(node: &str) -> PathBuf {
    Path::new("/sys/fs/bpf/tidegate").join(node)
}

/// Where a node's run time state is unless told otherwise.
#[must_use]
pub fn default_run_dir(node: &str) -> PathBuf {
    Path::new("/run/tidegate").join(node)
}

/// This machine's name as the Kubernetes API would know it.
///
/// # Errors
/// If the system does not tell it.
pub fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host name")?;
    Ok(name.to_string_lossy().to_lowercase())
}

/// The first cgroup2 mount.
#[must_use]
pub fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/thread-self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

fn cleanup(settings: &Settings) -> anyhow::Result<()> {
    kernel::remove_all(&settings.pin_dir)?;
    let journal = names::path(&settings.run_dir);
    if journal.exists() {
        std::fs::remove_file(&journal).with_context(|| format!("cannot remove {}", journal.display()))?;
    }
    tracing::info!(node = settings.node, "everything of this node is removed from the kernel");
    Ok(())
}

/// Feeds the queue for ever.
async fn follow(args: Args, node: String, changes: mpsc::Sender<Change>) {
    let sink: Sink = Arc::new(move |change| changes.send(change).is_ok());
    if let Some(path) = args.source_file {
        return file::watch(path, node, sink).await;
    }
    let mut pause = Duration::from_millis(100);
    loop {
        match apiserver::client(args.kubeconfig.as_deref()).await {
            Ok(client) => return apiserver::watch(client, node, sink).await,
            // The file may be written after us.
            Err(error) => tracing::warn!(error = %format!("{error:#}"), "no API server to watch yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// The two admin endpoints of kube-proxy's surface.
struct Listeners {
    metrics: TcpListener,
    health: TcpListener,
}

impl Listeners {
    async fn bind(args: &Args) -> anyhow::Result<Self> {
        let bind = async |address: SocketAddr| {
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
        };
        Ok(Self { metrics: bind(args.metrics_bind_address).await?, health: bind(args.healthz_bind_address).await? })
    }

    async fn serve(self, registry: Registry, health: Arc<Health>, shutdown: CancellationToken) -> anyhow::Result<()> {
        let state = Arc::clone(&health);
        let metrics = health::pages(Admin::new(registry), &health)
            .page("/proxyMode", |_| Page::text("tidegate"))
            .page("/status", move |_| Page(http::StatusCode::OK, "application/json", state.status()));
        let pages = health::pages(Admin::default(), &health);
        let (first, second) =
            tokio::join!(metrics.serve(self.metrics, shutdown.clone()), pages.serve(self.health, shutdown));
        first.and(second).context("cannot serve the admin endpoints")
    }
}
