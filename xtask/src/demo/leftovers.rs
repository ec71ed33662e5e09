//! What the machine holds before and after: nothing of ours may stay.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;

use crate::demo::cluster::eventually;
use crate::exec::{self, command};

const PATIENCE: Duration = Duration::from_secs(10);

/// Names of everything that a cluster might leave behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    things: BTreeSet<String>,
}

impl Snapshot {
    pub(crate) fn take() -> anyhow::Result<Self> {
        let mut things = BTreeSet::new();
        for dir in ["/run/netns", "/run/tidegate", "/sys/fs/bpf", "/sys/class/net"] {
            things.extend(names(Path::new(dir)));
        }
        for line in fs::read_to_string("/proc/self/mounts")?.lines() {
            let mut fields = line.split(' ').skip(1);
            if let (Some(path), Some(kind)) = (fields.next(), fields.next()) {
                // `ip netns add` and `tidegate up` make this folder a mount, and leave it so for others.
                if path != "/run/netns" {
                    things.insert(format!("mount {path}"));
                }
                if kind.starts_with("cgroup") {
                    things.extend(names(&Path::new(path).join("tidegate")));
                    things.extend(Path::new(path).join("tidegate").is_dir().then(|| format!("{path}/tidegate")));
                }
            }
        }
        for entry in fs::read_dir("/proc")?.flatten() {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if ["tidegate", "echo"].contains(&name.trim()) {
                things.insert(format!("process {} {}", entry.file_name().to_string_lossy(), name.trim()));
            }
        }
        let rules = exec::output(command("nft").args(["list", "ruleset"]))?;
        things.insert(format!("nft {}", String::from_utf8_lossy(&rules.stdout)));
        Ok(Self { things })
    }

    /// Compares with the machine as it is now, with a moment of patience for what the kernel frees later.
    pub(crate) fn compare(&self) -> anyhow::Result<()> {
        let differs = || -> anyhow::Result<Vec<String>> {
            let now = Self::take()?;
            Ok(now.things.symmetric_difference(&self.things).cloned().collect())
        };
        if eventually("the machine is as before", PATIENCE, || Ok(differs()?.is_empty())).is_err() {
            bail!("left behind (or taken away): {}", differs()?.join(", "));
        }
        println!("ok   nothing left on the machine ({} things compared)", self.things.len());
        Ok(())
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().to_string_lossy().into_owned()).collect()
}
