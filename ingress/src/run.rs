//! From flags to a running gateway, and its orderly end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use daemon::admin::{Admin, Page};
use daemon::sockets::Inherited;
use http::StatusCode;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::control::{self, ClassPolicy, ExternalNames, Settings};
use crate::dump;
use crate::explain;
use crate::metrics::Metrics;
use crate::serve::{Listeners, Signals, Workers};
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::tls::TlsPolicy;

/// How often to look whether something awaited has come about.
const POLL: Duration = Duration::from_millis(10);
/// Of the grace period, the share in which connections that wait for a request may still send one.
const LINGER_SHARE: u32 = 6;

/// Runs the gateway until SIGTERM or SIGINT, then drains. It owns its threads and runtimes.
///
/// # Errors
/// If the sockets, the API client or the threads cannot be set up.
pub fn run(args: Args) -> anyhow::Result<()> {
    // A process that installed a provider before us keeps it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listeners = Listeners::open(Inherited::from_env()?, &args.http_bind, &args.https_bind)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(gateway(args, listeners));
    runtime.shutdown_background();
    result
}

async fn gateway(args: Args, listeners: Listeners) -> anyhow::Result<()> {
    let asked_to_end = daemon::shutdown::on_signal().context("cannot listen for signals")?;
    let tls = TlsPolicy::new().context("cannot set up TLS")?;
    let self_signed = tls.self_signed().context("cannot make the default certificate")?;
    let metrics = Metrics::new().context("cannot set up metrics")?;
    let shared = Arc::new(Shared::new(Snapshot::empty(Arc::clone(&self_signed)), metrics, args.limits.clone()));
    shared.set_listeners(listeners.addresses().context("cannot name the listening sockets")?);

    let admin = tokio::net::TcpListener::bind(args.admin_bind)
        .await
        .with_context(|| format!("cannot listen on {}", args.admin_bind))?;
    let end_of_admin = CancellationToken::new();
    tokio::spawn(pages(&shared).serve(admin, end_of_admin.clone()));

    let client = client(&args).await?;
    let settings = Settings {
        class: ClassPolicy {
            controller: args.controller_class,
            legacy_class: args.ingress_class,
            without_class: args.watch_ingress_without_class,
        },
        published: args.publish_address,
        default_certificate: args.default_ssl_certificate,
        policy: args.policy,
        external: ExternalNames::new(&args.allow_external_names),
    };
    let mut control = tokio::spawn(control::run(client, settings, tls, self_signed, Arc::clone(&shared)));

    // Nobody is answered before everything is known: waiting is better than a wrong 404.
    tokio::select! {
        () = asked_to_end.cancelled() => return Ok(()),
        ended = &mut control => return ended.context("control panicked")?,
        () = until(|| shared.is_ready()) => {}
    }
    let stages = Stages::new();
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into)).max(1);
    let workers = Workers::start(threads, &listeners, &shared, &stages.signals)?;
    tracing::info!(threads, sockets = listeners.sockets.len(), inherited = listeners.inherited, "serving");

    let result = tokio::select! {
        () = asked_to_end.cancelled() => Ok(()),
        ended = &mut control => ended.context("control panicked")?,
    };
    drain(&shared, stages, listeners, args.shutdown_grace_period).await;
    tokio::task::spawn_blocking(|| workers.join()).await.context("cannot wait for serving threads")?;
    end_of_admin.cancel();
    result
}

/// The sending sides of [`Signals`].
struct Stages {
    draining: watch::Sender<bool>,
    signals: Signals,
}

impl Stages {
    fn new() -> Self {
        let (draining, receiver) = watch::channel(false);
        let token = CancellationToken::new;
        let signals = Signals { draining: receiver, stop_accepting: token(), close_idle: token(), stop: token() };
        Self { draining, signals }
    }
}

/// Not ready at once; then for a while every answer asks its client to close, and connections that still come in are
/// served, unless somebody else holds the sockets and will serve them; then waiting connections are closed; at the end
/// of the grace period everything is.
async fn drain(shared: &Shared, stages: Stages, listeners: Listeners, grace: Duration) {
    let end = tokio::time::Instant::now() + grace;
    let idle = || shared.metrics.open_connections() == 0;
    tracing::info!(open = shared.metrics.open_connections(), "draining");
    shared.drain();
    // The workers hold receivers; without any there is nothing to drain.
    let _ = stages.draining.send(true);
    if listeners.inherited {
        stages.signals.stop_accepting.cancel();
        let _ = tokio::time::timeout(grace / LINGER_SHARE, until(idle)).await;
    } else {
        tokio::time::sleep(grace / LINGER_SHARE).await;
        stages.signals.stop_accepting.cancel();
    }
    drop(listeners);
    stages.signals.close_idle.cancel();
    if tokio::time::timeout_at(end, until(idle)).await.is_err() {
        tracing::warn!(open = shared.metrics.open_connections(), "grace period is over, closing connections");
    }
    stages.signals.stop.cancel();
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(POLL).await;
    }
}

fn pages(shared: &Arc<Shared>) -> Admin {
    let (ready, routes, explained) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
    Admin::new(shared.metrics.registry.clone())
        .page("/readyz", move |_| if ready.is_ready() { Page::text("ok") } else { Page::unavailable("not ready") })
        .page("/routes", move |_| Page(StatusCode::OK, "application/json", dump::routes(&routes.snapshot())))
        .page("/explain", move |query| match explain::page(&explained, query) {
            Ok(text) => Page::text(text),
            Err(why) => Page(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", why),
        })
}

async fn client(args: &Args) -> anyhow::Result<kube::Client> {
    let mut config = match &args.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await.context("no kubeconfig and no in-cluster configuration")?,
    };
    // The fields it writes belong to this name.
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static("tidegate-ingress")));
    kube::Client::try_from(config).context("cannot make the API client")
}
