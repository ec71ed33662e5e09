//! Promises about streams into a pod: standard input and output, files, ports.

use std::fs;
use std::io::Write;
use std::process::{Child, Stdio};

use anyhow::{Context, ensure};

use crate::demo::checks::PATIENCE;
use crate::demo::cluster::{Cluster, eventually};
use crate::demo::toolbox::{TOOLBOX, Toolbox};
use crate::exec::{self, command};

/// Larger than every buffer between the two ends.
const FILE_BYTES: usize = 3 << 20;

pub(super) fn reach(cluster: &Cluster) -> anyhow::Result<String> {
    let toolbox = Toolbox::start(cluster)?;
    exec_with_input(cluster)?;
    copy_there_and_back(cluster)?;
    toolbox.remove()?;
    let requests = forward(cluster)?;
    Ok(format!(
        "stdin echoed, exit code kept, {} MiB copied there and back, {requests} requests forwarded",
        FILE_BYTES >> 20
    ))
}

fn exec_with_input(cluster: &Cluster) -> anyhow::Result<()> {
    let mut exec = cluster.kubectl_command(&["-n", "sample", "exec", "-i", TOOLBOX, "--", "sh", "-c", "wc -c; exit 7"]);
    let mut child = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no standard input")?.write_all(&vec![b'x'; FILE_BYTES])?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.trim() == FILE_BYTES.to_string(), "wc -c counted {said:?}");
    ensure!(output.status.code() == Some(7), "exec ended with {}", output.status);
    Ok(())
}

fn copy_there_and_back(cluster: &Cluster) -> anyhow::Result<()> {
    let (original, copy) = (cluster.path("original"), cluster.path("copy"));
    let bytes: Vec<u8> = (0..FILE_BYTES).map(|index| ((index * index) >> 7) as u8).collect();
    fs::write(&original, &bytes)?;
    let inside = format!("sample/{TOOLBOX}:/tmp/file");
    cluster.kubectl(&["cp", &original, &inside])?;
    cluster.kubectl(&["cp", &inside, &copy])?;
    ensure!(fs::read(&copy)? == bytes, "the copy of a copy differs");
    Ok(())
}

/// Asks the sample through `kubectl port-forward`.
fn forward(cluster: &Cluster) -> anyhow::Result<usize> {
    const REQUESTS: usize = 20;
    let said = cluster.path("port-forward.txt");
    let mut forward = cluster.kubectl_command(&["-n", "sample", "port-forward", "service/echo", ":80"]);
    let _child = Ended(forward.stdout(fs::File::create(&said)?).stderr(Stdio::null()).spawn()?);
    let mut port = None;
    eventually("port-forward listens", PATIENCE, || {
        port = listening_port(&fs::read_to_string(&said)?);
        Ok(port.is_some())
    })?;
    let port = port.context("no port")?;
    let mut answered = 0;
    for _ in 0..REQUESTS {
        let mut curl = command("curl");
        let text =
            exec::read(curl.args(["--silent", "--fail", "--max-time", "10", &format!("http://127.0.0.1:{port}/")]))?;
        answered += usize::from(text.starts_with("host="));
    }
    ensure!(answered == REQUESTS, "{answered} of {REQUESTS} answered");
    Ok(answered)
}

/// From a line like `Forwarding from 127.0.0.1:40001 -> 8080`.
fn listening_port(said: &str) -> Option<u16> {
    said.split_once("127.0.0.1:")?.1.split_once(' ')?.0.parse().ok()
}

/// A child that ends with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
