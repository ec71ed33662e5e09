//! Rules for the two ways to change a running pod: ephemeral containers that are added, resources that become others.

use std::collections::BTreeSet;

use serde_json::Value;

use super::container;
use super::errors::{Errors, Path};
use crate::defaults::pod::containers;
use crate::strategy::qos_class;
use crate::value::{entries, is_set, items, same, text};

/// What an ephemeral container, which nobody restarts or waits for, cannot have.
const NOT_EPHEMERAL: [&str; 8] = [
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
];

/// Ephemeral containers are added, never changed or taken away.
pub(crate) fn ephemeral_containers(old: &Value, new: &Value, errors: &mut Errors) {
    let path = Path::new("spec").at("ephemeralContainers");
    let spec = &new["spec"];
    let list = items(&spec["ephemeralContainers"]);
    for before in items(&old["spec"]["ephemeralContainers"]) {
        let name = text(&before["name"]);
        match list.iter().find(|container| container["name"] == before["name"]) {
            None => errors.forbidden(&path, &format!("existing ephemeral containers {name:?} may not be removed")),
            Some(now) if !same(now, before) => {
                errors.forbidden(&path, &format!("existing ephemeral containers {name:?} may not be changed"));
            }
            Some(_) => {}
        }
    }
    let volumes: BTreeSet<&str> = items(&spec["volumes"]).iter().map(|volume| text(&volume["name"])).collect();
    let lasting: BTreeSet<&str> = containers(spec).map(|container| text(&container["name"])).collect();
    let mut names = lasting.clone();
    container::list(list, container::Role::Ephemeral, &volumes, &mut names, &path, errors);
    for (index, container) in list.iter().enumerate() {
        let path = path.index(index);
        for field in NOT_EPHEMERAL.into_iter().filter(|field| is_set(&container[*field])) {
            errors.forbidden(&path.at(field), "cannot be set for an Ephemeral Container");
        }
        if entries(&container["resources"]).next().is_some() {
            errors.forbidden(&path.at("resources"), "cannot be set for an Ephemeral Container");
        }
        let target = text(&container["targetContainerName"]);
        if !target.is_empty() && !lasting.contains(target) {
            errors.not_found(&path.at("targetContainerName"), target);
        }
    }
}

/// CPU and memory may become others as long as the pod's class of service stays.
pub(crate) fn resize(old: &Value, new: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    if matches!(text(&old["status"]["phase"]), "Succeeded" | "Failed") {
        errors.forbidden(&path, "Pod that has ended cannot be resized");
    }
    for list in ["containers", "initContainers"] {
        for (index, (before, now)) in items(&old["spec"][list]).iter().zip(items(&new["spec"][list])).enumerate() {
            let path = path.at(list).index(index).at("resources");
            let (before_all, now_all) = (&before["resources"], &now["resources"]);
            if same(before_all, now_all) {
                continue;
            }
            container::resources(now_all, &path, errors);
            if list == "initContainers" && now["restartPolicy"] != "Always" {
                errors.forbidden(&path, "only sidecars among init containers are resizable");
            }
            for side in ["limits", "requests"] {
                let (before, now) = (&before_all[side], &now_all[side]);
                let names: BTreeSet<&String> = entries(before).chain(entries(now)).map(|(name, _)| name).collect();
                for name in names.into_iter().filter(|name| !same(&before[*name], &now[*name])) {
                    let path = path.at(side).key(name);
                    if !matches!(name.as_str(), "cpu" | "memory") {
                        errors.forbidden(&path, "only cpu and memory resources are mutable");
                    } else if !is_set(&now[name]) {
                        errors.forbidden(&path, "resource limits and requests cannot be removed");
                    }
                }
            }
        }
    }
    let (before, now) = (qos_class(&old["spec"]), qos_class(&new["spec"]));
    if before != now {
        errors.invalid(&path, now, "Pod QOS Class may not change as a result of resizing");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    fn pod(resources: Value, ephemeral: Value) -> Value {
        let mut pod = json!({"spec": {
            "containers": [{"name": "c", "image": "i:1", "resources": resources}], "ephemeralContainers": ephemeral}});
        crate::defaults::pod(&mut pod);
        pod
    }

    #[test]
    fn ephemeral_containers_are_only_added() {
        let none = pod(json!({}), json!([]));
        let one = pod(json!({}), json!([{"name": "e", "image": "i:1", "targetContainerName": "c"}]));
        assert_eq!(texts(|errors| ephemeral_containers(&none, &one, errors)), Vec::<String>::new());
        for (new, expected) in [
            (json!([]), "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed"),
            (
                json!([{"name": "e", "image": "i:2", "targetContainerName": "c"}]),
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be changed",
            ),
        ] {
            assert_eq!(texts(|errors| ephemeral_containers(&one, &pod(json!({}), new), errors)), [expected]);
        }
        for (bad, expected) in [
            (json!({"name": "c", "image": "i:1"}), "spec.ephemeralContainers[0].name: Duplicate value: \"c\""),
            (
                json!({"name": "e", "image": "i:1", "targetContainerName": "x"}),
                "spec.ephemeralContainers[0].targetContainerName: Not found: \"x\"",
            ),
            (
                json!({"name": "e", "image": "i:1", "ports": [{"containerPort": 1}]}),
                "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            ),
        ] {
            assert_eq!(texts(|errors| ephemeral_containers(&none, &pod(json!({}), json!([bad])), errors)), [expected]);
        }
    }

    #[test]
    fn resources_change_within_their_class() {
        let of =
            |cpu: &str, memory: &str| pod(json!({"requests": {"cpu": cpu}, "limits": {"memory": memory}}), json!([]));
        let old = of("100m", "64Mi");
        assert_eq!(texts(|errors| resize(&old, &of("200m", "128Mi"), errors)), Vec::<String>::new());
        let best_effort = pod(json!({}), json!([]));
        let found = texts(|errors| resize(&old, &best_effort, errors));
        assert!(found.iter().any(|text| text.contains("cannot be removed")), "{found:?}");
        assert!(found.iter().any(|text| text.contains("QOS Class may not change")), "{found:?}");
    }
}
