//! A cluster that starts again on the data of its last run, and what is said while another one has them, or after all has
//! been killed.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::process::Command;

use serde_json::Value;
use tidegate_tests::cluster::Cluster;
use tidegate_tests::control::program;

#[test]
fn a_cluster_starts_again_with_what_it_held() {
    let cluster = Cluster::start();
    let _ = cluster.kubectl().ok(&["create", "configmap", "kept", "--from-literal=a=b"]);
    for _ in 0..2 {
        assert!(cluster.tidegate(&["down"]).status().unwrap().success());
        cluster.up(|_| ());
        assert_eq!(cluster.kubectl().get(&["configmap", "kept"])["data"]["a"], "b");
        let dns = cluster.kubectl().get(&["service", "kube-dns", "--namespace=kube-system"]);
        assert_eq!(dns["spec"]["clusterIP"], "10.96.0.10");
    }
}

#[test]
fn a_data_directory_has_one_node() {
    let cluster = Cluster::start();
    let mut second = Command::new(program());
    second.args(["up", "--sandbox", "--detach", "--node-name", "second", "--data-dir"]).arg(cluster.data_dir());
    for flag in ["--api-port", "--http-port", "--https-port"] {
        second.args([flag, &ports::free().port().to_string()]);
    }
    let refused = second.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    let (dir, node) = (cluster.data_dir(), cluster.node());
    let expected = format!("the data directory {} is in use by node {node} (process ", dir.display());
    assert!(
        said.contains(&expected) && said.contains(&format!("`tidegate down --node-name {node}` ends it")),
        "{said}"
    );

    kill_everything(&cluster);
    let status = cluster.tidegate(&["status"]).output().unwrap();
    let (out, error) = (String::from_utf8_lossy(&status.stdout), String::from_utf8_lossy(&status.stderr));
    assert!(status.status.success() && error.is_empty(), "{error}");
    assert!(!out.contains("running") && out.contains("API server   does not answer"), "{out}");
}

/// The supervisor first, so that it restarts nothing.
fn kill_everything(cluster: &Cluster) {
    let state = cluster.tidegate(&["status", "--json"]).output().unwrap();
    let state: Value = serde_json::from_slice(&state.stdout).unwrap();
    let parts = state["parts"].as_object().unwrap().values().map(|part| &part["pid"]);
    for pid in std::iter::once(&state["supervisor"]).chain(parts) {
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success(), "{pid}");
    }
}
