//! Promises about the packet path: what a pod whose sockets are left alone reaches, and what refuses it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::demo::checks::{PATIENCE, wait_for_pods};
use crate::demo::cluster::{Cluster, eventually};
use crate::demo::load::{ClientPod, tally};

const SERVICE: &str = "packets";
const NOBODY: &str = "nobody";
/// Requests on connections of their own, and datagrams of each kind, per address.
const COUNT: u64 = 60;
/// A request and its answer on a connection of their own are at least ten packets, a datagram and its echo two.
const PACKETS_PER_CONNECTION: u64 = 10;
const PACKETS_PER_DATAGRAM: u64 = 2;
/// A client that waits for an answer waits five seconds.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What the agent's metrics say of one port of the Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counters {
    connections: u64,
    packets: u64,
}

pub(super) fn reach(cluster: &Cluster) -> anyhow::Result<String> {
    cluster.kubectl(&["scale", "deployment", "-n", "sample", "echo", "--replicas=3"])?;
    wait_for_pods(cluster, 3)?;
    create(cluster, &service(SERVICE, "echo"))?;
    wait_for_backends(cluster)?;
    let mut figures = Vec::new();
    for (index, address) in addresses(cluster, SERVICE)?.iter().enumerate() {
        let (http, udp) = (format!("{address}:80"), format!("{address}:8081"));
        let before = (counters(cluster, "http")?, counters(cluster, "udp")?);
        let log = client(cluster, &format!("packet-tcp-{index}"), "off", &["get", &http])?.finish()?;
        let (hosts, peers) = (tally(&log, "host"), tally(&log, "peer"));
        ensure!(hosts.len() == 3 && hosts.values().sum::<u32>() == COUNT as u32, "{http}: {log}");
        ensure!(peers.keys().eq([&http]), "getpeername is not the ClusterIP: {peers:?}");
        let log = client(cluster, &format!("packet-udp-{index}"), "off", &["udp", &udp])?.finish()?;
        for kind in ["connected", "unconnected"] {
            ensure!(tally(&log, kind).get(&udp) == Some(&(COUNT as u32)), "{kind} {udp}: {log}");
        }
        ensure!(tally(&log, "peer").keys().eq([&udp]), "echoes do not come from the ClusterIP: {log}");
        let after = (counters(cluster, "http")?, counters(cluster, "udp")?);
        let tcp = after.0.since(before.0);
        let datagrams = after.1.since(before.1);
        ensure!(tcp.connections == COUNT && tcp.packets >= COUNT * PACKETS_PER_CONNECTION, "{http}: {tcp:?}");
        // A socket that gets the port of one before it goes on with that one's flow: no new connection.
        let new_flows = COUNT..=2 * COUNT;
        let packets = 2 * COUNT * PACKETS_PER_DATAGRAM;
        ensure!(datagrams.packets == packets && new_flows.contains(&datagrams.connections), "{udp}: {datagrams:?}");
        figures.push(format!("{address} {} TCP and {} UDP packets", tcp.packets, datagrams.packets));
    }
    let spared = socket_path(cluster)?;
    Ok(format!("{}; with socket LB 0 packets for {spared} connections", figures.join(", ")))
}

/// The same from a pod with socket LB: connections, but not one translated packet.
fn socket_path(cluster: &Cluster) -> anyhow::Result<u64> {
    let before = (counters(cluster, "http")?, counters(cluster, "udp")?);
    for (index, address) in addresses(cluster, SERVICE)?.iter().enumerate() {
        let (http, udp) = (format!("{address}:80"), format!("{address}:8081"));
        client(cluster, &format!("socket-tcp-{index}"), "on", &["get", &http])?.finish()?;
        client(cluster, &format!("socket-udp-{index}"), "on", &["udp", &udp])?.finish()?;
    }
    let (tcp, udp) = (counters(cluster, "http")?.since(before.0), counters(cluster, "udp")?.since(before.1));
    ensure!(tcp == Counters { connections: 2 * COUNT, packets: 0 }, "{tcp:?}");
    ensure!(udp == Counters { connections: 4 * COUNT, packets: 0 }, "{udp:?}");
    Ok(tcp.connections + udp.connections)
}

pub(super) fn refuse(cluster: &Cluster) -> anyhow::Result<String> {
    create(cluster, &service(NOBODY, "nobody"))?;
    eventually("the kernel knows the Service without endpoints", PATIENCE, || {
        Ok(cluster.tidegate(&["service", "list"])?.contains(NOBODY))
    })?;
    let mut slowest = Duration::ZERO;
    for (index, address) in addresses(cluster, NOBODY)?.iter().enumerate() {
        for switch in ["on", "off"] {
            let name = format!("refused-{switch}-{index}");
            let client = ClientPod::start_annotated(
                cluster,
                &name,
                &annotations(switch),
                &["get", &format!("{address}:80"), "1"],
            )?;
            let told = client.finish().err().context("a Service without endpoints answers")?.to_string();
            ensure!(told.contains("Connection refused"), "socket LB {switch}, {address}: {told}");
        }
        slowest = slowest.max(ask_node(cluster, address)?);
    }
    cluster.kubectl(&["-n", "sample", "delete", "service", NOBODY, SERVICE])?;
    Ok(format!("4 of 4 TCP clients refused over IPv4 and IPv6; from the node within {} ms", slowest.as_millis()))
}

