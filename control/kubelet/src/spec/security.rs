//! Pod and container security contexts as one set of values; the container's win.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::pod_ref::PodRef;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Security {
    pub user: Option<i64>,
    pub group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub privileged: bool,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    pub run_as_non_root: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
}

/// What holds for this container.
pub(crate) fn of(pod: &Pod, container: &Container) -> Security {
    let pod = pod.pod_spec().security_context.as_ref();
    let own = container.security_context.as_ref();
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    let names = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    let mut groups = pod.and_then(|pod| pod.supplemental_groups.clone()).unwrap_or_default();
    groups.extend(fs_group(pod).filter(|group| !groups.contains(group)));
    Security {
        user: own.and_then(|own| own.run_as_user).or_else(|| pod.and_then(|pod| pod.run_as_user)),
        group: own.and_then(|own| own.run_as_group).or_else(|| pod.and_then(|pod| pod.run_as_group)),
        supplemental_groups: groups,
        privileged: own.and_then(|own| own.privileged).unwrap_or(false),
        read_only_root: own.and_then(|own| own.read_only_root_filesystem).unwrap_or(false),
        no_new_privileges: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        run_as_non_root: own
            .and_then(|own| own.run_as_non_root)
            .or_else(|| pod.and_then(|pod| pod.run_as_non_root))
            .unwrap_or(false),
        add_capabilities: names(capabilities.and_then(|list| list.add.as_ref())),
        drop_capabilities: names(capabilities.and_then(|list| list.drop.as_ref())),
    }
}

/// The group that owns the pod's volumes.
pub(crate) fn fs_group(context: Option<&k8s_openapi::api::core::v1::PodSecurityContext>) -> Option<i64> {
    context.and_then(|context| context.fs_group)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_container_wins_over_the_pod() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": true, "fsGroup": 2000,
                "supplementalGroups": [3000]},
            "containers": [{"name": "c", "securityContext": {"runAsUser": 7, "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}]}}))
        .unwrap();
        assert_eq!(
            of(&pod, &pod.containers()[0]),
            Security {
                user: Some(7),
                group: Some(1000),
                supplemental_groups: vec![3000, 2000],
                privileged: false,
                read_only_root: true,
                no_new_privileges: true,
                run_as_non_root: true,
                add_capabilities: vec!["NET_BIND_SERVICE".into()],
                drop_capabilities: vec!["ALL".into()],
            }
        );
    }
}
