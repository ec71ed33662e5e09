//! The node's control groups: found, joined, emptied and removed.
//!
//! On a hybrid machine limits work through the v1 hierarchies while socket programs attach to cgroup2, so a node owns the
//! same relative path in each. Daemons live in a leaf (`daemons`) beside the pods' tree, because on a pure v2 machine an
//! inner node with controllers may hold no process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// The mounted hierarchies of this machine.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchies {
    pub(crate) unified: PathBuf,
    v1: Vec<PathBuf>,
}

impl Hierarchies {
    /// Reads them from the mount table.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
        Self::parse(&mounts)
    }

    fn parse(mounts: &str) -> anyhow::Result<Self> {
        let mut unified = None;
        let mut v1 = Vec::new();
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            match (fields.next(), fields.next()) {
                (Some(path), Some("cgroup2")) if unified.is_none() => unified = Some(PathBuf::from(path)),
                (Some(path), Some("cgroup")) => v1.push(PathBuf::from(path)),
                _ => {}
            }
        }
        match unified {
            Some(unified) => Ok(Self { unified, v1 }),
            None => bail!("no cgroup2 file system is mounted; run: mount -t cgroup2 none /sys/fs/cgroup/unified"),
        }
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.unified).chain(&self.v1)
    }

    /// Makes the node's group in cgroup2 and returns the leaf that daemons join.
    pub(crate) fn create(&self, relative: &str) -> anyhow::Result<PathBuf> {
        let daemons = self.unified.join(relative).join("daemons");
        fs::create_dir_all(&daemons).with_context(|| format!("cannot create {}", daemons.display()))?;
        Ok(daemons)
    }

    /// Every process in the node's cgroup2 tree: daemons, shims and (on hybrid machines) containers.
    pub(crate) fn processes(&self, relative: &str) -> Vec<i32> {
        let mut pids = Vec::new();
        walk(&self.unified.join(relative), &mut |dir| pids.extend(read_pids(dir)));
        pids
    }

    /// Kills every process of the node and removes its groups from all hierarchies.
    pub(crate) fn destroy(&self, relative: &str, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let mut pids = self.processes(relative);
            for root in &self.v1 {
                walk(&root.join(relative), &mut |dir| pids.extend(read_pids(dir)));
            }
            pids.retain(|pid| *pid != std::process::id() as i32);
            if pids.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                bail!("processes {pids:?} of cgroup {relative} do not end");
            }
            for pid in pids {
                // A process that ended meanwhile is what we want.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for root in self.all() {
            remove_tree(&root.join(relative), deadline)?;
            if let Some(parent) = Path::new(relative).parent() {
                // Other nodes may still live beside this one.
                let _ = fs::remove_dir(root.join(parent));
            }
        }
        Ok(())
    }
}

fn read_pids(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

/// Visits `dir` and everything below it, children first.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    if let Ok(entries) = fs::read_dir(dir) {
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            walk(&entry.path(), visit);
        }
        visit(dir);
    }
}

fn remove_tree(dir: &Path, deadline: Instant) -> anyhow::Result<()> {
    loop {
        let mut busy = None;
        walk(dir, &mut |dir| match fs::remove_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => busy = Some((dir.to_owned(), error)),
            _ => {}
        });
        match busy {
            None => return Ok(()),
            Some((dir, error)) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
            }
            // The kernel releases a group a moment after its last process is gone.
            Some(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Hierarchies;
    use std::path::PathBuf;

    #[test]
    fn both_layouts_are_recognised() {
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found = Hierarchies::parse(hybrid).unwrap();
        assert_eq!(found.unified, PathBuf::from("/sys/fs/cgroup/unified"));
        assert_eq!(found.v1, vec![PathBuf::from("/sys/fs/cgroup/cpu")]);
        let pure = Hierarchies::parse("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n").unwrap();
        assert!(pure.v1.is_empty());
        assert!(Hierarchies::parse("proc /proc proc rw 0 0\n").is_err());
    }
}
