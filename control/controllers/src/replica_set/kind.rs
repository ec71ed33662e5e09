//! The kinds that keep a number of pods: ReplicaSets, and ReplicationControllers, which are the same in an older form.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Resource;
use serde::Serialize;

use crate::Cluster;
use crate::informer::{Informer, Known};

pub(crate) trait Replicated: Known + Serialize + Resource<Scope = NamespaceResourceScope> {
    const KIND: &'static str;
    /// Who its events are from.
    const SOURCE: &'static str;

    fn known(cluster: &Cluster) -> &Informer<Self>;

    /// What it says, as a ReplicaSet says it.
    fn as_set(&self) -> Cow<'_, ReplicaSet>;

    fn set_status(&mut self, status: ReplicaSetStatus);
}

impl Replicated for ReplicaSet {
    const KIND: &'static str = "ReplicaSet";
    const SOURCE: &'static str = "replicaset-controller";

    fn known(cluster: &Cluster) -> &Informer<Self> {
        &cluster.replica_sets
    }

    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        Cow::Borrowed(self)
    }

    fn set_status(&mut self, status: ReplicaSetStatus) {
        self.status = Some(status);
    }
}

impl Replicated for ReplicationController {
    const KIND: &'static str = "ReplicationController";
    const SOURCE: &'static str = "replication-controller";

    fn known(cluster: &Cluster) -> &Informer<Self> {
        &cluster.replication_controllers
    }

    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        let spec = self.spec.clone().map(|spec| ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: spec.replicas,
            selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
            template: spec.template,
        });
        let status = self.status.clone().map(|status| ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            terminating_replicas: None,
            observed_generation: status.observed_generation,
            conditions: status.conditions.map(|list| list.into_iter().map(newer).collect()),
        });
        Cow::Owned(ReplicaSet { metadata: self.metadata.clone(), spec, status })
    }

    fn set_status(&mut self, status: ReplicaSetStatus) {
        self.status = Some(ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions: status.conditions.map(|list| list.into_iter().map(older).collect()),
        });
    }
}

fn newer(condition: ReplicationControllerCondition) -> ReplicaSetCondition {
    ReplicaSetCondition {
        type_: condition.type_,
        status: condition.status,
        reason: condition.reason,
        message: condition.message,
        last_transition_time: condition.last_transition_time,
    }
}

fn older(condition: ReplicaSetCondition) -> ReplicationControllerCondition {
    ReplicationControllerCondition {
        type_: condition.type_,
        status: condition.status,
        reason: condition.reason,
        message: condition.message,
        last_transition_time: condition.last_transition_time,
    }
}

#[cfg(test)]
mod tests {
    use super::Replicated;
    use k8s_openapi::api::core::v1::ReplicationController;
    use serde_json::json;

    #[test]
    fn the_older_form_says_the_same() {
        let object = json!({
            "apiVersion": "v1", "kind": "ReplicationController",
            "metadata": {"name": "web", "uid": "u"},
            "spec": {"replicas": 2, "minReadySeconds": 3, "selector": {"app": "web"}},
            "status": {"replicas": 1, "readyReplicas": 1, "observedGeneration": 4, "conditions": [
                {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "m"}]},
        });
        let controller: ReplicationController = serde_json::from_value(object.clone()).unwrap();
        let set = json!(controller.as_set().into_owned());
        assert_eq!(set["spec"]["selector"], json!({"matchLabels": {"app": "web"}}));
        assert_eq!((&set["spec"]["replicas"], &set["status"]), (&json!(2), &object["status"]));
        // What a ReplicaSet has more is left out, so that a status just written is no change.
        let mut again = controller.clone();
        let mut status = controller.as_set().status.clone().unwrap();
        status.terminating_replicas = Some(0);
        again.set_status(status);
        assert_eq!(again, controller);
    }
}
