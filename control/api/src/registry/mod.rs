//! What each resource is: names, scope, verbs, subresources, where it is stored and which behaviour it has.
//!
//! A [`Registry`] is a plain value. Built-in kinds come from [`Registry::builtin`]; kinds added at run time go through
//! [`Registry::insert`], so that a server publishes a new registry as a whole and never changes one in use.
//!
//! Storage layout: `/registry/<group, or "core">/<plural>/[<namespace>/]<name>`.

mod builtin;
mod event;
mod hooks;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::custom;
use crate::schema::{self, Message};

pub use hooks::Hooks;

/// A verb of the REST surface, spelled as discovery and RBAC spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// Every verb of an ordinary stored resource, in discovery's order.
    pub const ALL: &'static [Verb] = &[
        Verb::Create,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }
}

/// A group, version and kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl GroupVersionKind {
    #[must_use]
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
}

/// A path below a resource, such as `status`, `scale` or `token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    pub name: String,
    /// What its bodies are; the resource's own kind for `status`.
    pub kind: GroupVersionKind,
    pub verbs: Vec<Verb>,
}

/// How a kind that shares another kind's storage is turned into what is stored, and back.
#[derive(Debug, Clone, Copy)]
pub struct Conversion {
    pub to_stored: fn(&mut serde_json::Value),
    pub from_stored: fn(&mut serde_json::Value),
}

/// One resource of one group and version.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: Vec<Verb>,
    pub subresources: Vec<Subresource>,
    /// A PUT to a name that does not exist creates it.
    pub create_on_update: bool,
    /// A PUT without `metadata.resourceVersion` overwrites whatever is there.
    pub unconditional_update: bool,
    /// `metadata.generation` counts changes of the desired state.
    pub has_generation: bool,
    /// Deletion waits for whoever runs the object (`metadata.deletionGracePeriodSeconds`).
    pub graceful_deletion: bool,
    /// Its definition is being deleted: nothing new is created.
    pub terminating: bool,
    /// Answered from the request alone and never stored (reviews).
    pub is_virtual: bool,
    /// Set where the stored form belongs to another resource.
    pub conversion: Option<Conversion>,
    /// The group and plural under which objects are stored.
    pub storage: (String, String),
    pub hooks: &'static Hooks,
    /// What clients are warned of whenever they use it.
    pub deprecation: Option<String>,
    /// What a CustomResourceDefinition says of the kind; it then takes the place of the hooks.
    pub custom: Option<Arc<custom::Kind>>,
}

impl Resource {
    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    #[must_use]
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(&self.group, &self.version, &self.kind)
    }

    /// `pods`, or `deployments.apps` outside the core group.
    #[must_use]
    pub fn qualified(&self) -> String {
        crate::status::qualified(&self.group, &self.plural)
    }

    #[must_use]
    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// The type of its objects.
    #[must_use]
    pub fn message(&self) -> Option<&Message> {
        match &self.custom {
            Some(custom) => Some(&custom.message),
            None => schema::kind(&self.group, &self.version, &self.kind),
        }
    }

    /// Whether this is a built-in kind of the core group.
    #[must_use]
    pub fn is_core(&self, kind: &str) -> bool {
        self.group.is_empty() && self.kind == kind
    }

    /// The verbs that discovery tells of: nothing is created any more once a definition is being deleted.
    #[must_use]
    pub fn advertised_verbs(&self) -> Vec<Verb> {
        let writes = [Verb::Create, Verb::Patch, Verb::Update];
        self.verbs.iter().copied().filter(|verb| !(self.terminating && writes.contains(verb))).collect()
    }

    /// Whether objects are served byte by byte as they are stored.
    #[must_use]
    pub fn is_served_as_stored(&self) -> bool {
        self.conversion.is_none() && self.custom.is_none()
    }

    /// Whether `status` is written only through its subresource.
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// The key prefix of a namespace's objects, or of all objects for an empty namespace; ends with `/`.
    #[must_use]
    pub fn prefix(&self, namespace: &str) -> String {
        let (group, plural) = &self.storage;
        let group = if group.is_empty() { "core" } else { group };
        if self.namespaced && !namespace.is_empty() {
            format!("/registry/{group}/{plural}/{namespace}/")
        } else {
            format!("/registry/{group}/{plural}/")
        }
    }

    /// The key of one object.
    #[must_use]
    pub fn key(&self, namespace: &str, name: &str) -> String {
        self.prefix(namespace) + name
    }

    /// Turns an object of this kind into the form that is stored.
    pub fn to_stored(&self, object: &mut serde_json::Value) {
        if let Some(conversion) = self.conversion {
            (conversion.to_stored)(object);
        } else if let Some(custom) = &self.custom {
            custom.make_stored(object);
        }
    }

    /// The form of an object that rules and printers of its kind look at, copied only where it differs.
    #[must_use]
    pub fn as_stored<'a>(&self, object: &'a serde_json::Value) -> Cow<'a, serde_json::Value> {
        let mut object = Cow::Borrowed(object);
        if let Some(conversion) = self.conversion {
            (conversion.to_stored)(object.to_mut());
        }
        object
    }

    /// Turns a stored object into this kind's form.
    pub fn from_stored(&self, object: &mut serde_json::Value) {
        if let Some(conversion) = self.conversion {
            (conversion.from_stored)(object);
        } else if let Some(custom) = &self.custom {
            custom.read_stored(&self.api_version(), object);
        }
    }
}

/// All resources, in discovery's order.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    resources: Vec<Arc<Resource>>,
    by_path: HashMap<String, Arc<Resource>>,
    by_kind: HashMap<GroupVersionKind, Arc<Resource>>,
}

