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
