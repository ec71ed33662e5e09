//! RBAC: what a rule allows, whether rules cover others, and the roles every cluster starts with.

mod bootstrap;
mod controllers;
mod user_facing;

use serde_json::{Value, json};

pub use bootstrap::bootstrap;

use crate::value::{items, text};

const ANY: &str = "*";

/// What somebody wants to do, as rules speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    Resource { verb: &'a str, group: &'a str, resource: &'a str, subresource: &'a str, name: &'a str },
    Path { verb: &'a str, path: &'a str },
}

/// One rule of a role: about resources, or about paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    /// Empty for every name.
    pub names: Vec<String>,
    pub paths: Vec<String>,
}

impl Rule {
    #[must_use]
    pub fn parse(rule: &Value) -> Self {
        let strings = |field: &str| items(&rule[field]).iter().map(|entry| text(entry).to_owned()).collect();
        Self {
            verbs: strings("verbs"),
            groups: strings("apiGroups"),
            resources: strings("resources"),
            names: strings("resourceNames"),
            paths: strings("nonResourceURLs"),
        }
    }

    /// The rules of a role.
    #[must_use]
    pub fn list(role: &Value) -> Vec<Self> {
        items(&role["rules"]).iter().map(Self::parse).collect()
    }

    /// What `system:masters` may do.
    #[must_use]
    pub fn everything() -> Vec<Self> {
        let any = || vec![ANY.to_owned()];
        vec![
            Self { verbs: any(), groups: any(), resources: any(), ..Self::default() },
            Self { verbs: any(), paths: any(), ..Self::default() },
        ]
    }

    #[must_use]
    pub fn allows(&self, request: &Request<'_>) -> bool {
        match *request {
            Request::Path { verb, path } => {
                has(&self.verbs, verb) && self.paths.iter().any(|pattern| path_matches(pattern, path))
            }
            Request::Resource { verb, group, resource, subresource, name } => {
                has(&self.verbs, verb)
                    && has(&self.groups, group)
                    && self.resources.iter().any(|pattern| resource_matches(pattern, resource, subresource))
                    && (self.names.is_empty() || self.names.iter().any(|allowed| allowed == name))
            }
        }
    }

    #[must_use]
    pub fn to_json(&self) -> Value {
        if !self.paths.is_empty() {
            return json!({"verbs": self.verbs, "nonResourceURLs": self.paths});
        }
        let mut rule = json!({"verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources});
        if !self.names.is_empty() {
            rule["resourceNames"] = json!(self.names);
        }
        rule
    }

    /// The rule as many rules of one verb, one group, one resource and one name each.
    fn atoms(&self) -> Vec<Self> {
        let mut atoms = Vec::new();
        let one = |value: &String| vec![value.clone()];
        for verb in &self.verbs {
            for path in &self.paths {
                atoms.push(Self { verbs: one(verb), paths: one(path), ..Self::default() });
            }
            for group in &self.groups {
                for resource in &self.resources {
                    let atom =
                        Self { verbs: one(verb), groups: one(group), resources: one(resource), ..Self::default() };
                    if self.names.is_empty() {
                        atoms.push(atom);
                    } else {
                        atoms.extend(self.names.iter().map(|name| Self { names: one(name), ..atom.clone() }));
                    }
                }
            }
        }
        atoms
    }

    /// Whether this rule grants all that an atom grants.
    fn covers(&self, atom: &Self) -> bool {
        let first = |list: &[String]| list.first().cloned().unwrap_or_default();
        if !has(&self.verbs, &first(&atom.verbs)) {
            return false;
        }
        if let Some(path) = atom.paths.first() {
            return self.paths.iter().any(|pattern| path_covers(pattern, path));
        }
        has(&self.groups, &first(&atom.groups))
            && self.resources.iter().any(|pattern| resource_covers(pattern, &first(&atom.resources)))
            && (self.names.is_empty() || atom.names.first().is_some_and(|name| self.names.contains(name)))
    }
}

/// The parts of `wanted` that `held` does not grant: who may not `escalate` can only hand on what he holds.
#[must_use]
pub fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    wanted.iter().flat_map(Rule::atoms).filter(|atom| !held.iter().any(|rule| rule.covers(atom))).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == ANY || entry == wanted)
}

