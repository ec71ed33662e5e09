//! TLS Secrets that Ingresses refer to, and nothing of any other Secret.
//!
//! The watch shows every TLS Secret of the cluster as it changes, but only content that is referred to is kept. A Secret
//! that becomes referred to later is read once; if the watch shows it meanwhile, the watch is right.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::sync::Arc;

use super::change::{Delta, Edit, Listing};
use super::problem::Problem;
use crate::model::{ObjectKey, TlsSecret};
use crate::tls::{Identity, IdentityError, TlsPolicy};

pub(crate) type Identities = Arc<HashMap<ObjectKey, Arc<Identity>>>;

#[derive(Debug)]
pub(crate) struct Secrets {
    policy: TlsPolicy,
    references: HashMap<ObjectKey, Reference>,
    by_ingress: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    identities: Identities,
    listing: Listing,
    /// Whether the watch runs: before, its first listing will show everything.
    watching: bool,
    to_read: Vec<ObjectKey>,
    /// Ingresses whose Secrets changed.
    touched: BTreeSet<ObjectKey>,
}

#[derive(Debug)]
struct Reference {
    ingresses: BTreeSet<ObjectKey>,
    /// Held for the operator, whatever Ingresses say.
    pinned: bool,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The first listing will tell.
    Pending,
    /// A read of its own will tell, unless the watch does so before.
    Reading,
    Missing,
    Unusable(String),
    Usable,
}

impl Secrets {
    pub(crate) fn new(policy: TlsPolicy, pinned: Option<&ObjectKey>) -> Self {
        let reference = |_| Reference { ingresses: BTreeSet::new(), pinned: true, state: State::Pending };
        Self {
            policy,
            references: pinned.into_iter().map(|key| (key.clone(), reference(key))).collect(),
            by_ingress: HashMap::new(),
            identities: Arc::default(),
            listing: Listing::default(),
            watching: false,
            to_read: Vec::new(),
            touched: BTreeSet::new(),
        }
    }

    /// Says that the watch begins now.
    pub(crate) fn watch_started(&mut self) {
        self.watching = true;
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.listing.is_synced()
    }

    pub(crate) fn identities(&self) -> &Identities {
        &self.identities
    }

    /// Makes these the Secrets that an Ingress refers to.
    pub(crate) fn refer(&mut self, ingress: &ObjectKey, secrets: BTreeSet<ObjectKey>) {
        let former = self.by_ingress.remove(ingress).unwrap_or_default();
        for key in former.difference(&secrets) {
            self.drop_reference(ingress, key);
        }
        for key in &secrets {
            let reference = self.references.entry(key.clone()).or_insert_with(|| {
                let state = if self.watching { State::Reading } else { State::Pending };
                if self.watching {
                    self.to_read.push(key.clone());
                }
                Reference { ingresses: BTreeSet::new(), pinned: false, state }
            });
            reference.ingresses.insert(ingress.clone());
        }
        if !secrets.is_empty() {
            self.by_ingress.insert(ingress.clone(), secrets);
        }
    }

    pub(crate) fn apply(&mut self, delta: Delta<TlsSecret>) {
        // What is being read was perhaps not referred to when the listing passed it: its absence there says nothing.
        let listed = self.references.iter().filter(|(_, reference)| reference.state != State::Reading);
        let known = || listed.map(|(key, _)| key.clone()).collect();
        for edit in self.listing.edits(delta, known) {
            match edit {
                Edit::Put(secret) => self.set(&secret.key.clone(), Some(&secret)),
                Edit::Remove(key) => self.set(&key, None),
            }
        }
    }

    /// Takes the result of a read that [`take_reads`](Self::take_reads) asked for.
    pub(crate) fn read(&mut self, key: &ObjectKey, secret: Option<&TlsSecret>) {
        if self.references.get(key).is_some_and(|reference| reference.state == State::Reading) {
            self.set(key, secret);
        }
    }

    /// Secrets that are to be read.
    pub(crate) fn take_reads(&mut self) -> Vec<ObjectKey> {
        std::mem::take(&mut self.to_read)
    }

