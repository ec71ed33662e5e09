use proptest::prelude::*;
use serde_json::json;

use super::super::{TrackUpdate, same_but_for_times, track};
use super::*;
use crate::schema;

/// One object and who does what to it; the clock ticks with every write.
struct World {
    kind: GroupVersionKind,
    message: &'static Message,
    ignored: FieldSet,
    object: Option<Value>,
    clock: u32,
}

impl World {
    fn of(api_version: &str, kind: &str) -> Self {
        let (group, version) = split_api_version(api_version);
        Self {
            kind: GroupVersionKind::new(group, version, kind),
            message: schema::of_type(api_version, kind).unwrap(),
            ignored: FieldSet::new(),
            object: None,
            clock: 0,
        }
    }

    fn try_apply(&mut self, manager: &str, config: Value, force: bool) -> Result<Value, Status> {
        let mut config = config;
        config["apiVersion"] = self.kind.api_version().into();
        config["kind"] = self.kind.kind.as_str().into();
        config["metadata"]["name"] = "x".into();
        self.clock += 1;
        let mut new = apply(&Application {
            live: self.object.as_ref(),
            config: &config,
            kind: &self.kind,
            message: self.message,
            manager,
            subresource: "",
            time: &self.time(),
            force,
            ignored: &self.ignored,
        })?;
        normalise(self.message, &mut new);
        if self.object.as_ref().is_none_or(|old| !same_but_for_times(old, &new)) {
            self.object = Some(new);
        }
        Ok(self.object.clone().unwrap())
    }

    #[track_caller]
    fn apply(&mut self, manager: &str, config: Value) -> Value {
        self.try_apply(manager, config, false).unwrap_or_else(|status| panic!("{}", status.message))
    }

    #[track_caller]
    fn force(&mut self, manager: &str, config: Value) -> Value {
        self.try_apply(manager, config, true).unwrap_or_else(|status| panic!("{}", status.message))
    }

    #[track_caller]
    fn conflicts(&mut self, manager: &str, config: Value) -> Vec<String> {
        let before = self.object.clone();
        let status = self.try_apply(manager, config, false).expect_err("a conflict");
        assert_eq!((status.code, status.reason, &self.object), (409, "Conflict", &before), "{}", status.message);
        let causes = status.details.unwrap().causes;
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    fn update(&mut self, manager: &str, change: impl FnOnce(&mut Value)) -> Value {
        self.clock += 1;
        let time = self.time();
        let mut new = self.object.clone().unwrap_or_else(|| json!({"metadata": {"name": "x"}}));
        change(&mut new);
        normalise(self.message, &mut new);
        track(TrackUpdate {
            old: self.object.as_ref(),
            new: &mut new,
            manager,
            subresource: "",
            api_version: &self.kind.api_version(),
            time: &time,
            message: self.message,
        });
        self.object = Some(new.clone());
        new
    }

    fn time(&self) -> String {
        format!("2026-01-01T00:00:{:02}Z", self.clock)
    }

    fn entry(&self, manager: &str) -> Value {
        let entries = &self.object.as_ref().unwrap()["metadata"]["managedFields"];
        let found = entries.as_array().into_iter().flatten().find(|entry| entry["manager"] == manager);
        found.cloned().unwrap_or_default()
    }

    fn owned(&self, manager: &str) -> Value {
        self.entry(manager)["fieldsV1"].clone()
    }
}

fn config_map() -> World {
    World::of("v1", "ConfigMap")
}

#[test]
fn the_first_apply_creates_and_owns_what_it_says() {
    let mut world = World::of("v1", "Service");
    let config = json!({"metadata": {"labels": {"app": "a"}, "creationTimestamp": null},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "a"}}, "status": {"loadBalancer": {}}});
    let created = world.apply("me", config);
    assert_eq!(
        created["metadata"]["managedFields"],
        json!([{"manager": "me", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T00:00:01Z",
            "fieldsType": "FieldsV1", "fieldsV1": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:selector": {}},
                "f:status": {"f:loadBalancer": {}}}}])
    );
}

#[test]
fn what_is_left_out_goes_and_what_others_own_stays() {
    let mut world = config_map();
    world.apply("me", json!({"data": {"a": "1", "b": "1", "c": "1"}}));
    world.apply("you", json!({"data": {"b": "1"}}));
    world.update("them", |map| map["data"]["d"] = "1".into());
    let left = world.apply("me", json!({"data": {"a": "1"}}));
    assert_eq!(left["data"], json!({"a": "1", "b": "1", "d": "1"}));
    // Nobody is left who owns it.
    let left = world.apply("you", json!({}));
    assert_eq!(left["data"], json!({"a": "1", "d": "1"}));
    assert_eq!(world.owned("you"), Value::Null);
    let left = world.apply("me", json!({}));
    assert_eq!(left["data"], json!({"d": "1"}));
}

