//! Where everything that one node owns lives: all of it derives from the node's name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::bail;

/// Node names become cgroup, namespace and folder names, so they must be one DNS label.
const NODE_NAME_MAX: usize = 32;

/// The paths of one node and of the cluster that it runs.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) node: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
}

impl Layout {
    /// # Errors
    /// If the name is not a DNS label of at most 32 characters.
    pub(crate) fn new(node: &str, data_dir: &Path) -> anyhow::Result<Self> {
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if node.is_empty()
            || node.len() > NODE_NAME_MAX
            || !node.chars().all(label)
            || node.starts_with('-')
            || node.ends_with('-')
        {
            bail!(
                "--node-name {node:?} is not a DNS label of at most {NODE_NAME_MAX} characters \
                 (lower-case letters, digits and '-')"
            );
        }
        Ok(Self {
            node: node.into(),
            data_dir: std::path::absolute(data_dir)?,
            run_dir: Path::new("/run/tidegate").join(node),
        })
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.data_dir.join("pki")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    pub(crate) fn kubeconfig(&self, who: &str) -> PathBuf {
        self.data_dir.join("kubeconfig").join(format!("{who}.yaml"))
    }

    pub(crate) fn log(&self, part: &str) -> PathBuf {
        self.data_dir.join("logs").join(format!("{part}.log"))
    }

    /// Holds what the supervisor knows of its parts, for `tidegate status` and `down`.
    pub(crate) fn state_file(&self) -> PathBuf {
        self.run_dir.join("supervisor.json")
    }

    /// Where a sandboxed node asks for connections to registries.
    pub(crate) fn dial_socket(&self) -> PathBuf {
        self.run_dir.join("dial.sock")
    }

    pub(crate) fn network_namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(format!("tg-{}", self.node))
    }

    /// A private mount, so that the mount namespace can be pinned below it.
    pub(crate) fn namespace_dir(&self) -> PathBuf {
        self.run_dir.join("ns")
    }

    pub(crate) fn mount_namespace(&self) -> PathBuf {
        self.namespace_dir().join("mnt")
    }

    /// Relative to each cgroup hierarchy.
    pub(crate) fn cgroup(&self) -> String {
        format!("tidegate/{}", self.node)
    }

    pub(crate) fn pin_dir(&self) -> PathBuf {
        Path::new("/sys/fs/bpf/tidegate").join(&self.node)
    }
}

/// Address of the first (and in this version only) sandboxed node.
pub(crate) const NODE_IPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 168, 77, 10)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 0x10))];
/// Prefix lengths of the node network, in the order of [`NODE_IPS`].
pub(crate) const NODE_PREFIXES: [u8; 2] = [24, 64];
pub(crate) const POD_CIDRS: &str = "10.244.0.0/16,fd00:10:244::/56";
pub(crate) const SERVICE_CIDRS: &str = "10.96.0.0/16,fd00:10:96::/112";
pub(crate) const API_PORT: u16 = 6443;
/// The Service of the cluster's DNS, as `/etc/resolv.conf` of every pod has it.
pub(crate) const DNS_SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub(crate) const DNS_PORT: u16 = 53;
pub(crate) const DNS_METRICS_PORT: u16 = 9153;

#[cfg(test)]
mod tests {
    use super::Layout;
    use std::path::Path;

    #[test]
    fn a_node_name_is_a_dns_label() {
        for good in ["a", "node-1", "tidegate"] {
            assert!(Layout::new(good, Path::new("/d")).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "../x", "a/b", &"x".repeat(33)] {
            assert!(Layout::new(bad, Path::new("/d")).is_err(), "{bad}");
        }
    }
}
