//! The rules of one host pattern, ready for lookup.

use std::sync::Arc;

use crate::path::PathMatch;
use crate::path_map::PathMap;
use crate::rule::Rule;

#[derive(Debug)]
pub(crate) struct HostRoutes<T> {
    exact: PathMap<T>,
    prefix: PathMap<T>,
    fallback: Option<Arc<Rule<T>>>,
    /// The length of the longest prefix: no longer part of a request's path needs a look.
    prefix_len_max: usize,
    /// The most elements of a prefix, likewise.
    prefix_depth_max: usize,
    /// One bit for each length of a prefix, modulo 64: most parts of a path are of no rule's length.
    prefix_lens: u64,
}

impl<T> HostRoutes<T> {
    /// Builds from rules of one host pattern, seniors first; `shadowed` gets each rule that a senior one hides.
    pub(crate) fn build(
        rules: impl IntoIterator<Item = Arc<Rule<T>>>,
        mut shadowed: impl FnMut(&Arc<Rule<T>>, &Arc<Rule<T>>),
    ) -> Self {
        let mut routes = Self {
            exact: PathMap::default(),
            prefix: PathMap::default(),
            fallback: None,
            prefix_len_max: 0,
            prefix_depth_max: 0,
            prefix_lens: 0,
        };
        for rule in rules {
            let senior = match &rule.path {
                PathMatch::Exact(path) => routes.exact.get(path),
                PathMatch::Prefix(path) => routes.prefix.get(path),
                PathMatch::Fallback => routes.fallback.as_ref(),
            };
            match senior {
                Some(senior) => shadowed(senior, &rule),
                None => routes.insert(rule),
            }
        }
        routes
    }

    pub(crate) fn find(&self, path: &str) -> Option<&Arc<Rule<T>>> {
        if let Some(rule) = self.exact.get(path) {
            return Some(rule);
        }
        self.find_prefix(path).or(self.fallback.as_ref())
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = &Arc<Rule<T>>> {
        self.exact.rules().chain(self.prefix.rules()).chain(&self.fallback)
    }

    fn insert(&mut self, rule: Arc<Rule<T>>) {
        match &rule.path {
            PathMatch::Exact(path) => {
                self.exact.insert(path.clone(), rule);
            }
            PathMatch::Prefix(path) => {
                self.prefix_len_max = self.prefix_len_max.max(path.len());
                self.prefix_depth_max = self.prefix_depth_max.max(path.bytes().filter(|b| *b == b'/').count());
                self.prefix_lens |= 1 << (path.len() % 64);
                self.prefix.insert(path.clone(), rule);
            }
            PathMatch::Fallback => self.fallback = Some(rule),
        }
    }

    /// The longest prefix wins, so the ends of the path's elements are tried from the left and the last hit counts:
    /// the number of lookups is bounded by the host's deepest rule, not by the request.
    fn find_prefix(&self, path: &str) -> Option<&Arc<Rule<T>>> {
        if self.prefix.is_empty() {
            return None;
        }
        let has_len = |len: usize| self.prefix_lens & (1 << (len % 64)) != 0;
        let mut best = has_len(0).then(|| self.prefix.get("")).flatten();
        if self.prefix_depth_max == 0 || !path.starts_with('/') {
            return best;
        }
        let within = &path.as_bytes()[..path.len().min(self.prefix_len_max + 1)];
        let slashes = within.iter().enumerate().skip(1).filter(|(_, b)| **b == b'/').map(|(end, _)| end);
        let whole = (path.len() <= self.prefix_len_max).then_some(path.len());
        for end in slashes.chain(whole).take(self.prefix_depth_max).filter(|end| has_len(*end)) {
            // `end` is at a slash or at the end, so the slice is on a character boundary.
            best = path.get(..end).and_then(|prefix| self.prefix.get(prefix)).or(best);
        }
        best
    }
}
