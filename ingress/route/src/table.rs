//! The table: an immutable value that answers `find`.

use std::sync::Arc;

use crate::host::{HostPattern, WildcardLabels, normalize_host};
use crate::host_map::HostMap;
use crate::host_routes::HostRoutes;
use crate::rule::Rule;

/// What routing looks at.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// As the client sent it: port, trailing dot and upper case are fine; empty if there is none.
    pub host: &'a str,
    /// The path as sent, without the query.
    pub path: &'a str,
}

/// The rule that a request belongs to, if any.
#[must_use]
pub fn find<'t, T>(table: &'t Table<T>, request: &RequestView<'_>) -> Option<&'t Arc<Rule<T>>> {
    let host = normalize_host(request.host);
    table.candidates(&host).find_map(|routes| routes.find(request.path))
}

/// Compiled rules. Cheap to clone; a changed table shares with its predecessor what did not change.
#[derive(Debug)]
pub struct Table<T> {
    exact: HostMap<HostRoutes<T>>,
    wildcard_one: HostMap<HostRoutes<T>>,
    wildcard_many: HostMap<HostRoutes<T>>,
    any: Option<Arc<HostRoutes<T>>>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self {
            exact: self.exact.clone(),
            wildcard_one: self.wildcard_one.clone(),
            wildcard_many: self.wildcard_many.clone(),
            any: self.any.clone(),
        }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            exact: HostMap::default(),
            wildcard_one: HostMap::default(),
            wildcard_many: HostMap::default(),
            any: None,
        }
    }
}

impl<T> Table<T> {
    /// Every rule that can be found, in no particular order.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule<T>>> {
        self.exact
            .iter()
            .chain(self.wildcard_one.iter())
            .chain(self.wildcard_many.iter())
            .chain(&self.any)
            .flat_map(|routes| routes.rules())
    }

    /// Sets or, with `None`, removes the routes of a host pattern.
    pub(crate) fn set(&mut self, host: &HostPattern, routes: Option<Arc<HostRoutes<T>>>) {
        match host {
            HostPattern::Any => self.any = routes,
            HostPattern::Exact(name) => self.exact.set(name, routes),
            HostPattern::Wildcard { suffix, labels: WildcardLabels::One } => self.wildcard_one.set(suffix, routes),
            HostPattern::Wildcard { suffix, labels: WildcardLabels::Many } => self.wildcard_many.set(suffix, routes),
        }
    }

    #[cfg(test)]
    pub(crate) fn routes(&self, host: &str) -> Option<&Arc<HostRoutes<T>>> {
        self.exact.get(host)
    }

    /// The routes of every pattern that matches a host in normal form, the most specific first.
    fn candidates<'t, 'h>(&'t self, host: &'h str) -> impl Iterator<Item = &'t Arc<HostRoutes<T>>> + use<'t, 'h, T> {
        // A suffix of one label less, then of two, …: each can be behind a Gateway wildcard, only the first behind an
        // Ingress wildcard.
        let suffixes = host.match_indices('.').filter(|(dot, _)| *dot > 0).map(|(dot, _)| &host[dot + 1..]);
        let depth = if self.wildcard_many.is_empty() { 1 } else { usize::MAX };
        let one_label = host.find('.').filter(|dot| *dot > 0).map(|dot| &host[dot + 1..]);
        let wildcards = suffixes.take(depth).flat_map(move |suffix| {
            let one = (Some(suffix) == one_label).then(|| self.wildcard_one.get(suffix)).flatten();
            one.into_iter().chain(self.wildcard_many.get(suffix))
        });
        self.exact.get(host).into_iter().chain(wildcards).chain(&self.any)
    }
}
