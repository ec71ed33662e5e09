//! What the demo promises, each proved through real clients and printed as one line.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::demo::cluster::{Cluster, NODE, eventually};
use crate::demo::load::{ClientPod, ask_gateway, gateway_curl, tally, under_load};
use crate::demo::{certificates, names, packet_path, rollout, streams, websocket};
use crate::exec;

pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long the connections are held while parts are killed.
const HOLD_SECONDS: &str = "45";
const HELD_CONNECTIONS: usize = 4;
const SETTLE: Duration = Duration::from_secs(2);

/// A promise and its proof, which returns the figure to print.
type Promise = (&'static str, fn(&Cluster) -> anyhow::Result<String>);

const PROMISES: &[Promise] = &[
    ("three pods Ready on distinct IPs", three_pods),
    ("TLS ingress reaches all three by host and path over h1 and h2; an unknown host gets 404", through_the_gateway),
    ("from a pod, by ClusterIP v4 and v6, all three answer and getpeername shows the ClusterIP", from_a_pod),
    ("no iptables or nftables rule in the node's namespace", no_rules),
    ("scaling 3→5→2 under constant load loses no request", scaling),
    ("killing agent, ingress, control and node with -9 loses no established connection", killing),
    ("a pod whose readiness fails leaves the rotation", readiness),
    ("a WebSocket through the gateway survives changes of its Service's endpoints", websocket::survives),
    ("an Ingress without a usable certificate is told so, and other hosts keep serving", certificates::reported),
    ("a container whose liveness fails is restarted and no request is lost", rollout::liveness),
    ("a rolling update and its undo under constant load lose no request", rollout::update_and_undo),
    ("names of Services and pods resolve inside pods", names::resolve),
    ("exec, cp and port-forward reach into a pod", streams::reach),
    ("a pod without socket LB reaches TCP and UDP Services packet by packet", packet_path::reach),
    ("a Service without endpoints refuses at once, at the socket and on the packet path", packet_path::refuse),
];

pub(crate) fn run(cluster: &Cluster) -> anyhow::Result<()> {
    let before = maps_of_a_bare_cluster(cluster)?;
    let started = Instant::now();
    cluster.deploy_sample()?;
    for (promise, prove) in PROMISES {
        let figure = prove(cluster).with_context(|| format!("broken promise: {promise}"))?;
        println!("ok   {promise}: {figure}");
        if started.elapsed() > Duration::from_secs(900) {
            bail!("the checks take far too long");
        }
    }
    cluster.kubectl(&["delete", "namespace", "sample"])?;
    let mut now = String::new();
    let restored = eventually("every map is as before", PATIENCE, || {
        now = maps(cluster)?;
        Ok(now == before)
    });
    restored.with_context(|| format!("maps before:\n{before}\nmaps now:\n{now}"))?;
    println!("ok   deleting the app returned every map to what it held: {} lines equal", before.lines().count());
    Ok(())
}

/// What the maps hold before the sample comes: a node is Ready before its agent has written the cluster's own Services.
fn maps_of_a_bare_cluster(cluster: &Cluster) -> anyhow::Result<String> {
    const OWN: &[&str] = &["10.96.0.1:443/TCP", "[fd00:10:96::1]:443/TCP", "10.96.0.10:53/UDP", "10.96.0.10:53/TCP"];
    let mut now = String::new();
    let written = eventually("the maps hold the cluster's own Services, each with an endpoint", PATIENCE, || {
        now = maps(cluster)?;
        let served = |address: &&str| now.lines().any(|line| served_by(line, address));
        Ok(OWN.iter().all(served))
    });
    written.with_context(|| format!("maps now:\n{now}"))?;
    Ok(now)
}

/// Whether a line of `tidegate service list` is that of the address and counts an endpoint.
fn served_by(line: &str, address: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| *word != address).skip(1);
    words.next().and_then(|endpoints| endpoints.parse::<u32>().ok()).is_some_and(|endpoints| endpoints > 0)
}

/// The kernel's maps as text: Services, backends and endpoints as they are, without the counters that only grow.
fn maps(cluster: &Cluster) -> anyhow::Result<String> {
    let services = cluster.tidegate(&["service", "list"])?;
    let width = services.find("CONNECTIONS").context("no counters in `tidegate service list`")?;
    let mut text: String = services.lines().map(|line| format!("{}\n", line.get(..width).unwrap_or(line))).collect();
    text += &cluster.tidegate(&["endpoint", "list"])?;
    Ok(text)
}

