//! The world: every object that matters, and what follows from it. Pure: changes go in, a snapshot and things to do come
//! out. Randomness enters as an argument.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};

use ingress_route::{Compiler, Conflict, Source};

use super::change::{Change, Edit, Listing};
use super::class::ClassPolicy;
use super::controller::Settings;
use super::event::Report;
use super::problem::Problem;
use super::rules::{Meaning, meaning_of, secret_of_host, secrets_of};
use super::secrets::{Identities, Secrets};
use super::status::{self, StatusWrite};
use super::upstreams::Upstreams;
use crate::model::{Address, Ingress, IngressClass, ObjectKey};
use crate::policy::Policy;
use crate::snapshot::{Snapshot, Target, TlsKey};
use crate::tls::Identity;
use crate::upstream::Upstream;

#[derive(Debug)]
pub(crate) struct World {
    classes_policy: ClassPolicy,
    /// The policy of rules that ask for nothing else.
    policy: Arc<Policy>,
    published: Vec<Address>,
    default_certificate: Option<ObjectKey>,
    self_signed: Arc<Identity>,

    ingresses: HashMap<ObjectKey, Ingress>,
    classes: HashMap<ObjectKey, IngressClass>,
    upstreams: Upstreams,
    secrets: Secrets,
    listings: Listings,

    routes: Compiler<Target>,
    certificates: Compiler<TlsKey>,
    /// Ingresses that are ours, with the Secrets they refer to.
    served: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// What has been reported and still holds.
    reported: HashMap<ObjectKey, BTreeSet<Problem>>,
    /// Routing rules, and certificates, that another Ingress hides.
    conflicts: BTreeSet<Hidden>,
    /// Ingresses to look at before the next snapshot.
    touched: HashSet<ObjectKey>,
    generation: u64,
    last_identities: Identities,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hidden {
    Rule(Conflict),
    Certificate(Conflict),
}

#[derive(Debug, Default)]
struct Listings {
    ingresses: Listing,
    classes: Listing,
    services: Listing,
    slices: Listing,
}

/// What follows from a batch of changes.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Absent if nothing about routing or TLS changed. (Endpoints change inside the upstreams, without a snapshot.)
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) secrets_to_read: Vec<ObjectKey>,
    pub(crate) statuses: Vec<StatusWrite>,
    pub(crate) reports: Vec<Report>,
    /// Upstreams to check actively, if they changed.
    pub(crate) checked: Option<Vec<Weak<Upstream>>>,
    /// External names to look up, if they changed.
    pub(crate) names: Option<HashSet<Box<str>>>,
}

/// How much there is, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ingresses: usize,
    pub(crate) ingresses_served: usize,
    pub(crate) services: usize,
    pub(crate) endpoint_slices: usize,
    pub(crate) certificates: usize,
    pub(crate) conflicts: usize,
}

impl World {
    pub(crate) fn new(settings: Settings, secrets: Secrets, self_signed: Arc<Identity>) -> Self {
        Self {
            classes_policy: settings.class,
            policy: Arc::new(settings.policy),
            published: settings.published,
            default_certificate: settings.default_certificate,
            self_signed,
            ingresses: HashMap::new(),
            classes: HashMap::new(),
            upstreams: Upstreams::new(settings.external),
            secrets,
            listings: Listings::default(),
            routes: Compiler::default(),
            certificates: Compiler::default(),
            served: HashMap::new(),
            reported: HashMap::new(),
            conflicts: BTreeSet::new(),
            touched: HashSet::new(),
            generation: 0,
            last_identities: Identities::default(),
        }
    }

