//! `tidegate control`: API server, controllers and scheduler in one process, each with its own identity.
//!
//! Controllers and scheduler talk to the API server over TLS like any client, so that nothing here is special.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use control_apiserver::{Config, KubeletClient, Limits, ServiceAccountKeys, TlsFiles};
use control_store::{Embedded, Options};
use daemon::sockets::Inherited;
use tokio::task::JoinSet;

use crate::layout::{API_PORT, Layout};

const KUBELET_PORT: u16 = 10_250;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Name of the node that this runs on.
    #[arg(long)]
    node_name: String,
    /// Where keys, kubeconfigs and the store are.
    #[arg(long, default_value = "/var/lib/tidegate")]
    data_dir: PathBuf,
    /// Addresses under which pods reach the API server (repeat for IPv6).
    #[arg(long = "advertise-address", required = true)]
    advertise_addresses: Vec<IpAddr>,
    /// Ranges of Service addresses, the primary family first.
    #[arg(long, value_delimiter = ',', required = true)]
    service_cidrs: Vec<String>,
    /// Ranges of pod addresses, divided among nodes.
    #[arg(long, value_delimiter = ',', required = true)]
    pod_cidrs: Vec<String>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let layout = Layout::new(&args.node_name, &args.data_dir)?;
    let shutdown = daemon::shutdown::on_signal()?;
    let store = layout.store();
    let store = Embedded::open(&store, Options::default())
        .with_context(|| format!("cannot open the store in {}", store.display()))?;
    let pki = |file: &str| layout.pki().join(file);
    let server = control_apiserver::serve(
        Config {
            listeners: listeners(&args)?,
            tls: TlsFiles { certificate: pki("apiserver.crt"), key: pki("apiserver.key"), client_ca: pki("ca.crt") },
            service_accounts: ServiceAccountKeys {
                private_key: pki("sa.key"),
                public_key: pki("sa.pub"),
                issuer: ServiceAccountKeys::DEFAULT_ISSUER.into(),
            },
            store: Arc::new(store),
            service_cidrs: args.service_cidrs.clone(),
            advertise_addresses: args.advertise_addresses.clone(),
            advertise_port: API_PORT,
            kubelet: Some(KubeletClient {
                certificate: pki("apiserver-kubelet-client.crt"),
                key: pki("apiserver-kubelet-client.key"),
                ca: pki("ca.crt"),
                port: KUBELET_PORT,
            }),
            limits: Limits::default(),
        },
        shutdown.clone(),
    );

    let mut parts = JoinSet::new();
    parts.spawn(async move { server.await.context("the API server ended") });
    let config = control_controllers::Config { pod_cidrs: args.pod_cidrs, root_ca: pki("ca.crt") };
    let client = crate::client(&layout.kubeconfig("controller-manager"), "kube-controller-manager").await?;
    let token = shutdown.clone();
    parts.spawn(async move { control_controllers::run(client, config, token).await.context("the controllers ended") });
    let client = crate::client(&layout.kubeconfig("scheduler"), "kube-scheduler").await?;
    let token = shutdown.clone();
    parts.spawn(async move { control_scheduler::run(client, token).await.context("the scheduler ended") });

    // Whatever ends first, ends all: the supervisor starts the whole anew.
    while let Some(ended) = parts.join_next().await {
        ended.context("a part panicked")??;
        if !shutdown.is_cancelled() {
            bail!("a part ended by itself");
        }
    }
    Ok(())
}

/// The sockets that the supervisor handed in, or our own on the advertised addresses.
fn listeners(args: &Args) -> anyhow::Result<Vec<std::net::TcpListener>> {
    let inherited = Inherited::from_env()?.take("api")?;
    if !inherited.is_empty() {
        return Ok(inherited);
    }
    let bind = |ip: &IpAddr| {
        let listener = std::net::TcpListener::bind((*ip, API_PORT))
            .with_context(|| format!("cannot listen on {ip} port {API_PORT}"))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    args.advertise_addresses.iter().map(bind).collect()
}
