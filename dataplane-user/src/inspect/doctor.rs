//! `tidegate doctor`: each line a check, its result, and what mends it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use dataplane_plan::invariants;
use nix::sys::statfs::{FsType, statfs};
use serde::Serialize;

use super::netfilter::{HOOK_FORWARD, POLICY_DROP, base_chains};
use super::{Output, Place, print_json, table};
use crate::agent::cgroup2_mount;
use crate::apply::ServiceMaps;
use crate::cni;
use crate::cni::record;
use crate::kernel::Maps;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// What mends it; empty if nothing is to be mended.
    fix: String,
}

/// Programs that must be linked to the node's cgroup.
const SOCKET_LINKS: [&str; 8] = [
    "socket_connect4",
    "socket_connect6",
    "socket_sendmsg4",
    "socket_sendmsg6",
    "socket_recvmsg4",
    "socket_recvmsg6",
    "socket_getpeername4",
    "socket_getpeername6",
];
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);
const ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 10249);
/// Maps fuller than this are worth a warning.
const FILL_WARN_PERCENT: usize = 80;

/// Runs all checks, prints them, and fails if one failed.
pub(super) fn run(place: &Place) -> anyhow::Result<()> {
    let mut checks = vec![kernel_version(), btf(), jit(), bpf_fs(&place.pin_dir), cgroup2(), agent()];
    checks.extend(maps(place));
    checks.push(socket_links(place));
    checks.push(pod_links(place));
    checks.push(forwarding("IPv4 forwarding", "/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward"));
    let ipv6 = ("/proc/sys/net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding");
    checks.push(forwarding("IPv6 forwarding", ipv6.0, ipv6.1));
    checks.push(forward_policy());
    checks.push(legacy_tables());
    checks.push(bridge_netfilter());
    match place.output {
        Output::Json => print_json(&checks)?,
        Output::Table => print(&checks),
    }
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
    if failed > 0 {
        bail!("{failed} of {} checks failed", checks.len());
    }
    Ok(())
}

fn print(checks: &[Check]) {
    let rows: Vec<_> = checks
        .iter()
        .map(|check| {
            let verdict = match check.verdict {
                Verdict::Ok => "ok",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            [verdict.to_owned(), check.name.to_owned(), check.found.clone(), check.fix.clone()]
        })
        .collect();
    print!("{}", table::render(["", "CHECK", "FOUND", "FIX"], &rows));
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Ok, found: found.into(), fix: String::new() }
}

fn warn(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Warn, found: found.into(), fix: fix.into() }
}

fn fail(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Fail, found: found.into(), fix: fix.into() }
}

fn kernel_version() -> Check {
    let name = "kernel version";
    let Ok(names) = nix::sys::utsname::uname() else { return warn(name, "unknown", "check that it is 6.1 or newer") };
    let release = names.release().to_string_lossy().into_owned();
    let mut parts = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) {
        version if version >= (6, 6) => ok(name, release),
        version if version >= (6, 1) => warn(name, release, "pod programs attach from 6.6 on: use a newer kernel"),
        _ => fail(name, release, "use kernel 6.1 or newer"),
    }
}

fn btf() -> Check {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        ok("kernel BTF", "present")
    } else {
        fail("kernel BTF", "missing", "use a kernel built with CONFIG_DEBUG_INFO_BTF=y")
    }
}

fn jit() -> Check {
    match read("/proc/sys/net/core/bpf_jit_enable").as_deref() {
        Some("0") => warn("BPF JIT", "off", "sysctl -w net.core.bpf_jit_enable=1"),
        // A kernel that always compiles has no switch.
        _ => ok("BPF JIT", "on"),
    }
}

fn bpf_fs(pin_dir: &Path) -> Check {
    let existing = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(pin_dir);
    if statfs(existing).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC) {
        ok("BPF file system", pin_dir.display().to_string())
    } else {
        let found = format!("{} is not on one", pin_dir.display());
        fail("BPF file system", found, "mount -t bpf bpf /sys/fs/bpf")
    }
}

fn cgroup2() -> Check {
    match cgroup2_mount() {
        Some(path) => ok("cgroup2", path.display().to_string()),
        None => fail("cgroup2", "not mounted", "mount -t cgroup2 none /sys/fs/cgroup/unified"),
    }
}

fn agent() -> Check {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(ADMIN), Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    match ask() {
        Ok(answer) if answer.starts_with("HTTP/1.1 200") => ok("agent", "healthy"),
        Ok(_) => warn("agent", "not healthy yet", "look at its log: has it reached the API server?"),
        // What it has pinned goes on serving.
        Err(error) => warn("agent", format!("not reachable: {error}"), "start it: tidegate agent"),
    }
}

