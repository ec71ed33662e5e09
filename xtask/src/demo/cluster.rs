//! The demo's cluster: started, asked and ended as a user would, through the program and real clients.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::exec::{self, command};

pub(crate) const NODE: &str = "demo";
pub(crate) const HTTPS_PORT: u16 = 8443;
const SAMPLE: &str = "xtask/src/demo/sample.yaml";
const READY_PATIENCE: Duration = Duration::from_secs(90);
const END_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

pub(crate) struct Cluster {
    supervisor: Child,
    dir: PathBuf,
    ready_after: Duration,
}

impl Cluster {
    /// Starts `tidegate up --sandbox` and waits until the node is Ready.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let dir = exec::root().join("target/demo");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let started = Instant::now();
        let log = fs::File::create(dir.join("supervisor.log"))?;
        let mut up = command(program());
        up.args(["up", "--sandbox", "--node-name", NODE, "--data-dir"]).arg(dir.join("data"));
        up.arg("--kubeconfig").arg(dir.join("kubeconfig"));
        let supervisor =
            up.stdout(log.try_clone()?).stderr(log).spawn().context("cannot start target/release/tidegate")?;
        let mut cluster = Self { supervisor, dir, ready_after: Duration::ZERO };
        let is_ready = |cluster: &mut Self| -> anyhow::Result<bool> {
            if let Some(status) = cluster.supervisor.try_wait()? {
                bail!("`tidegate up` ended ({status}): {}", cluster.log());
            }
            Ok(cluster.log().contains(&format!("node {NODE} is Ready")))
        };
        let waited = eventually("the node is Ready", READY_PATIENCE, || is_ready(&mut cluster));
        if let Err(error) = waited {
            cluster.print_trouble();
            // The first error is the one that tells.
            let _ = cluster.end();
            return Err(error);
        }
        cluster.ready_after = started.elapsed();
        Ok(cluster)
    }

    /// How long its start took.
    pub(crate) fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Process ids of its pods' shims.
    pub(crate) fn shims(&self) -> anyhow::Result<Vec<i64>> {
        let pods = format!("/run/tidegate/{NODE}/pods/");
        let is_ours = |pid: &i64| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
            words.get(1) == Some(&b"shim".as_slice()) && words.iter().any(|word| word.starts_with(pods.as_bytes()))
        };
        let processes = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(processes.filter(is_ours).collect())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("supervisor.log")).unwrap_or_default()
    }

    /// Deploys the sample application with real kubectl.
    pub(crate) fn deploy_sample(&self) -> anyhow::Result<()> {
        self.kubectl(&["apply", "-f", SAMPLE])?;
        let (key, certificate) = (self.path("echo.key"), self.path("echo.crt"));
        exec::read(command("openssl").args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=echo.test",
            "-addext",
            "subjectAltName=DNS:echo.test,DNS:paths.test",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ]))?;
        let files = [format!("--cert={certificate}"), format!("--key={key}")];
        self.kubectl(&["-n", "sample", "create", "secret", "tls", "echo-tls", &files[0], &files[1]])?;
        Ok(())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// Runs kubectl as the administrator and returns what it prints.
    pub(crate) fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        exec::read(&mut self.kubectl_command(args))
    }

    pub(crate) fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut kubectl = command(exec::tools().join("kubectl-1.37/kubectl"));
        kubectl.env("KUBECONFIG", self.path("kubeconfig")).env("HOME", &self.dir).args(args);
        kubectl
    }

    /// Runs kubectl with `-o json`.
    pub(crate) fn get(&self, args: &[&str]) -> anyhow::Result<Value> {
        let mut words = vec!["get", "-o", "json"];
        words.extend(args);
        Ok(serde_json::from_str(&self.kubectl(&words)?)?)
    }

    /// Runs the program with this node's name.
    pub(crate) fn tidegate(&self, args: &[&str]) -> anyhow::Result<String> {
        exec::read(command(program()).args(args).args(["--node-name", NODE]))
    }

    /// Runs a program inside the node's network namespace.
    pub(crate) fn on_node(&self, program: &str, args: &[&str]) -> anyhow::Result<String> {
        let namespace = format!("--net=/run/netns/tg-{NODE}");
        exec::read(command("nsenter").arg(namespace).arg(program).args(args))
    }

    /// Process ids of the parts, by name.
    pub(crate) fn part(&self, name: &str) -> anyhow::Result<i32> {
        let state: Value = serde_json::from_str(&self.tidegate(&["status", "--json"])?)?;
        let pid = state["parts"][name]["pid"].as_i64().with_context(|| format!("part {name} does not run"))?;
        Ok(pid as i32)
    }

    /// Waits for Ctrl-C; the supervisor gets the same signal and ends itself.
    pub(crate) fn stay(mut self) -> anyhow::Result<()> {
        let status = self.supervisor.wait()?;
        if status.success() { Ok(()) } else { bail!("the cluster ended with {status}") }
    }

    pub(crate) fn print_welcome(&self) {
        println!("\n{}", self.log().lines().filter(|line| line.starts_with("  ")).collect::<Vec<_>>().join("\n"));
        println!("  sample   curl -k --resolve echo.test:{HTTPS_PORT}:127.0.0.1 https://echo.test:{HTTPS_PORT}/");
        println!("  kubectl  {}", exec::tools().join("kubectl-1.37/kubectl").display());
        println!("\nCtrl-C ends the cluster.");
    }

    /// What a person would look at first.
    pub(crate) fn print_trouble(&self) {
        let tail = |text: &str| text.lines().rev().take(30).map(str::to_owned).collect::<Vec<_>>();
        println!("--- pods and events");
        for args in
            [["get", "pods,svc,endpointslices,ingress", "-A", "-o", "wide"], ["get", "events", "-A", "-o", "wide"]]
        {
            println!("{}", self.kubectl(&args).unwrap_or_else(|error| format!("{error:#}")));
        }
        for part in ["supervisor", "control", "agent", "dns", "node", "ingress"] {
            let path = if part == "supervisor" {
                self.dir.join("supervisor.log")
            } else {
                self.dir.join("data/logs").join(format!("{part}.log"))
            };
            println!("--- {} (last lines)", path.display());
            for line in tail(&fs::read_to_string(&path).unwrap_or_default()).iter().rev() {
                println!("{line}");
            }
        }
    }

    /// Ends the cluster as Ctrl-C does.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        // A supervisor that has already ended cannot be signalled; `down` below cleans up after it.
        let _ = kill(Pid::from_raw(self.supervisor.id() as i32), Signal::SIGINT);
        let ended = eventually("the supervisor ends", END_PATIENCE, || Ok(self.supervisor.try_wait()?.is_some()));
        if ended.is_err() {
            self.supervisor.kill()?;
            self.supervisor.wait()?;
        }
        exec::read(command(program()).args(["down", "--node-name", NODE, "--data-dir"]).arg(self.dir.join("data")))?;
        ended
    }
}

/// The program as a user runs it.
pub(crate) fn program() -> PathBuf {
    exec::root().join("target/release/tidegate")
}

/// Polls until true; the last error, or what was awaited, is the failure.
pub(crate) fn eventually(
    what: &str,
    patience: Duration,
    mut check: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let result = check();
        if matches!(result, Ok(true)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            result.with_context(|| format!("after {patience:?}, still not: {what}"))?;
            bail!("after {patience:?}, still not: {what}");
        }
        std::thread::sleep(POLL);
    }
}
