//! Puts the parts together: client, runtime, network, workers, server.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use control_runtime::{Dialer, Runtime, RuntimeConfig};
use daemon::admin::Admin;
use daemon::sockets::Inherited;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use prometheus::Registry;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::cluster::{ApiCluster, Cluster};
use crate::events::{Events, Severity};
use crate::metrics::Metrics;
use crate::network::PodNet;
use crate::node::lease;
use crate::node::machine::Machine;
use crate::node::object::{NodeSettings, allocatable};
use crate::node::ranges::Ranges;
use crate::node::status::NodeReporter;
use crate::pod::context::{Context, Settings};
use crate::pod::manager::{Index, Manager};
use crate::preload;
use crate::runtime::PodRuntime;
use crate::server;
use crate::server::routes::Routes;
use crate::server::tls::Tls;
use crate::spec::dns::DnsSettings;
use crate::volume::Volumes;
use crate::volume::mount::KernelMounter;

/// Name of a listening socket that a parent may hand in.
const SOCKET: &str = "kubelet";
const ADMIN_SOCKET: &str = "kubelet-admin";

/// Runs the node until the process is asked to end; containers go on.
///
/// # Errors
/// If a file cannot be read, a port cannot be bound, or the runtime cannot be opened.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let shutdown = daemon::shutdown::on_signal()?;
    run_until(args, shutdown).await
}

/// Runs the node until the token is cancelled; containers go on.
///
/// # Errors
/// As [`run`].
pub async fn run_until(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let started = Instant::now();
    let client = client(&args.kubeconfig).await?;
    let tls = Arc::new(Tls::from_files(&args.tls_cert_file, &args.tls_private_key_file, &args.client_ca_file)?);
    let (listeners, admin_listener) = listeners(&args)?;
    let (pods_dir, state_dir) = (args.node_dir().join("pods"), args.node_dir().join("containers"));
    for directory in [&pods_dir, &state_dir, &args.run_dir()] {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let runtime = open_runtime(&args).await?;
    let images_loaded = preload_images(&args, &runtime);
    let streams = runtime.clone();
    let runtime: Arc<dyn PodRuntime> = Arc::new(runtime);
    let machine = Machine::read(&args.data_dir);

    let cluster: Arc<dyn Cluster> = Arc::new(ApiCluster { services: services(&client), client: client.clone() });
    let events = Events::spawn(Arc::clone(&cluster), args.node_name.clone());
    let (network_sender, network) = watch::channel::<Option<Arc<dyn PodNet>>>(None);
    let registry = Registry::new();
    let index = Arc::new(Index::default());
    let context = Arc::new(Context {
        volumes: Volumes::new(Arc::clone(&cluster), Arc::new(KernelMounter), pods_dir.clone()),
        runtime: Arc::clone(&runtime),
        network: network.clone(),
        cluster,
        events: events.clone(),
        settings: settings(&args, &machine),
        images_loaded: images_loaded.clone(),
        pulls: Semaphore::new(usize::try_from(args.max_parallel_image_pulls)?),
        metrics: Metrics::new(&registry)?,
        started,
    });

    let mut tasks = tokio::task::JoinSet::new();
    let ranges = Ranges {
        client: client.clone(),
        node_name: args.node_name.clone(),
        bridge: args.bridge.clone(),
        agent_pin_dir: args.agent_pin_dir(),
        state_dir: dataplane_user::cni::state_dir(&args.run_dir()),
        runtime: Arc::clone(&runtime),
    };
    tasks.spawn(ranges.run(network_sender));
    let reporter = NodeReporter {
        client: client.clone(),
        settings: node_settings(&args),
        machine,
        data_dir: args.data_dir.clone(),
        runtime,
        network,
        images_loaded,
        events,
        unschedulable: false,
    };
    tasks.spawn(live(reporter, client.clone()));
    tasks.spawn(
        Manager::new(Arc::clone(&context), Arc::clone(&index)).run(pods(&client, &args.node_name), shutdown.clone()),
    );
    let admin = Admin::new(registry.clone());
    let admin_shutdown = shutdown.clone();
    tasks.spawn(async move {
        if let Err(error) = admin.serve(admin_listener, admin_shutdown).await {
            tracing::error!(%error, "the admin endpoint has ended");
        }
    });
    let routes = Arc::new(Routes { index, registry, pods_dir, runtime: streams });
    tracing::info!(node = %args.node_name, version = crate::node::object::KUBELET_VERSION, "node is starting");
    server::serve(listeners, tls, routes, shutdown).await
}

/// Registers, then keeps status and lease.
async fn live(reporter: NodeReporter, client: Client) {
    let node: Node = reporter.register().await;
    reporter.events.node(&node, Severity::Normal, "Starting", "Starting kubelet.");
    tokio::join!(reporter.run(), lease::run(client, node));
}

async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("cannot read kubeconfig {}", kubeconfig.display()))?;
    let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    // The fields it writes belong to this name.
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static("kubelet")));
    Ok(Client::try_from(config)?)
}

