//! ControllerRevisions: the templates that a DaemonSet or a StatefulSet has had, as patches that bring them back.
//!
//! Their form is upstream's, because `kubectl rollout undo` applies `data` as a strategic merge patch.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::Selector;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::Cluster;
use crate::hash::{fnv32a, safe_encode};
use crate::meta;

pub(crate) const HASH_LABEL: &str = "controller-revision-hash";

/// A template and what it is called.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Revision {
    pub(crate) name: String,
    /// The value of [`HASH_LABEL`] on the revision itself.
    pub(crate) hash: String,
    pub(crate) template: PodTemplateSpec,
}

/// The revisions of one owner, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    revisions: Vec<Arc<ControllerRevision>>,
}

/// How the owner's present template becomes the newest revision.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// It is.
    Known(Revision),
    /// An older revision has the same template: it gets the highest number.
    Renumber(Revision, i64),
    Create(Box<ControllerRevision>, Revision),
}

impl History {
    /// The owner's revisions as the informer knows them, and matching ones that nobody owns.
    pub(crate) fn of<K>(cluster: &Cluster, owner: &K, selector: &Selector) -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        let uid = meta::uid(owner);
        let namespace = owner.meta().namespace.clone().unwrap_or_default();
        Self::new(cluster.revisions.filter(&namespace, |revision| match meta::controller_of(&revision.metadata) {
            Some(found) => found.uid == uid,
            None => meta::matches(selector, revision.labels()) && !meta::is_deleting(revision),
        }))
    }

    fn new(mut revisions: Vec<Arc<ControllerRevision>>) -> Self {
        revisions.sort_by_key(|one| (one.revision, one.creation_timestamp().map(|time| time.0), one.name_any()));
        Self { revisions }
    }

    fn orphans(&self) -> impl Iterator<Item = &Arc<ControllerRevision>> {
        self.revisions.iter().filter(|revision| meta::controller_of(&revision.metadata).is_none())
    }

    pub(crate) fn find(&self, name: &str) -> Option<Revision> {
        self.revisions.iter().find(|revision| revision.name_any() == name).and_then(|revision| read(revision))
    }

    /// What makes `template` the newest revision.
    pub(crate) fn step<K>(&self, owner: &K, template: &PodTemplateSpec, collisions: Option<i32>) -> Step
    where
        K: Resource<DynamicType = ()>,
    {
        let wanted = data(template);
        let newest = self.revisions.iter().map(|one| one.revision).max().unwrap_or(0);
        let same = self.revisions.iter().rev().find(|one| one.data.as_ref().is_some_and(|found| found.0 == wanted));
        if let Some((found, revision)) = same.and_then(|one| Some((one, read(one)?))) {
            return if found.revision == newest { Step::Known(revision) } else { Step::Renumber(revision, newest + 1) };
        }
        let hash = hash(&wanted, collisions);
        let name = format!("{}-{hash}", owner.meta().name.as_deref().unwrap_or_default());
        let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
        labels.insert(HASH_LABEL.into(), hash.clone());
        let object = ControllerRevision {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: owner.meta().namespace.clone(),
                labels: Some(labels),
                annotations: annotations(owner.meta()),
                owner_references: Some(vec![meta::controller_reference(owner)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(wanted)),
            revision: newest + 1,
        };
        Step::Create(Box::new(object), Revision { name, hash, template: template.clone() })
    }

    /// Names of the oldest revisions beyond the limit, of those that neither `live` nor a pod uses.
    fn surplus(&self, live: &[&str], limit: usize) -> Vec<String> {
        let unused: Vec<String> =
            self.revisions.iter().map(|one| one.name_any()).filter(|name| !live.contains(&name.as_str())).collect();
        let count = unused.len().saturating_sub(limit);
        unused.into_iter().take(count).collect()
    }
}

/// What is written about revisions.
pub(crate) struct Writer<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) namespace: &'a str,
}

/// The name of the new revision is taken by another template.
#[derive(Debug, thiserror::Error)]
#[error("revision {0} has another template")]
pub(crate) struct Collision(pub(crate) String);