/// `/apis/*` matches what begins with `/apis/`.
fn path_matches(pattern: &str, path: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == path, |prefix| path.starts_with(prefix))
}

fn path_covers(pattern: &str, other: &str) -> bool {
    match other.strip_suffix('*') {
        None => path_matches(pattern, other),
        Some(prefix) => pattern.strip_suffix('*').is_some_and(|held| prefix.starts_with(held)),
    }
}

/// `*` is everything, `pods` a resource alone, `pods/log` one subresource, `*/scale` one of every resource.
fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    match pattern.split_once('/') {
        None => pattern == ANY || (subresource.is_empty() && pattern == resource),
        Some((of, sub)) => sub == subresource && !sub.is_empty() && (of == ANY || of == resource),
    }
}

fn resource_covers(pattern: &str, other: &str) -> bool {
    match other.split_once('/') {
        Some((resource, subresource)) => resource_matches(pattern, resource, subresource),
        None => pattern == ANY || pattern == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(value: Value) -> Rule {
        Rule::parse(&value)
    }

    #[test]
    fn rules_allow_exactly_what_they_say() {
        let pods = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        let cases = [
            (pods.clone(), ("get", "", "pods", "", "a"), true),
            (pods.clone(), ("list", "", "pods", "", ""), false),
            (pods.clone(), ("get", "apps", "pods", "", "a"), false),
            (pods, ("get", "", "pods", "log", "a"), false),
            (json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}), ("watch", "x", "y", "z", ""), true),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}),
                ("get", "", "pods", "log", "a"),
                true,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}),
                ("get", "", "pods", "", "a"),
                false,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": ["apps"], "resources": ["*/scale"]}),
                ("get", "apps", "deployments", "scale", "a"),
                true,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}),
                ("get", "", "secrets", "", "a"),
                true,
            ),
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}),
                ("get", "", "secrets", "", "b"),
                false,
            ),
            (json!({"verbs": ["get"], "nonResourceURLs": ["*"]}), ("get", "", "pods", "", "a"), false),
        ];
        for (value, (verb, group, resource, subresource, name), allowed) in cases {
            let request = Request::Resource { verb, group, resource, subresource, name };
            assert_eq!(rule(value.clone()).allows(&request), allowed, "{value} {request:?}");
        }
        let paths = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/apis/*"]}));
        for (path, allowed) in [("/healthz", true), ("/healthz/ping", false), ("/apis/apps", true), ("/apis", false)] {
            assert_eq!(paths.allows(&Request::Path { verb: "get", path }), allowed, "{path}");
        }
    }

    #[test]
    fn what_is_not_held_cannot_be_handed_on() {
        let held = [
            rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]})),
            rule(json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"]})),
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/apis/*"]})),
        ];
        let missing = |value: Value| uncovered(&held, &[rule(value)]).len();
        assert_eq!(missing(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"]})), 0);
        assert_eq!(missing(json!({"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]})), 1);
        assert_eq!(missing(json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]})), 1);
        assert_eq!(missing(json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["deployments", "*/scale"]})), 0);
        assert_eq!(
            missing(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]})),
            0
        );
        assert_eq!(missing(json!({"verbs": ["get"], "nonResourceURLs": ["/apis/apps", "/apis/a*", "/api"]})), 1);
        assert_eq!(uncovered(&Rule::everything(), &held).len(), 0);
    }

    #[test]
    fn rules_survive_a_round_trip() {
        for value in [
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}),
            json!({"verbs": ["get"], "nonResourceURLs": ["/a"]}),
        ] {
            assert_eq!(rule(value.clone()).to_json(), value);
        }
    }
}
