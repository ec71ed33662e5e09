//! The controllers alone, against any API server, with fake nodes if asked for.
//!
//! `cargo run -p control-controllers --example run -- --kubeconfig FILE --root-ca FILE [--fake-nodes N]`
//!
//! The fake nodes use `KUBECONFIG`. A fake node is Ready and takes every pod that asks for it or that nobody has placed: the pod runs, is ready, and ends
//! when it is deleted. The annotation `fake/end: Succeeded` or `Failed` ends it after a second.

#[path = "run/fake.rs"]
mod fake;

use std::path::PathBuf;

use anyhow::{Context, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct Args {
    kubeconfig: PathBuf,
    root_ca: PathBuf,
    fake_nodes: usize,
}

impl Args {
    fn parse() -> anyhow::Result<Self> {
        let mut args = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("{word} needs a value"))?;
            match word.as_str() {
                "--kubeconfig" => args.kubeconfig = value.into(),
                "--root-ca" => args.root_ca = value.into(),
                "--fake-nodes" => args.fake_nodes = value.parse().context("--fake-nodes needs a number")?,
                _ => bail!("unknown option {word}"),
            }
        }
        Ok(args)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse()?;
    let file = Kubeconfig::read_from(&args.kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    let shutdown = CancellationToken::new();
    if args.fake_nodes > 0 {
        // Controllers run under their own rights; the nodes are the business of whoever runs this.
        fake::start(Client::try_default().await?, args.fake_nodes).await?;
    }
    let config = control_controllers::Config {
        pod_cidrs: vec!["10.244.0.0/16".into(), "fd00:10:244::/56".into()],
        root_ca: args.root_ca,
    };
    tokio::select! {
        ended = control_controllers::run(client, config, shutdown.clone()) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}
