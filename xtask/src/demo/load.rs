//! Constant load, counted: through the gateway with curl, and from pods with the sample image's own client.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::demo::cluster::{Cluster, HTTPS_PORT, eventually};
use crate::exec::{self, command};

/// Requests a second of one gateway load; bounded by its URL range as well.
const GATEWAY_RATE: &str = "100/s";
const POD_PATIENCE: Duration = Duration::from_secs(120);

/// One curl that asks the gateway again and again over one connection.
pub(super) struct GatewayLoad {
    curl: Child,
    output: String,
}

/// What a load has counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) asked: usize,
    pub(super) lost: Vec<String>,
}

impl GatewayLoad {
    pub(super) fn start(cluster: &Cluster, version: &str) -> anyhow::Result<Self> {
        let output = cluster.path(&format!("load{version}.txt"));
        let file = fs::File::create(&output)?;
        let mut curl = gateway_curl(version, "echo.test");
        // Written to standard error, which is not buffered: the load ends by a signal.
        curl.args(["--rate", GATEWAY_RATE, "-o", "/dev/null", "-w", "%{stderr}%{http_code} %{errormsg}\\n"]);
        curl.arg(format!("https://echo.test:{HTTPS_PORT}/[1-100000]")).stdout(Stdio::null()).stderr(file);
        Ok(Self { curl: curl.spawn().context("cannot run curl")?, output })
    }

    pub(super) fn stop(mut self) -> anyhow::Result<Count> {
        kill(Pid::from_raw(self.curl.id() as i32), Signal::SIGKILL)?;
        self.curl.wait()?;
        let text = fs::read_to_string(&self.output)?;
        // The line that the signal may have cut off counts for nothing.
        let lines: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::trim).collect();
        let lost = lines.iter().filter(|line| !line.starts_with("200")).map(|line| (*line).to_owned()).collect();
        Ok(Count { asked: lines.len(), lost })
    }
}

/// How many requests were made while something happened, none of them lost.
#[derive(Debug)]
pub(crate) struct Served {
    gateway: usize,
    pods: u32,
}

impl std::fmt::Display for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0 of {} through the gateway, 0 of {} new connections from pods", self.gateway, self.pods)
    }
}

/// Asks the sample through the gateway (h1 and h2) and from two pods by ClusterIP (v4 and v6) while `work` is done, which
/// has to end within `seconds`; a single lost request is an error.
pub(crate) fn under_load(
    cluster: &Cluster,
    addresses: &[String],
    seconds: u32,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Served> {
    let seconds = seconds.to_string();
    let start = |(index, address): (usize, &String)| {
        ClientPod::start(cluster, &format!("load-{index}"), &["load", address, &seconds])
    };
    let clients = addresses.iter().enumerate().map(start).collect::<anyhow::Result<Vec<_>>>()?;
    for client in &clients {
        client.wait_running()?;
    }
    let loads = [GatewayLoad::start(cluster, "--http1.1")?, GatewayLoad::start(cluster, "--http2")?];
    let worked = work();
    let counts = loads.map(GatewayLoad::stop);
    worked?;
    let mut served = Served { gateway: 0, pods: 0 };
    for count in counts {
        let count = count?;
        if !count.lost.is_empty() {
            bail!("lost through the gateway: {:?} of {}", count.lost, count.asked);
        }
        served.gateway += count.asked;
    }
    for client in clients {
        served.pods += tally(&client.finish()?, "host").values().sum::<u32>();
    }
    if served.gateway < 200 || served.pods < 1000 {
        bail!("too little load to tell: {served:?}");
    }
    Ok(served)
}

/// A curl that reaches the gateway on the host's loopback under any host name.
pub(crate) fn gateway_curl(version: &str, host: &str) -> std::process::Command {
    let mut curl = command("curl");
    curl.args(["--silent", "--insecure", version, "--max-time", "10"]);
    curl.args(["--resolve", &format!("{host}:{HTTPS_PORT}:127.0.0.1")]);
    curl
}

/// Asks the gateway `count` times on one connection and counts the answers by the host that answered.
pub(crate) fn ask_gateway(
    version: &str,
    host: &str,
    path: &str,
    count: usize,
) -> anyhow::Result<BTreeMap<String, u32>> {
    let mut curl = gateway_curl(version, host);
    curl.args(["--max-time", "60"]);
    let text = exec::read(curl.arg(format!("https://{host}:{HTTPS_PORT}{path}?[1-{count}]")))?;
    let mut hosts = BTreeMap::new();
    for name in text.lines().filter_map(|line| line.strip_prefix("host=")) {
        *hosts.entry(name.to_owned()).or_default() += 1;
    }
    Ok(hosts)
}

/// A pod that runs the sample image's client once.
pub(crate) struct ClientPod<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> ClientPod<'a> {
    pub(crate) fn start(cluster: &'a Cluster, name: &str, args: &[&str]) -> anyhow::Result<Self> {
        Self::start_annotated(cluster, name, &serde_json::json!({}), args)
    }

    pub(crate) fn start_annotated(
        cluster: &'a Cluster,
        name: &str,
        annotations: &serde_json::Value,
        args: &[&str],
    ) -> anyhow::Result<Self> {
        let manifest = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "sample", "annotations": annotations},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "client", "image": "tidegate/echo:dev", "args": args}],
            },
        });
        let file = cluster.path(&format!("{name}.json"));
        fs::write(&file, manifest.to_string())?;
        cluster.kubectl(&["create", "-f", &file])?;
        Ok(Self { cluster, name: name.to_owned() })
    }

    fn phase(&self) -> anyhow::Result<String> {
        let pod = self.cluster.get(&["pod", "-n", "sample", &self.name])?;
        Ok(pod["status"]["phase"].as_str().unwrap_or_default().to_owned())
    }

    pub(crate) fn wait_running(&self) -> anyhow::Result<()> {
        eventually(&format!("pod {} runs", self.name), POD_PATIENCE, || Ok(self.phase()? == "Running"))
    }

    /// Waits for its end, removes it and returns its log; a failed client is an error that holds the log.
    pub(crate) fn finish(self) -> anyhow::Result<String> {
        eventually(&format!("pod {} ends", self.name), POD_PATIENCE, || {
            Ok(["Succeeded", "Failed"].contains(&self.phase()?.as_str()))
        })?;
        let phase = self.phase()?;
        let log = self.cluster.kubectl(&["logs", "-n", "sample", &self.name])?;
        self.cluster.kubectl(&["delete", "pod", "-n", "sample", &self.name])?;
        if phase == "Succeeded" { Ok(log) } else { bail!("client pod {} failed:\n{log}", self.name) }
    }
}

/// Reads `<word> NAME COUNT` lines of a client's log.
pub(crate) fn tally(log: &str, word: &str) -> BTreeMap<String, u32> {
    log.lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let is_ours = fields.next() == Some(word);
            let (name, count) = (fields.next()?, fields.next()?.parse().ok()?);
            is_ours.then(|| (name.to_owned(), count))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::tally;

    #[test]
    fn a_log_is_tallied_by_word() {
        let log = "failure x: y\nhost a 3\nhost b 4\npeer 10.0.0.1:80 7\nfailed 0\n";
        assert_eq!(tally(log, "host").len(), 2);
        assert_eq!(tally(log, "peer")["10.0.0.1:80"], 7);
    }
}
