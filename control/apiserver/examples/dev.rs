//! An API server for development: keys, kubeconfigs and store in one directory, everything on loopback.
//!
//! `cargo run -p control-apiserver --example dev -- --dir DIR --port N [--node NAME]`

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use control_apiserver::{Config, KubeletClient, Limits, ServiceAccountKeys, TlsFiles};
use control_store::{Embedded, Options};

#[path = "dev/pki.rs"]
mod pki;

struct Args {
    dir: PathBuf,
    port: u16,
    node: String,
    advertise: Vec<IpAddr>,
}

impl Args {
    fn parse() -> anyhow::Result<Self> {
        let mut args = Self { dir: PathBuf::new(), port: 6443, node: "node-1".into(), advertise: vec![] };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("{word} needs a value"))?;
            match word.as_str() {
                "--dir" => args.dir = value.into(),
                "--port" => args.port = value.parse().context("--port needs a number")?,
                "--node" => args.node = value,
                "--advertise" => args.advertise.push(value.parse().context("--advertise needs an address")?),
                _ => bail!("unknown option {word}; usage: dev --dir DIR --port N [--node NAME] [--advertise IP]..."),
            }
        }
        if args.dir.as_os_str().is_empty() {
            bail!("--dir is missing; usage: dev --dir DIR --port N [--node NAME] [--advertise IP]...");
        }
        if args.advertise.is_empty() {
            args.advertise.push(Ipv4Addr::new(192, 168, 77, 10).into());
        }
        Ok(args)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    daemon::logging::init();
    let args = Args::parse()?;
    pki::ensure(&args.dir, args.port, &args.node, &args.advertise)?;
    let shutdown = daemon::shutdown::on_signal()?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, args.port)).context("cannot listen")?;
    eprintln!("export KUBECONFIG={}", args.dir.join("kubeconfig/admin.yaml").display());
    control_apiserver::serve(config(&args, listener)?, shutdown).await
}

fn config(args: &Args, listener: TcpListener) -> anyhow::Result<Config> {
    let file = |name: &str| -> PathBuf { Path::new(&args.dir).join("pki").join(name) };
    Ok(Config {
        listeners: vec![listener],
        tls: TlsFiles { certificate: file("apiserver.crt"), key: file("apiserver.key"), client_ca: file("ca.crt") },
        service_accounts: ServiceAccountKeys {
            private_key: file("sa.key"),
            public_key: file("sa.pub"),
            issuer: ServiceAccountKeys::DEFAULT_ISSUER.into(),
        },
        store: Arc::new(Embedded::open(&args.dir.join("store"), Options::default())?),
        service_cidrs: vec!["10.96.0.0/16".into(), "fd00:10:96::/112".into()],
        advertise_addresses: args.advertise.clone(),
        advertise_port: args.port,
        kubelet: Some(KubeletClient {
            certificate: file("apiserver-kubelet-client.crt"),
            key: file("apiserver-kubelet-client.key"),
            ca: file("ca.crt"),
            port: 10250,
        }),
        limits: Limits::default(),
    })
}