fn listeners(args: &Args) -> anyhow::Result<(Vec<std::net::TcpListener>, tokio::net::TcpListener)> {
    let mut inherited = Inherited::from_env()?;
    let mut listeners = inherited.take(SOCKET)?;
    if listeners.is_empty() {
        listeners = server::bind(&args.server_addresses())?;
    }
    let admin = match inherited.take(ADMIN_SOCKET)?.pop() {
        Some(listener) => listener,
        None => server::bind(&[args.healthz])?.remove(0),
    };
    Ok((listeners, tokio::net::TcpListener::from_std(admin)?))
}

async fn open_runtime(args: &Args) -> anyhow::Result<Runtime> {
    let config = RuntimeConfig {
        image_dir: args.data_dir.join("images"),
        state_dir: args.node_dir().join("containers"),
        run_dir: args.run_dir().join("pods"),
        cgroup_parent: args.cgroup_parent(),
        program: "/proc/self/exe".into(),
        dialer: args.dial_socket.clone().map_or(Dialer::Direct, Dialer::Through),
    };
    Runtime::open(config).await.context("cannot open the container runtime")
}

/// Imports in the background; the receiver turns true when everything is there.
fn preload_images(args: &Args, runtime: &Runtime) -> watch::Receiver<bool> {
    let (loaded, receiver) = watch::channel(args.preload_images.is_none());
    if let Some(directory) = args.preload_images.clone() {
        let runtime = runtime.clone();
        tokio::spawn(async move {
            preload::run(runtime.images(), &directory).await;
            loaded.send_replace(true);
        });
    }
    receiver
}

fn settings(args: &Args, machine: &Machine) -> Settings {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (allocatable_cpu_milli, allocatable_memory) = allocatable(machine);
    Settings {
        node_name: args.node_name.clone(),
        node_ips: args.node_ips.clone(),
        pods_dir: args.node_dir().join("pods"),
        dns: DnsSettings {
            servers: args.cluster_dns.iter().map(ToString::to_string).collect(),
            domain: args.cluster_domain.clone(),
            node_file: file("/etc/resolv.conf"),
        },
        node_hosts_file: file("/etc/hosts"),
        machine_memory: machine.memory_bytes,
        allocatable_cpu_milli,
        allocatable_memory,
    }
}

fn node_settings(args: &Args) -> NodeSettings {
    NodeSettings {
        name: args.node_name.clone(),
        ips: args.node_ips.clone(),
        port: args.port,
        max_pods: args.max_pods,
        labels: args.labels(),
        taints: args.register_with_taints.clone(),
    }
}

/// A store of all Services, kept by a watch of its own.
fn services(client: &Client) -> reflector::Store<Service> {
    let (store, writer) = reflector::store();
    let changes = watcher(Api::<Service>::all(client.clone()), Config::default()).default_backoff();
    tokio::spawn(reflector(writer, changes).for_each(|result| {
        if let Err(error) = result {
            tracing::debug!(%error, "service watch failed");
        }
        std::future::ready(())
    }));
    store
}

/// The pods that are bound to this node.
fn pods(client: &Client, node_name: &str) -> impl Stream<Item = Event<Pod>> + Send + use<> {
    let only = Config::default().fields(&format!("spec.nodeName={node_name}"));
    watcher(Api::<Pod>::all(client.clone()), only)
        .default_backoff()
        .filter_map(|event| async { event.inspect_err(|error| tracing::warn!(%error, "pod watch failed")).ok() })
}
