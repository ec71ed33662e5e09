//! What one Ingress means: routing rules, certificates by host, and what is wrong with it. A bad rule is reported and
//! leaves the others as they are.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use ingress_route::{HostPattern, PathMatch, Rule, Source, WildcardLabels};

use super::problem::Problem;
use crate::model::{Backend, Ingress, ObjectKey, Path, PathKind, Tls};
use crate::policy::Policy;
use crate::request_path::normalize_str;
use crate::snapshot::{Target, TlsKey};
use crate::upstream::{Upstream, UpstreamKey};

#[derive(Debug, Default)]
pub(crate) struct Meaning {
    pub(crate) routes: Vec<Rule<Target>>,
    pub(crate) certificates: Vec<Rule<TlsKey>>,
    pub(crate) problems: BTreeSet<Problem>,
}

/// Reads an Ingress. `policy` holds for its rules; `upstream` gives the upstream of a key, or the one of unsupported
/// backends.
pub(crate) fn meaning_of(
    ingress: &Ingress,
    policy: &Arc<Policy>,
    upstream: impl FnMut(Option<UpstreamKey>) -> Arc<Upstream>,
) -> Meaning {
    let source = Arc::new(Source {
        created: ingress.created,
        namespace: ingress.key.namespace.clone(),
        name: ingress.key.name.clone(),
    });
    let mut reader = Reader { ingress, policy, source, upstream, meaning: Meaning::default() };
    for path in &ingress.paths {
        reader.path(path);
    }
    reader.default_backend();
    reader.tls();
    reader.meaning
}

/// The Secrets that an Ingress refers to.
pub(crate) fn secrets_of(ingress: &Ingress) -> BTreeSet<ObjectKey> {
    ingress.tls.iter().filter_map(|tls| secret_key(ingress, tls)).collect()
}

/// The Secret that an Ingress chooses for a host of its TLS entries.
pub(crate) fn secret_of_host(ingress: &Ingress, host: &HostPattern) -> Option<ObjectKey> {
    let names = |hosts: &[Box<str>]| hosts.iter().any(|text| parse(text).as_ref() == Ok(host));
    let entry = ingress.tls.iter().find(|tls| names(&tls.hosts));
    secret_key(ingress, entry.or_else(|| ingress.tls.iter().find(|tls| tls.hosts.is_empty()))?)
}

struct Reader<'a, F> {
    ingress: &'a Ingress,
    policy: &'a Arc<Policy>,
    source: Arc<Source>,
    upstream: F,
    meaning: Meaning,
}

impl<F: FnMut(Option<UpstreamKey>) -> Arc<Upstream>> Reader<'_, F> {
    fn path(&mut self, path: &Path) {
        let Some(host) = self.host(&path.host) else { return };
        // Requests have their path in its one form, so that a rule written otherwise would match none.
        let written = normalize_str(&path.path, true).unwrap_or(Cow::Borrowed(&path.path));
        let matched = match path.kind {
            PathKind::Exact => PathMatch::exact(&written),
            PathKind::Prefix => PathMatch::prefix(&written),
        };
        match matched {
            Ok(matched) => self.route(host, matched, &path.backend),
            Err(error) => self.problem(Problem::InvalidRule(error.to_string())),
        }
    }

    /// The default backend takes what no path of the Ingress's own hosts takes, and what no rule at all takes.
    fn default_backend(&mut self) {
        let Some(backend) = &self.ingress.default_backend else { return };
        let mut hosts: BTreeSet<_> = self.ingress.hosts.iter().filter_map(|host| parse(host).ok()).collect();
        hosts.insert(HostPattern::Any);
        for host in hosts {
            self.route(host, PathMatch::Fallback, backend);
        }
    }

    fn route(&mut self, host: HostPattern, path: PathMatch, backend: &Backend) {
        let key = match backend {
            Backend::Service { name, port } => {
                let service = ObjectKey { namespace: self.ingress.key.namespace.clone(), name: name.clone() };
                Some(UpstreamKey { service, port: port.clone() })
            }
            Backend::Unsupported => {
                self.problem(Problem::UnsupportedBackend(format!("Host {host} path {path}")));
                None
            }
        };
        let target = Target { upstream: (self.upstream)(key), policy: Arc::clone(self.policy) };
        let index = u32::try_from(self.meaning.routes.len()).unwrap_or(u32::MAX);
        self.meaning.routes.push(Rule { host, path, source: Arc::clone(&self.source), index, target });
    }

    /// An entry without hosts is for those hosts of the rules that no other entry names.
    fn tls(&mut self) {
        let named: BTreeSet<_> = self.ingress.tls.iter().flat_map(|tls| &tls.hosts).collect();
        let unnamed: Vec<_> = self.ingress.hosts.iter().filter(|host| !named.contains(host)).cloned().collect();
        for tls in &self.ingress.tls {
            let key = secret_key(self.ingress, tls).map(Arc::new);
            for host in if tls.hosts.is_empty() { &unnamed } else { &tls.hosts } {
                match self.host(host) {
                    // The certificate of last resort is the operator's to choose.
                    None | Some(HostPattern::Any) => {}
                    Some(host) => self.certificate(host, key.clone()),
                }
            }
        }
    }

    fn certificate(&mut self, host: HostPattern, target: TlsKey) {
        let index = u32::try_from(self.meaning.certificates.len()).unwrap_or(u32::MAX);
        let (source, path) = (Arc::clone(&self.source), PathMatch::Fallback);
        self.meaning.certificates.push(Rule { host, path, source, index, target });
    }

    fn host(&mut self, text: &str) -> Option<HostPattern> {
        parse(text).map_err(|error| self.problem(Problem::InvalidRule(error.to_string()))).ok()
    }

    fn problem(&mut self, problem: Problem) {
        self.meaning.problems.insert(problem);
    }
}

