//! From rules to a table: all at once, or one changed source at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::host::HostPattern;
use crate::host_routes::HostRoutes;
use crate::path::PathMatch;
use crate::rule::{Rule, Source};
use crate::table::Table;

/// Two rules claim the same traffic; the loser's is never found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    pub host: HostPattern,
    pub path: PathMatch,
    pub winner: Arc<Source>,
    pub loser: Arc<Source>,
}

/// Compiles a set of rules. Their order does not matter. Conflicts come sorted.
#[must_use]
pub fn compile<T>(rules: impl IntoIterator<Item = Rule<T>>) -> (Table<T>, Vec<Conflict>) {
    let mut by_host: BTreeMap<HostPattern, SeniorFirst<T>> = BTreeMap::new();
    for rule in rules {
        by_host.entry(rule.host.clone()).or_default().insert(rule.seniority(), Arc::new(rule));
    }
    let mut table = Table::default();
    let mut conflicts = Vec::new();
    for (host, rules) in &by_host {
        let (routes, lost) = compile_host(rules);
        table.set(host, Some(Arc::new(routes)));
        conflicts.extend(lost);
    }
    conflicts.sort();
    (table, conflicts)
}

/// Keeps a table up to date as sources change. After any history its table finds what [`compile`] of the same rules
/// finds; only hosts named by a changed rule are compiled again.
#[derive(Debug)]
pub struct Compiler<T> {
    table: Table<T>,
    by_source: HashMap<SourceName, Vec<Arc<Rule<T>>>>,
    by_host: HashMap<HostPattern, SeniorFirst<T>>,
    conflicts: BTreeMap<HostPattern, Vec<Conflict>>,
    dirty: BTreeSet<HostPattern>,
}

type SourceName = (Box<str>, Box<str>);
type SeniorFirst<T> = BTreeMap<(Arc<Source>, u32), Arc<Rule<T>>>;

impl<T> Default for Compiler<T> {
    fn default() -> Self {
        Self {
            table: Table::default(),
            by_source: HashMap::new(),
            by_host: HashMap::new(),
            conflicts: BTreeMap::new(),
            dirty: BTreeSet::new(),
        }
    }
}

impl<T: PartialEq> Compiler<T> {
    /// Makes these the rules of the source with this namespace and name (all of them; none removes it). Returns whether
    /// anything changed. Takes effect at the next [`publish`](Self::publish).
    pub fn replace(&mut self, namespace: &str, name: &str, rules: Vec<Rule<T>>) -> bool {
        let key = (namespace.into(), name.into());
        let old = self.by_source.get(&key).map_or(&[][..], Vec::as_slice);
        if old.len() == rules.len() && old.iter().zip(&rules).all(|(old, new)| **old == *new) {
            return false;
        }
        for rule in self.by_source.remove(&key).unwrap_or_default() {
            if let Some(rules) = self.by_host.get_mut(&rule.host) {
                rules.remove(&rule.seniority());
                if rules.is_empty() {
                    self.by_host.remove(&rule.host);
                }
            }
            self.dirty.insert(rule.host.clone());
        }
        let rules: Vec<_> = rules.into_iter().map(Arc::new).collect();
        for rule in &rules {
            self.by_host.entry(rule.host.clone()).or_default().insert(rule.seniority(), Arc::clone(rule));
            self.dirty.insert(rule.host.clone());
        }
        if !rules.is_empty() {
            self.by_source.insert(key, rules);
        }
        true
    }

    /// Compiles what changed and returns the table.
    pub fn publish(&mut self) -> Table<T> {
        for host in std::mem::take(&mut self.dirty) {
            let compiled = self.by_host.get(&host).map(compile_host);
            let (routes, lost) = compiled.map_or((None, Vec::new()), |(routes, lost)| (Some(Arc::new(routes)), lost));
            self.table.set(&host, routes);
            if lost.is_empty() {
                self.conflicts.remove(&host);
            } else {
                self.conflicts.insert(host, lost);
            }
        }
        self.table.clone()
    }

    /// The conflicts of the table last published, sorted by host.
    pub fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.conflicts.values().flatten()
    }
}