    /// Takes in a change. Endpoints take effect at once, everything else at the next [`publish`](Self::publish).
    pub(crate) fn apply(&mut self, change: Change) {
        let listings = &mut self.listings;
        match change {
            Change::Ingress(delta) => {
                for edit in listings.ingresses.edits(delta, || self.ingresses.keys().cloned().collect()) {
                    self.touched.insert(put(&mut self.ingresses, edit));
                }
            }
            Change::Class(delta) => {
                for edit in listings.classes.edits(delta, || self.classes.keys().cloned().collect()) {
                    if !matches!(&edit, Edit::Put(class) if self.classes.get(&class.key) == Some(class)) {
                        put(&mut self.classes, edit);
                        self.touched.extend(self.ingresses.keys().cloned());
                    }
                }
            }
            Change::Service(delta) => {
                for edit in listings.services.edits(delta, || self.upstreams.service_keys()) {
                    match edit {
                        Edit::Put(service) => self.upstreams.put_service(service),
                        Edit::Remove(key) => self.upstreams.remove_service(&key),
                    }
                }
            }
            Change::Slice(delta) => {
                for edit in listings.slices.edits(delta, || self.upstreams.slice_keys()) {
                    match edit {
                        Edit::Put(slice) => self.upstreams.put_slice(slice),
                        Edit::Remove(key) => self.upstreams.remove_slice(&key),
                    }
                }
            }
            Change::Secret(delta) => self.secrets.apply(delta),
            Change::SecretRead(key, secret) => self.secrets.read(&key, secret.as_ref()),
            Change::Resolved(name, addresses) => self.upstreams.put_addresses(name, addresses),
        }
    }

    /// Whether Ingresses and classes are known, so that it is known which Secrets matter. Tells it to the Secrets.
    pub(crate) fn ready_for_secrets(&mut self) -> bool {
        if !(self.listings.ingresses.is_synced() && self.listings.classes.is_synced()) {
            return false;
        }
        for ingress in self.ingresses.values().filter(|ingress| self.classes_policy.is_ours(ingress, &self.classes)) {
            self.secrets.refer(&ingress.key, secrets_of(ingress));
        }
        self.secrets.watch_started();
        true
    }

    /// Whether every kind has been listed completely once.
    pub(crate) fn is_synced(&self) -> bool {
        let all = [&self.listings.ingresses, &self.listings.classes, &self.listings.services, &self.listings.slices];
        all.iter().all(|listing| listing.is_synced()) && self.secrets.is_synced()
    }

