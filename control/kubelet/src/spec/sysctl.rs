//! Kernel parameters that a pod may set: those that concern nobody outside its namespaces.

use k8s_openapi::api::core::v1::Pod;

use super::pod_ref::PodRef;

/// Upstream's safe set.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Why the pod cannot run here, if it asks for more.
pub(crate) fn forbidden(pod: &Pod) -> Option<String> {
    let sysctls = pod.pod_spec().security_context.as_ref()?.sysctls.as_deref()?;
    sysctls.iter().find_map(|sysctl| {
        let name = sysctl.name.replace('/', ".");
        let of_the_host = pod.host_network() && name.starts_with("net.")
            || pod.pod_spec().host_ipc.unwrap_or(false) && name.starts_with("kernel.shm");
        if of_the_host {
            Some(format!("forbidden sysctl: {:?} not allowed with host net/ipc enabled", sysctl.name))
        } else if SAFE.contains(&name.as_str()) {
            None
        } else {
            Some(format!("forbidden sysctl: {:?} not allowlisted", sysctl.name))
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_safe_parameters_of_own_namespaces_are_set() {
        for (name, host, fine) in [
            ("net.ipv4.tcp_syncookies", false, true),
            ("net/ipv4/tcp_syncookies", false, true),
            ("net.ipv4.tcp_syncookies", true, false),
            ("kernel.shm_rmid_forced", true, true),
            ("kernel.msgmax", false, false),
        ] {
            let spec = json!({"hostNetwork": host, "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            assert_eq!(forbidden(&pod).is_none(), fine, "{name} {host}");
        }
    }
}