#[test]
fn a_map_of_which_nothing_is_left_goes_too() {
    let mut world = config_map();
    world.apply("me", json!({"data": {"a": "1"}, "metadata": {"labels": {"l": "v"}}}));
    let left = world.apply("me", json!({}));
    assert_eq!((left.get("data"), left["metadata"].get("labels")), (None, None));
    assert_eq!(left["metadata"].get("managedFields"), None);
}

#[test]
fn changing_what_others_own_is_a_conflict_until_forced() {
    let mut world = config_map();
    world.apply("me", json!({"data": {"a": "1", "b": "1"}}));
    world.update("editor", |map| map["data"]["b"] = "2".into());
    assert_eq!(world.owned("me"), json!({"f:data": {"f:a": {}}}));
    assert_eq!(
        world.conflicts("you", json!({"data": {"a": "2", "b": "3"}})),
        [".data.b: conflict with \"editor\" using v1", ".data.a: conflict with \"me\""]
    );
    let status = world.try_apply("you", json!({"data": {"a": "2"}}), false).unwrap_err();
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"me\": .data.a");
    let taken = world.force("you", json!({"data": {"a": "2", "b": "3"}}));
    assert_eq!(taken["data"], json!({"a": "2", "b": "3"}));
    assert_eq!((world.owned("me"), world.owned("editor")), (Value::Null, Value::Null));
    assert_eq!(world.owned("you"), json!({"f:data": {"f:a": {}, "f:b": {}}}));
}

#[test]
fn equal_values_are_shared_and_one_owner_cannot_change_them_alone() {
    let mut world = config_map();
    world.apply("me", json!({"data": {"a": "1"}}));
    world.apply("you", json!({"data": {"a": "1"}}));
    assert_eq!(world.owned("me"), world.owned("you"));
    // Sharing changes nothing in the object, so there is no time of a change.
    assert_eq!(world.entry("you").get("time"), None);
    assert_eq!(world.conflicts("me", json!({"data": {"a": "2"}})), [".data.a: conflict with \"you\""]);
    world.update("them", |map| map["data"]["a"] = "3".into());
    assert_eq!((world.owned("me"), world.owned("you")), (Value::Null, Value::Null));
}

#[test]
fn an_applier_and_an_updater_of_one_name_are_two() {
    let mut world = config_map();
    world.update("me", |map| map["data"] = json!({"a": "1"}));
    assert_eq!(world.conflicts("me", json!({"data": {"a": "2"}})), [".data.a: conflict with \"me\" using v1"]);
    world.apply("me", json!({"data": {"a": "1"}}));
    let left = world.apply("me", json!({}));
    assert_eq!(left["data"], json!({"a": "1"}), "the updater still owns it");
}

#[test]
fn applying_the_same_again_changes_nothing_at_all() {
    let mut world = World::of("apps/v1", "Deployment");
    let config = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1000m"}},
            "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]}]}}}});
    let first = world.apply("me", config.clone());
    assert_eq!(world.apply("me", config), first);
    assert_eq!(world.entry("me")["time"], "2026-01-01T00:00:01Z");
}

