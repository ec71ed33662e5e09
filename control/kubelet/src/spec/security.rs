//! Pod and container security contexts as one set of values; the container's win.

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext};

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
    pub seccomp_unconfined: bool,
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
        seccomp_unconfined: seccomp(pod, own).is_some_and(|profile| profile.type_ == "Unconfined"),
        add_capabilities: names(capabilities.and_then(|list| list.add.as_ref())),
        drop_capabilities: names(capabilities.and_then(|list| list.drop.as_ref())),
    }
}

/// The system call filter that is asked for; without one it is the runtime's own.
fn seccomp<'a>(pod: Option<&'a PodSecurityContext>, own: Option<&'a SecurityContext>) -> Option<&'a SeccompProfile> {
    let own = own.and_then(|own| own.seccomp_profile.as_ref());
    own.or_else(|| pod.and_then(|pod| pod.seccomp_profile.as_ref()))
}

/// What this node cannot give a container, if that is asked for.
pub(crate) fn unsupported(pod: &Pod, container: &Container) -> Option<&'static str> {
    let of_pod = pod.pod_spec().security_context.as_ref();
    let profile = seccomp(of_pod, container.security_context.as_ref());
    let localhost = profile.is_some_and(|profile| profile.type_ == "Localhost");
    localhost.then_some("seccomp profiles of type Localhost are not supported by this node")
}

/// The group that owns the pod's volumes.
pub(crate) fn fs_group(context: Option<&PodSecurityContext>) -> Option<i64> {
    context.and_then(|context| context.fs_group)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_filter_can_be_left_out_but_not_replaced() {
        let with = |pod: &str, own: &str| -> Pod {
            let profile =
                |kind: &str| if kind.is_empty() { json!({}) } else { json!({"seccompProfile": {"type": kind}}) };
            serde_json::from_value(json!({"spec": {"securityContext": profile(pod),
                "containers": [{"name": "c", "securityContext": profile(own)}]}}))
            .unwrap()
        };
        for (pod, own, open) in [
            ("", "", false),
            ("Unconfined", "", true),
            ("Unconfined", "RuntimeDefault", false),
            ("", "Unconfined", true),
        ] {
            let pod = with(pod, own);
            assert_eq!(of(&pod, &pod.containers()[0]).seccomp_unconfined, open);
            assert_eq!(unsupported(&pod, &pod.containers()[0]), None);
        }
        let pod = with("", "Localhost");
        assert!(unsupported(&pod, &pod.containers()[0]).is_some());
    }

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
                seccomp_unconfined: false,
                add_capabilities: vec!["NET_BIND_SERVICE".into()],
                drop_capabilities: vec!["ALL".into()],
            }
        );
    }
}