impl Registry {
    /// The kinds the bundled API server serves by itself.
    #[must_use]
    pub fn builtin() -> Self {
        let mut registry = Self::default();
        for resource in builtin::resources() {
            registry.insert(resource);
        }
        registry
    }

    /// Adds a resource, replacing one of the same group, version and plural.
    pub fn insert(&mut self, resource: Resource) {
        self.insert_shared(Arc::new(resource));
    }

    /// Adds the resources of custom definitions: groups and plurals by name, of versions the preferred first. Built-in
    /// resources are never replaced.
    pub fn insert_custom<'a>(&mut self, definitions: impl IntoIterator<Item = &'a custom::Definition>) {
        let resources = definitions.into_iter().flat_map(|definition| definition.resources().iter().cloned());
        let mut resources: Vec<Arc<Resource>> = resources.filter(|resource| !self.holds(resource)).collect();
        resources.sort_by(|a, b| {
            let versions = custom::compare_versions(&a.version, &b.version);
            a.group.cmp(&b.group).then(versions).then_with(|| a.plural.cmp(&b.plural))
        });
        resources.into_iter().for_each(|resource| self.insert_shared(resource));
    }

    /// Whether the plural or the kind is taken in the group.
    fn holds(&self, resource: &Resource) -> bool {
        self.resources.iter().any(|other| {
            other.group == resource.group && (other.plural == resource.plural || other.kind == resource.kind)
        })
    }

    fn insert_shared(&mut self, resource: Arc<Resource>) {
        self.remove(&resource.group, &resource.version, &resource.plural);
        self.by_path.insert(path(&resource.group, &resource.version, &resource.plural), resource.clone());
        self.by_kind.insert(resource.gvk(), resource.clone());
        self.resources.push(resource);
    }

    /// Takes a resource out and returns it.
    pub fn remove(&mut self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let resource = self.by_path.remove(&path(group, version, plural))?;
        self.by_kind.remove(&resource.gvk());
        self.resources.retain(|other| !Arc::ptr_eq(other, &resource));
        Some(resource)
    }

    /// By URL: group (empty for core), version and plural.
    #[must_use]
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_path.get(&path(group, version, plural))
    }

    #[must_use]
    pub fn by_gvk(&self, kind: &GroupVersionKind) -> Option<&Arc<Resource>> {
        self.by_kind.get(kind)
    }

    /// By `apiVersion` and `kind`, as an object spells them.
    #[must_use]
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Resource>> {
        let (group, version) = split_api_version(api_version);
        self.by_gvk(&GroupVersionKind::new(group, version, kind))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter()
    }

    /// Group names in discovery's order, core (empty) first.
    #[must_use]
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = Vec::new();
        for resource in &self.resources {
            if !groups.contains(&resource.group.as_str()) {
                groups.push(&resource.group);
            }
        }
        groups
    }

    /// The versions of a group, preferred first.
    #[must_use]
    pub fn versions(&self, group: &str) -> Vec<&str> {
        let mut versions: Vec<&str> = Vec::new();
        for resource in self.resources.iter().filter(|resource| resource.group == group) {
            if !versions.contains(&resource.version.as_str()) {
                versions.push(&resource.version);
            }
        }
        versions
    }
}

/// `v1` or `apps/v1`.
#[must_use]
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The group (empty for core) and version of an `apiVersion`.
#[must_use]
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

fn path(group: &str, version: &str, plural: &str) -> String {
    format!("{group}/{version}/{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_up_by_path_and_by_kind() {
        let registry = Registry::builtin();
        let deployments = registry.get("apps", "v1", "deployments").expect("deployments");
        assert_eq!(deployments.kind, "Deployment");
        assert_eq!(registry.by_kind("apps/v1", "Deployment").expect("kind").plural, "deployments");
        assert_eq!(registry.by_kind("v1", "Pod").expect("kind").short_names, ["po"]);
        assert!(registry.get("", "v1", "deployments").is_none());
    }

    #[test]
    fn keys_hold_group_plural_namespace_and_name() {
        let registry = Registry::builtin();
        let pods = registry.get("", "v1", "pods").expect("pods");
        assert_eq!(pods.key("default", "web"), "/registry/core/pods/default/web");
        assert_eq!(pods.prefix(""), "/registry/core/pods/");
        let roles = registry.get("rbac.authorization.k8s.io", "v1", "clusterroles").expect("clusterroles");
        assert_eq!(roles.key("", "admin"), "/registry/rbac.authorization.k8s.io/clusterroles/admin");
    }

    #[test]
    fn both_event_kinds_share_one_key() {
        let registry = Registry::builtin();
        let core = registry.get("", "v1", "events").expect("core events");
        let new = registry.get("events.k8s.io", "v1", "events").expect("events");
        assert_eq!(core.key("a", "b"), new.key("a", "b"));
    }

    #[test]
    fn a_resource_can_be_added_and_removed_at_run_time() {
        let mut registry = Registry::builtin();
        let mut custom = (**registry.get("", "v1", "configmaps").expect("configmaps")).clone();
        custom.group = "example.com".into();
        custom.kind = "Widget".into();
        custom.plural = "widgets".into();
        registry.insert(custom);
        assert!(registry.groups().contains(&"example.com"));
        assert!(registry.remove("example.com", "v1", "widgets").is_some());
        assert!(registry.by_kind("example.com/v1", "Widget").is_none());
        assert!(!registry.groups().contains(&"example.com"));
    }
}