fn compile_host<T>(rules: &SeniorFirst<T>) -> (HostRoutes<T>, Vec<Conflict>) {
    let mut conflicts = Vec::new();
    let routes = HostRoutes::build(rules.values().cloned(), |winner, loser| {
        conflicts.push(Conflict {
            host: loser.host.clone(),
            path: loser.path.clone(),
            winner: Arc::clone(&winner.source),
            loser: Arc::clone(&loser.source),
        });
    });
    conflicts.sort();
    (routes, conflicts)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Compiler, Conflict, compile};
    use crate::{HostPattern, PathMatch, RequestView, Rule, Source, WildcardLabels, find};

    fn source(created: i64, name: &str) -> Arc<Source> {
        Arc::new(Source { created, namespace: "default".into(), name: name.into() })
    }

    fn rule(source: &Arc<Source>, index: u32, host: &str, path: &str, target: u32) -> Rule<u32> {
        Rule {
            host: HostPattern::parse(host, WildcardLabels::One).unwrap(),
            path: PathMatch::prefix(path).unwrap(),
            source: Arc::clone(source),
            index,
            target,
        }
    }

    #[test]
    fn the_older_source_wins_and_the_younger_is_reported() {
        let (old, young) = (source(1, "zz"), source(2, "aa"));
        let rules = [rule(&young, 0, "a.test", "/x", 2), rule(&old, 0, "a.test", "/x/", 1)];
        let (table, conflicts) = compile(rules.clone());
        assert_eq!(find(&table, &RequestView { host: "a.test", path: "/x" }).map(|r| r.target), Some(1));
        let expected = Conflict { host: rules[0].host.clone(), path: rules[0].path.clone(), winner: old, loser: young };
        assert_eq!(conflicts, [expected]);
    }

    #[test]
    fn equal_age_is_decided_by_namespace_and_name_then_by_order() {
        let (a, b) = (source(1, "a"), source(1, "b"));
        let (table, conflicts) = compile([rule(&b, 0, "", "/", 9), rule(&a, 1, "", "/", 2), rule(&a, 0, "", "/", 1)]);
        assert_eq!(find(&table, &RequestView { host: "any", path: "/" }).map(|r| r.target), Some(1));
        assert_eq!(conflicts.len(), 2);
    }

    #[test]
    fn the_loser_takes_over_when_the_winner_goes() {
        let (old, young) = (source(1, "old"), source(2, "young"));
        let mut compiler = Compiler::default();
        compiler.replace("default", "old", vec![rule(&old, 0, "a.test", "/", 1)]);
        compiler.replace("default", "young", vec![rule(&young, 0, "a.test", "/", 2)]);
        let request = RequestView { host: "a.test", path: "/" };
        let table = compiler.publish();
        assert_eq!((find(&table, &request).unwrap().target, compiler.conflicts().count()), (1, 1));
        assert!(compiler.replace("default", "old", vec![]));
        let next = compiler.publish();
        assert_eq!((find(&next, &request).unwrap().target, compiler.conflicts().count()), (2, 0));
        assert_eq!(find(&table, &request).unwrap().target, 1, "a published table never changes");
    }

    #[test]
    fn untouched_hosts_keep_their_allocation_and_equal_rules_are_no_change() {
        let (a, b) = (source(1, "a"), source(1, "b"));
        let mut compiler = Compiler::default();
        compiler.replace("default", "a", vec![rule(&a, 0, "a.test", "/", 1)]);
        compiler.replace("default", "b", vec![rule(&b, 0, "b.test", "/", 2)]);
        let before = compiler.publish();
        assert!(!compiler.replace("default", "a", vec![rule(&a, 0, "a.test", "/", 1)]));
        assert!(compiler.replace("default", "b", vec![rule(&b, 0, "b.test", "/", 3)]));
        let after = compiler.publish();
        assert!(Arc::ptr_eq(before.routes("a.test").unwrap(), after.routes("a.test").unwrap()));
        assert!(!Arc::ptr_eq(before.routes("b.test").unwrap(), after.routes("b.test").unwrap()));
    }
}
