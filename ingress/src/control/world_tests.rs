//! The world as rules: Ingresses, classes, Services and Secrets in, targets and problems out.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Change, ClassPolicy, Outcome, Secrets, Snapshot, World};
use crate::control::change::Delta;
use crate::control::{ExternalNames, Settings};
use crate::model::{Address, Model, ObjectKey, TlsSecret};
use crate::policy::Policy;
use crate::tls::TlsPolicy;

/// A world with the class `mine`, the Service `s` with one endpoint, everything listed.
fn world() -> World {
    let mut world = unsynced();
    world.apply(Change::Class(Delta::Restarted));
    world.apply(Change::Class(Delta::Listed(object(
        json!({"metadata": {"name": "mine"}, "spec": {"controller": "tidegate.dev/ingress"}}),
    ))));
    world.apply(Change::Class(Delta::Synced));
    world.apply(Change::Ingress(Delta::Synced));
    world.apply(Change::Service(Delta::Synced));
    world.apply(Change::Slice(Delta::Synced));
    assert!(world.ready_for_secrets());
    assert!(!world.is_synced());
    world.apply(Change::Secret(Delta::Synced));
    assert!(world.is_synced());
    world.apply(Change::Service(Delta::Applied(object(json!({
        "metadata": {"name": "s", "namespace": "ns"}, "spec": {"ports": [{"port": 80}]},
    })))));
    world.apply(endpoints(&["10.0.0.1"]));
    world
}

fn unsynced() -> World {
    let tls = TlsPolicy::new().unwrap();
    let self_signed = tls.self_signed().unwrap();
    let policy = ClassPolicy {
        controller: "tidegate.dev/ingress".into(),
        legacy_class: "tidegate".into(),
        without_class: false,
    };
    let published = vec![Address::Ip("192.0.2.1".into())];
    let settings = Settings {
        class: policy,
        published,
        default_certificate: None,
        policy: Policy::default(),
        external: ExternalNames::default(),
    };
    World::new(settings, Secrets::new(tls, None), self_signed)
}

fn object<M: Model>(value: Value) -> M
where
    M::Object: serde::de::DeserializeOwned,
{
    M::from_object(serde_json::from_value(value).unwrap())
}

fn endpoints(addresses: &[&str]) -> Change {
    Change::Slice(Delta::Applied(object(json!({
        "metadata": {"name": "s-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "ports": [{"port": 8080}],
        "endpoints": addresses.iter().map(|a| json!({"addresses": [a]})).collect::<Vec<_>>(),
    }))))
}

fn ingress(name: &str, created: i64, class: &str, host: &str, tls: Value, status: Value) -> Change {
    Change::Ingress(Delta::Applied(object(json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name,
            "creationTimestamp": k8s_openapi::jiff::Timestamp::from_second(created).unwrap().to_string(),
        },
        "spec": {
            "ingressClassName": class,
            "rules": [{"host": host, "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}},
            ]}}],
            "tls": tls,
        },
        "status": {"loadBalancer": {"ingress": status}},
    }))))
}

fn plain(name: &str, created: i64, host: &str) -> Change {
    ingress(name, created, "mine", host, json!([]), json!([]))
}

fn publish(world: &mut World) -> Outcome {
    world.publish(&mut || 0)
}

fn endpoint(snapshot: &Snapshot, host: &str) -> Option<String> {
    snapshot.route(host, "/").map(|rule| rule.target.upstream.pick(&[], Instant::now()).unwrap().address.to_string())
}

#[test]
fn routes_appear_and_go_and_endpoints_change_without_a_snapshot() {
    let mut world = world();
    world.apply(plain("a", 1, "a.test"));
    let first = publish(&mut world).snapshot.unwrap();
    assert_eq!(endpoint(&first, "a.test").as_deref(), Some("10.0.0.1:8080"));
    assert_eq!(endpoint(&first, "b.test"), None);

    world.apply(endpoints(&["10.0.0.2"]));
    assert!(publish(&mut world).snapshot.is_none());
    assert_eq!(endpoint(&first, "a.test").as_deref(), Some("10.0.0.2:8080"), "the first snapshot sees it too");

    world.apply(Change::Ingress(Delta::Deleted(ObjectKey::new("ns", "a"))));
    let second = publish(&mut world).snapshot.unwrap();
    assert_eq!((endpoint(&second, "a.test"), second.generation), (None, first.generation + 1));
}

