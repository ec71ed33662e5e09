use serde_json::json;

use super::*;

#[test]
fn every_line_of_the_table_is_understood() {
    let text = include_str!("table.txt");
    let messages = text.lines().filter(|line| line.starts_with("m ")).count();
    let fields =
        text.lines().filter(|line| !line.starts_with(['#', ' ']) && !line.starts_with("m ") && !line.starts_with("p "));
    assert_eq!(super::messages().len(), messages);
    assert_eq!(super::messages().iter().map(|message| message.fields().len()).sum::<usize>(), fields.count());
    for (at, message) in super::messages().iter().enumerate() {
        assert_eq!(BUILTIN.names[&message.name], at);
    }
}

#[test]
fn finds_kinds_and_fields() {
    let deployment = kind("apps", "v1", "Deployment").unwrap();
    assert_eq!(deployment.name, "io.k8s.api.apps.v1.Deployment");
    assert_eq!(deployment.go_name(), "v1.Deployment");
    assert_eq!(of_type("v1", "Pod").unwrap().short_name(), "Pod");
    assert!(kind("apps", "v1", "DeleteOptions").is_some());
    assert!(kind("apps", "v2", "Deployment").is_none());
    let Shape::Message(spec) = &deployment.field("spec").unwrap().shape else { panic!("spec is no message") };
    let replicas = spec.get().field("replicas").unwrap();
    assert_eq!(replicas.presence, Presence::Pointer);
    assert!(spec.get().field("Replicas").is_none());
}

#[test]
fn keeps_the_merge_facts() {
    let ports = message("io.k8s.api.core.v1.ServiceSpec").unwrap().field("ports").unwrap();
    assert_eq!(ports.patch.merge_key.as_deref(), Some("port"));
    assert_eq!(ports.merging, Some(Merging::Map(vec!["port".into(), "protocol".into()])));
    let protocol = message("io.k8s.api.core.v1.ContainerPort").unwrap().field("protocol").unwrap();
    assert_eq!(protocol.default, Some(json!("TCP")));
    let strategy = message("io.k8s.api.apps.v1.DeploymentSpec").unwrap().field("strategy").unwrap();
    assert!(strategy.patch.retain_keys && !strategy.patch.merge);
    assert!(message("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector").unwrap().atomic);
}

#[test]
fn inlined_messages_share_a_tag() {
    let volume = message("io.k8s.api.core.v1.Volume").unwrap();
    let tags: Vec<u32> = volume.wire().iter().map(|entry| entry.tag).collect();
    assert_eq!(tags, [1, 2]);
    assert!(matches!(&volume.wire()[1].content, WireContent::Inlined(inner) if inner.len() > 25));
}

/// What apply and field tracking rest on, spot by spot.
#[test]
fn lists_and_maps_merge_as_upstream_has_it() {
    let keys = |names: &[&str]| Some(Merging::Map(names.iter().map(|name| Text::Owned((*name).to_owned())).collect()));
    let atomic = || Some(Merging::Atomic);
    let cases = [
        ("core.v1.PodSpec", "containers", keys(&["name"])),
        ("core.v1.PodSpec", "initContainers", keys(&["name"])),
        ("core.v1.PodSpec", "ephemeralContainers", keys(&["name"])),
        ("core.v1.PodSpec", "volumes", keys(&["name"])),
        ("core.v1.PodSpec", "imagePullSecrets", keys(&["name"])),
        ("core.v1.PodSpec", "hostAliases", keys(&["ip"])),
        ("core.v1.PodSpec", "topologySpreadConstraints", keys(&["topologyKey", "whenUnsatisfiable"])),
        ("core.v1.PodSpec", "tolerations", atomic()),
        ("core.v1.PodSpec", "nodeSelector", atomic()),
        ("core.v1.Container", "env", keys(&["name"])),
        ("core.v1.Container", "envFrom", atomic()),
        ("core.v1.Container", "args", atomic()),
        ("core.v1.Container", "ports", keys(&["containerPort", "protocol"])),
        ("core.v1.Container", "volumeMounts", keys(&["mountPath"])),
        ("core.v1.Container", "volumeDevices", keys(&["devicePath"])),
        ("core.v1.PodStatus", "conditions", keys(&["type"])),
        ("core.v1.PodStatus", "podIPs", keys(&["ip"])),
        ("core.v1.PodStatus", "containerStatuses", atomic()),
        ("core.v1.NodeSpec", "podCIDRs", Some(Merging::Set)),
        ("core.v1.NodeSpec", "taints", atomic()),
        ("core.v1.NodeStatus", "addresses", keys(&["type"])),
        ("core.v1.ServiceSpec", "ports", keys(&["port", "protocol"])),
        ("core.v1.ServiceSpec", "selector", atomic()),
        ("core.v1.ServiceSpec", "externalIPs", atomic()),
        ("core.v1.ServiceStatus", "conditions", keys(&["type"])),
        ("core.v1.ServiceAccount", "secrets", keys(&["name"])),
        ("core.v1.ConfigMap", "data", None),
        ("apps.v1.DeploymentStatus", "conditions", keys(&["type"])),
        ("apps.v1.StatefulSetSpec", "volumeClaimTemplates", atomic()),
        ("batch.v1.JobStatus", "conditions", atomic()),
        ("batch.v1.PodFailurePolicy", "rules", atomic()),
        ("networking.v1.IngressSpec", "rules", atomic()),
        ("networking.v1.IngressSpec", "tls", atomic()),
        ("networking.v1.NetworkPolicySpec", "ingress", atomic()),
        ("rbac.v1.Role", "rules", atomic()),
        ("rbac.v1.RoleBinding", "subjects", atomic()),
        ("policy.v1.PodDisruptionBudgetStatus", "conditions", keys(&["type"])),
        ("discovery.v1.EndpointSlice", "endpoints", atomic()),
        ("admissionregistration.v1.ValidatingWebhookConfiguration", "webhooks", keys(&["name"])),
    ];
    for (name, field, expected) in cases {
        let message = message(&format!("io.k8s.api.{name}")).unwrap();
        assert_eq!(message.field(field).unwrap().merging, expected, "{name} {field}");
    }
    let metadata = message("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap();
    assert_eq!(metadata.field("finalizers").unwrap().merging, Some(Merging::Set));
    assert_eq!(metadata.field("ownerReferences").unwrap().merging, keys(&["uid"]));
    for name in ["meta.v1.LabelSelector", "core.v1.SecretReference", "core.v1.ObjectReference", "core.v1.NodeSelector"]
    {
        let home = if name.starts_with("meta") { "io.k8s.apimachinery.pkg.apis" } else { "io.k8s.api" };
        assert!(message(&format!("{home}.{name}")).unwrap().atomic, "{name}");
    }
    // Keys that an item may leave out have a default.
    for (name, field) in [("core.v1.ContainerPort", "protocol"), ("core.v1.ServicePort", "protocol")] {
        let message = message(&format!("io.k8s.api.{name}")).unwrap();
        assert_eq!(message.field(field).unwrap().default, Some(json!("TCP")), "{name}");
    }
}
