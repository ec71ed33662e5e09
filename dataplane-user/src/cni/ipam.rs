//! Host-local address allocation: one file per address that names its owner, and a cursor per range.
//!
//! The cursor makes allocation round-robin, so that an address just freed is the last one to be given again: peers may
//! still hold connections to its former owner. A file lock serialises processes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg};

use super::record::{remove_if_present, write_then_rename};
use super::{Error, Result};

/// The addresses of this node's pod ranges.
#[derive(Clone, Debug)]
pub(super) struct Ipam {
    dir: PathBuf,
    ranges: Vec<Range>,
}

impl Ipam {
    pub(super) fn new(dir: PathBuf, cidrs: &[IpNet]) -> Result<Self> {
        let ranges = cidrs.iter().map(|cidr| Range::new(*cidr)).collect::<Result<_>>()?;
        Ok(Self { dir, ranges })
    }

    pub(super) fn has_ipv6(&self) -> bool {
        self.ranges.iter().any(|range| range.cidr.addr().is_ipv6())
    }

    pub(super) fn gateways(&self) -> Vec<IpNet> {
        self.ranges.iter().map(|range| range.net(range.gateway)).collect()
    }

    /// One address of each range for this owner; those that it holds already are kept.
    pub(super) fn allocate(&self, owner: &str) -> Result<Vec<IpNet>> {
        let _lock = self.lock()?;
        let held = self.allocations()?;
        let mut addresses = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            let own = held.iter().find(|(address, by)| by == owner && range.cidr.contains(address));
            let address = match own {
                Some((address, _)) => *address,
                None => self.allocate_from(range, owner)?,
            };
            addresses.push(range.net(address));
        }
        Ok(addresses)
    }

    /// Frees all addresses of this owner.
    pub(super) fn release(&self, owner: &str) -> Result<()> {
        if !self.dir.exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        for (address, _) in self.allocations()?.iter().filter(|(_, by)| by == owner) {
            remove_if_present(&self.dir.join(address.to_string()))?;
        }
        Ok(())
    }

    /// Everyone who holds an address.
    pub(super) fn owners(&self) -> Result<BTreeSet<String>> {
        Ok(self.allocations()?.into_iter().map(|(_, owner)| owner).collect())
    }

    fn allocate_from(&self, range: &Range, owner: &str) -> Result<IpAddr> {
        let cursor = self.dir.join(range.cursor_name());
        let last = fs::read_to_string(&cursor).ok().and_then(|text| text.trim().parse::<IpAddr>().ok());
        let start = last.filter(|address| range.is_pod_address(*address)).map_or(range.first, |last| range.after(last));
        let mut candidate = start;
        while self.dir.join(candidate.to_string()).exists() {
            candidate = range.after(candidate);
            if candidate == start {
                return Err(Error::Exhausted { cidr: range.cidr });
            }
        }
        // The owner's file comes first: a crash in between gives the next caller a later address, never this one.
        write_then_rename(&self.dir.join(candidate.to_string()), owner.as_bytes())?;
        write_then_rename(&cursor, candidate.to_string().as_bytes())?;
        Ok(candidate)
    }

    fn allocations(&self) -> Result<Vec<(IpAddr, String)>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::State { action: "read", path: self.dir.clone(), source }),
        };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let Ok(address) = entry.file_name().to_string_lossy().parse::<IpAddr>() else { continue };
            let path = entry.path();
            found.push((address, fs::read_to_string(&path).map_err(Error::state("read", path))?));
        }
        Ok(found)
    }

    fn lock(&self) -> Result<Flock<File>> {
        fs::create_dir_all(&self.dir).map_err(Error::state("create", &self.dir))?;
        let path = self.dir.join("lock");
        let file = File::create(&path).map_err(Error::state("create", &path))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::state("lock", &path)(errno.into()))
    }
}

/// One pod range: gateway first, then pods, and for IPv4 the broadcast address last.
#[derive(Clone, Debug)]
struct Range {
    cidr: IpNet,
    gateway: IpAddr,
    first: IpAddr,
    last: IpAddr,
}