fn secret_key(ingress: &Ingress, tls: &Tls) -> Option<ObjectKey> {
    let name = tls.secret.clone()?;
    Some(ObjectKey { namespace: ingress.key.namespace.clone(), name })
}

fn parse(host: &str) -> Result<HostPattern, ingress_route::HostError> {
    HostPattern::parse(host, WildcardLabels::One)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::{Meaning, meaning_of};
    use crate::model::{Ingress, Model, ObjectKey, Port};
    use crate::upstream::{Endpoints, Unavailable, Upstream, UpstreamKey};

    fn meaning(spec: Value) -> Meaning {
        let object = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
        meaning_of(&Ingress::from_object(serde_json::from_value(object).unwrap()), &Arc::default(), |key| {
            let unsupported = || UpstreamKey { service: ObjectKey::default(), port: Port::Number(0) };
            let endpoints = Endpoints::missing(Unavailable::ServiceMissing);
            Arc::new(Upstream::new(key.unwrap_or_else(unsupported), endpoints, 0))
        })
    }

    fn routes(meaning: &Meaning) -> Vec<String> {
        let rules = meaning.routes.iter();
        rules.map(|rule| format!("{} {} -> {}", rule.host, rule.path, rule.target.upstream.key)).collect()
    }

    fn service(name: &str) -> Value {
        json!({"service": {"name": name, "port": {"number": 80}}})
    }

    #[test]
    fn a_default_backend_is_for_the_own_hosts_and_for_everything_else() {
        let meaning = meaning(json!({
            "defaultBackend": service("d"),
            "rules": [
                {"host": "a.test", "http": {"paths": [{"path": "/x", "pathType": "Exact", "backend": service("s")}]}},
                {"host": "b.test"},
            ],
        }));
        assert_eq!(
            routes(&meaning),
            [
                "a.test =/x -> shop/s:80",
                "* (default) -> shop/d:80",
                "a.test (default) -> shop/d:80",
                "b.test (default) -> shop/d:80"
            ]
        );
    }

    #[test]
    fn a_bad_rule_is_reported_and_the_others_stay() {
        let path = |path: &str, backend| json!({"path": path, "pathType": "Prefix", "backend": backend});
        let meaning = meaning(json!({"rules": [
            {"host": "*.*.test", "http": {"paths": [path("/", service("s"))]}},
            {"host": "a.test", "http": {"paths": [
                path("relative", service("s")),
                path("/r", json!({"resource": {"kind": "Bucket", "name": "b"}})),
                path("/ok", service("s")),
            ]}},
        ]}));
        assert_eq!(routes(&meaning), ["a.test /r/ -> /:0", "a.test /ok/ -> shop/s:80"]);
        let reasons: Vec<_> = meaning.problems.iter().map(|problem| problem.reason()).collect();
        assert_eq!(reasons, ["InvalidRule", "InvalidRule", "UnsupportedBackend"]);
    }

    #[test]
    fn a_path_is_written_as_requests_will_have_it() {
        let path = |path: &str| json!({"path": path, "pathType": "Prefix", "backend": service("s")});
        let paths = [path("/%7Euser"), path("/a/./b"), path("/a%2Fb"), path("/..")];
        let meaning = meaning(json!({"rules": [{"host": "a.test", "http": {"paths": paths}}]}));
        let shown = ["a.test /~user/", "a.test /a/b/", "a.test /a%2Fb/", "a.test /../"];
        assert_eq!(routes(&meaning), shown.map(|shown| format!("{shown} -> shop/s:80")));
    }

    #[test]
    fn tls_without_hosts_is_for_the_hosts_that_no_entry_names() {
        let meaning = meaning(json!({
            "rules": [{"host": "a.test"}, {"host": "b.test"}, {}],
            "tls": [{"secretName": "rest"}, {"hosts": ["a.test", "*.c.test"], "secretName": "own"}, {"hosts": ["d.test"]}],
        }));
        let lines: Vec<_> = (meaning.certificates.iter())
            .map(|rule| format!("{} {}", rule.host, rule.target.as_ref().map_or("default".into(), ToString::to_string)))
            .collect();
        assert_eq!(lines, ["b.test shop/rest", "a.test shop/own", "*.c.test shop/own", "d.test default"]);
    }
}
