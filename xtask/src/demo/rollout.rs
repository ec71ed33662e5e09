//! Promises about change under load: a new version and back, and a container that is restarted.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::demo::checks::{PATIENCE, cluster_ips, is_ready, pods, wait_for_pods};
use crate::demo::cluster::{Cluster, eventually};
use crate::demo::load::under_load;

const DEPLOYMENT: &str = "deployment/echo";

/// Longer than the old pods go on serving after they are told to end.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the pods' own load lasts; each piece of work must end within it.
const LIVENESS_SECONDS: u32 = 40;
const UPDATE_SECONDS: u32 = 60;

pub(super) fn update_and_undo(cluster: &Cluster) -> anyhow::Result<String> {
    let rollout = |args: &[&str]| {
        let mut words = vec!["-n", "sample", "rollout"];
        words.extend(args);
        cluster.kubectl(&words)
    };
    let release = || -> anyhow::Result<Vec<String>> {
        let of = |pod: &Value| pod["spec"]["containers"][0]["env"][0]["value"].as_str().unwrap_or("first").to_owned();
        Ok(pods(cluster)?.iter().filter(|pod| is_ready(pod)).map(of).collect())
    };
    let started = Instant::now();
    let mut times = Vec::new();
    let served = under_load(cluster, &cluster_ips(cluster)?, UPDATE_SECONDS, || {
        cluster.kubectl(&["-n", "sample", "set", "env", DEPLOYMENT, "RELEASE=second"])?;
        rollout(&["status", DEPLOYMENT, "--timeout=60s"])?;
        ensure!(release()? == ["second"; 3], "not every pod is of the new release: {:?}", release()?);
        times.push(started.elapsed().as_secs_f64());
        std::thread::sleep(DRAIN);
        let undone = Instant::now();
        rollout(&["undo", DEPLOYMENT])?;
        rollout(&["status", DEPLOYMENT, "--timeout=60s"])?;
        ensure!(release()? == ["first"; 3], "not every pod is of the old release: {:?}", release()?);
        times.push(undone.elapsed().as_secs_f64());
        std::thread::sleep(DRAIN);
        Ok(())
    })?;
    wait_for_pods(cluster, 3)?;
    let history = rollout(&["history", DEPLOYMENT])?;
    ensure!(history.lines().filter(|line| line.starts_with(['2', '3'])).count() == 2, "history: {history}");
    Ok(format!("{served}; update {:.1} s, undo {:.1} s", times[0], times[1]))
}

pub(super) fn liveness(cluster: &Cluster) -> anyhow::Result<String> {
    wait_for_pods(cluster, 3)?;
    let pod = pods(cluster)?.into_iter().next().context("no pod")?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let ip = pod["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(0);
    let before = restarts(&pod);
    let started = Instant::now();
    let mut seconds = 0.0;
    let served = under_load(cluster, &cluster_ips(cluster)?, LIVENESS_SECONDS, || {
        cluster.on_node("curl", &["--silent", "--fail", &format!("http://{ip}:8080/healthz/fail")])?;
        eventually("the container is restarted", PATIENCE, || {
            let now = cluster.get(&["pod", "-n", "sample", &name])?;
            Ok(restarts(&now) == before + 1 && is_ready(&now))
        })?;
        seconds = started.elapsed().as_secs_f64();
        Ok(())
    })?;
    Ok(format!("{served}; restarted within {seconds:.0} s"))
}
