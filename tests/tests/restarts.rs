//! A cluster that starts again on the data of its last run.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use tidegate_tests::cluster::Cluster;

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
