//! Ingresses whose TLS Secret is missing or garbage: an Event and `explain` say so, and nobody else notices.

use std::fs;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::demo::checks::PATIENCE;
use crate::demo::cluster::{Cluster, HTTPS_PORT, eventually};
use crate::demo::load::{GatewayLoad, ask_gateway, gateway_curl};
use crate::exec;

/// Host, Secret, and the reason of the Event that its Ingress gets.
const BAD: [(&str, &str, &str); 2] =
    [("absent.test", "absent", "TLSSecretMissing"), ("garbage.test", "garbage", "TLSSecretInvalid")];

/// The proof of the promise; returns its figure.
pub(super) fn reported(cluster: &Cluster) -> anyhow::Result<String> {
    let load = GatewayLoad::start(cluster, "--http2")?;
    let file = cluster.path("bad-certificates.yaml");
    let documents: Vec<String> = objects().iter().map(Value::to_string).collect();
    fs::write(&file, documents.join("\n---\n"))?;
    cluster.kubectl(&["create", "-f", &file])?;
    let mut messages = Vec::new();
    for (host, secret, reason) in BAD {
        let mut message = None;
        eventually(&format!("an Event on the Ingress of {host}"), PATIENCE, || {
            message = event(cluster, secret, reason)?;
            Ok(message.is_some())
        })?;
        let message = message.unwrap_or_default();
        ensure!(message.contains(secret), "the Event does not name the Secret: {message}");
        messages.push(format!("{reason}: {message}"));
        ensure!(certificate(host)?.contains("Tidegate Default Certificate"), "{host} shows another certificate");
        ensure!(!ask_gateway("--http2", host, "/", 5)?.is_empty(), "{host} is not served");
        let explained = cluster.tidegate(&["explain", &format!("https://{host}/")])?;
        let expected = format!("Secret sample/{secret} is missing or unusable");
        ensure!(explained.contains(&expected), "`tidegate explain` does not say so:\n{explained}");
    }
    ensure!(certificate("echo.test")?.contains("echo.test"), "echo.test lost its certificate");
    let files = [format!("--cert={}", cluster.path("echo.crt")), format!("--key={}", cluster.path("echo.key"))];
    cluster.kubectl(&["-n", "sample", "create", "secret", "tls", "absent", &files[0], &files[1]])?;
    eventually("the Secret that was missing is used", PATIENCE, || {
        Ok(certificate("absent.test")?.contains("echo.test"))
    })?;
    let count = load.stop()?;
    ensure!(count.lost.is_empty() && count.asked > 20, "lost on echo.test: {:?} of {}", count.lost, count.asked);
    cluster.kubectl(&["delete", "-f", &file])?;
    cluster.kubectl(&["delete", "secret", "-n", "sample", "absent"])?;
    Ok(format!("{}; 0 of {} lost on echo.test", messages.join(" "), count.asked))
}

fn objects() -> Vec<Value> {
    let ingresses = BAD.map(|(host, secret, _)| {
        let backend = json!({"service": {"name": "echo", "port": {"name": "http"}}});
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": secret, "namespace": "sample"},
            "spec": {
                "ingressClassName": "tidegate",
                "tls": [{"hosts": [host], "secretName": secret}],
                "rules": [{"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}],
            },
        })
    });
    let garbage = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "garbage", "namespace": "sample"},
        "stringData": {"tls.crt": "not a certificate", "tls.key": "not a key"},
    });
    std::iter::once(garbage).chain(ingresses).collect()
}

/// The message of the Warning with this reason about an Ingress, once there is one.
fn event(cluster: &Cluster, ingress: &str, reason: &str) -> anyhow::Result<Option<String>> {
    let selector = format!("involvedObject.kind=Ingress,involvedObject.name={ingress},reason={reason},type=Warning");
    let events = cluster.get(&["events", "-n", "sample", "--field-selector", &selector])?;
    Ok(events["items"][0]["message"].as_str().map(str::to_owned))
}

/// The subject of the certificate that the gateway shows for a host.
fn certificate(host: &str) -> anyhow::Result<String> {
    let mut curl = gateway_curl("--http2", host);
    let output = exec::output(curl.args(["--verbose", "-o", "/dev/null", &format!("https://{host}:{HTTPS_PORT}/")]))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let subject = text.lines().find_map(|line| line.split_once("subject: ")).map(|(_, subject)| subject.to_owned());
    subject.with_context(|| format!("no certificate shown for {host}: {text}"))
}
