//! The operations of a resource: one per path and verb.

use serde_json::{Map, Value, json};

use super::schemas::Schemas;
use crate::registry::{GroupVersionKind, Resource, Verb};

const JSON: &str = "application/json";
/// Custom resources have no strategic merge patch, which is the last.
const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// Adds every path of a resource and the schemas that they name.
pub(super) fn of_resource(resource: &Resource, schemas: &mut Schemas<'_>, paths: &mut Map<String, Value>) {
    let base = format!("/{}", super::path(&resource.group, &resource.version));
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{base}{scope}/{}", resource.plural);
    let list = GroupVersionKind { kind: resource.list_kind.clone(), ..resource.gvk() };
    let (kind, namespaced) = (resource.gvk(), resource.namespaced);
    let patches = if resource.custom.is_some() { &PATCH_TYPES[..3] } else { &PATCH_TYPES };
    let mut builder = Builder { schemas, kind: &kind, list: &list, namespaced, patches };

    let on_collection = [Verb::List, Verb::Create, Verb::DeleteCollection];
    builder.add(paths, &collection, &on_collection, &resource.verbs, false);
    if namespaced {
        let mut everywhere =
            Builder { schemas: &mut *builder.schemas, kind: &kind, list: &list, namespaced: false, patches };
        everywhere.add(paths, &format!("{base}/{}", resource.plural), &[Verb::List], &resource.verbs, false);
    }
    let on_object = [Verb::Get, Verb::Update, Verb::Patch, Verb::Delete];
    builder.add(paths, &format!("{collection}/{{name}}"), &on_object, &resource.verbs, true);
    for subresource in &resource.subresources {
        let path = format!("{collection}/{{name}}/{}", subresource.name);
        let (kind, list) = (&subresource.kind, &subresource.kind);
        let mut builder = Builder { schemas: &mut *builder.schemas, kind, list, namespaced, patches };
        builder.add(
            paths,
            &path,
            &[Verb::Get, Verb::Create, Verb::Update, Verb::Patch, Verb::Delete],
            &subresource.verbs,
            true,
        );
    }
}

struct Builder<'a, 'b> {
    schemas: &'a mut Schemas<'b>,
    kind: &'a GroupVersionKind,
    list: &'a GroupVersionKind,
    namespaced: bool,
    patches: &'a [&'static str],
}

impl Builder<'_, '_> {
    /// The operations of one path: those of `here` that the resource has.
    fn add(&mut self, paths: &mut Map<String, Value>, path: &str, here: &[Verb], verbs: &[Verb], named: bool) {
        let mut item = Map::new();
        for verb in here.iter().filter(|verb| verbs.contains(verb)) {
            item.insert(method(*verb).into(), self.operation(*verb));
        }
        if item.is_empty() {
            return;
        }
        let in_path = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}});
        let mut parameters = Vec::new();
        parameters.extend(named.then(|| in_path("name")));
        parameters.extend(self.namespaced.then(|| in_path("namespace")));
        parameters.push(query("pretty", "string"));
        item.insert("parameters".into(), parameters.into());
        paths.insert(path.to_owned(), item.into());
    }

    fn operation(&mut self, verb: Verb) -> Value {
        let GroupVersionKind { group, version, kind } = self.kind;
        let mut operation = json!({
            "parameters": parameters(verb),
            "responses": {"200": {"description": "OK", "content": {JSON: {"schema": self.answer(verb)}}},
                "401": {"description": "Unauthorized"}},
            "x-kubernetes-action": action(verb),
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        let body = match verb {
            Verb::Create | Verb::Update => Some(json!({"*/*": {"schema": self.object()}})),
            Verb::Delete | Verb::DeleteCollection => {
                Some(json!({"*/*": {"schema": self.schemas.meta("DeleteOptions")}}))
            }
            Verb::Patch => {
                let patch = self.schemas.meta("Patch");
                Some(self.patches.iter().map(|kind| ((*kind).to_owned(), json!({"schema": patch}))).collect())
            }
            Verb::Get | Verb::List | Verb::Watch => None,
        };
        if let Some(body) = body {
            let required = matches!(verb, Verb::Create | Verb::Update | Verb::Patch);
            operation["requestBody"] =
                if required { json!({"content": body, "required": true}) } else { json!({"content": body}) };
        }
        operation
    }

    fn answer(&mut self, verb: Verb) -> Value {
        match verb {
            Verb::List | Verb::Watch => {
                let list = self.list;
                self.schemas.kind(&list.group, &list.version, &list.kind).unwrap_or_else(text)
            }
            Verb::Delete | Verb::DeleteCollection => self.schemas.meta("Status"),
            Verb::Create | Verb::Get | Verb::Patch | Verb::Update => self.object(),
        }
    }

    fn object(&mut self) -> Value {
        let GroupVersionKind { group, version, kind } = self.kind;
        self.schemas.kind(group, version, kind).unwrap_or_else(text)
    }
}

/// What is no object, such as a log or an upgraded connection.
fn text() -> Value {
    json!({"type": "string"})
}

fn method(verb: Verb) -> &'static str {
    match verb {
        Verb::Get | Verb::List | Verb::Watch => "get",
        Verb::Create => "post",
        Verb::Update => "put",
        Verb::Patch => "patch",
        Verb::Delete | Verb::DeleteCollection => "delete",
    }
}

/// The verb as OpenAPI calls it.
fn action(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "post",
        Verb::Update => "put",
        other => other.as_str(),
    }
}

fn parameters(verb: Verb) -> Vec<Value> {
    let names: &[(&str, &str)] = match verb {
        Verb::Get => &[],
        Verb::List | Verb::Watch => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        Verb::Create | Verb::Update => {
            &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")]
        }
        Verb::Patch => {
            &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")]
        }
        Verb::Delete => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("orphanDependents", "boolean"),
            ("propagationPolicy", "string"),
        ],
        Verb::DeleteCollection => &[
            ("continue", "string"),
            ("dryRun", "string"),
            ("fieldSelector", "string"),
            ("gracePeriodSeconds", "integer"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("orphanDependents", "boolean"),
            ("propagationPolicy", "string"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
        ],
    };
    names.iter().map(|(name, kind)| query(name, kind)).collect()
}

fn query(name: &str, kind: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}