impl Range {
    fn new(cidr: IpNet) -> Result<Self> {
        let cidr = cidr.trunc();
        let base = bits(cidr.network());
        let top = bits(cidr.broadcast()) - u128::from(cidr.addr().is_ipv4());
        if top < base + 2 {
            return Err(Error::CidrTooSmall { cidr });
        }
        let at = |value| address(value, cidr.addr().is_ipv4());
        Ok(Self { cidr, gateway: at(base + 1), first: at(base + 2), last: at(top) })
    }

    fn net(&self, address: IpAddr) -> IpNet {
        // The prefix length comes from a valid network of the same family.
        IpNet::new(address, self.cidr.prefix_len()).unwrap_or(self.cidr)
    }

    fn is_pod_address(&self, address: IpAddr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    fn after(&self, address_: IpAddr) -> IpAddr {
        if address_ >= self.last { self.first } else { address(bits(address_) + 1, address_.is_ipv4()) }
    }

    fn cursor_name(&self) -> String {
        format!("last-{}_{}", self.cidr.addr(), self.cidr.prefix_len())
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(value: u128, ipv4: bool) -> IpAddr {
    if ipv4 {
        // Values come from an IPv4 network and fit.
        IpAddr::V4(u32::try_from(value).unwrap_or(u32::MAX).into())
    } else {
        IpAddr::V6(value.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Ipam;

    fn ipam(dir: &std::path::Path, cidrs: &[&str]) -> Ipam {
        let cidrs: Vec<_> = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        Ipam::new(dir.join("ipam"), &cidrs).unwrap()
    }

    fn text(addresses: &[ipnet::IpNet]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn gives_one_address_per_range_and_the_same_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = ipam(dir.path(), &["10.244.3.0/24", "fd00:10:244:3::/64"]);
        assert_eq!(text(&first.gateways()), ["10.244.3.1/24", "fd00:10:244:3::1/64"]);
        assert_eq!(text(&first.allocate("a").unwrap()), ["10.244.3.2/24", "fd00:10:244:3::2/64"]);
        assert_eq!(text(&first.allocate("b").unwrap()), ["10.244.3.3/24", "fd00:10:244:3::3/64"]);
        let restarted = ipam(dir.path(), &["10.244.3.0/24", "fd00:10:244:3::/64"]);
        assert_eq!(text(&restarted.allocate("a").unwrap()), ["10.244.3.2/24", "fd00:10:244:3::2/64"]);
        assert_eq!(restarted.owners().unwrap(), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn a_freed_address_comes_last_and_exhaustion_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let ipam = ipam(dir.path(), &["10.0.0.0/29"]);
        for (owner, address) in [("a", 2), ("b", 3)] {
            assert_eq!(text(&ipam.allocate(owner).unwrap()), [format!("10.0.0.{address}/29")]);
        }
        ipam.release("a").unwrap();
        ipam.release("a").unwrap();
        for (owner, address) in [("c", 4), ("d", 5), ("e", 6), ("f", 2)] {
            assert_eq!(text(&ipam.allocate(owner).unwrap()), [format!("10.0.0.{address}/29")]);
        }
        assert!(matches!(ipam.allocate("g"), Err(super::Error::Exhausted { .. })));
    }

    #[test]
    fn parallel_callers_never_share_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let ipam = ipam(dir.path(), &["10.0.0.0/24"]);
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let ipam = &ipam;
                    scope.spawn(move || {
                        (0..10).map(|n| ipam.allocate(&format!("{thread}-{n}")).unwrap()[0]).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 40);
    }

    #[test]
    fn ranges_without_room_are_refused() {
        for cidr in ["10.0.0.0/32", "10.0.0.0/31", "fd00::/128", "fd00::/127"] {
            assert!(Ipam::new("/nonexistent".into(), &[cidr.parse().unwrap()]).is_err(), "{cidr}");
        }
    }
}
