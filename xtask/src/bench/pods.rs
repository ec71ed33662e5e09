//! Pod to Service against pod to pod, and pod to pod against two namespaces on a plain Linux bridge.
//!
//! ```text
//! client pod ──▶ ClusterIP │ pod IP ──▶ server pod          in a sandboxed cluster
//! namespace  ──▶ veth ─ bridge ─ veth ──▶ namespace         the same program, nothing of ours in between
//! ```
//! The three take turns, so that whatever else the machine does hits all alike.

mod bridge;

use anyhow::Context;

use crate::bench::Pace;
use crate::bench::pods::bridge::PlainBridge;
use crate::bench::report::{Measure, Peer, Target, median};
use crate::demo::cluster::Cluster;

/// Where the sample image serves measurements.
const PORT: u16 = 8082;

/// One kind of traffic, and what we want of it: the Service against the bare pod, the pod against the plain bridge.
struct Traffic {
    name: &'static str,
    unit: &'static str,
    service: Target,
    pod: Target,
}

/// A connection to a Service pays for its choice once, when it is made; a pod's packets pay for being counted.
const TRAFFIC: [Traffic; 3] = [
    Traffic { name: "throughput", unit: "Gbit/s", service: Target::AtLeast(0.97), pod: Target::AtLeast(0.95) },
    Traffic { name: "round-trips", unit: "1000/s", service: Target::AtLeast(0.97), pod: Target::AtLeast(0.95) },
    Traffic { name: "connections", unit: "1000/s", service: Target::AtLeast(0.90), pod: Target::AtLeast(0.90) },
];

const OBJECTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  containers: [{name: echo, image: "tidegate/echo:dev", readinessProbe: {tcpSocket: {port: 8082}, periodSeconds: 1}}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  containers: [{name: echo, image: "tidegate/echo:dev"}]
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports: [{port: 8082}]
"#;

pub(crate) fn measure(pace: Pace) -> anyhow::Result<Vec<Measure>> {
    let cluster = Cluster::start()?;
    let result = measure_in(&cluster, pace);
    let ended = cluster.end();
    let measures = result?;
    ended.map(|()| measures)
}

fn measure_in(cluster: &Cluster, pace: Pace) -> anyhow::Result<Vec<Measure>> {
    let (rounds, seconds) = match pace {
        Pace::Quick => (5, "1"),
        Pace::Full => (15, "3"),
    };
    let file = cluster.path("bench-pods.yaml");
    std::fs::write(&file, OBJECTS)?;
    cluster.kubectl(&["apply", "-f", &file])?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/server", "pod/client", "--timeout=60s"])?;
    let service =
        cluster.get(&["service", "server"])?["spec"]["clusterIP"].as_str().context("no ClusterIP")?.to_owned();
    let pod = cluster.get(&["pod", "server"])?["status"]["podIP"].as_str().context("no pod IP")?.to_owned();
    let bridge = PlainBridge::set_up()?;
    let from_pod = |what: &str, ip: &str| -> anyhow::Result<f64> {
        let address = format!("{ip}:{PORT}");
        number(&cluster.kubectl(&["exec", "client", "--", "/echo", "measure", what, &address, seconds])?)
    };
    let mut measures = Vec::new();
    for traffic in TRAFFIC {
        let (mut to_service, mut to_pod, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=rounds {
            eprintln!("bench: pods, {}, round {round} of {rounds}", traffic.name);
            to_service.push(from_pod(traffic.name, &service)?);
            to_pod.push(from_pod(traffic.name, &pod)?);
            plain.push(number(&bridge.measure(traffic.name, seconds)?)?);
        }
        let [service, pod, plain] = [to_service, to_pod, plain].map(|values| median(values).unwrap_or(f64::NAN));
        measures.push(Measure {
            name: format!("pod → ClusterIP, {}", traffic.name),
            unit: traffic.unit,
            ours: service,
            peer: Some(Peer { name: "pod → pod IP", value: pod }),
            target: Some(traffic.service),
        });
        measures.push(Measure {
            name: format!("pod → pod IP, {}", traffic.name),
            unit: traffic.unit,
            ours: pod,
            peer: Some(Peer { name: "Linux bridge", value: plain }),
            target: Some(traffic.pod),
        });
    }
    Ok(measures)
}

fn number(text: &str) -> anyhow::Result<f64> {
    text.trim().parse().with_context(|| format!("not a figure: {text:?}"))
}
