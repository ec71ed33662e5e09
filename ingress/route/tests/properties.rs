//! The table against its definition: of all matching rules, the one with the greatest precedence; and the incremental
//! compiler against the full one.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use ingress_route::{
    Compiler, HostPattern, PathMatch, RequestView, Rule, Source, WildcardLabels, compile, find, normalize_host,
};
use proptest::prelude::*;

/// Few names, so that rules collide, nest and match often.
fn host_name() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "C"], 1..4).prop_map(|labels| labels.join("."))
}

fn host_pattern() -> impl Strategy<Value = HostPattern> {
    let labels = prop_oneof![Just(WildcardLabels::One), Just(WildcardLabels::Many)];
    (prop_oneof![Just(String::new()), host_name(), host_name().prop_map(|name| format!("*.{name}"))], labels)
        .prop_map(|(text, labels)| HostPattern::parse(&text, labels).unwrap())
}

fn request_host() -> impl Strategy<Value = String> {
    let named = (host_name(), prop_oneof![Just(""), Just("."), Just(":80"), Just(".:8443")], any::<bool>())
        .prop_map(|(name, tail, dot)| format!("{}{name}{tail}", if dot { "." } else { "" }));
    prop_oneof![8 => named, 1 => Just(String::new()), 1 => Just("[::1]:80".to_owned())]
}

fn path() -> impl Strategy<Value = String> {
    (proptest::collection::vec(prop_oneof!["x", "y", "xy", "", "é"], 0..5), any::<bool>())
        .prop_map(|(elements, slash)| format!("/{}{}", elements.join("/"), if slash { "/" } else { "" }))
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        1 => Just(PathMatch::Fallback),
        3 => path().prop_map(|path| PathMatch::prefix(&path).unwrap()),
        3 => path().prop_map(|path| PathMatch::exact(&path).unwrap()),
    ]
}

/// The rules of one source; the target is unique, so that equal targets mean the same rule.
fn rules_of(name: u8) -> impl Strategy<Value = Vec<Rule<(u8, i64, u32)>>> {
    (0..3i64, proptest::collection::vec((host_pattern(), path_match()), 0..8)).prop_map(move |(created, rules)| {
        let source = Arc::new(Source { created, namespace: "ns".into(), name: name.to_string().into() });
        let rules = rules.into_iter().zip(0..);
        rules
            .map(|((host, path), index)| Rule {
                host,
                path,
                source: Arc::clone(&source),
                index,
                target: (name, created, index),
            })
            .collect()
    })
}

fn sources() -> impl Strategy<Value = Vec<Vec<Rule<(u8, i64, u32)>>>> {
    (rules_of(0), rules_of(1), rules_of(2), rules_of(3)).prop_map(|(a, b, c, d)| vec![a, b, c, d])
}

fn requests() -> impl Strategy<Value = Vec<(String, String)>> {
    proptest::collection::vec((request_host(), path()), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn find_is_the_matching_rule_with_the_greatest_precedence(sources in sources(), requests in requests()) {
        let rules: Vec<_> = sources.into_iter().flatten().collect();
        let (table, conflicts) = compile(rules.clone());
        for (host, path) in &requests {
            let normal = normalize_host(host);
            let oracle = rules.iter().filter(|rule| rule.matches(&normal, path)).max_by_key(|rule| rule.precedence());
            let found = find(&table, &RequestView { host, path });
            prop_assert_eq!(found.map(|rule| rule.target), oracle.map(|rule| rule.target), "{}{}", host, path);
        }
        prop_assert_eq!(table.rules().count() + conflicts.len(), rules.len());
    }

    #[test]
    fn the_incremental_compiler_equals_the_full_one(
        history in proptest::collection::vec((0..4u8).prop_flat_map(|name| rules_of(name).prop_map(move |r| (name, r))), 1..12),
        publish_every in 1..4usize,
        requests in requests(),
    ) {
        let mut compiler = Compiler::default();
        let mut state = BTreeMap::new();
        for (step, (name, rules)) in history.into_iter().enumerate() {
            compiler.replace("ns", &name.to_string(), rules.clone());
            state.insert(name, rules);
            if step % publish_every != 0 {
                continue;
            }
            let incremental = compiler.publish();
            let (full, conflicts) = compile(state.values().flatten().cloned());
            for (host, path) in &requests {
                let request = RequestView { host, path };
                prop_assert_eq!(find(&incremental, &request).map(|r| r.target), find(&full, &request).map(|r| r.target));
            }
            prop_assert_eq!(incremental.rules().count(), full.rules().count());
            prop_assert_eq!(compiler.conflicts().cloned().collect::<Vec<_>>(), conflicts);
        }
    }
}
