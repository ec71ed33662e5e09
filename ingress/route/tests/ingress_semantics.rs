//! The host and path semantics of Ingress v1, as the Kubernetes documentation and the public ingress conformance suite
//! describe them, on compiled tables with several rules.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::Arc;

use ingress_route::{HostPattern, PathMatch, RequestView, Rule, Source, Table, WildcardLabels, compile, find};

fn table(rules: &[(&str, PathMatch, &'static str)]) -> Table<&'static str> {
    let source = Arc::new(Source { created: 0, namespace: "ns".into(), name: "ing".into() });
    let rules = rules.iter().zip(0..).map(|((host, path, target), index)| Rule {
        host: HostPattern::parse(host, WildcardLabels::One).unwrap(),
        path: path.clone(),
        source: Arc::clone(&source),
        index,
        target: *target,
    });
    let (table, conflicts) = compile(rules);
    assert_eq!(conflicts, []);
    table
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::prefix(path).unwrap()
}

fn exact(path: &str) -> PathMatch {
    PathMatch::exact(path).unwrap()
}

#[track_caller]
fn check(table: &Table<&'static str>, expected: &[(&str, &str, Option<&str>)]) {
    for (host, path, target) in expected {
        let found = find(table, &RequestView { host, path }).map(|rule| rule.target);
        assert_eq!(found, *target, "{host}{path}");
    }
}

#[test]
fn host_rules() {
    let table = table(&[("*.foo.com", prefix("/"), "wildcard-foo-com"), ("foo.bar.com", prefix("/"), "foo-bar-com")]);
    check(
        &table,
        &[
            ("foo.bar.com", "/", Some("foo-bar-com")),
            ("foo.bar.com:8443", "/", Some("foo-bar-com")),
            ("FOO.bar.COM.", "/", Some("foo-bar-com")),
            ("subdomain.bar.com", "/", None),
            ("bar.foo.com", "/", Some("wildcard-foo-com")),
            ("baz.bar.foo.com", "/", None),
            ("foo.com", "/", None),
            ("", "/", None),
        ],
    );
}

#[test]
fn path_rules() {
    let table = table(&[
        ("exact-path-rules", exact("/foo"), "foo-exact"),
        ("prefix-path-rules", prefix("/foo"), "foo-prefix"),
        ("prefix-path-rules", prefix("/aaa/bbb"), "aaa-slash-bbb-prefix"),
        ("prefix-path-rules", prefix("/aaa"), "aaa-prefix"),
        ("mixed-path-rules", prefix("/foo"), "foo-prefix"),
        ("mixed-path-rules", exact("/foo"), "foo-exact"),
        ("trailing-slash-path-rules", prefix("/aaa/bbb/"), "aaa-slash-bbb-slash-prefix"),
        ("trailing-slash-path-rules", exact("/foo/"), "foo-slash-exact"),
    ]);
    check(
        &table,
        &[
            ("exact-path-rules", "/foo", Some("foo-exact")),
            ("exact-path-rules", "/foo/", None),
            ("exact-path-rules", "/FOO", None),
            ("exact-path-rules", "/bar", None),
            ("prefix-path-rules", "/foo", Some("foo-prefix")),
            ("prefix-path-rules", "/foo/", Some("foo-prefix")),
            ("prefix-path-rules", "/FOO", None),
            ("prefix-path-rules", "/aaa/bbb", Some("aaa-slash-bbb-prefix")),
            ("prefix-path-rules", "/aaa/bbb/ccc", Some("aaa-slash-bbb-prefix")),
            ("prefix-path-rules", "/aaa/ccc", Some("aaa-prefix")),
            ("prefix-path-rules", "/aaaccc", None),
            ("mixed-path-rules", "/foo", Some("foo-exact")),
            ("mixed-path-rules", "/foo/", Some("foo-prefix")),
            ("mixed-path-rules", "/foo/bar", Some("foo-prefix")),
            ("trailing-slash-path-rules", "/aaa/bbb", Some("aaa-slash-bbb-slash-prefix")),
            ("trailing-slash-path-rules", "/aaa/bbb/", Some("aaa-slash-bbb-slash-prefix")),
            ("trailing-slash-path-rules", "/foo", None),
            ("trailing-slash-path-rules", "/foo/", Some("foo-slash-exact")),
        ],
    );
}

/// The rows of the documentation's path table that have more than one rule.
#[test]
fn several_prefixes() {
    let two = table(&[("", prefix("/"), "root"), ("", prefix("/aaa"), "aaa")]);
    check(&two, &[("x", "/aaa/ccc", Some("aaa")), ("x", "/ccc", Some("root"))]);
    let three = table(&[("", prefix("/"), "root"), ("", prefix("/aaa"), "aaa"), ("", prefix("/aaa/bbb"), "bbb")]);
    check(&three, &[("x", "/aaa/bbb", Some("bbb")), ("x", "/ccc", Some("root")), ("x", "*", Some("root"))]);
    let with_default = table(&[("", prefix("/aaa"), "aaa"), ("", PathMatch::Fallback, "default")]);
    check(&with_default, &[("x", "/ccc", Some("default")), ("", "/ccc", Some("default"))]);
}

#[test]
fn default_backends_come_last_and_the_hosts_own_comes_before_the_general_one() {
    let table = table(&[
        ("a.test", prefix("/app"), "app"),
        ("a.test", PathMatch::Fallback, "default-of-a"),
        ("b.test", prefix("/app"), "app-of-b"),
        ("*.test", prefix("/shared"), "shared"),
        ("", PathMatch::Fallback, "default"),
    ]);
    check(
        &table,
        &[
            ("a.test", "/app/x", Some("app")),
            ("a.test", "/shared", Some("default-of-a")),
            ("b.test", "/shared", Some("shared")),
            ("b.test", "/", Some("default")),
            ("unknown", "/", Some("default")),
        ],
    );
}
