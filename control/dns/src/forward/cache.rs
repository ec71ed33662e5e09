//! Answers by question, each for its time to live.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RData;
use lru::LruCache;

use super::{Lookup, Question};

/// However long an answer may be kept: a cluster's clients ask again soon, and networks change.
const TTL_MAX_SECONDS: u32 = 30;
/// How long a failure is remembered (RFC 9520), so that a dead server is not asked at every question.
const FAILURE_TTL_SECONDS: u32 = 5;
/// Answers with more records are not kept, which bounds the memory of the cache.
const RECORDS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Cache {
    entries: Option<LruCache<Question, Entry>>,
}

#[derive(Debug)]
struct Entry {
    lookup: Lookup,
    since: Instant,
    ttl: Duration,
}

impl Cache {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { entries: NonZeroUsize::new(entries_max).map(LruCache::new) }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.as_ref().map_or(0, LruCache::len)
    }

    pub(super) fn get(&mut self, question: &Question, now: Instant) -> Option<Lookup> {
        let entries = self.entries.as_mut()?;
        let entry = entries.get(question)?;
        let age = now.saturating_duration_since(entry.since);
        if age >= entry.ttl {
            entries.pop(question);
            return None;
        }
        let mut lookup = entry.lookup.clone();
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        for record in lookup.records_mut() {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(lookup)
    }

    pub(super) fn insert(&mut self, question: Question, lookup: &Lookup, now: Instant) {
        let Some(entries) = &mut self.entries else { return };
        let ttl = ttl(lookup);
        let records = lookup.answers.len() + lookup.authorities.len() + lookup.additionals.len();
        if ttl > 0 && records <= RECORDS_MAX {
            let entry = Entry { lookup: lookup.clone(), since: now, ttl: Duration::from_secs(ttl.into()) };
            entries.put(question, entry);
        }
    }
}

/// How long an answer may be kept, in seconds: not longer than any of its records, a denial not longer than its SOA says
/// (RFC 2308) and not at all without one.
fn ttl(lookup: &Lookup) -> u32 {
    let is_denial = lookup.code == ResponseCode::NXDomain || lookup.answers.is_empty();
    let allowed = match lookup.code {
        ResponseCode::NoError | ResponseCode::NXDomain if is_denial => {
            let minimum = lookup.authorities.iter().find_map(|record| match &record.data {
                RData::SOA(soa) => Some(soa.minimum),
                _ => None,
            });
            minimum.unwrap_or(0)
        }
        ResponseCode::NoError => TTL_MAX_SECONDS,
        _ => FAILURE_TTL_SECONDS,
    };
    let records = lookup.answers.iter().chain(&lookup.authorities).map(|record| record.ttl);
    records.chain([allowed, TTL_MAX_SECONDS]).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::rdata::{A, SOA};
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::{Cache, ttl};
    use crate::forward::{Lookup, Question};

    fn question(name: &str) -> Question {
        Question {
            name: Name::from_ascii(name).unwrap(),
            kind: RecordType::A,
            dnssec_ok: false,
            checking_disabled: false,
        }
    }

    fn found(ttl: u32) -> Lookup {
        let name = Name::from_ascii("a.example.").unwrap();
        Lookup { answers: vec![Record::from_rdata(name, ttl, RData::A(A::new(192, 0, 2, 1)))], ..Lookup::default() }
    }

    fn denied(code: ResponseCode, ttl: u32, minimum: u32) -> Lookup {
        let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, minimum);
        let authorities = vec![Record::from_rdata(Name::root(), ttl, RData::SOA(soa))];
        Lookup { code, authorities, ..Lookup::default() }
    }

    #[test]
    fn an_answer_is_kept_as_long_as_its_records_allow() {
        for (lookup, expected) in [
            (found(10), 10),
            (found(3600), 30),
            (found(0), 0),
            (denied(ResponseCode::NXDomain, 900, 20), 20),
            (denied(ResponseCode::NoError, 12, 20), 12),
            (denied(ResponseCode::NXDomain, 900, 900), 30),
            (Lookup { code: ResponseCode::NXDomain, ..Lookup::default() }, 0),
            (Lookup { code: ResponseCode::ServFail, ..Lookup::default() }, 5),
        ] {
            assert_eq!(ttl(&lookup), expected, "{lookup:?}");
        }
    }

    #[test]
    fn times_to_live_run_down_and_out() {
        let (mut cache, start) = (Cache::new(10), Instant::now());
        cache.insert(question("a.example."), &found(10), start);
        let left = |cache: &mut Cache, seconds| {
            let lookup = cache.get(&question("A.EXAMPLE."), start + Duration::from_secs(seconds));
            lookup.map(|lookup| lookup.answers[0].ttl)
        };
        assert_eq!(left(&mut cache, 0), Some(10));
        assert_eq!(left(&mut cache, 4), Some(6));
        assert_eq!(left(&mut cache, 10), None);
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn the_least_used_answer_makes_room() {
        let (mut cache, now) = (Cache::new(2), Instant::now());
        cache.insert(question("a."), &found(10), now);
        cache.insert(question("b."), &found(10), now);
        assert!(cache.get(&question("a."), now).is_some());
        cache.insert(question("c."), &found(10), now);
        assert!(cache.get(&question("b."), now).is_none());
        assert!(cache.get(&question("a."), now).is_some());
        let mut none = Cache::new(0);
        none.insert(question("a."), &found(10), now);
        assert!(none.get(&question("a."), now).is_none());
    }
}
