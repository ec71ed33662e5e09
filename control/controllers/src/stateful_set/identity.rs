//! Who a pod of a StatefulSet is: its name, labels, host name, and which ordinal it has.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::pod_control;
use crate::revision::{HASH_LABEL, Revision};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in a pod's name, if the name is one of this set's.
pub(super) fn ordinal(set: &str, pod: &str) -> Option<i64> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|ordinal: &i64| plain && ordinal.to_string() == digits)
}

/// The pod with an ordinal, of a revision.
pub(super) fn pod(set: &StatefulSet, spec: &StatefulSetSpec, revision: &Revision, ordinal: i64) -> Pod {
    let name = format!("{}-{ordinal}", set.name_any());
    let mut pod = pod_control::from_template(set, &revision.template);
    pod.metadata.generate_name = None;
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.into(), name.clone());
    labels.insert(POD_INDEX.into(), ordinal.to_string());
    labels.insert(HASH_LABEL.into(), revision.name.clone());
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name.clone());
    pod_spec.subdomain = spec.service_name.clone().filter(|service| !service.is_empty());
    pod.metadata.name = Some(name);
    pod
}

#[cfg(test)]
mod tests {
    use super::{ordinal, pod};
    use crate::revision::Revision;
    use k8s_openapi::api::apps::v1::StatefulSet;
    use serde_json::json;

    #[test]
    fn ordinals_are_read_from_names() {
        assert_eq!(ordinal("web", "web-10"), Some(10));
        for other in ["web", "web-", "web-x", "web-01", "web-a-1", "other-1", "web-+1"] {
            assert_eq!(ordinal("web", other), None, "{other}");
        }
    }

    #[test]
    fn a_pod_has_its_set_s_identity() {
        let set: StatefulSet =
            serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n", "uid": "u"},
            "spec": {"serviceName": "svc", "selector": {}, "template": {}}}))
            .unwrap();
        let template = serde_json::from_value(json!({"metadata": {"labels": {"app": "web"}}})).unwrap();
        let revision = Revision { name: "web-abc".into(), hash: "abc".into(), template };
        let pod = serde_json::to_value(pod(&set, set.spec.as_ref().unwrap(), &revision, 3)).unwrap();
        assert_eq!(pod["metadata"]["name"], "web-3");
        assert_eq!(
            pod["metadata"]["labels"],
            json!({"app": "web", "statefulset.kubernetes.io/pod-name": "web-3", "apps.kubernetes.io/pod-index": "3",
                "controller-revision-hash": "web-abc"})
        );
        assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("web-3"), &json!("svc")));
        assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "StatefulSet");
    }
}
