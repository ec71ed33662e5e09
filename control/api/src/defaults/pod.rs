//! Defaults of pods and of the pod templates in workloads.

use serde_json::{Value, json};

use crate::quantity::Quantity;
use crate::value::{child_mut, items, items_mut, set, set_default, set_if_zero, text};

pub(crate) fn pod(pod: &mut Value) {
    let Some(spec) = child_mut(pod, "spec") else { return };
    set_default(spec, "enableServiceLinks", true);
    pod_spec(spec);
    for list in ["initContainers", "containers"] {
        for container in items_mut(spec, list) {
            requests_from_limits(container);
        }
    }
}

/// A template in a workload: as a pod, but without what is decided when a pod is made of it.
pub fn pod_template(template: &mut Value) {
    if let Some(spec) = child_mut(template, "spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Value) {
    set_if_zero(spec, "dnsPolicy", "ClusterFirst");
    set_if_zero(spec, "restartPolicy", "Always");
    set_if_zero(spec, "schedulerName", "default-scheduler");
    set_default(spec, "securityContext", json!({}));
    set_default(spec, "terminationGracePeriodSeconds", 30);
    service_account(spec);
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items_mut(spec, list) {
            self::container(container);
            for port in items_mut(container, "ports").filter(|_| host_network) {
                let number = port["containerPort"].clone();
                set_if_zero(port, "hostPort", number);
            }
        }
    }
    for volume in items_mut(spec, "volumes") {
        self::volume(volume);
    }
    if let Some(overhead) = spec.get_mut("overhead") {
        quantities(overhead);
    }
}

/// The old and the new name of the field always agree.
fn service_account(spec: &mut Value) {
    let old = text(&spec["serviceAccount"]).to_owned();
    if !old.is_empty() {
        set_if_zero(spec, "serviceAccountName", old);
    }
    let name = text(&spec["serviceAccountName"]).to_owned();
    if !name.is_empty() {
        set(spec, "serviceAccount", name);
    }
}