fn maps(place: &Place) -> Vec<Check> {
    let opened = Maps::open(&place.pin_dir).map_err(anyhow::Error::from);
    let dumped = opened.and_then(|maps| Ok((maps.dump()?, maps)));
    let (contents, maps) = match dumped {
        Ok(found) => found,
        Err(error) => return vec![fail("maps", format!("{error:#}"), "start the agent: tidegate agent")],
    };
    let violations = invariants::check(&contents);
    let sound = match violations.first() {
        None => ok("map contents", format!("{} frontends, all sound", contents.frontends.len())),
        Some(first) => fail(
            "map contents",
            format!("{} violations, the first: {first}", violations.len()),
            "restart the agent: it repairs them",
        ),
    };
    let limits = maps.limits();
    let fills = [
        ("frontends", contents.frontends.len(), limits.frontends_max),
        ("backends", contents.backends.len(), limits.backends_max),
        ("slots", contents.slots.len(), limits.slots_max),
    ];
    let text = fills.map(|(name, used, max)| format!("{name} {used}/{max}")).join(", ");
    let full = fills.iter().find(|(_, used, max)| used * 100 > max * FILL_WARN_PERCENT);
    let fill = match full {
        None => ok("map fill", text),
        Some((name, ..)) => warn("map fill", text, format!("give {name} more room before they are full")),
    };
    vec![sound, fill]
}

fn socket_links(place: &Place) -> Check {
    let links = place.pin_dir.join("links");
    let missing: Vec<&str> = SOCKET_LINKS.into_iter().filter(|name| !links.join(name).exists()).collect();
    if missing.is_empty() {
        ok("socket programs", format!("{} attached", SOCKET_LINKS.len()))
    } else {
        fail("socket programs", format!("missing: {}", missing.join(", ")), "restart the agent: it attaches them")
    }
}

fn pod_links(place: &Place) -> Check {
    let name = "pod programs";
    let records = match record::list(&cni::state_dir(&place.run_dir)) {
        Ok(records) => records,
        Err(error) => return fail(name, error.to_string(), "check the run folder's permissions"),
    };
    let bare = records.iter().find(|record| {
        let link = |side: &str| place.pin_dir.join(format!("links/pod_{}_{side}", record.host_ifindex));
        !link("ingress").exists() || !link("egress").exists()
    });
    match bare {
        None => ok(name, format!("{} pods", records.len())),
        Some(record) => fail(
            name,
            format!("missing on {} ({}/{})", record.host_ifname, record.pod.namespace, record.pod.name),
            "look at the agent's log",
        ),
    }
}

fn forwarding(name: &'static str, path: &str, sysctl: &str) -> Check {
    match read(path).as_deref() {
        Some("1") => ok(name, "on"),
        Some(_) => warn(name, "off", format!("sysctl -w {sysctl}=1")),
        None => warn(name, "not available", "load the protocol's module"),
    }
}

fn forward_policy() -> Check {
    let name = "nftables FORWARD";
    match base_chains() {
        Ok(chains) => {
            let drops = |chain: &&super::netfilter::BaseChain| {
                chain.hook == Some(HOOK_FORWARD) && chain.policy == Some(POLICY_DROP)
            };
            match chains.iter().find(drops) {
                None => ok(name, format!("{} base chains, none drops by default", chains.len())),
                Some(chain) => warn(
                    name,
                    format!("{}/{} drops by default", chain.table, chain.name),
                    "accept traffic of tg0 there, or set its policy to accept",
                ),
            }
        }
        Err(error) if error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => ok(name, "no nftables"),
        Err(error) => warn(name, format!("cannot be read: {error}"), "run as root"),
    }
}

fn legacy_tables() -> Check {
    let tables: Vec<String> = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .iter()
        .filter_map(|path| read(path))
        .flat_map(|names| names.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    if tables.iter().any(|table| table == "filter") {
        warn("legacy iptables", "filter table in use", "check that FORWARD accepts: iptables-legacy -S FORWARD")
    } else {
        ok("legacy iptables", "no filter table")
    }
}

fn bridge_netfilter() -> Check {
    match read("/proc/sys/net/bridge/bridge-nf-call-iptables").as_deref() {
        Some("1") => warn(
            "bridge netfilter",
            "bridged pod traffic passes iptables",
            "sysctl -w net.bridge.bridge-nf-call-iptables=0 unless something needs it",
        ),
        _ => ok("bridge netfilter", "off"),
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