#[test]
fn list_items_are_known_by_their_keys_with_defaults() {
    let mut world = World::of("v1", "Service");
    world.update("creator", |service| service["spec"] = json!({"ports": [{"port": 80, "protocol": "TCP"}]}));
    let both =
        world.apply("me", json!({"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 80, "protocol": "UDP"}]}}));
    assert_eq!(
        both["spec"]["ports"],
        json!([{"port": 80, "protocol": "TCP", "name": "http"}, {"port": 80, "protocol": "UDP"}])
    );
    let one = world.apply("me", json!({"spec": {"ports": [{"port": 80}]}}));
    assert_eq!(one["spec"]["ports"], json!([{"port": 80, "protocol": "TCP"}]));
}

#[test]
fn containers_of_two_appliers_live_side_by_side() {
    let pod = |containers: Value| json!({"spec": {"containers": containers}});
    let mut world = World::of("v1", "Pod");
    world.apply("me", pod(json!([{"name": "app", "image": "a", "args": ["1", "2"]}])));
    world.apply("mesh", pod(json!([{"name": "proxy", "image": "p", "env": [{"name": "X", "value": "1"}]}])));
    let changed = world.apply("me", pod(json!([{"name": "app", "image": "b", "args": ["3"]}])));
    let containers = changed["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 2);
    assert_eq!((&containers[0]["image"], &containers[0]["args"]), (&json!("b"), &json!(["3"])));
    assert_eq!(
        world.conflicts("me", pod(json!([{"name": "app", "image": "b"}, {"name": "proxy", "image": "q"}]))),
        [".spec.containers[name=\"proxy\"].image: conflict with \"mesh\""]
    );
    let left = world.apply("mesh", pod(json!([])));
    assert_eq!(left["spec"]["containers"].as_array().unwrap().len(), 1);
}

#[test]
fn sets_merge_by_value_and_atomic_fields_as_a_whole() {
    let mut world = config_map();
    world.apply("me", json!({"metadata": {"finalizers": ["a/a"]}}));
    let both = world.apply("you", json!({"metadata": {"finalizers": ["b/b"]}}));
    assert_eq!(both["metadata"]["finalizers"], json!(["a/a", "b/b"]));
    assert_eq!(world.owned("you"), json!({"f:metadata": {"f:finalizers": {"v:\"b/b\"": {}}}}));
    assert_eq!(world.apply("me", json!({}))["metadata"]["finalizers"], json!(["b/b"]));

    let selector = |labels: Value| json!({"spec": {"selector": labels}});
    let mut world = World::of("v1", "Service");
    world.apply("me", selector(json!({"a": "1"})));
    assert_eq!(world.conflicts("you", selector(json!({"b": "1"}))), [".spec.selector: conflict with \"me\""]);
    assert_eq!(world.force("you", selector(json!({"b": "1"})))["spec"]["selector"], json!({"b": "1"}));
}

#[test]
fn what_was_never_tracked_belongs_to_before() {
    let mut world = config_map();
    world.object = Some(json!({"metadata": {"name": "x", "uid": "u"}, "data": {"a": "1"}}));
    assert_eq!(
        world.conflicts("me", json!({"data": {"a": "2"}})),
        [".data.a: conflict with \"before-first-apply\" using v1"]
    );
    world.apply("me", json!({"data": {"b": "1"}}));
    assert_eq!(world.owned("before-first-apply"), json!({"f:data": {".": {}, "f:a": {}}}));
}

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn applied_by_client(world: &mut World) {
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "1"}});
    world.update("kubectl-client-side-apply", |map| {
        map["data"] = applied["data"].clone();
        map["metadata"]["annotations"] = json!({LAST_APPLIED: applied.to_string()});
    });
}

#[test]
fn kubectl_meets_no_conflict_over_what_it_applied_on_the_client() {
    let mut world = config_map();
    applied_by_client(&mut world);
    let changed = world.apply("kubectl", json!({"data": {"a": "2"}}));
    assert_eq!(world.owned("kubectl"), json!({"f:data": {"f:a": {}}}));
    let annotation = changed["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert_eq!(
        annotation,
        "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"2\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"x\"}}\n"
    );

    let mut world = config_map();
    applied_by_client(&mut world);
    world.conflicts("somebody", json!({"data": {"a": "2"}}));
    // What was changed since is not client-side apply's any more.
    world.update("editor", |map| map["data"]["a"] = "3".into());
    world.conflicts("kubectl", json!({"data": {"a": "2"}}));
}

#[test]
fn an_applier_that_changes_its_version_stays_the_same() {
    let mut world = World::of("autoscaling/v2", "HorizontalPodAutoscaler");
    world.apply("me", json!({"spec": {"minReplicas": 1, "maxReplicas": 3}}));
    let stored = world.object.as_mut().unwrap();
    stored["metadata"]["managedFields"][0]["apiVersion"] = "autoscaling/v1".into();
    let left = world.apply("me", json!({"spec": {"maxReplicas": 3}}));
    assert_eq!(left["spec"].get("minReplicas"), None);
    assert_eq!(left["metadata"]["managedFields"].as_array().unwrap().len(), 1);
    assert_eq!(world.entry("me")["apiVersion"], "autoscaling/v2");
}

#[test]
fn fields_that_the_endpoint_does_not_write_are_nobodys() {
    let mut world = World::of("apps/v1", "Deployment");
    world.ignored.insert(&[Element::field("status")]);
    world.update("controller", |deployment| deployment["status"] = json!({"replicas": 1}));
    world.apply("me", json!({"spec": {"replicas": 1}, "status": {"replicas": 2}}));
    assert_eq!(world.owned("me"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(world.owned("controller"), json!({"f:status": {"f:replicas": {}}}));
}

#[test]
fn null_takes_a_value_and_leaves_maps() {
    let mut world = World::of("apps/v1", "Deployment");
    world.update("creator", |deployment| {
        deployment["spec"] = json!({"replicas": 3, "minReadySeconds": 5});
        deployment["metadata"]["labels"] = json!({"a": "b"});
    });
    world.conflicts("me", json!({"spec": {"replicas": null}}));
    let forced = world.force("me", json!({"spec": {"replicas": null}, "metadata": {"labels": null}}));
    assert_eq!(forced["spec"].get("replicas"), None);
    assert_eq!((&forced["spec"]["minReadySeconds"], &forced["metadata"]["labels"]["a"]), (&json!(5), &json!("b")));
}

#[test]
fn what_does_not_fit_is_refused_in_upstreams_words() {
    let deployment = "(<ns>/x; apps/v1, Kind=Deployment)".replace("<ns>", "");
    let spec = |spec: Value| json!({"spec": spec});
    let cases = [
        (spec(json!({"replica": 1})), ".spec.replica: field not declared in schema"),
        (spec(json!({"replicas": "1"})), ".spec.replicas: expected numeric (int or float), got string"),
        (spec(json!({"paused": "yes"})), ".spec.paused: expected boolean, got &{yes}"),
        (spec(json!([1])), ".spec: expected map, got &{[1]}"),
        (
            spec(json!({"template": {"spec": {"containers": {"a": 1}}}})),
            ".spec.template.spec.containers: expected list, got &{map[a:1]}",
        ),
        (
            spec(json!({"template": {"spec": {"nodeName": 7}}})),
            ".spec.template.spec.nodeName: expected string, got &value.valueUnstructured{Value:7}",
        ),
        (
            spec(json!({"template": {"spec": {"containers": [{"image": "i"}]}}})),
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits key field \
             \"name\" (and doesn't have default value)",
        ),
        (
            spec(json!({"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}})),
            ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        ),
        (
            spec(json!({"template": {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1},
            {"containerPort": 1, "protocol": "TCP"}]}]}}})),
            ".spec.template.spec.containers[name=\"a\"].ports: duplicate entries for key \
             [containerPort=1,protocol=\"TCP\"]",
        ),
        (
            spec(json!({"template": {"spec": {"containers": [null]}}})),
            ".spec.template.spec.containers: element 0: associative list with keys may not have a null element",
        ),
        (
            json!({"metadata": {"finalizers": [{}]}}),
            ".metadata.finalizers: element 0: associative list without keys has an element that's a map type",
        ),
        (
            json!({"spec": {"replicas": true, "paused": 1}}),
            "errors:\n  .spec.paused: expected boolean, got &{1}\n  .spec.replicas: expected numeric (int or float), got bool",
        ),
    ];
    for (config, expected) in cases {
        let status = World::of("apps/v1", "Deployment").try_apply("me", config, false).unwrap_err();
        assert_eq!(status.message, format!("failed to create typed patch object {deployment}: {expected}"));
        assert_eq!((status.code, status.reason), (500, ""));
    }
    let config = spec(json!({"replicas": 5_000_000_000_i64}));
    let status = World::of("apps/v1", "Deployment").try_apply("me", config, false).unwrap_err();
    assert!(
        status.message.starts_with("failed to convert new typed object (/x; apps/v1, Kind=Deployment) to object: ")
    );
    let mut world = config_map();
    let status = world.try_apply("me", json!({"metadata": {"managedFields": []}}), false).unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (400, "metadata.managedFields must be nil"));
    world.kind.version = "v2".into();
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment"});
    let request = Application {
        live: None,
        config: &config,
        kind: &world.kind,
        message: world.message,
        manager: "me",
        subresource: "",
        time: "",
        force: false,
        ignored: &world.ignored,
    };
    assert_eq!(apply(&request).unwrap_err().message, "invalid object type: apps/v1, Kind=Deployment");
}

