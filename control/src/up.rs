//! `tidegate up`: makes the node's surroundings, starts its parts, waits until the node is Ready.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use control_runtime::dial;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use tokio::net::UnixListener;

use crate::cgroup::Hierarchies;
use crate::claim::Claim;
use crate::identities::{self, Endpoints};
use crate::layout::{API_PORT, DNS_METRICS_PORT, DNS_PORT, DNS_SERVICE_IP, Layout, NODE_IPS, POD_CIDRS, SERVICE_CIDRS};
use crate::namespace::{self, Kind, Namespaces};
use crate::supervisor::{Home, Part, State, Supervisor};
use crate::{addons, down};

const READY_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Put the node into its own network, cgroup and mount namespaces, reachable only through this host's loopback.
    #[arg(long)]
    sandbox: bool,
    /// Name of the node; everything the node owns derives from it.
    #[arg(long, default_value = "tidegate")]
    node_name: String,
    /// Where the cluster keeps its state.
    #[arg(long, default_value = "/var/lib/tidegate")]
    data_dir: PathBuf,
    /// Address of this node (repeat for IPv6); needed without --sandbox.
    #[arg(long = "node-ip")]
    node_ips: Vec<IpAddr>,
    /// API server port on the host's loopback.
    #[arg(long, default_value_t = API_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    api_port: u16,
    /// Port on the host's loopback for clear-text HTTP through the gateway.
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    http_port: u16,
    /// Port on the host's loopback for HTTPS through the gateway.
    #[arg(long, default_value_t = 8443, value_parser = clap::value_parser!(u16).range(1..))]
    https_port: u16,
    /// Also write the administrator's kubeconfig to this file.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// OCI layouts to import at start [default: `images` beside the program, if it exists].
    #[arg(long, value_name = "DIR")]
    preload: Option<PathBuf>,
    /// Return once the node is Ready, leaving the cluster running; `tidegate down` ends it.
    #[arg(long)]
    detach: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("`tidegate up` needs root: it makes namespaces, cgroups and BPF programs");
    }
    if !args.sandbox && args.node_ips.is_empty() {
        bail!("without --sandbox the node is this machine: give its address with --node-ip");
    }
    let ports = [("--api-port", args.api_port), ("--http-port", args.http_port), ("--https-port", args.https_port)];
    check(&args, &ports)?;
    let layout = Layout::new(&args.node_name, &args.data_dir)?;
    control_store::Embedded::check(&layout.store())?;
    let mut claim = Claim::take(&layout, &ports)?;
    if args.detach {
        return detach(&layout, claim);
    }
    claim.settle()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(supervise(&args, &layout));
    // The claim is held until everything is gone, so that a new `up` cannot meet a half-removed node.
    let removed = down::remove(&layout);
    if result.is_err() {
        claim.undo();
    }
    result.and(removed)
}

/// What can be refused by looking at the arguments alone.
fn check(args: &Args, ports: &[(&str, u16)]) -> anyhow::Result<()> {
    if let Some(dir) = &args.preload {
        let kind = fs::metadata(dir).with_context(|| format!("cannot preload images from {}", dir.display()))?;
        if !kind.is_dir() {
            bail!("cannot preload images from {}: it is not a directory", dir.display());
        }
    }
    for (index, (flag, port)) in ports.iter().enumerate() {
        if let Some((other, _)) = ports[..index].iter().find(|(_, taken)| taken == port) {
            bail!("{other} and {flag} are both {port}: each needs a port of its own");
        }
    }
    Ok(())
}

async fn supervise(args: &Args, layout: &Layout) -> anyhow::Result<()> {
    let shutdown = daemon::shutdown::on_signal()?;
    let hierarchies = Hierarchies::find()?;
    let daemons = hierarchies.create(&layout.cgroup())?;
    down::end_former_parts(layout)?;
    if args.sandbox {
        namespace::create(layout)?;
    }
    let node_ips = if args.sandbox { NODE_IPS.to_vec() } else { args.node_ips.clone() };
    identities::ensure(layout, &endpoints(args, &node_ips)?)?;
    if let Some(file) = &args.kubeconfig {
        let admin = fs::read_to_string(layout.kubeconfig("admin"))?;
        crate::pki::write_private(file, &admin)?;
    }
    let parts = parts(args, layout, &node_ips, &hierarchies)?;
    if args.sandbox {
        tokio::spawn(dial::serve(dial_listener(layout)?));
    }
    let supervisor = Supervisor::new(layout.clone(), Namespaces::open(layout)?, daemons, args.sandbox)?;
    let running = tokio::spawn(supervisor.run(parts, shutdown.clone()));
    let announce = announce_when_ready(args, layout, &node_ips);
    tokio::select! {
        result = announce => result?,
        () = shutdown.cancelled() => {}
    }
    running.await.context("the supervisor panicked")?
}