    /// Works out what follows from the changes so far. `turn` gives random numbers. Call only when synced: half a view
    /// would take routes away.
    pub(crate) fn publish(&mut self, turn: &mut dyn FnMut() -> usize) -> Outcome {
        self.touched.extend(self.secrets.take_touched());
        let (changed, mut outcome) = self.evaluate(turn);
        let identities = Arc::clone(self.secrets.identities());
        let new_identities = !Arc::ptr_eq(&identities, &self.last_identities);
        if changed || new_identities || self.generation == 0 {
            self.generation += 1;
            let default = self.default_certificate.as_ref().and_then(|key| identities.get(key));
            outcome.snapshot = Some(Snapshot {
                generation: self.generation,
                routes: self.routes.publish(),
                certificates: self.certificates.publish(),
                default_identity: Arc::clone(default.unwrap_or(&self.self_signed)),
                identities: Arc::clone(&identities),
            });
            self.last_identities = identities;
            self.report_conflicts(&mut outcome.reports);
        }
        outcome.secrets_to_read = self.secrets.take_reads();
        outcome.checked = self.upstreams.take_checked();
        outcome.names = self.upstreams.take_names();
        outcome
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            ingresses: self.ingresses.len(),
            ingresses_served: self.served.len(),
            services: self.upstreams.service_count(),
            endpoint_slices: self.upstreams.slice_count(),
            certificates: self.secrets.identities().len(),
            conflicts: self.conflicts.len(),
        }
    }

    /// Looks at every touched Ingress. Returns whether routing or certificates changed.
    fn evaluate(&mut self, turn: &mut dyn FnMut() -> usize) -> (bool, Outcome) {
        let (mut changed, mut outcome) = (false, Outcome::default());
        for key in std::mem::take(&mut self.touched) {
            let Some(ingress) = self.ingresses.get(&key) else {
                changed |= self.withdraw(&key);
                continue;
            };
            let ours = self.classes_policy.is_ours(ingress, &self.classes);
            let (published, manager) = (&self.published, &self.classes_policy.controller);
            if let Some(addresses) = status::desired(ingress, ours, self.served.contains_key(&key), published, manager)
            {
                outcome.statuses.push(StatusWrite { ingress: key.clone(), addresses });
            }
            if !ours {
                changed |= self.withdraw(&key);
                continue;
            }
            let uid = ingress.uid.clone();
            let secrets = secrets_of(ingress);
            let Meaning { routes, certificates, mut problems } =
                meaning_of(ingress, &self.policy, |upstream| self.upstreams.get(upstream, turn()));
            changed |= self.routes.replace(&key.namespace, &key.name, routes);
            changed |= self.certificates.replace(&key.namespace, &key.name, certificates);
            self.secrets.refer(&key, secrets.clone());
            problems.extend(self.secrets.problems(&secrets));
            self.served.insert(key.clone(), secrets);
            self.report(&key, &uid, problems, &mut outcome.reports);
        }
        (changed, outcome)
    }

    fn withdraw(&mut self, key: &ObjectKey) -> bool {
        self.served.remove(key);
        self.reported.remove(key);
        self.secrets.refer(key, BTreeSet::new());
        let routes = self.routes.replace(&key.namespace, &key.name, Vec::new());
        let certificates = self.certificates.replace(&key.namespace, &key.name, Vec::new());
        routes || certificates
    }

    /// Reports each problem when it appears, and again only if it has gone in between.
    fn report(&mut self, key: &ObjectKey, uid: &str, problems: BTreeSet<Problem>, reports: &mut Vec<Report>) {
        let former = self.reported.remove(key).unwrap_or_default();
        reports.extend(problems.difference(&former).map(|problem| Report {
            ingress: key.clone(),
            uid: uid.into(),
            problem: problem.clone(),
        }));
        if !problems.is_empty() {
            self.reported.insert(key.clone(), problems);
        }
    }

    fn report_conflicts(&mut self, reports: &mut Vec<Report>) {
        let rules = self.routes.conflicts().cloned().map(Hidden::Rule);
        let certificates = self.certificates.conflicts().filter(|conflict| self.choose_differently(conflict));
        let conflicts: BTreeSet<_> = rules.chain(certificates.cloned().map(Hidden::Certificate)).collect();
        for hidden in conflicts.difference(&self.conflicts) {
            let (loser, problem) = match hidden {
                Hidden::Rule(conflict) => (&conflict.loser, Problem::from_conflict(conflict)),
                Hidden::Certificate(conflict) => (&conflict.loser, Problem::from_certificate_conflict(conflict)),
            };
            let key = ObjectKey::new(&loser.namespace, &loser.name);
            if let Some(ingress) = self.ingresses.get(&key) {
                reports.push(Report { ingress: key, uid: ingress.uid.clone(), problem });
            }
        }
        self.conflicts = conflicts;
    }

    /// Whether two Ingresses with TLS for the same host name different Secrets; the same one twice is common and fine.
    fn choose_differently(&self, conflict: &Conflict) -> bool {
        let secret = |source: &Source| {
            let ingress = self.ingresses.get(&ObjectKey::new(&source.namespace, &source.name))?;
            secret_of_host(ingress, &conflict.host)
        };
        secret(&conflict.winner) != secret(&conflict.loser)
    }
}

/// Applies an edit and returns its key.
fn put<M: crate::model::Model>(objects: &mut HashMap<ObjectKey, M>, edit: Edit<M>) -> ObjectKey {
    match edit {
        Edit::Put(object) => {
            let key = object.id().clone();
            objects.insert(key.clone(), object);
            key
        }
        Edit::Remove(key) => {
            objects.remove(&key);
            key
        }
    }
}

#[cfg(test)]
#[path = "world_tests.rs"]
mod tests;