fn scale(world: &World, manager: &str, replicas: i64, force: bool) -> Result<(Value, Value), Status> {
    let workload = world.object.as_ref().unwrap();
    let config = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "x"},
        "spec": {"replicas": replicas}});
    let live = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "x"},
        "spec": {"replicas": workload["spec"]["replicas"]}, "status": {"replicas": 0}});
    let request = Application {
        live: Some(&live),
        config: &config,
        kind: &GroupVersionKind::new("autoscaling", "v1", "Scale"),
        message: schema::of_type("autoscaling/v1", "Scale").unwrap(),
        manager,
        subresource: "scale",
        time: "2026-02-02T00:00:00Z",
        force,
        ignored: &FieldSet::new(),
    };
    apply_scale(&request, workload, &["spec", "replicas"]).map(|(scale, managers)| (scale, managers.to_json()))
}

#[test]
fn a_scale_owns_the_replicas_of_its_workload() {
    let mut world = World::of("apps/v1", "Deployment");
    world.apply("me", json!({"apiVersion": "apps/v1", "spec": {"replicas": 1, "paused": true}}));
    let stored = world.object.as_mut().unwrap();
    stored["apiVersion"] = "apps/v1".into();
    let refused = scale(&world, "scaler", 3, false).unwrap_err();
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas");
    let (scaled, entries) = scale(&world, "scaler", 3, true).unwrap();
    assert_eq!(scaled["spec"]["replicas"], 3);
    assert_eq!(
        entries,
        json!([
            {"manager": "me", "operation": "Apply", "apiVersion": "apps/v1", "time": "2026-01-01T00:00:01Z",
                "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:paused": {}}}},
            {"manager": "scaler", "operation": "Apply", "apiVersion": "apps/v1", "time": "2026-02-02T00:00:00Z",
                "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}, "subresource": "scale"},
        ])
    );
    let (_, shared) = scale(&world, "scaler", 1, false).unwrap();
    assert_eq!(shared[1]["fieldsV1"], json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}));
}

