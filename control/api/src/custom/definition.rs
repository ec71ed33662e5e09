//! A CustomResourceDefinition as the server sees it: names, state, and the resources that it stands for.

use std::sync::Arc;

use serde_json::{Value, json};

use super::message::{message, name};
use super::parse::{Patterns, strings};
use super::settle::is_true;
use super::{Columns, Kind, Scale, Schema, version};
use crate::meta;
use crate::registry::{GroupVersionKind, Hooks, Resource, Subresource, Verb, api_version};
use crate::value::{items, text};

pub const GROUP: &str = "apiextensions.k8s.io";
pub const PLURAL: &str = "customresourcedefinitions";
/// Keeps a definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

static HOOKS: Hooks = Hooks::GENERIC;

/// Whether a resource is that of the definitions themselves.
#[must_use]
pub fn is_definition(resource: &Resource) -> bool {
    resource.group == GROUP && resource.plural == PLURAL
}

/// What a custom resource is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Definition {
    pub name: String,
    pub uid: String,
    pub group: String,
    pub requested: Names,
    pub accepted: Names,
    pub terminating: bool,
    /// Its objects have not been removed yet.
    pub has_finalizer: bool,
    pub(super) approval: String,
    /// As the object has them.
    pub(super) conditions: Vec<Value>,
    /// The generation of the spec: that of the object, but for the step that a deletion makes.
    desired: i64,
    resources: Vec<Arc<Resource>>,
}

impl Names {
    fn of(names: &Value) -> Self {
        let name = |field: &str| text(&names[field]).to_owned();
        Self {
            plural: name("plural"),
            singular: name("singular"),
            kind: name("kind"),
            list_kind: name("listKind"),
            short_names: strings(&names["shortNames"]),
            categories: strings(&names["categories"]),
        }
    }

    /// What a resource is called that has no definition.
    #[must_use]
    pub fn of_resource(resource: &Resource) -> Self {
        Self {
            plural: resource.plural.clone(),
            singular: resource.singular.clone(),
            kind: resource.kind.clone(),
            list_kind: resource.list_kind.clone(),
            short_names: resource.short_names.clone(),
            categories: Vec::new(),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let mut names = json!({"plural": self.plural, "kind": self.kind});
        for (field, name) in [("singular", &self.singular), ("listKind", &self.list_kind)] {
            if !name.is_empty() {
                names[field] = name.as_str().into();
            }
        }
        for (field, list) in [("shortNames", &self.short_names), ("categories", &self.categories)] {
            if !list.is_empty() {
                names[field] = list.clone().into();
            }
        }
        names
    }

    /// Everything that could be typed for the resource.
    pub fn resources(&self) -> impl Iterator<Item = &str> {
        let names = [&self.plural, &self.singular].into_iter().chain(&self.short_names);
        names.map(String::as_str).filter(|name| !name.is_empty())
    }

    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        [self.kind.as_str(), self.list_kind.as_str()].into_iter().filter(|name| !name.is_empty())
    }

    fn are_complete(&self) -> bool {
        [&self.plural, &self.singular, &self.kind, &self.list_kind].iter().all(|name| !name.is_empty())
    }
}

impl Definition {
    /// Reads a definition. Where nothing changed that concerns its resources, those of `before` are kept as they are.
    #[must_use]
    pub fn of(object: &Value, before: Option<&Self>) -> Self {
        let status = &object["status"];
        let mut definition = Self {
            name: meta::name(object).to_owned(),
            uid: meta::uid(object).to_owned(),
            group: text(&object["spec"]["group"]).to_owned(),
            requested: Names::of(&object["spec"]["names"]),
            accepted: Names::of(&status["acceptedNames"]),
            terminating: meta::deletion_timestamp(object).is_some(),
            has_finalizer: meta::finalizers(object).contains(&FINALIZER),
            approval: meta::annotation(object, super::settle::APPROVAL).unwrap_or_default().to_owned(),
            conditions: items(&status["conditions"]).to_vec(),
            desired: meta::generation(object) - i64::from(meta::deletion_timestamp(object).is_some()),
            resources: Vec::new(),
        };
        match before.filter(|before| definition.is_like(before)) {
            Some(before) if before.terminating == definition.terminating => {
                definition.resources.clone_from(&before.resources);
            }
            Some(before) => {
                let end = |resource: &Arc<Resource>| {
                    Arc::new(Resource { terminating: definition.terminating, ..(**resource).clone() })
                };
                definition.resources = before.resources.iter().map(end).collect();
            }
            None => definition.read_resources(&object["spec"]),
        }
        definition
    }

    fn is_like(&self, other: &Self) -> bool {
        let key = |one: &Self| (one.uid.clone(), one.desired, one.is_served());
        key(self) == key(other) && self.accepted == other.accepted
    }

