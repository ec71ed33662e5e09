//! A busybox pod to run commands in.

use crate::demo::checks::PATIENCE;
use crate::demo::cluster::{Cluster, eventually};

pub(super) const TOOLBOX: &str = "toolbox";

pub(super) struct Toolbox<'a> {
    cluster: &'a Cluster,
}

impl<'a> Toolbox<'a> {
    pub(super) fn start(cluster: &'a Cluster) -> anyhow::Result<Self> {
        cluster.kubectl(&[
            "-n",
            "sample",
            "run",
            TOOLBOX,
            "--image=busybox:dev",
            "--restart=Never",
            "--grace-period=0",
            "--command",
            "--",
            "sleep",
            "600",
        ])?;
        eventually("the toolbox runs", PATIENCE, || {
            let pod = cluster.get(&["pod", "-n", "sample", TOOLBOX])?;
            Ok(pod["status"]["phase"] == "Running")
        })?;
        Ok(Self { cluster })
    }

    /// Runs a command in it and returns what it prints.
    pub(super) fn exec(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut args = vec!["-n", "sample", "exec", TOOLBOX, "--"];
        args.extend(words);
        self.cluster.kubectl(&args)
    }

    pub(super) fn remove(self) -> anyhow::Result<()> {
        self.cluster.kubectl(&["-n", "sample", "delete", "pod", TOOLBOX, "--grace-period=0", "--force"]).map(drop)
    }
}
