//! Linux capabilities: their names, what a container gets by default, and what a pod adds and drops.

use std::fs;

/// Names in the kernel's order: the index is the bit.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What containers have got since Docker's first days.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A set of capabilities as the kernel's bit mask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Capabilities(pub(crate) u64);

impl Capabilities {
    pub(crate) const SYS_ADMIN: Self = Self(1 << 21);

    /// What this process may hand on.
    pub(crate) fn of_this_process() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
        Self(mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0))
    }

    /// The default set with `add` and `drop` applied as the CRI says: `ALL` first, single ones after it, drops last.
    pub(crate) fn for_container(add: &[String], drop: &[String], available: Self) -> Result<Self, String> {
        let has_all = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
        let mut set = DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |set, bit| set | bit) & available.0;
        if has_all(add) {
            set = available.0;
        }
        if has_all(drop) {
            set = 0;
        }
        for name in add.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
            let bit = bit(name).ok_or_else(|| format!("capability {name} is not known"))?;
            if bit & available.0 == 0 {
                return Err(format!("capability {name} is not available on this node"));
            }
            set |= bit;
        }
        for name in drop.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
            set &= !bit(name).ok_or_else(|| format!("capability {name} is not known"))?;
        }
        Ok(Self(set))
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn names(self) -> Vec<&'static str> {
        NAMES.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name).collect()
    }
}

/// `NET_ADMIN`, `net_admin` and `CAP_NET_ADMIN` are the same.
fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| &known[4..] == short).map(|bit| 1 << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: Capabilities = Capabilities((1 << 41) - 1);

    fn set(add: &[&str], drop: &[&str]) -> Result<Vec<&'static str>, String> {
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Capabilities::for_container(&owned(add), &owned(drop), EVERYTHING).map(Capabilities::names)
    }

    #[test]
    fn the_default_set_is_the_known_mask() {
        let default = Capabilities::for_container(&[], &[], EVERYTHING).unwrap();
        assert_eq!(default.0, 0xa80425fb);
        assert!(!default.contains(Capabilities::SYS_ADMIN));
    }

    #[test]
    fn adding_and_dropping_follow_the_cri() {
        assert_eq!(set(&["NET_BIND_SERVICE"], &["ALL"]).unwrap(), ["CAP_NET_BIND_SERVICE"]);
        assert_eq!(set(&["ALL"], &[]).unwrap().len(), 41);
        assert_eq!(set(&["ALL"], &["cap_sys_admin"]).unwrap().len(), 40);
        assert!(!set(&[], &["KILL"]).unwrap().contains(&"CAP_KILL"));
        assert!(set(&["FLY"], &[]).unwrap_err().contains("FLY"));
    }

    #[test]
    fn nobody_gets_what_the_node_lacks() {
        let available = Capabilities(EVERYTHING.0 & !(1 << 24));
        let all = Capabilities::for_container(&["ALL".to_owned()], &[], available).unwrap();
        assert_eq!(all, available);
        let one = Capabilities::for_container(&["SYS_RESOURCE".to_owned()], &[], available);
        assert!(one.unwrap_err().contains("not available"));
    }
}