/// A sandboxed node has no way out: its kubelet asks here for connections to registries.
fn dial_listener(layout: &Layout) -> anyhow::Result<UnixListener> {
    let path = layout.dial_socket();
    // Left by a supervisor that was killed; this one holds the lock.
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn endpoints(args: &Args, node_ips: &[IpAddr]) -> anyhow::Result<Endpoints> {
    let main = node_ips.first().context("the node has no address")?;
    let internal = match main {
        IpAddr::V4(address) => format!("https://{address}:{API_PORT}"),
        IpAddr::V6(address) => format!("https://[{address}]:{API_PORT}"),
    };
    Ok(Endpoints {
        internal,
        external: format!("https://127.0.0.1:{}", args.api_port),
        node_ips: node_ips.to_vec(),
        service_ips: SERVICE_CIDRS.split(',').filter_map(first_service_ip).collect(),
    })
}

/// The address of `kubernetes.default`: the first of the range.
fn first_service_ip(cidr: &str) -> Option<IpAddr> {
    match cidr.split_once('/')?.0.parse().ok()? {
        IpAddr::V4(network) => Some(IpAddr::V4((u32::from(network) + 1).into())),
        IpAddr::V6(network) => Some(IpAddr::V6((u128::from(network) + 1).into())),
    }
}

fn parts(args: &Args, layout: &Layout, node_ips: &[IpAddr], cgroups: &Hierarchies) -> anyhow::Result<Vec<Part>> {
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let pki = |file: &str| path(layout.pki().join(file));
    let node = |flag: &str| node_ips.iter().flat_map(|ip| [flag.to_owned(), ip.to_string()]).collect::<Vec<_>>();
    let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let data_dir = path(layout.data_dir.clone());
    let run_dir = path(layout.run_dir.clone());
    // Alone on a machine, the socket programs must see every process; a sandbox has only its own.
    let cgroup = if args.sandbox { cgroups.unified.join(layout.cgroup()) } else { cgroups.unified.clone() };

    let mut control = strings(&["--node-name", &layout.node, "--data-dir", &data_dir]);
    control.extend(strings(&["--service-cidrs", SERVICE_CIDRS, "--pod-cidrs", POD_CIDRS]));
    control.extend(node("--advertise-address"));

    let mut agent = strings(&["--kubeconfig", &path(layout.kubeconfig("agent")), "--node-name", &layout.node]);
    agent.extend(strings(&["--pin-dir", &path(layout.pin_dir()), "--cgroup", &path(cgroup), "--run-dir", &run_dir]));

    let mut ingress = strings(&["--kubeconfig", &path(layout.kubeconfig("ingress"))]);
    let public: Vec<IpAddr> = if args.sandbox { vec![Ipv4Addr::LOCALHOST.into()] } else { node_ips.to_vec() };
    ingress.extend(public.iter().flat_map(|ip| ["--publish-address".to_owned(), ip.to_string()]));

    let kubeconfig = path(layout.kubeconfig(&format!("node-{}", layout.node)));
    let mut kubelet = strings(&["--kubeconfig", &kubeconfig, "--node-name", &layout.node, "--data-dir", &data_dir]);
    kubelet.extend(strings(&["--run-dir", &run_dir, "--cgroup-parent", &format!("{}/kubepods", layout.cgroup())]));
    kubelet.extend(strings(&["--agent-pin-dir", &path(layout.pin_dir())]));
    kubelet.extend(strings(&["--tls-cert-file", &pki("kubelet-serving.crt")]));
    kubelet.extend(strings(&[
        "--tls-private-key-file",
        &pki("kubelet-serving.key"),
        "--client-ca-file",
        &pki("ca.crt"),
    ]));
    kubelet.extend(strings(&["--cluster-dns", &DNS_SERVICE_IP.to_string()]));
    kubelet.extend(node("--node-ip"));
    if args.sandbox {
        kubelet.extend(["--dial-socket".to_owned(), path(layout.dial_socket())]);
    }
    if let Some(images) = preload(args) {
        kubelet.extend(["--preload-images".to_owned(), path(images)]);
    }

    let dns = strings(&["--kubeconfig", &path(layout.kubeconfig("dns"))]);

    let mut sockets = sockets(args, layout, node_ips)?;
    let mut take = |names: &[&str]| sockets.extract_if(.., |(found, _)| names.contains(found)).collect::<Vec<_>>();
    Ok(vec![
        Part { name: "control", args: control, sockets: take(&["api"]), home: Home::Node },
        Part { name: "agent", args: agent, sockets: vec![], home: Home::Node },
        Part { name: "dns", args: dns, sockets: take(&["dns", "dns-admin"]), home: Home::Host },
        Part { name: "node", args: kubelet, sockets: vec![], home: Home::Node },
        Part { name: "ingress", args: ingress, sockets: take(&["http", "https"]), home: Home::Node },
    ])
}

/// Every listening socket of the cluster: on the host's loopback and on the node's own addresses.
fn sockets(args: &Args, layout: &Layout, node_ips: &[IpAddr]) -> anyhow::Result<Vec<(&'static str, OwnedFd)>> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let network = args.sandbox.then(|| layout.network_namespace());
    let ports = [("api", args.api_port, API_PORT), ("http", args.http_port, 80), ("https", args.https_port, 443)];
    let at = |port| node_ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect::<Vec<_>>();
    let mut sockets = Vec::new();
    for (name, host_port, node_port) in ports {
        let host = namespace::listen(None, Kind::Stream, vec![SocketAddr::new(loopback, host_port)])?;
        let node = namespace::listen(network.clone(), Kind::Stream, at(node_port))?;
        sockets.extend(host.into_iter().chain(node).map(|socket| (name, socket)));
    }
    for kind in [Kind::Stream, Kind::Datagram] {
        sockets.extend(namespace::listen(network.clone(), kind, at(DNS_PORT))?.into_iter().map(|one| ("dns", one)));
    }
    let admin = vec![SocketAddr::new(loopback, DNS_METRICS_PORT)];
    sockets.extend(namespace::listen(network, Kind::Stream, admin)?.into_iter().map(|one| ("dns-admin", one)));
    Ok(sockets)
}

/// Images to import: the flag, or what the build left beside the program.
fn preload(args: &Args) -> Option<PathBuf> {
    // The node has a working directory of its own.
    let absolute = |given: &PathBuf| std::path::absolute(given).unwrap_or_else(|_| given.clone());
    let beside = || std::env::current_exe().ok()?.parent().map(|dir| dir.join("images")).filter(|dir| dir.is_dir());
    args.preload.as_ref().map(absolute).or_else(beside)
}

async fn announce_when_ready(args: &Args, layout: &Layout, node_ips: &[IpAddr]) -> anyhow::Result<()> {
    let started = std::time::Instant::now();
    let client = crate::client(&layout.kubeconfig("admin"), "tidegate").await?;
    addons::install(&client, node_ips, READY_PATIENCE).await?;
    let nodes: Api<Node> = Api::all(client);
    loop {
        if nodes.get_opt(&layout.node).await.ok().flatten().is_some_and(|node| is_ready(&node)) {
            break;
        }
        if started.elapsed() > READY_PATIENCE {
            bail!("node {} is not Ready after {READY_PATIENCE:?}; see {}", layout.node, layout.log("node").display());
        }
        tokio::time::sleep(POLL).await;
    }
    let kubeconfig = args.kubeconfig.clone().unwrap_or_else(|| layout.kubeconfig("admin"));
    let mut out = std::io::stdout();
    writeln!(out, "node {} is Ready after {:.1} s", layout.node, started.elapsed().as_secs_f64())?;
    writeln!(out, "  API      https://127.0.0.1:{}", args.api_port)?;
    writeln!(out, "  gateway  http://127.0.0.1:{}  https://127.0.0.1:{}", args.http_port, args.https_port)?;
    writeln!(out, "  try      export KUBECONFIG={}; kubectl get nodes", kubeconfig.display())?;
    fs::write(ready_file(layout), "")?;
    Ok(())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|list| list.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

fn ready_file(layout: &Layout) -> PathBuf {
    layout.run_dir.join("ready")
}

/// Starts the supervisor in a session of its own and waits until it says that the node is Ready.
fn detach(layout: &Layout, mut claim: Claim) -> anyhow::Result<()> {
    claim.settle()?;
    fs::create_dir_all(layout.data_dir.join("logs"))?;
    // The supervisor takes it anew.
    let mut made = claim.release();
    let log_path = layout.log("supervisor");
    let log = fs::OpenOptions::new().create(true).truncate(true).write(true).open(&log_path)?;
    let _ = fs::remove_file(ready_file(layout));
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg0("tidegate").args(std::env::args_os().skip(1).filter(|arg| arg != "--detach"));
    command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // SAFETY: setsid is one system call, safe between fork and exec.
    unsafe { command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
    let mut child = command.spawn().context("cannot start the supervisor")?;
    loop {
        if ready_file(layout).exists() {
            print!(
                "{}",
                fs::read_to_string(&log_path)?
                    .lines()
                    .filter(|line| is_announcement(line))
                    .fold(String::new(), |text, line| text + line + "\n")
            );
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            made.undo();
            bail!("the supervisor ended ({status}):\n{log}");
        }
        std::thread::sleep(POLL);
    }
}

fn is_announcement(line: &str) -> bool {
    line.starts_with("node ") || line.starts_with("  ")
}

/// What the state file says, for `status` and `down`.
pub(crate) fn state(layout: &Layout) -> anyhow::Result<State> {
    State::read(layout)?.with_context(|| format!("node {} is not up", layout.node))
}

#[cfg(test)]
mod tests {
    use super::first_service_ip;

    #[test]
    fn the_api_server_has_the_first_service_address() {
        assert_eq!(first_service_ip("10.96.0.0/16"), Some("10.96.0.1".parse().unwrap()));
        assert_eq!(first_service_ip("fd00:10:96::/112"), Some("fd00:10:96::1".parse().unwrap()));
    }
}
