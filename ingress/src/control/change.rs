//! Changes of the cluster, as the watches report them.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::model::{Ingress, IngressClass, Model, ObjectKey, Service, Slice, TlsSecret};

/// One step of a watch.
#[derive(Debug)]
pub(crate) enum Delta<M> {
    /// A new listing begins; what it does not mention is gone once it is complete.
    Restarted,
    Listed(M),
    Synced,
    Applied(M),
    Deleted(ObjectKey),
}

#[derive(Debug)]
pub(crate) enum Change {
    Ingress(Delta<Ingress>),
    Class(Delta<IngressClass>),
    Service(Delta<Service>),
    Slice(Delta<Slice>),
    Secret(Delta<TlsSecret>),
    /// The answer to a read of one Secret; `None` if there is none.
    SecretRead(ObjectKey, Option<TlsSecret>),
    /// The addresses of an external name.
    Resolved(Box<str>, Vec<IpAddr>),
}

/// What a delta means for a collection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Edit<M> {
    Put(M),
    Remove(ObjectKey),
}

/// Follows the listings of one watch.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    seen: Option<HashSet<ObjectKey>>,
    synced: bool,
}

impl Listing {
    /// Whether the collection has been complete once.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced
    }

    /// Translates a delta; `known` gives the keys that the collection holds.
    pub(crate) fn edits<M: Model>(&mut self, delta: Delta<M>, known: impl FnOnce() -> Vec<ObjectKey>) -> Vec<Edit<M>> {
        match delta {
            Delta::Restarted => {
                self.seen = Some(HashSet::new());
                Vec::new()
            }
            Delta::Listed(object) => {
                if let Some(seen) = &mut self.seen {
                    seen.insert(object.id().clone());
                }
                vec![Edit::Put(object)]
            }
            Delta::Synced => {
                self.synced = true;
                let Some(seen) = self.seen.take() else { return Vec::new() };
                known().into_iter().filter(|key| !seen.contains(key)).map(Edit::Remove).collect()
            }
            Delta::Applied(object) => vec![Edit::Put(object)],
            Delta::Deleted(key) => vec![Edit::Remove(key)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Delta, Edit, Listing};
    use crate::model::{IngressClass, ObjectKey};

    fn class(name: &str) -> IngressClass {
        IngressClass { key: ObjectKey::new("", name), controller: "c".into(), is_default: false }
    }

    #[test]
    fn a_new_listing_removes_what_it_does_not_mention() {
        let mut listing = Listing::default();
        let known = || vec![ObjectKey::new("", "a"), ObjectKey::new("", "b")];
        assert_eq!(listing.edits(Delta::<IngressClass>::Restarted, known), []);
        assert_eq!(listing.edits(Delta::Listed(class("b")), known), [Edit::Put(class("b"))]);
        assert!(!listing.is_synced());
        assert_eq!(listing.edits::<IngressClass>(Delta::Synced, known), [Edit::Remove(ObjectKey::new("", "a"))]);
        assert!(listing.is_synced());
        let gone = ObjectKey::new("", "b");
        assert_eq!(listing.edits::<IngressClass>(Delta::Deleted(gone.clone()), known), [Edit::Remove(gone)]);
    }
}