/// How long the node itself takes to be refused.
fn ask_node(cluster: &Cluster, address: &str) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let asked = cluster.on_node("curl", &["--silent", "--show-error", "--globoff", &format!("http://{address}:80")]);
    let took = started.elapsed();
    let told = asked.err().context("a Service without endpoints answers the node")?.to_string();
    ensure!(took < AT_ONCE, "refused after {took:?}: {told}");
    Ok(took)
}

fn client<'a>(cluster: &'a Cluster, name: &str, switch: &str, args: &[&str]) -> anyhow::Result<ClientPod<'a>> {
    let count = COUNT.to_string();
    let mut words = args.to_vec();
    words.push(&count);
    ClientPod::start_annotated(cluster, name, &annotations(switch), &words)
}

fn annotations(switch: &str) -> Value {
    json!({"tidegate.dev/socket-lb": switch})
}

fn service(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "sample"},
        "spec": {
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {"app": app},
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http"},
                {"name": "udp", "port": 8081, "protocol": "UDP", "targetPort": "udp"},
            ],
        },
    })
}

fn create(cluster: &Cluster, manifest: &Value) -> anyhow::Result<()> {
    let file = cluster.path("packet-path.json");
    fs::write(&file, manifest.to_string())?;
    cluster.kubectl(&["create", "-f", &file]).map(drop)
}

/// Three endpoints behind each of the Service's four addresses.
fn wait_for_backends(cluster: &Cluster) -> anyhow::Result<()> {
    eventually("the kernel serves the new Service", PATIENCE, || {
        let shown = cluster.tidegate(&["service", "show", &format!("sample/{SERVICE}"), "-o", "json"])?;
        let views: Value = serde_json::from_str(&shown)?;
        let views = views.as_array().cloned().unwrap_or_default();
        Ok(views.len() == 4 && views.iter().all(|view| view["cluster"].as_array().is_some_and(|set| set.len() == 3)))
    })
}

/// The Service's ClusterIPs, IPv6 ones in brackets.
fn addresses(cluster: &Cluster, name: &str) -> anyhow::Result<Vec<String>> {
    let service = cluster.get(&["service", "-n", "sample", name])?;
    let ips = service["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
    let ips: Vec<&str> = ips.iter().filter_map(Value::as_str).collect();
    ensure!(ips.len() == 2, "the Service is not dual-stack: {ips:?}");
    Ok(ips.iter().map(|ip| if ip.contains(':') { format!("[{ip}]") } else { (*ip).to_owned() }).collect())
}

fn counters(cluster: &Cluster, port: &str) -> anyhow::Result<Counters> {
    let metrics = cluster.on_node("curl", &["--silent", "--fail", "http://127.0.0.1:10249/metrics"])?;
    let read = |name| sample(&metrics, name, port).with_context(|| format!("no {name} of port {port}"));
    Ok(Counters {
        connections: read("tidegate_agent_service_connections_total")?,
        packets: read("tidegate_agent_service_packets_total")?,
    })
}

/// One sample of the Service.
fn sample(metrics: &str, name: &str, port: &str) -> Option<u64> {
    let labels = [format!("port=\"{port}\""), format!("service=\"{SERVICE}\""), "namespace=\"sample\"".to_owned()];
    let is_ours = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')) && labels.iter().all(|one| line.contains(one))
    };
    metrics.lines().find(is_ours)?.rsplit(' ').next()?.parse().ok()
}

impl Counters {
    const fn since(self, before: Self) -> Self {
        Self { connections: self.connections - before.connections, packets: self.packets - before.packets }
    }
}

#[cfg(test)]
mod tests {
    use super::sample;

    #[test]
    fn a_sample_is_found_by_name_service_and_port() {
        let metrics = "# TYPE x counter\n\
            x{namespace=\"sample\",port=\"http\",service=\"echo\"} 1\n\
            x{namespace=\"sample\",port=\"http\",service=\"packets\"} 2\n\
            x{namespace=\"sample\",port=\"udp\",service=\"packets\"} 3\n\
            xy{namespace=\"sample\",port=\"udp\",service=\"packets\"} 4\n";
        assert_eq!(sample(metrics, "x", "udp"), Some(3));
        assert_eq!(sample(metrics, "xy", "http"), None);
    }
}
