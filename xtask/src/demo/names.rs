//! Promises about names: what a pod can look up and connect to.

use anyhow::ensure;

use crate::demo::checks::cluster_ips;
use crate::demo::cluster::Cluster;
use crate::demo::load::{ClientPod, tally};
use crate::demo::toolbox::Toolbox;

pub(super) fn resolve(cluster: &Cluster) -> anyhow::Result<String> {
    for name in ["echo", "echo.sample", "echo.sample.svc.cluster.local"] {
        let log = ClientPod::start(cluster, "client-names", &["get", &format!("{name}:80"), "30"])?.finish()?;
        ensure!(tally(&log, "host").values().sum::<u32>() == 30, "{name}: {log}");
    }
    let toolbox = Toolbox::start(cluster)?;
    let address = cluster_ips(cluster)?[0].trim_end_matches(":80").to_owned();
    let reverse: Vec<&str> = address.split('.').rev().collect();
    let ptr = format!("{}.in-addr.arpa", reverse.join("."));
    for (kind, name, expected) in [
        ("a", "echo.sample.svc.cluster.local", address.as_str()),
        ("a", "kubernetes.default.svc.cluster.local", "10.96.0.1"),
        ("srv", "_http._tcp.echo.sample.svc.cluster.local", "echo.sample.svc.cluster.local"),
        ("ptr", &ptr, "echo.sample.svc.cluster.local"),
    ] {
        let answer = toolbox.exec(&["nslookup", &format!("-type={kind}"), name])?;
        ensure!(answer.contains(expected), "{kind} {name}: {answer}");
    }
    let unknown = toolbox.exec(&["nslookup", "nobody.sample.svc.cluster.local"]);
    ensure!(unknown.is_err_and(|error| error.to_string().contains("NXDOMAIN")), "an unknown name resolves");
    toolbox.remove()?;
    Ok("90 requests by name; A, SRV and PTR right, NXDOMAIN for the unknown".into())
}
