//! A rule, the object it comes from, and the total order that decides between rules.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use crate::host::{HostPattern, WildcardLabels};
use crate::path::PathMatch;

/// The object that a rule comes from. `Ord` is seniority: the older object first, then by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// Creation time, in seconds since the epoch.
    pub created: i64,
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// "Requests for these hosts and paths go to this target."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<T> {
    pub host: HostPattern,
    pub path: PathMatch,
    pub source: Arc<Source>,
    /// The place of the rule in its source: of two equal rules of one source, the first holds.
    pub index: u32,
    pub target: T,
}

impl<T> Rule<T> {
    /// Whether a request with this host (in normal form) and path is the rule's.
    #[must_use]
    pub fn matches(&self, host: &str, path: &str) -> bool {
        self.host.matches(host) && self.path.matches(path)
    }

    /// Where the rule stands among rules that match the same request.
    #[must_use]
    pub fn precedence(&self) -> Precedence<'_> {
        Precedence {
            host: HostRank::of(&self.host),
            path: PathRank::of(&self.path),
            seniority: Reverse((&self.source, self.index)),
        }
    }

    pub(crate) fn seniority(&self) -> (Arc<Source>, u32) {
        (Arc::clone(&self.source), self.index)
    }
}

/// Of all rules that match a request, the one with the greatest precedence gets it: the more specific host first, then
/// exact path, then the longest prefix, then a default backend; between equals the senior source, then the first rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence<'a> {
    host: HostRank,
    path: PathRank,
    seniority: Reverse<(&'a Arc<Source>, u32)>,
}

/// Exact before wildcard before any; the longer wildcard first, of equal ones the narrower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum HostRank {
    Any,
    Wildcard { suffix_len: usize, labels: WildcardLabels },
    Exact,
}

impl HostRank {
    fn of(host: &HostPattern) -> Self {
        match host {
            HostPattern::Any => Self::Any,
            HostPattern::Wildcard { suffix, labels } => Self::Wildcard { suffix_len: suffix.len(), labels: *labels },
            HostPattern::Exact(_) => Self::Exact,
        }
    }
}

/// Exact before prefix before default; the longer prefix first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Fallback,
    Prefix { len: usize },
    Exact,
}

impl PathRank {
    fn of(path: &PathMatch) -> Self {
        match path {
            PathMatch::Fallback => Self::Fallback,
            PathMatch::Prefix(prefix) => Self::Prefix { len: prefix.len() },
            PathMatch::Exact(_) => Self::Exact,
        }
    }
}