#[test]
fn what_no_schema_describes_is_merged_by_its_form() {
    let mut message = Message::new("Free", Vec::new());
    message.keeps_unknown = true;
    let mut world = World { message: Box::leak(Box::new(message)), ..config_map() };
    world.apply("me", json!({"spec": {"map": {"a": 1}, "list": [1, 2]}}));
    let both = world.apply("you", json!({"spec": {"map": {"b": {"c": []}}}}));
    assert_eq!(both["spec"], json!({"map": {"a": 1, "b": {"c": []}}, "list": [1, 2]}));
    assert_eq!(world.conflicts("you", json!({"spec": {"list": [3]}})), [".spec.list: conflict with \"me\""]);
    assert_eq!(world.apply("me", json!({}))["spec"], json!({"map": {"b": {"c": []}}}));
}

/// Without nulls and empty maps: these are applied and owned, but not kept.
fn config() -> impl Strategy<Value = Value> {
    let container = ("[abc]", "[12]", proptest::collection::btree_set("[pq]", 0..3));
    let containers = proptest::collection::btree_map("[abc]", container, 1..3);
    let labels = proptest::collection::btree_map("[xyz]", "[12]", 1..3);
    (containers, labels, 1..4).prop_map(|(containers, labels, grace)| {
        let containers: Vec<Value> = containers
            .into_iter()
            .map(|(name, (_, image, env))| {
                let env: Vec<Value> = env.iter().map(|name| json!({"name": name, "value": image})).collect();
                json!({"name": name, "image": image, "env": env})
            })
            .collect();
        json!({"metadata": {"labels": labels}, "spec": {"containers": containers, "terminationGracePeriodSeconds": grace}})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happened before, a forced apply gets its will, a second one changes nothing, and whoever applies nothing
    /// owns nothing. Without force, either nothing changes or nobody loses what he wanted.
    #[test]
    fn appliers_get_what_they_want(steps in proptest::collection::vec((0usize..3, any::<bool>(), config()), 1..7)) {
        let mut world = World::of("v1", "Pod");
        for (who, force, config) in steps {
            let manager = ["a", "b", "c"][who];
            let before = world.object.clone();
            let result = world.try_apply(manager, config.clone(), force);
            let Ok(applied) = result else {
                prop_assert!(!force);
                prop_assert_eq!(&world.object, &before);
                continue;
            };
            // Merging what was applied changes nothing any more.
            let mut again = merge(Node::Message(world.message), &applied, &config);
            normalise(world.message, &mut again);
            prop_assert_eq!(&again, &applied);
            prop_assert_eq!(&world.try_apply(manager, config, force).unwrap(), &applied);
            let managers = entries(&applied).and_then(Managers::from_json).unwrap_or_default();
            let there = field_set(world.message, &without_managed_fields(&applied));
            for (_, fields) in managers.iter() {
                for path in fields.paths() {
                    prop_assert!(there.touches(&path), "{path:?}");
                }
            }
        }
        for manager in ["a", "b", "c"] {
            world.force(manager, json!({}));
        }
        let left = world.object.unwrap();
        for entry in left["metadata"]["managedFields"].as_array().into_iter().flatten() {
            prop_assert_eq!(&entry["manager"], BEFORE_FIRST_APPLY);
        }
        prop_assert_eq!(left["metadata"].get("labels"), None);
        prop_assert_eq!(left["spec"]["containers"].as_array().map_or(0, Vec::len), 0);
    }
}