pub(super) fn pods(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let list = cluster.get(&["pods", "-n", "sample", "-l", "app=echo"])?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// Waits until exactly `count` pods exist, all Ready.
pub(super) fn wait_for_pods(cluster: &Cluster, count: usize) -> anyhow::Result<()> {
    eventually(&format!("{count} pods Ready"), PATIENCE, || {
        let pods = pods(cluster)?;
        Ok(pods.len() == count && pods.iter().all(is_ready))
    })
}

fn three_pods(cluster: &Cluster) -> anyhow::Result<String> {
    let started = Instant::now();
    wait_for_pods(cluster, 3)?;
    let ips: BTreeSet<String> =
        pods(cluster)?.iter().filter_map(|pod| pod["status"]["podIP"].as_str().map(str::to_owned)).collect();
    ensure!(ips.len() == 3, "pod IPs are not distinct: {ips:?}");
    let ips: Vec<String> = ips.into_iter().collect();
    Ok(format!("{} after {:.1} s", ips.join(" "), started.elapsed().as_secs_f64()))
}

fn through_the_gateway(cluster: &Cluster) -> anyhow::Result<String> {
    // Ready pods reach the gateway a moment after they reach the API.
    eventually("the gateway reaches three pods", PATIENCE, || {
        Ok(ask_gateway("--http1.1", "echo.test", "/", 30)?.len() == 3)
    })?;
    let mut total = 0;
    for (version, host, path) in [
        ("--http1.1", "echo.test", "/"),
        ("--http2", "echo.test", "/"),
        ("--http1.1", "paths.test", "/echo/deep"),
        ("--http2", "paths.test", "/echo/deep"),
    ] {
        let hosts = ask_gateway(version, host, path, 75)?;
        let answered: u32 = hosts.values().sum();
        ensure!(answered == 75 && hosts.len() == 3, "{version} {host}{path}: {hosts:?}");
        total += answered;
    }
    for (host, path) in [("unknown.test", "/"), ("paths.test", "/other")] {
        let mut curl = gateway_curl("--http2", host);
        curl.args(["-o", "/dev/null", "-w", "%{http_code}"]);
        let port = super::cluster::HTTPS_PORT;
        let code = exec::read(curl.arg(format!("https://{host}:{port}{path}")))?;
        ensure!(code == "404", "https://{host}{path} got {code}, not 404");
    }
    let ingress = cluster.get(&["ingress", "-n", "sample", "echo"])?;
    let address =
        ingress["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().context("the Ingress has no address")?;
    Ok(format!("{total} requests, 404 for the unknown, status address {address}"))
}

pub(super) fn cluster_ips(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let service = cluster.get(&["service", "-n", "sample", "echo"])?;
    let ips = service["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
    let ips: Vec<String> = ips.iter().filter_map(|ip| ip.as_str().map(str::to_owned)).collect();
    ensure!(ips.len() == 2, "the Service is not dual-stack: {ips:?}");
    Ok(ips.iter().map(|ip| if ip.contains(':') { format!("[{ip}]:80") } else { format!("{ip}:80") }).collect())
}

fn from_a_pod(cluster: &Cluster) -> anyhow::Result<String> {
    let mut figures = Vec::new();
    for (name, address) in ["client-v4", "client-v6"].into_iter().zip(cluster_ips(cluster)?) {
        let log = ClientPod::start(cluster, name, &["get", &address, "150"])?.finish()?;
        let (hosts, peers) = (tally(&log, "host"), tally(&log, "peer"));
        ensure!(hosts.len() == 3 && hosts.values().sum::<u32>() == 150, "{address}: {log}");
        ensure!(peers.keys().eq([&address]), "getpeername is not the ClusterIP: {peers:?}");
        let shares: Vec<String> = hosts.values().map(ToString::to_string).collect();
        figures.push(format!("{address} {}", shares.join("/")));
    }
    Ok(figures.join(", "))
}

fn no_rules(cluster: &Cluster) -> anyhow::Result<String> {
    let mut listings = vec![cluster.on_node("nft", &["list", "ruleset"])?];
    for program in ["iptables-legacy-save", "ip6tables-legacy-save"] {
        listings.push(cluster.on_node(program, &[])?);
    }
    let rules: Vec<&str> =
        listings.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with("-A")).collect();
    ensure!(listings[0].trim().is_empty() && rules.is_empty(), "found rules: {listings:?}");
    Ok("nft list ruleset and iptables-legacy-save are empty".into())
}

fn scaling(cluster: &Cluster) -> anyhow::Result<String> {
    let served = under_load(cluster, &cluster_ips(cluster)?, 25, || {
        for replicas in [5, 2] {
            cluster.kubectl(&["scale", "deployment", "-n", "sample", "echo", &format!("--replicas={replicas}")])?;
            wait_for_pods(cluster, replicas)?;
            std::thread::sleep(SETTLE);
        }
        Ok(())
    })?;
    Ok(served.to_string())
}

fn killing(cluster: &Cluster) -> anyhow::Result<String> {
    let addresses = cluster_ips(cluster)?;
    let mut clients = Vec::new();
    for index in 0..HELD_CONNECTIONS {
        let address = &addresses[index % addresses.len()];
        let client = ClientPod::start(cluster, &format!("hold-{index}"), &["hold", address, HOLD_SECONDS])?;
        client.wait_running()?;
        clients.push(client);
    }
    let mut times = Vec::new();
    for part in ["agent", "ingress", "control", "node"] {
        let pid = cluster.part(part)?;
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        let started = Instant::now();
        eventually(&format!("{part} runs again"), PATIENCE, || Ok(cluster.part(part).is_ok_and(|new| new != pid)))?;
        converges(cluster).with_context(|| format!("after the end of {part}"))?;
        times.push(format!("{part} {:.1} s", started.elapsed().as_secs_f64()));
    }
    let mut requests = 0;
    for client in clients {
        let log = client.finish()?;
        let held = log.lines().find_map(|line| line.strip_prefix("held ")).context("a connection was not held")?;
        requests += held.split(' ').next().and_then(|count| count.parse::<u32>().ok()).unwrap_or(0);
    }
    Ok(format!("0 of {HELD_CONNECTIONS} lost in {requests} requests; converged: {}", times.join(", ")))
}

/// A change must travel through every part: API, controllers, kubelet, kernel and gateway.
fn converges(cluster: &Cluster) -> anyhow::Result<()> {
    eventually("the API server answers", PATIENCE, || {
        Ok(cluster.kubectl(&["get", "--raw", "/readyz"]).is_ok_and(|answer| answer.contains("ok")))
    })?;
    for replicas in [3, 2] {
        cluster.kubectl(&["scale", "deployment", "-n", "sample", "echo", &format!("--replicas={replicas}")])?;
        wait_for_pods(cluster, replicas)?;
        eventually(&format!("the gateway reaches {replicas} pods"), PATIENCE, || {
            Ok(ask_gateway("--http2", "echo.test", "/", 30).is_ok_and(|hosts| hosts.len() == replicas))
        })?;
        eventually(&format!("the kernel holds {replicas} backends"), PATIENCE, || {
            let shown = cluster.tidegate(&["service", "show", "sample/echo"])?;
            Ok(pods(cluster)?.iter().filter_map(|pod| pod["status"]["podIP"].as_str()).all(|ip| shown.contains(ip)))
        })?;
    }
    Ok(())
}

fn readiness(cluster: &Cluster) -> anyhow::Result<String> {
    cluster.kubectl(&["scale", "deployment", "-n", "sample", "echo", "--replicas=3"])?;
    wait_for_pods(cluster, 3)?;
    let pod = pods(cluster)?.into_iter().next().context("no pod")?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let ip = pod["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    cluster.on_node("curl", &["--silent", "--fail", &format!("http://{ip}:8080/healthz/fail")])?;
    let started = Instant::now();
    eventually("the failing pod leaves the gateway", PATIENCE, || {
        Ok(!ask_gateway("--http2", "echo.test", "/", 30)?.contains_key(&name))
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let address = &cluster_ips(cluster)?[0];
    let log = ClientPod::start(cluster, "client-readiness", &["get", address, "60"])?.finish()?;
    let hosts = tally(&log, "host");
    ensure!(hosts.len() == 2 && !hosts.contains_key(&name), "it still answers on the ClusterIP: {hosts:?}");
    cluster.on_node("curl", &["--silent", "--fail", &format!("http://{ip}:8080/healthz/ok")])?;
    wait_for_pods(cluster, 3)?;
    Ok(format!("{name} of node {NODE} out after {seconds:.1} s, 60 of 60 answered by the two others, back when well"))
}