#[test]
fn an_update_that_changes_nothing_publishes_nothing() {
    let mut world = world();
    world.apply(plain("a", 1, "a.test"));
    assert!(publish(&mut world).snapshot.is_some());
    world.apply(plain("a", 1, "a.test"));
    assert!(publish(&mut world).snapshot.is_none());
}

#[test]
fn status_is_written_once_and_taken_back_when_the_class_changes() {
    let mut world = world();
    world.apply(plain("a", 1, "a.test"));
    let ours = publish(&mut world);
    assert_eq!(ours.statuses.iter().map(|write| write.addresses.len()).collect::<Vec<_>>(), [1]);
    let shown = json!([{"ip": "192.0.2.1"}]);
    world.apply(ingress("a", 1, "mine", "a.test", json!([]), shown.clone()));
    assert_eq!(publish(&mut world).statuses, []);
    world.apply(ingress("a", 1, "theirs", "a.test", json!([]), shown));
    let theirs = publish(&mut world);
    assert_eq!(theirs.statuses.iter().map(|write| write.addresses.len()).collect::<Vec<_>>(), [0]);
    assert_eq!(endpoint(&theirs.snapshot.unwrap(), "a.test"), None);
}

#[test]
fn a_class_that_goes_takes_its_ingresses_along() {
    let mut world = world();
    world.apply(plain("a", 1, "a.test"));
    assert!(endpoint(&publish(&mut world).snapshot.unwrap(), "a.test").is_some());
    world.apply(Change::Class(Delta::Deleted(ObjectKey::new("", "mine"))));
    assert_eq!(endpoint(&publish(&mut world).snapshot.unwrap(), "a.test"), None);
}

#[test]
fn a_conflict_is_reported_once_on_the_younger_ingress() {
    let mut world = world();
    world.apply(plain("young", 2, "a.test"));
    assert_eq!(publish(&mut world).reports, []);
    world.apply(plain("old", 1, "a.test"));
    let reports = publish(&mut world).reports;
    assert_eq!(
        reports.iter().map(|r| (&*r.ingress.name, r.problem.reason())).collect::<Vec<_>>(),
        [("young", "RuleConflict")]
    );
    world.apply(plain("other", 3, "b.test"));
    assert_eq!(publish(&mut world).reports, []);
    assert_eq!(world.counts().conflicts, 1);
}

#[test]
fn a_certificate_follows_its_secret() {
    let mut world = world();
    world.apply(ingress("a", 1, "mine", "a.test", json!([{"hosts": ["a.test"], "secretName": "cert"}]), json!([])));
    let first = publish(&mut world);
    assert_eq!((first.secrets_to_read, first.reports), (vec![ObjectKey::new("ns", "cert")], vec![]));
    let snapshot = first.snapshot.unwrap();
    let key = snapshot.tls_key("a.test");
    assert!(Arc::ptr_eq(snapshot.identity(&key), &snapshot.default_identity));

    world.apply(Change::SecretRead(ObjectKey::new("ns", "cert"), None));
    let missing = publish(&mut world);
    assert_eq!(missing.reports.iter().map(|r| r.problem.reason()).collect::<Vec<_>>(), ["TLSSecretMissing"]);

    let pair = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    world.apply(Change::Secret(Delta::Applied(TlsSecret {
        key: ObjectKey::new("ns", "cert"),
        is_tls: true,
        certificate: pair.cert.pem().into(),
        private_key: pair.signing_key.serialize_pem().into(),
    })));
    let usable = publish(&mut world);
    let snapshot = usable.snapshot.unwrap();
    assert!(!Arc::ptr_eq(snapshot.identity(&key), &snapshot.default_identity));
    assert_eq!(snapshot.tls_key("a.test"), key, "a connection made before is not misdirected now");
    assert_eq!(usable.reports, []);
}

#[test]
fn two_secrets_for_one_host_are_reported_and_the_same_one_twice_is_not() {
    let mut world = world();
    let tls = |secret: &str| json!([{"hosts": ["a.test"], "secretName": secret}]);
    for (name, created, secret) in [("first", 1, "x"), ("same", 2, "x"), ("other", 3, "y")] {
        world.apply(ingress(name, created, "mine", &format!("{name}.test"), tls(secret), json!([])));
    }
    let reports = publish(&mut world).reports;
    let reasons: Vec<_> = reports.iter().map(|r| (&*r.ingress.name, r.problem.reason())).collect();
    assert_eq!(reasons, [("other", "TLSConflict")]);
}
