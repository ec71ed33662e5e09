//! From flags to a running server.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use daemon::admin::{Admin, Page};
use daemon::sockets::Inherited;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::args::Args;
use crate::forward::{Forwarder, Upstreams, follow_file};
use crate::metrics::Metrics;
use crate::responder::Responder;
use crate::serve::{self, Sockets};
use crate::watch;
use crate::zone::Zone;

/// The name of the socket for metrics and health, where it is handed in.
const ADMIN_SOCKET: &str = "dns-admin";

/// Serves until SIGTERM or SIGINT. Other names than the cluster's are answered at once, the cluster's as they get known.
///
/// # Errors
/// If the sockets or the API client cannot be set up.
pub async fn run(args: Args) -> anyhow::Result<()> {
    // A process that installed a provider before us keeps it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let shutdown = daemon::shutdown::on_signal().context("cannot listen for signals")?;
    let mut inherited = Inherited::from_env()?;
    let sockets = Sockets::open(&mut inherited, &args.bind)?;
    let admin = admin(&mut inherited, &args)?;
    let own = sockets.addresses();
    let metrics = Arc::new(Metrics::new().context("cannot set up metrics")?);

    let forward: Vec<_> = args.forward.iter().copied().filter(|address| !own.contains(address)).collect();
    let upstreams = Arc::new(Upstreams::new(&forward));
    let follows_file = args.forward.is_empty() && !args.resolv_conf.as_os_str().is_empty();
    if follows_file {
        tokio::spawn(follow_file(Arc::clone(&upstreams), args.resolv_conf.clone(), own.clone()));
    }
    let forwarder = Arc::new(Forwarder::new(upstreams, args.cache_entries, Arc::clone(&metrics)));
    let zone = Zone::new(args.cluster_domain.clone(), args.ttl, serial());
    let responder = Arc::new(Responder::new(zone, forwarder, Arc::clone(&metrics)));

    tokio::spawn(pages(&responder, &metrics).serve(admin, shutdown.clone()));

    let client = client(&args).await?;
    tracing::info!(domain = %args.cluster_domain, addresses = ?own, forward = ?args.forward, "serving");
    tokio::select! {
        result = serve::run(sockets, Arc::clone(&responder), shutdown) => result,
        result = watch::run(client, responder, metrics) => result,
    }
}

/// Serial numbers go up from restart to restart.
fn serial() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

/// The listener for metrics and health: the one handed in, or our own.
fn admin(inherited: &mut Inherited, args: &Args) -> anyhow::Result<tokio::net::TcpListener> {
    let handed_in = inherited.take(ADMIN_SOCKET).context("cannot take the inherited admin listener")?.pop();
    let listener = handed_in.map_or_else(
        || {
            let own = std::net::TcpListener::bind(args.admin_bind)?;
            own.set_nonblocking(true).map(|()| own)
        },
        Ok,
    );
    listener
        .and_then(tokio::net::TcpListener::from_std)
        .with_context(|| format!("cannot listen on {}", args.admin_bind))
}

fn pages(responder: &Arc<Responder>, metrics: &Metrics) -> Admin {
    let responder = Arc::clone(responder);
    Admin::new(metrics.registry.clone()).page("/readyz", move |_| {
        if responder.is_complete() { Page::text("ok") } else { Page::unavailable("the zone is not complete") }
    })
}

async fn client(args: &Args) -> anyhow::Result<kube::Client> {
    let config = match &args.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await.context("no kubeconfig and no in-cluster configuration")?,
    };
    kube::Client::try_from(config).context("cannot make the API client")
}
