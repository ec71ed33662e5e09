//! Who owns whom, by uid: a pure value that says which objects are worth a look after each change.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kube::api::ApiResource;

/// API group and kind.
pub(super) type ResourceKey = (String, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) namespaced: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnerRef {
    pub(super) uid: String,
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: String,
    /// A foreground deletion of the owner waits for this dependent.
    pub(super) blocks: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) uid: String,
    pub(super) resource: ResourceKey,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) owners: Vec<OwnerRef>,
    pub(super) deleting: bool,
    /// Being deleted, and waits for its dependents.
    pub(super) foreground: bool,
    /// Being deleted, and waits for its dependents to be set free.
    pub(super) orphan: bool,
}

/// What to do with an object that is worth a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Set these dependents free, then let the owner go.
    Orphan { dependents: Vec<Object> },
    /// Delete these dependents; let the owner go once none blocks it.
    Foreground { dependents: Vec<Object>, blocked: bool },
    /// So many owners live for sure; ask the API server about the others.
    Owners { known: usize, unknown: Vec<OwnerRef> },
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    objects: HashMap<String, Object>,
    dependents: HashMap<String, BTreeSet<String>>,
    resources: BTreeMap<ResourceKey, (ApiResource, Kind)>,
}

impl Graph {
    pub(super) fn add_resource(&mut self, key: ResourceKey, resource: ApiResource, kind: Kind) {
        self.resources.insert(key, (resource, kind));
    }

    pub(super) fn resource(&self, key: &ResourceKey) -> Option<(ApiResource, Kind)> {
        self.resources.get(key).cloned()
    }

    pub(super) fn object(&self, uid: &str) -> Option<&Object> {
        self.objects.get(uid)
    }

    /// Learns an object; returns the uids worth a look.
    pub(super) fn put(&mut self, object: Object) -> Vec<String> {
        let uid = object.uid.clone();
        self.unlink(&uid);
        for owner in &object.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        let is_worth = object.foreground || object.orphan || !object.owners.is_empty();
        // An owner that waits must hear of every change among its dependents.
        let waiting = object
            .owners
            .iter()
            .filter(|owner| self.objects.get(&owner.uid).is_some_and(|owner| owner.foreground || owner.orphan));
        let looks = waiting.map(|owner| owner.uid.clone()).chain(is_worth.then(|| uid.clone())).collect();
        self.objects.insert(uid, object);
        looks
    }

    /// Forgets an object; returns its dependents and the owners that wait for it.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        self.unlink(uid);
        let owners = self.objects.remove(uid).map(|object| object.owners).unwrap_or_default();
        let dependents = self.dependents.get(uid).into_iter().flatten().cloned();
        dependents.chain(owners.into_iter().map(|owner| owner.uid)).collect()
    }

    fn unlink(&mut self, uid: &str) {
        let owners = self.objects.get(uid).map(|object| object.owners.clone()).unwrap_or_default();
        for owner in owners {
            if let Some(set) = self.dependents.get_mut(&owner.uid) {
                set.remove(uid);
                if set.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    /// Objects of a resource that a fresh list does not hold.
    pub(super) fn of_resource_except(&self, key: &ResourceKey, listed: &[String]) -> Vec<String> {
        let listed: BTreeSet<&String> = listed.iter().collect();
        let ours = self.objects.values().filter(|object| object.resource == *key && !listed.contains(&object.uid));
        ours.map(|object| object.uid.clone()).collect()
    }

    fn dependents_of(&self, uid: &str) -> Vec<Object> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.objects.get(uid).cloned()).collect()
    }

    /// What to do with an object now; none if nothing.
    pub(super) fn look(&self, uid: &str) -> Option<(Object, Look)> {
        let object = self.objects.get(uid)?;
        let look = if object.orphan {
            Look::Orphan { dependents: self.dependents_of(uid) }
        } else if object.foreground {
            let all = self.dependents_of(uid);
            let blocks = |dependent: &Object| dependent.owners.iter().any(|owner| owner.uid == uid && owner.blocks);
            let blocked = all.iter().any(blocks);
            Look::Foreground { dependents: all.into_iter().filter(|one| !one.deleting).collect(), blocked }
        } else {
            // An object that is already going needs no owner's permission.
            if object.deleting || object.owners.is_empty() {
                return None;
            }
            let is_known = |owner: &&OwnerRef| self.objects.contains_key(&owner.uid);
            let (known, unknown): (Vec<&OwnerRef>, Vec<&OwnerRef>) = object.owners.iter().partition(is_known);
            Look::Owners { known: known.len(), unknown: unknown.into_iter().cloned().collect() }
        };
        Some((object.clone(), look))
    }
}

#[cfg(test)]
mod tests {
    use super::{Graph, Look, Object, OwnerRef};

    fn object(uid: &str, owners: &[&str]) -> Object {
        let owners = owners.iter().map(|uid| OwnerRef {
            uid: (*uid).into(),
            group: String::new(),
            kind: "Kind".into(),
            name: (*uid).into(),
            blocks: true,
        });
        Object {
            uid: uid.into(),
            resource: (String::new(), "Kind".into()),
            namespace: "n".into(),
            name: uid.into(),
            owners: owners.collect(),
            deleting: false,
            foreground: false,
            orphan: false,
        }
    }

    #[test]
    fn a_dependent_is_looked_at_when_its_owner_goes() {
        let mut graph = Graph::default();
        assert!(graph.put(object("owner", &[])).is_empty());
        graph.put(object("pod", &["owner"]));
        assert!(matches!(graph.look("pod"), Some((_, Look::Owners { known: 1, .. }))));
        assert_eq!(graph.remove("owner"), ["pod"]);
        let Some((_, Look::Owners { known: 0, unknown })) = graph.look("pod") else { panic!() };
        assert_eq!(unknown.len(), 1);
    }

    #[test]
    fn a_foreground_owner_waits_for_its_last_blocking_dependent() {
        let mut graph = Graph::default();
        graph.put(object("pod", &["owner"]));
        let owner = Object { deleting: true, foreground: true, ..object("owner", &[]) };
        assert_eq!(graph.put(owner), ["owner"]);
        assert!(matches!(graph.look("owner"), Some((_, Look::Foreground { blocked: true, .. }))));
        assert_eq!(graph.remove("pod"), ["owner"]);
        assert!(matches!(graph.look("owner"), Some((_, Look::Foreground { blocked: false, .. }))));
    }

    #[test]
    fn circles_end_when_one_member_goes() {
        let mut graph = Graph::default();
        graph.put(object("a", &["b"]));
        graph.put(object("b", &["a"]));
        assert!(graph.remove("a").contains(&"b".to_owned()));
        assert!(matches!(graph.look("b"), Some((_, Look::Owners { known: 0, .. }))));
    }
}
