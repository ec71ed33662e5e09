//! Rollouts by table: sizes in, intents out.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::json;

use super::{Bounds, Change, Intent, plan};

fn deployment(replicas: i32, image: &str) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "d", "generation": 1},
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    }))
    .unwrap()
}

/// A set of the given image: (size, available).
fn set(image: &str, revision: i64, size: i32, available: i32, desired: i32) -> Arc<ReplicaSet> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {
                "name": format!("web-{image}"), "namespace": "n", "uid": image,
                "creationTimestamp": format!("2026-01-01T00:00:0{revision}Z"),
                "annotations": {"deployment.kubernetes.io/revision": revision.to_string(),
                    "deployment.kubernetes.io/desired-replicas": desired.to_string(),
                    "deployment.kubernetes.io/max-replicas": (desired + (desired + 3) / 4).to_string()},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d",
                                     "controller": true}],
            },
            "spec": {"replicas": size, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web", "pod-template-hash": image}},
                             "spec": {"containers": [{"name": "c", "image": image}]}}},
            "status": {"replicas": size, "availableReplicas": available, "readyReplicas": available},
        }))
        .unwrap(),
    )
}

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

/// The sizes that a plan asks for, by set.
fn sizes(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Vec<(String, i32)> {
    let intents = plan(deployment, sets, &[], now()).intents;
    intents
        .into_iter()
        .filter_map(|intent| match intent {
            Intent::Change(Change { set, replicas: Some((_, replicas)), .. }) => Some((set, replicas)),
            Intent::Create(set) => Some(("new".into(), set.spec.unwrap().replicas.unwrap())),
            _ => None,
        })
        .collect()
}

#[test]
fn fenceposts_round_surge_up_and_unavailable_down() {
    let bounds = |replicas| Bounds::of(deployment(replicas, "a").spec.as_ref().unwrap());
    assert_eq!((bounds(10).surge, bounds(10).unavailable), (3, 2));
    assert_eq!((bounds(1).surge, bounds(1).unavailable), (1, 0));
    assert_eq!((bounds(3).surge, bounds(3).unavailable), (1, 0));
}

#[test]
fn the_first_set_is_made_at_full_size() {
    assert_eq!(sizes(&deployment(3, "a"), &[]), [("new".into(), 3)]);
}

#[test]
fn a_new_template_surges_first() {
    assert_eq!(sizes(&deployment(10, "b"), &[set("a", 1, 10, 10, 10)]), [("new".into(), 3)]);
}

#[test]
fn old_sets_shrink_as_far_as_availability_allows() {
    let old_and_new = [set("a", 1, 10, 10, 10), set("b", 2, 3, 0, 10)];
    assert_eq!(sizes(&deployment(10, "b"), &old_and_new), [("web-a".into(), 8)]);
    let ready = [set("a", 1, 8, 8, 10), set("b", 2, 3, 3, 10)];
    assert_eq!(sizes(&deployment(10, "b"), &ready), [("web-b".into(), 5)]);
}

#[test]
fn unhealthy_old_pods_go_first() {
    let sets = [set("a", 1, 10, 6, 10), set("b", 2, 3, 3, 10)];
    assert_eq!(sizes(&deployment(10, "b"), &sets), [("web-a".into(), 5)]);
}

#[test]
fn scaling_in_mid_rollout_is_proportional() {
    let sets = [set("a", 1, 8, 8, 10), set("b", 2, 5, 5, 10)];
    let asked = sizes(&deployment(20, "b"), &sets);
    assert_eq!(asked.iter().map(|(_, size)| size).sum::<i32>(), 25);
    assert_eq!(asked[0], ("web-a".into(), 15));
}

#[test]
fn recreate_empties_the_old_sets_before_it_makes_the_new_one() {
    let mut deployment = deployment(3, "b");
    deployment.spec.as_mut().unwrap().strategy = Some(serde_json::from_value(json!({"type": "Recreate"})).unwrap());
    assert_eq!(sizes(&deployment, &[set("a", 1, 3, 3, 3)]), [("web-a".into(), 0)]);
    assert_eq!(sizes(&deployment, &[set("a", 1, 0, 0, 3)]), [("new".into(), 3)]);
}

#[test]
fn an_undo_reuses_the_old_set_under_a_new_revision() {
    let sets = [set("a", 1, 0, 0, 3), set("b", 2, 3, 3, 3)];
    let intents = plan(&deployment(3, "a"), &sets, &[], now()).intents;
    let revised = intents.iter().any(|intent| {
        matches!(intent, Intent::Change(Change { set, annotations, .. })
            if set == "web-a" && annotations.get(super::REVISION).is_some_and(|text| text == "3"))
    });
    assert!(revised, "{intents:?}");
}

#[test]
fn min_ready_seconds_reach_the_set_without_a_rollout() {
    let mut deployment = deployment(3, "a");
    deployment.spec.as_mut().unwrap().min_ready_seconds = Some(30);
    let intents = plan(&deployment, &[set("a", 1, 3, 3, 3)], &[], now()).intents;
    let changed = intents
        .iter()
        .any(|intent| matches!(intent, Intent::Change(Change { min_ready_seconds: Some(30), replicas: None, .. })));
    assert!(changed, "{intents:?}");
}

#[test]
fn nothing_is_left_to_do_when_all_is_done() {
    let mut deployment = deployment(3, "a");
    let sets = [set("a", 1, 3, 3, 3)];
    for intent in plan(&deployment, &sets, &[], now()).intents {
        match intent {
            Intent::Status(status) => deployment.status = Some(*status),
            Intent::Annotate { annotations } => deployment.metadata.annotations = Some(annotations),
            other => panic!("{other:?}"),
        }
    }
    let conditions = deployment.status.as_ref().unwrap().conditions.clone().unwrap();
    assert!(conditions.iter().any(|one| one.reason.as_deref() == Some("NewReplicaSetAvailable")), "{conditions:?}");
    assert_eq!(plan(&deployment, &sets, &[], now()).intents, []);
}

#[test]
fn a_rollout_that_stands_still_passes_its_deadline() {
    let mut deployment = deployment(3, "b");
    let sets = [set("a", 1, 3, 3, 3), set("b", 2, 1, 0, 3)];
    for minutes in [0, 11] {
        let time = now() + jiff::SignedDuration::from_mins(minutes);
        for intent in plan(&deployment, &sets, &[], time).intents {
            if let Intent::Status(status) = intent {
                deployment.status = Some(*status);
            }
        }
    }
    let conditions = deployment.status.unwrap().conditions.unwrap();
    let progressing = conditions.iter().find(|one| one.type_ == "Progressing").unwrap();
    assert_eq!(progressing.reason.as_deref(), Some("ProgressDeadlineExceeded"));
}