    /// Ingresses to look at again because of their Secrets.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.touched)
    }

    /// What is wrong with the Secrets of an Ingress.
    pub(crate) fn problems<'a>(&'a self, secrets: &'a BTreeSet<ObjectKey>) -> impl Iterator<Item = Problem> + 'a {
        secrets.iter().filter_map(|key| match &self.references.get(key)?.state {
            State::Pending | State::Reading | State::Usable => None,
            State::Missing => Some(Problem::SecretMissing { secret: key.name.to_string() }),
            State::Unusable(why) => Some(Problem::SecretUnusable { secret: key.name.to_string(), why: why.clone() }),
        })
    }

    fn set(&mut self, key: &ObjectKey, secret: Option<&TlsSecret>) {
        let Some(reference) = self.references.get_mut(key) else { return };
        let (state, identity) = match secret.map(|secret| self.policy.identity(secret)) {
            None => (State::Missing, None),
            Some(Err(error)) => (State::Unusable(chain(&error)), None),
            Some(Ok(identity)) => (State::Usable, Some(identity)),
        };
        if let Some(identity) = identity {
            Arc::make_mut(&mut self.identities).insert(key.clone(), identity);
        } else if self.identities.contains_key(key) {
            Arc::make_mut(&mut self.identities).remove(key);
        }
        reference.state = state;
        self.touched.extend(reference.ingresses.iter().cloned());
    }

    fn drop_reference(&mut self, ingress: &ObjectKey, key: &ObjectKey) {
        let Some(reference) = self.references.get_mut(key) else { return };
        reference.ingresses.remove(ingress);
        if reference.ingresses.is_empty() && !reference.pinned {
            self.references.remove(key);
            if self.identities.contains_key(key) {
                Arc::make_mut(&mut self.identities).remove(key);
            }
        }
    }
}

fn chain(error: &IdentityError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Delta, Secrets};
    use crate::model::{ObjectKey, TlsSecret};
    use crate::tls::TlsPolicy;

    fn good(name: &str) -> TlsSecret {
        let pair = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        TlsSecret {
            key: ObjectKey::new("ns", name),
            is_tls: true,
            certificate: pair.cert.pem().into(),
            private_key: pair.signing_key.serialize_pem().into(),
        }
    }

    fn secrets() -> Secrets {
        Secrets::new(TlsPolicy::new().unwrap(), None)
    }

    fn refer(secrets: &mut Secrets, names: &[&str]) {
        let keys = names.iter().map(|name| ObjectKey::new("ns", name)).collect();
        secrets.refer(&ObjectKey::new("ns", "ing"), keys);
    }

    fn reasons(secrets: &Secrets, names: &[&str]) -> Vec<&'static str> {
        let keys: BTreeSet<_> = names.iter().map(|name| ObjectKey::new("ns", name)).collect();
        secrets.problems(&keys).map(|problem| problem.reason()).collect()
    }

    #[test]
    fn only_what_is_referred_to_is_kept() {
        let mut secrets = secrets();
        refer(&mut secrets, &["a", "absent"]);
        secrets.watch_started();
        for delta in [Delta::Restarted, Delta::Listed(good("a")), Delta::Listed(good("unused")), Delta::Synced] {
            secrets.apply(delta);
        }
        assert_eq!(secrets.identities().keys().map(|key| &*key.name).collect::<Vec<_>>(), ["a"]);
        assert_eq!(reasons(&secrets, &["a", "absent"]), ["TLSSecretMissing"]);
        assert_eq!(secrets.take_reads(), [], "the first listing shows all");
        refer(&mut secrets, &[]);
        assert!(secrets.identities().is_empty());
    }

    #[test]
    fn a_later_reference_is_read_and_the_watch_overrules_the_read() {
        let mut secrets = secrets();
        secrets.watch_started();
        secrets.apply(Delta::Restarted);
        secrets.apply(Delta::Synced);
        refer(&mut secrets, &["a", "b"]);
        assert_eq!(secrets.take_reads(), [ObjectKey::new("ns", "a"), ObjectKey::new("ns", "b")]);
        assert_eq!(reasons(&secrets, &["a", "b"]), [""; 0], "unknown is not missing");
        secrets.read(&ObjectKey::new("ns", "a"), Some(&good("a")));
        secrets.apply(Delta::Deleted(ObjectKey::new("ns", "b")));
        secrets.read(&ObjectKey::new("ns", "b"), Some(&good("b")));
        assert_eq!(secrets.identities().len(), 1);
        assert_eq!(reasons(&secrets, &["a", "b"]), ["TLSSecretMissing"]);
    }

    #[test]
    fn garbage_takes_the_identity_away_and_touches_the_ingress() {
        let mut secrets = secrets();
        refer(&mut secrets, &["a"]);
        secrets.apply(Delta::Applied(good("a")));
        assert_eq!(secrets.take_touched().len(), 1);
        secrets.apply(Delta::Applied(TlsSecret { certificate: b"garbage".into(), ..good("a") }));
        assert!(secrets.identities().is_empty());
        assert_eq!(reasons(&secrets, &["a"]), ["TLSSecretInvalid"]);
        assert_eq!(secrets.take_touched().len(), 1);
    }
}