    /// Whether requests for its resources are answered.
    #[must_use]
    pub fn is_served(&self) -> bool {
        (is_true(&self.conditions, "Established") || is_true(&self.conditions, "NamesAccepted"))
            && self.accepted.are_complete()
    }

    /// One resource for each version that is served, preferred ones first.
    #[must_use]
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    fn read_resources(&mut self, spec: &Value) {
        self.resources.clear();
        if !self.is_served() {
            return;
        }
        let mut patterns = Patterns::default();
        let versions = items(&spec["versions"]);
        let schemas: Vec<Arc<Schema>> = versions
            .iter()
            .map(|version| Arc::new(Schema::parse_with(&version["schema"]["openAPIV3Schema"], &mut patterns)))
            .collect();
        let stored = versions.iter().position(|version| version["storage"] == true).unwrap_or(0);
        for (at, version) in versions.iter().enumerate().filter(|(_, version)| version["served"] == true) {
            let stored_schema = (at != stored).then(|| schemas.get(stored).map(Arc::clone)).flatten();
            let stored_as = api_version(&self.group, text(&versions[stored]["name"]));
            let kind = self.kind(spec, version, &schemas[at], stored_schema, stored_as);
            self.resources.push(Arc::new(self.resource(spec, version, kind)));
        }
        self.resources.sort_by(|a, b| version::compare(&a.version, &b.version));
    }

    fn kind(
        &self,
        spec: &Value,
        version: &Value,
        schema: &Arc<Schema>,
        stored_schema: Option<Arc<Schema>>,
        stored_as: String,
    ) -> Kind {
        let (group, number) = (self.group.as_str(), text(&version["name"]));
        let selectable = items(&version["selectableFields"]).iter().map(|field| text(&field["jsonPath"]));
        Kind {
            schema: Arc::clone(schema),
            message: message(&name(group, number, &self.accepted.kind), group, number, schema),
            columns: Columns::parse(&version["additionalPrinterColumns"]),
            selectable: selectable.map(|path| path.strip_prefix('.').unwrap_or(path).to_owned()).collect(),
            scale: Scale::parse(&version["subresources"]["scale"]),
            needs_webhook: stored_schema.is_some() && spec["conversion"]["strategy"] == "Webhook",
            stored_as,
            stored_schema,
            published: version["schema"]["openAPIV3Schema"].to_string().into(),
            has_status: version["subresources"]["status"].is_object(),
        }
    }

    fn deprecation(&self, spec: &Value, deprecated: &Value) -> String {
        if let Some(warning) = deprecated["deprecationWarning"].as_str() {
            return warning.to_owned();
        }
        let (name, kind) = (text(&deprecated["name"]), &self.requested.kind);
        let newer = items(&spec["versions"]).iter().filter(|version| {
            version["served"] == true
                && version["deprecated"] != true
                && version::compare(text(&version["name"]), name).is_lt()
        });
        let best = newer.map(|version| text(&version["name"])).min_by(|a, b| version::compare(a, b));
        let hint = best.map(|best| format!("; use {}/{best} {kind}", self.group)).unwrap_or_default();
        format!("{}/{name} {kind} is deprecated{hint}", self.group)
    }

    fn resource(&self, spec: &Value, version: &Value, kind: Kind) -> Resource {
        let names = &self.accepted;
        let own = GroupVersionKind::new(&self.group, text(&version["name"]), &names.kind);
        let writable = vec![Verb::Get, Verb::Patch, Verb::Update];
        let mut subresources = Vec::new();
        if kind.scale.is_some() {
            let scale = GroupVersionKind::new("autoscaling", "v1", "Scale");
            subresources.push(Subresource { name: "scale".into(), kind: scale, verbs: writable.clone() });
        }
        if kind.has_status() {
            subresources.push(Subresource { name: "status".into(), kind: own.clone(), verbs: writable });
        }
        Resource {
            group: own.group,
            version: own.version,
            kind: own.kind,
            list_kind: names.list_kind.clone(),
            plural: names.plural.clone(),
            singular: names.singular.clone(),
            short_names: names.short_names.clone(),
            categories: names.categories.clone(),
            namespaced: spec["scope"] == "Namespaced",
            verbs: Verb::ALL.to_vec(),
            subresources,
            create_on_update: false,
            unconditional_update: false,
            has_generation: true,
            graceful_deletion: false,
            terminating: self.terminating,
            is_virtual: false,
            conversion: None,
            storage: (self.group.clone(), names.plural.clone()),
            hooks: &HOOKS,
            deprecation: (version["deprecated"] == true).then(|| self.deprecation(spec, version)),
            custom: Some(Arc::new(kind)),
        }
    }
}
