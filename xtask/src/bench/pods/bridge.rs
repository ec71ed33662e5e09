//! The peer of the pod network: two namespaces and a bridge in a third, made with `ip`, without a route to anywhere.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::bench::pods::PORT;
use crate::demo::cluster::eventually;
use crate::exec::{self, command};

const BRIDGE: &str = "tg-bench-bridge";
/// Name and address of each end; the first one serves.
const ENDS: [(&str, &str); 2] = [("tg-bench-server", "10.99.0.1"), ("tg-bench-client", "10.99.0.2")];
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct PlainBridge {
    server: Option<Child>,
}

impl PlainBridge {
    pub(super) fn set_up() -> anyhow::Result<Self> {
        let mut bed = Self { server: None };
        remove_namespaces();
        ip(&["netns", "add", BRIDGE])?;
        ip(&["-n", BRIDGE, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", BRIDGE, "link", "set", "br0", "up"])?;
        for (index, (end, address)) in ENDS.into_iter().enumerate() {
            let port = format!("port{index}");
            ip(&["netns", "add", end])?;
            ip(&["-n", BRIDGE, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", end])?;
            ip(&["-n", BRIDGE, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", end, "address", "add", &format!("{address}/24"), "dev", "eth0"])?;
            ip(&["-n", end, "link", "set", "eth0", "up"])?;
            ip(&["-n", end, "link", "set", "lo", "up"])?;
        }
        let mut server = command("ip");
        server.args(["netns", "exec", ENDS[0].0]).arg(echo()).arg("serve").stdout(Stdio::null());
        bed.server = Some(server.spawn()?);
        eventually("the server on the plain bridge answers", PATIENCE, || Ok(bed.measure("connections", "0").is_ok()))?;
        Ok(bed)
    }

    pub(super) fn measure(&self, what: &str, seconds: &str) -> anyhow::Result<String> {
        let address = format!("{}:{PORT}", ENDS[0].1);
        let mut client = command("ip");
        client.args(["netns", "exec", ENDS[1].0]).arg(echo()).args(["measure", what, &address, seconds]);
        exec::read(&mut client)
    }
}

impl Drop for PlainBridge {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // `ip netns exec` has become the server: it is the child itself. It may have ended already.
            let _ = server.kill();
            let _ = server.wait();
        }
        remove_namespaces();
    }
}

fn remove_namespaces() {
    for name in [ENDS[0].0, ENDS[1].0, BRIDGE] {
        // Absent is what is wanted.
        let _ = exec::output(command("ip").args(["netns", "delete", name]));
    }
}

/// The sample program, as its image has it.
fn echo() -> PathBuf {
    exec::root().join("target").join(format!("{}-unknown-linux-gnu/release/echo", std::env::consts::ARCH))
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    exec::read(command("ip").args(args)).map(drop)
}
