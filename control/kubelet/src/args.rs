//! The command line of `tidegate node`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use dataplane_user::agent::default_pin_dir;
use k8s_openapi::api::core::v1::Taint;

/// Run pods on this node.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How to reach the API server, with the node's own identity.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,
    /// Name of this node; everything that it owns derives from it.
    #[arg(long, value_name = "NAME")]
    pub node_name: String,
    /// Address of this node (repeat for IPv6).
    #[arg(long = "node-ip", required = true, value_name = "IP")]
    pub node_ips: Vec<IpAddr>,
    /// Images go to <DIR>/images, pods to <DIR>/nodes/<NODE>.
    #[arg(long, default_value = "/var/lib/tidegate", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// State that does not outlive a reboot [default: /run/tidegate/<NODE>].
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Parent of all pods' cgroups [default: tidegate/<NODE>/kubepods].
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
    /// Bridge that pods are connected to.
    #[arg(long, default_value = "tg0", value_name = "NAME")]
    pub bridge: String,
    /// Where the node agent pins its maps: pods start once it knows them [default: /sys/fs/bpf/tidegate/<NODE>].
    #[arg(long, value_name = "DIR")]
    pub agent_pin_dir: Option<PathBuf>,
    /// Serving certificate of this node's API.
    #[arg(long, value_name = "FILE")]
    pub tls_cert_file: PathBuf,
    /// Private key of the serving certificate.
    #[arg(long, value_name = "FILE")]
    pub tls_private_key_file: PathBuf,
    /// CA of the clients of this node's API.
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: PathBuf,
    /// Address to serve this node's API on [default: the node's addresses].
    #[arg(long = "address", value_name = "IP")]
    pub addresses: Vec<IpAddr>,
    /// Port of this node's API.
    #[arg(long, default_value_t = 10_250)]
    pub port: u16,
    /// Where health and metrics are served without TLS.
    #[arg(long, default_value = "127.0.0.1:10248", value_name = "ADDRESS")]
    pub healthz: SocketAddr,
    /// DNS server of pods (repeat, or separate with commas).
    #[arg(long, value_delimiter = ',', value_name = "IP")]
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster's names.
    #[arg(long, default_value = "cluster.local", value_name = "NAME")]
    pub cluster_domain: String,
    /// Most pods on this node.
    #[arg(long, default_value_t = 110, value_name = "COUNT")]
    pub max_pods: u32,
    /// Taints of a new Node: key=value:effect,...
    #[arg(long, value_delimiter = ',', value_parser = taint, value_name = "TAINT")]
    pub register_with_taints: Vec<Taint>,
    /// Labels of the Node: key=value,...
    #[arg(long, value_delimiter = ',', value_parser = label, value_name = "LABEL")]
    pub node_labels: Vec<(String, String)>,
    /// Import every OCI layout and image archive in this directory at start.
    #[arg(long, value_name = "DIR")]
    pub preload_images: Option<PathBuf>,
    /// Socket of a process that makes connections to registries, for a node without a way out [default: none is needed].
    #[arg(long, value_name = "PATH")]
    pub dial_socket: Option<PathBuf>,
    /// Images that may be pulled at the same time; 1 pulls one after another.
    #[arg(long, default_value_t = 2, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_parallel_image_pulls: u32,
}

impl Args {
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.run_dir.clone().unwrap_or_else(|| PathBuf::from("/run/tidegate").join(&self.node_name))
    }

    pub(crate) fn agent_pin_dir(&self) -> PathBuf {
        self.agent_pin_dir.clone().unwrap_or_else(|| default_pin_dir(&self.node_name))
    }

    pub(crate) fn cgroup_parent(&self) -> String {
        self.cgroup_parent.clone().unwrap_or_else(|| format!("tidegate/{}/kubepods", self.node_name))
    }

    pub(crate) fn node_dir(&self) -> PathBuf {
        self.data_dir.join("nodes").join(&self.node_name)
    }

    pub(crate) fn server_addresses(&self) -> Vec<SocketAddr> {
        let ips = if self.addresses.is_empty() { &self.node_ips } else { &self.addresses };
        ips.iter().map(|ip| SocketAddr::new(*ip, self.port)).collect()
    }

    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.node_labels.iter().cloned().collect()
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("label {text:?} is not key=value"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn taint(text: &str) -> Result<Taint, String> {
    let (rest, effect) = text.rsplit_once(':').ok_or_else(|| format!("taint {text:?} is not key=value:effect"))?;
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        return Err(format!("taint {text:?} has the unknown effect {effect:?}"));
    }
    let (key, value) = match rest.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (rest, None),
    };
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_and_labels_are_read() {
        let read = taint("a/b=c:NoSchedule").unwrap();
        assert_eq!((read.key.as_str(), read.value.as_deref(), read.effect.as_str()), ("a/b", Some("c"), "NoSchedule"));
        assert_eq!(taint("a:NoExecute").unwrap().value, None);
        assert!(taint("a=b").is_err() && taint("a=b:Sometimes").is_err());
        assert_eq!(label("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert!(label("a").is_err());
    }
}
