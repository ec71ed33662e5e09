//! The bundled cluster as its user waits for it: `tidegate up` to node Ready, pod created to Ready, memory of each process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::bench::Pace;
use crate::bench::report::{Measure, Target, median};
use crate::demo::cluster::Cluster;

/// Seconds that a person does not notice, on two cores.
const NODE_READY: Target = Target::AtMost(5.0);
const POD_READY: Target = Target::AtMost(1.0);

pub(crate) fn measure(pace: Pace) -> anyhow::Result<Vec<Measure>> {
    let (starts, pods) = match pace {
        Pace::Quick => (3, 5),
        Pace::Full => (7, 25),
    };
    let (mut node_ready, mut pod_ready) = (Vec::new(), Vec::new());
    let mut memory = BTreeMap::new();
    for round in 1..=starts {
        eprintln!("bench: cluster, start {round} of {starts}");
        let cluster = Cluster::start()?;
        node_ready.push(cluster.ready_after().as_secs_f64());
        let result = (|| {
            for index in 0..pods {
                pod_ready.push(pod_until_ready(&cluster, &format!("pod-{index}"))?);
            }
            memory = memory_mib(&cluster)?;
            anyhow::Ok(())
        })();
        let ended = cluster.end();
        result?;
        ended?;
    }
    let seconds = |name: &str, values: Vec<f64>, target| -> anyhow::Result<Measure> {
        let ours = median(values).context("nothing was measured")?;
        Ok(Measure { name: name.to_owned(), unit: "s", ours, peer: None, target: Some(target) })
    };
    let mut measures = vec![
        seconds("tidegate up to node Ready", node_ready, NODE_READY)?,
        seconds("pod create to Ready", pod_ready, POD_READY)?,
    ];
    let of_process =
        |(name, ours)| Measure { name: format!("memory of {name} (PSS)"), unit: "MiB", ours, peer: None, target: None };
    measures.extend(memory.into_iter().map(of_process));
    Ok(measures)
}

/// Seconds from the start of `kubectl run` until a watching kubectl has said Ready.
fn pod_until_ready(cluster: &Cluster, name: &str) -> anyhow::Result<f64> {
    let ready = r#"jsonpath={.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}"#;
    let mut watch = cluster.kubectl_command(&["get", "pods", "--watch", "-o", ready]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let lines = BufReader::new(watch.stdout.take().context("no standard output")?).lines();
    let started = Instant::now();
    let created = cluster.kubectl(&["run", name, "--image=tidegate/echo:dev"]);
    let wanted = format!("{name} True");
    let mut is_ready = false;
    if created.is_ok() {
        is_ready = lines.map_while(Result::ok).any(|line| line == wanted);
    }
    let seconds = started.elapsed().as_secs_f64();
    watch.kill()?;
    watch.wait()?;
    created?;
    if is_ready { Ok(seconds) } else { bail!("the watch ended before pod {name} was Ready") }
}

/// Proportional set size by process; of the shims, one for each pod, the mean.
fn memory_mib(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, f64>> {
    let state: Value = serde_json::from_str(&cluster.tidegate(&["status", "--json"])?)?;
    let mut processes = BTreeMap::from([("supervisor".to_owned(), state["supervisor"].as_i64())]);
    for (name, part) in state["parts"].as_object().into_iter().flatten() {
        processes.insert(name.clone(), part["pid"].as_i64());
    }
    let mut memory = BTreeMap::new();
    for (name, pid) in processes {
        let pid = pid.with_context(|| format!("{name} does not run"))?;
        memory.insert(name, pss_mib(pid)?);
    }
    let shims = cluster.shims()?.into_iter().map(pss_mib).collect::<anyhow::Result<Vec<_>>>()?;
    if !shims.is_empty() {
        memory.insert("a shim".to_owned(), shims.iter().sum::<f64>() / shims.len() as f64);
    }
    Ok(memory)
}

fn pss_mib(pid: i64) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss in smaps_rollup")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("not a size: {line:?}"))?;
    Ok(kib / 1024.0)
}