fn container(container: &mut Value) {
    let policy = if has_moving_tag(text(&container["image"])) { "Always" } else { "IfNotPresent" };
    set_if_zero(container, "imagePullPolicy", policy);
    set_if_zero(container, "terminationMessagePath", "/dev/termination-log");
    set_if_zero(container, "terminationMessagePolicy", "File");
    set_default(container, "resources", json!({}));
    for port in items_mut(container, "ports") {
        set_if_zero(port, "protocol", "TCP");
    }
    for variable in items_mut(container, "env") {
        if let Some(reference) = child_mut(variable, "valueFrom").and_then(|source| child_mut(source, "fieldRef")) {
            set_if_zero(reference, "apiVersion", "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child_mut(container, probe) {
            self::probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = child_mut(container, "lifecycle").and_then(|lifecycle| child_mut(lifecycle, hook)) {
            http_get(handler);
        }
    }
    for list in ["limits", "requests"] {
        if let Some(list) = child_mut(container, "resources").and_then(|resources| child_mut(resources, list)) {
            quantities(list);
        }
    }
}

fn probe(probe: &mut Value) {
    set_if_zero(probe, "timeoutSeconds", 1);
    set_if_zero(probe, "periodSeconds", 10);
    set_if_zero(probe, "successThreshold", 1);
    set_if_zero(probe, "failureThreshold", 3);
    http_get(probe);
    if let Some(grpc) = child_mut(probe, "grpc") {
        set_default(grpc, "service", "");
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = child_mut(handler, "httpGet") {
        set_if_zero(get, "path", "/");
        set_if_zero(get, "scheme", "HTTP");
    }
}

fn volume(volume: &mut Value) {
    let bare =
        volume.as_object().is_some_and(|volume| volume.iter().all(|(key, value)| key == "name" || value.is_null()));
    if bare {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child_mut(volume, source) {
            set_default(source, "defaultMode", 0o644);
        }
    }
    if let Some(path) = child_mut(volume, "hostPath") {
        set_default(path, "type", "");
    }
    if let Some(api) = volume.get_mut("downwardAPI") {
        downward_items(api);
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in items_mut(projected, "sources") {
            if let Some(api) = source.get_mut("downwardAPI") {
                downward_items(api);
            }
            if let Some(token) = child_mut(source, "serviceAccountToken") {
                set_default(token, "expirationSeconds", 3600);
            }
        }
    }
}

fn downward_items(api: &mut Value) {
    for item in items_mut(api, "items") {
        if let Some(reference) = child_mut(item, "fieldRef") {
            set_if_zero(reference, "apiVersion", "v1");
        }
    }
}

/// What is limited but not requested is requested to the limit.
fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container["resources"]["limits"].as_object().cloned() else { return };
    if limits.is_empty() {
        return;
    }
    let Some(resources) = child_mut(container, "resources") else { return };
    set_default(resources, "requests", json!({}));
    let Some(requests) = child_mut(resources, "requests") else { return };
    for (name, limit) in limits {
        set_default(requests, &name, limit);
    }
}

/// Brings every quantity of a resource list into canonical form; what cannot be read is left for validation.
pub(crate) fn quantities(list: &mut Value) {
    let Some(list) = list.as_object_mut() else { return };
    for value in list.values_mut() {
        let parsed = match &*value {
            Value::String(text) => Quantity::parse(text),
            Value::Number(number) => Quantity::parse(&number.to_string()),
            _ => continue,
        };
        if let Ok(quantity) = parsed {
            *value = quantity.rounded_to_milli().to_string().into();
        }
    }
}

/// Whether an image is named by the tag `latest`, also by saying neither tag nor digest.
fn has_moving_tag(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// Every container of a pod spec, init containers first.
pub(crate) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    items(&spec["initContainers"]).iter().chain(items(&spec["containers"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_pod_is_filled_in_as_upstream_does() {
        let mut object = json!({"spec": {"containers": [{"name": "c", "image": "nginx:1.25",
            "ports": [{"containerPort": 80}]}]}});
        pod(&mut object);
        assert_eq!(
            object["spec"],
            json!({
                "containers": [{
                    "name": "c",
                    "image": "nginx:1.25",
                    "imagePullPolicy": "IfNotPresent",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst",
                "enableServiceLinks": true,
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30,
            })
        );
    }

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, moving) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("registry:5000/nginx", true),
            ("registry:5000/nginx:1", false),
            ("nginx@sha256:abc", false),
            ("nginx:latest@sha256:abc", false),
        ] {
            assert_eq!(has_moving_tag(image), moving, "{image}");
        }
    }

    #[test]
    fn probes_volumes_and_resources_are_filled_in() {
        let mut object = json!({"spec": {
            "serviceAccountName": "robot",
            "hostNetwork": true,
            "containers": [{"name": "c", "image": "a:1", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}, "requests": {"cpu": 0.1}},
                "readinessProbe": {"httpGet": {"port": 80}},
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
            "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "x"}}, {"name": "c", "hostPath": {"path": "/"}},
                {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
        }});
        pod(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["serviceAccount"], "robot");
        let container = &spec["containers"][0];
        assert_eq!(
            container["resources"],
            json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}})
        );
        assert_eq!(
            container["readinessProbe"],
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(container["ports"][0]["hostPort"], 80);
        assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(
            spec["volumes"],
            json!([{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "x", "defaultMode": 420}},
                {"name": "c", "hostPath": {"path": "/", "type": ""}},
                {"name": "d", "projected": {"defaultMode": 420,
                    "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}}])
        );
    }

    #[test]
    fn defaulting_twice_changes_nothing() {
        let mut once =
            json!({"spec": {"containers": [{"name": "c", "image": "a", "resources": {"limits": {"cpu": 1}}}]}});
        pod(&mut once);
        let mut twice = once.clone();
        pod(&mut twice);
        assert_eq!(once, twice);
    }
}