impl Writer<'_> {
    fn api(&self) -> Api<ControllerRevision> {
        Api::namespaced(self.cluster.client.clone(), self.namespace)
    }

    /// Adopts orphans and does what the step says; the result is the newest revision.
    pub(crate) async fn apply<K>(&self, owner: &K, history: &History, step: Step) -> anyhow::Result<Revision>
    where
        K: Resource<DynamicType = ()>,
    {
        for orphan in history.orphans() {
            let reference = meta::controller_reference(owner);
            let patch = json!({"metadata": {"uid": meta::uid(&**orphan), "ownerReferences": [reference]}});
            self.api().patch(&orphan.name_any(), &PatchParams::default(), &Patch::Strategic(&patch)).await?;
        }
        match step {
            Step::Known(revision) => Ok(revision),
            Step::Renumber(revision, number) => {
                let patch = json!({"revision": number});
                self.api().patch(&revision.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
                Ok(revision)
            }
            Step::Create(object, revision) => match self.api().create(&PostParams::default(), &object).await {
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                    // Ours with the same template is only not yet in our view.
                    let found = self.api().get(&revision.name).await?;
                    let ours = meta::controller_of(&found.metadata).is_some_and(|one| one.uid == meta::uid(owner));
                    if ours && found.data == object.data { Ok(revision) } else { Err(Collision(revision.name).into()) }
                }
                result => result.map(|_| revision).context("cannot create a revision"),
            },
        }
    }

    pub(crate) async fn prune(&self, history: &History, live: &[&str], limit: Option<i32>) -> anyhow::Result<()> {
        let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
        for name in history.surplus(live, limit) {
            match self.api().delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                result => drop(result?),
            }
        }
        Ok(())
    }
}

/// The strategic merge patch that brings a template back.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

fn read(revision: &ControllerRevision) -> Option<Revision> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    Some(Revision {
        name: revision.name_any(),
        hash: revision.labels().get(HASH_LABEL).cloned().unwrap_or_default(),
        template: serde_json::from_value(template).ok()?,
    })
}

fn hash(data: &Value, collisions: Option<i32>) -> String {
    let collisions = collisions.map(|count| count.to_string()).unwrap_or_default();
    safe_encode(fnv32a(data.to_string().bytes().chain(collisions.bytes())))
}

/// History shows the change cause of its owner; what was last applied is no part of it.
fn annotations(owner: &ObjectMeta) -> Option<BTreeMap<String, String>> {
    let mut annotations = owner.annotations.clone()?;
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    Some(annotations)
}

#[cfg(test)]
mod tests {
    use super::{History, Step, data, read};
    use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
    use k8s_openapi::api::core::v1::PodTemplateSpec;
    use serde_json::json;
    use std::sync::Arc;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": image}]}}))
        .unwrap()
    }

    fn owner() -> StatefulSet {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n", "uid": "u"}})).unwrap()
    }

    fn made(history: &History, image: &str) -> ControllerRevision {
        match history.step(&owner(), &template(image), None) {
            Step::Create(object, _) => *object,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_revision_is_a_patch_that_brings_its_template_back() {
        let patch = data(&template("i"));
        assert_eq!(
            patch,
            json!({"spec": {"template": {"$patch": "replace", "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
        );
        let object = made(&History::default(), "i");
        assert_eq!(object.revision, 1);
        assert_eq!(read(&object).unwrap().template, template("i"));
    }

    #[test]
    fn an_old_template_gets_the_highest_number_again() {
        let first = made(&History::default(), "i");
        let second = made(&History::new(vec![Arc::new(first.clone())]), "j");
        assert_eq!(second.revision, 2);
        let history = History::new(vec![Arc::new(second), Arc::new(first)]);
        assert!(matches!(history.step(&owner(), &template("j"), None), Step::Known(_)));
        assert!(matches!(history.step(&owner(), &template("i"), None), Step::Renumber(_, 3)));
    }

    #[test]
    fn names_change_with_collisions_and_live_revisions_are_kept() {
        let history = History::default();
        let name = |collisions| match history.step(&owner(), &template("i"), collisions) {
            Step::Create(_, revision) => revision.name,
            other => panic!("{other:?}"),
        };
        assert_ne!(name(None), name(Some(1)));
        let all: Vec<_> = ["i", "j", "k"]
            .iter()
            .enumerate()
            .map(|(index, image)| {
                let mut revision = made(&History::default(), image);
                revision.revision = index as i64 + 1;
                Arc::new(revision)
            })
            .collect();
        let names: Vec<String> = all.iter().map(|one| one.metadata.name.clone().unwrap()).collect();
        let history = History::new(all);
        assert_eq!(history.surplus(&[&names[2]], 1), [names[0].clone()]);
        assert_eq!(history.surplus(&[&names[0]], 1), [names[1].clone()]);
    }
}
