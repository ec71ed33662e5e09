//! Control groups of pods and containers, on pure v2, hybrid and v1 machines alike.
//!
//! libcontainer makes a container's groups and sets its limits; this module finds them again afterwards: to kill what is
//! in them, to see whether the kernel ran out of memory there, and to remove them. `device` denies devices where there
//! is no v1 device controller.

mod device;
mod limits;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::container::Resources;
use crate::error::{FileError, IoContext};

const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// The v1 controllers in which libcontainer makes groups; named hierarchies (systemd's) are not its business.
const LEGACY_CONTROLLERS: [&str; 12] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

/// The mounted hierarchies that hold controllers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hierarchies {
    /// Mount point of the one hierarchy.
    Unified(PathBuf),
    /// Mount points of the v1 controllers.
    Legacy(Vec<PathBuf>),
}

impl Hierarchies {
    pub(crate) fn find() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut legacy: Vec<PathBuf> = mounts(mountinfo)
            .filter(|mount| {
                mount.kind == "cgroup" && mount.options.split(',').any(|it| LEGACY_CONTROLLERS.contains(&it))
            })
            .map(|mount| PathBuf::from(mount.point))
            .filter(|point| point.starts_with(CGROUP_ROOT))
            .collect();
        legacy.sort();
        legacy.dedup();
        if legacy.is_empty() { Self::Unified(CGROUP_ROOT.into()) } else { Self::Legacy(legacy) }
    }

    fn roots(&self) -> &[PathBuf] {
        match self {
            Self::Unified(root) => std::slice::from_ref(root),
            Self::Legacy(roots) => roots,
        }
    }

    /// Where a group is in each hierarchy; `path` may start with a slash.
    fn groups(&self, path: &str) -> impl Iterator<Item = PathBuf> {
        let relative = path.trim_start_matches('/').to_owned();
        self.roots().iter().map(move |root| root.join(&relative))
    }

    /// v1 mount points with the group's directory in each, for a container's `/sys/fs/cgroup`.
    pub(crate) fn legacy_views(&self, path: &str) -> Vec<(PathBuf, PathBuf)> {
        match self {
            Self::Unified(_) => Vec::new(),
            Self::Legacy(roots) => roots.iter().cloned().zip(self.groups(path)).collect(),
        }
    }

    /// Times that the kernel killed a process of the group, or below, for want of memory.
    pub(crate) fn oom_kills(&self, path: &str) -> u64 {
        let file = match self {
            Self::Unified(_) => "memory.events",
            Self::Legacy(_) => "memory.oom_control",
        };
        self.groups(path)
            .filter_map(|group| fs::read_to_string(group.join(file)).ok())
            .filter_map(|text| parse_oom_kills(&text))
            .max()
            .unwrap_or(0)
    }

    /// Whether memory and swap together can be limited.
    pub(crate) fn limits_swap(&self) -> bool {
        match self {
            Self::Unified(_) => true,
            Self::Legacy(_) => self.roots().iter().any(|root| root.join("memory.memsw.limit_in_bytes").exists()),
        }
    }

    /// Denies all devices but the usual ones where no v1 controller does.
    pub(crate) fn deny_devices(&self, path: &str) -> io::Result<()> {
        match self {
            Self::Unified(root) => device::attach(&root.join(path.trim_start_matches('/'))),
            Self::Legacy(_) => Ok(()),
        }
    }

    /// Gives a group other limits while its processes run.
    pub(crate) fn limit(&self, path: &str, resources: &Resources) -> Result<(), FileError> {
        let writes = match self {
            Self::Unified(_) => limits::unified(resources),
            Self::Legacy(_) => limits::legacy(resources),
        };
        for group in self.groups(path) {
            limits::apply(&group, &writes)?;
        }
        Ok(())
    }

    /// Kills every process in the group and below it.
    pub(crate) fn kill_all(&self, path: &str) {
        for group in self.groups(path) {
            if fs::write(group.join("cgroup.kill"), "1").is_ok() {
                continue;
            }
            for pid in processes(&group) {
                // A process that ended meanwhile is what we want.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    pub(crate) fn has_processes(&self, path: &str) -> bool {
        self.groups(path).any(|group| !processes(&group).is_empty())
    }

    /// Kills and waits until nothing is left in the group, at most for `patience`.
    pub(crate) fn drain(&self, path: &str, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.has_processes(path) && Instant::now() < deadline {
            self.kill_all(path);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes the group with everything below it from all hierarchies. It must hold no process any more.
    pub(crate) fn remove(&self, path: &str) -> Result<(), FileError> {
        for group in self.groups(path) {
            remove_group(&group).at("cannot remove", &group)?;
        }
        Ok(())
    }
}

/// Moves a process's readiness to be killed for memory; lowering it below the shim's own needs a right we may lack.
pub(crate) fn set_oom_score_adj(pid: i32, score: i32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
}

struct Mounted<'a> {
    point: &'a str,
    kind: &'a str,
    /// Of the file system, not of the mount.
    options: &'a str,
}

fn mounts(mountinfo: &str) -> impl Iterator<Item = Mounted<'_>> {
    mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        Some(Mounted { point: before.split(' ').nth(4)?, kind, options })
    })
}

fn parse_oom_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

fn processes(group: &Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(group) {
        pids.extend(processes(&child));
    }
    pids
}

fn children(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else { return Vec::new() };
    entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect()
}

fn remove_group(group: &Path) -> io::Result<()> {
    for child in children(group) {
        remove_group(&child)?;
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
35 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 30 0:28 / /somewhere/else/cpu rw - cgroup cgroup rw,cpu";

    #[test]
    fn machines_are_told_apart() {
        let legacy = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/memory"].map(PathBuf::from);
        assert_eq!(Hierarchies::parse(HYBRID), Hierarchies::Legacy(legacy.to_vec()));
        let unified = "33 30 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(Hierarchies::parse(unified), Hierarchies::Unified(CGROUP_ROOT.into()));
    }

    #[test]
    fn a_group_is_at_one_place_in_each_hierarchy() {
        let hierarchies = Hierarchies::parse(HYBRID);
        let groups: Vec<_> = hierarchies.groups("/a/b").collect();
        assert_eq!(groups, ["/sys/fs/cgroup/cpu/a/b", "/sys/fs/cgroup/memory/a/b"].map(PathBuf::from));
        assert_eq!(hierarchies.legacy_views("a").len(), 2);
        assert!(Hierarchies::Unified("/x".into()).legacy_views("a").is_empty());
    }

    #[test]
    fn oom_kills_are_read_from_either_version() {
        assert_eq!(parse_oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(parse_oom_kills("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(parse_oom_kills(""), None);
    }
}
