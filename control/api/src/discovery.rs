//! Discovery documents: what kubectl and client libraries learn the resources from.

use serde_json::{Map, Value, json};

use crate::registry::{GroupVersionKind, Registry, Resource, Subresource, Verb, api_version};

/// `GET /api`.
#[must_use]
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `GET /apis`.
#[must_use]
pub fn api_group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> = named_groups(registry).map(|group| group_body(registry, group)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/<group>`.
#[must_use]
pub fn api_group(registry: &Registry, group: &str) -> Option<Value> {
    let group = named_groups(registry).find(|&name| name == group)?;
    let mut body = group_body(registry, group);
    body["kind"] = "APIGroup".into();
    body["apiVersion"] = "v1".into();
    Some(body)
}

/// `GET /api/v1` and `GET /apis/<group>/<version>`.
#[must_use]
pub fn api_resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for resource in members(registry, group, version) {
        resources.push(legacy_resource(resource));
        resources.extend(resource.subresources.iter().map(|subresource| legacy_subresource(resource, subresource)));
    }
    if resources.is_empty() {
        return None;
    }
    let mut list = json!({
        "kind": "APIResourceList",
        "groupVersion": api_version(group, version),
        "resources": resources,
    });
    // The core list has no apiVersion, as upstream.
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Some(list)
}

/// `GET /api` (`core`) or `GET /apis` in aggregated form; `version` is `v2` or `v2beta1`.
#[must_use]
pub fn aggregated(registry: &Registry, core: bool, version: &str) -> Value {
    let groups: Vec<&str> = registry.groups().into_iter().filter(|group| group.is_empty() == core).collect();
    let items: Vec<Value> = groups
        .into_iter()
        .map(|group| {
            let versions: Vec<Value> = registry
                .versions(group)
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> = members(registry, group, version).map(aggregated_resource).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn named_groups(registry: &Registry) -> impl Iterator<Item = &str> {
    registry.groups().into_iter().filter(|group| !group.is_empty())
}

fn members<'a>(registry: &'a Registry, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Resource> {
    registry.iter().map(AsRef::as_ref).filter(move |resource| resource.group == group && resource.version == version)
}

fn group_body(registry: &Registry, group: &str) -> Value {
    let versions: Vec<Value> = registry
        .versions(group)
        .into_iter()
        .map(|version| json!({"groupVersion": api_version(group, version), "version": version}))
        .collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

fn verbs(verbs: &[Verb]) -> Vec<&'static str> {
    verbs.iter().map(|verb| verb.as_str()).collect()
}

fn legacy_resource(resource: &Resource) -> Value {
    let mut body = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": verbs(&resource.advertised_verbs()),
    });
    if !resource.short_names.is_empty() {
        body["shortNames"] = resource.short_names.clone().into();
    }
    if !resource.categories.is_empty() {
        body["categories"] = resource.categories.clone().into();
    }
    body
}

fn legacy_subresource(resource: &Resource, subresource: &Subresource) -> Value {
    let mut body = json!({
        "name": format!("{}/{}", resource.plural, subresource.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": subresource.kind.kind,
        "verbs": verbs(&subresource.verbs),
    });
    // Only a kind of another group is named: `kubectl drain` looks for exactly that on pods/eviction.
    if (&subresource.kind.group, &subresource.kind.version) != (&resource.group, &resource.version) {
        body["group"] = subresource.kind.group.clone().into();
        body["version"] = subresource.kind.version.clone().into();
    }
    body
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut body = json!({
        "resource": resource.plural,
        "responseKind": response_kind(&resource.gvk()),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": verbs(&resource.advertised_verbs()),
    });
    if !resource.short_names.is_empty() {
        body["shortNames"] = resource.short_names.clone().into();
    }
    if !resource.categories.is_empty() {
        body["categories"] = resource.categories.clone().into();
    }
    if !resource.subresources.is_empty() {
        body["subresources"] = resource
            .subresources
            .iter()
            .map(|subresource| {
                json!({
                    "subresource": subresource.name,
                    "responseKind": response_kind(&subresource.kind),
                    "verbs": verbs(&subresource.verbs),
                })
            })
            .collect();
    }
    body
}

fn response_kind(kind: &GroupVersionKind) -> Map<String, Value> {
    let fields = [("group", &kind.group), ("version", &kind.version), ("kind", &kind.kind)];
    fields.into_iter().map(|(key, value)| (key.to_owned(), value.as_str().into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_lists_name_resources_and_subresources() {
        let list = api_resource_list(&Registry::builtin(), "apps", "v1").expect("apps/v1");
        assert_eq!(list["groupVersion"], "apps/v1");
        let resources = list["resources"].as_array().expect("resources");
        let scale = resources.iter().find(|entry| entry["name"] == "deployments/scale").expect("scale");
        assert_eq!(
            *scale,
            json!({"name": "deployments/scale", "singularName": "", "namespaced": true, "group": "autoscaling",
                   "version": "v1", "kind": "Scale", "verbs": ["get", "patch", "update"]})
        );
        let deployments = resources.iter().find(|entry| entry["name"] == "deployments").expect("deployments");
        assert_eq!(deployments["shortNames"], json!(["deploy"]));
        assert_eq!(deployments["categories"], json!(["all"]));
        assert!(api_resource_list(&Registry::builtin(), "apps", "v2").is_none());
    }

    #[test]
    fn group_lists_leave_the_core_group_out() {
        let registry = Registry::builtin();
        let list = api_group_list(&registry);
        let names: Vec<&str> =
            list["groups"].as_array().expect("groups").iter().filter_map(|group| group["name"].as_str()).collect();
        assert_eq!(names[0], "apps");
        assert!(!names.contains(&""));
        assert_eq!(api_group(&registry, "apps").expect("apps")["preferredVersion"]["groupVersion"], "apps/v1");
        assert!(api_group(&registry, "").is_none());
    }

    #[test]
    fn aggregated_discovery_separates_core_from_groups() {
        let registry = Registry::builtin();
        let core = aggregated(&registry, true, "v2");
        assert_eq!(core["items"].as_array().expect("items").len(), 1);
        assert_eq!(core["items"][0]["versions"][0]["version"], "v1");
        let groups = aggregated(&registry, false, "v2beta1");
        assert_eq!(groups["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        let apps = &groups["items"][0];
        assert_eq!(apps["metadata"]["name"], "apps");
        let deployments = &apps["versions"][0]["resources"][2];
        assert_eq!(deployments["responseKind"], json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
        assert_eq!(deployments["scope"], "Namespaced");
        assert_eq!(deployments["subresources"][0]["subresource"], "scale");
    }
}
