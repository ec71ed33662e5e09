//! Endpoint records: one JSON file per connected container, written whole or not at all; the agent reads them.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// A connected container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointRecord {
    pub container_id: String,
    pub netns: PathBuf,
    pub ifname: String,
    pub pod: PodName,
    pub ips: Vec<IpNet>,
    pub gateways: Vec<IpAddr>,
    /// MAC of the interface inside the pod.
    pub mac: Mac,
    /// MAC of the bridge, as the pod sees it.
    pub gateway_mac: Mac,
    pub host_ifname: String,
    pub host_ifindex: u32,
    pub mtu: u32,
    /// Whether the pod's sockets are translated.
    #[serde(default = "translated")]
    pub socket_lb: bool,
    /// The cookie of the pod's network namespace; 0 in records that do not say.
    #[serde(default)]
    pub netns_cookie: u64,
}

/// The pod that a container belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// An Ethernet address, `02:00:00:00:00:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

/// Text that is no Ethernet address.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an Ethernet address")]
pub struct MacParseError(String);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacParseError;

    fn from_str(text: &str) -> Result<Self, MacParseError> {
        let error = || MacParseError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = MacParseError;

    fn try_from(text: String) -> Result<Self, MacParseError> {
        text.parse()
    }
}

/// Writes a record beside its final name, then renames it: a reader sees the old one or the new one.
pub(super) fn write(state_dir: &Path, record: &EndpointRecord) -> Result<()> {
    let path = path(state_dir, &record.container_id);
    let text = serde_json::to_vec_pretty(record).map_err(|source| Error::Record { path: path.clone(), source })?;
    write_then_rename(&path, &text)
}

pub(super) fn remove(state_dir: &Path, container_id: &str) -> Result<()> {
    remove_if_present(&path(state_dir, container_id))
}

pub(super) fn read(state_dir: &Path, container_id: &str) -> Result<Option<EndpointRecord>> {
    read_path(&path(state_dir, container_id))
}

/// All records below a state folder, in the order of their container ids. A folder that does not exist holds none.
///
/// # Errors
/// If the folder cannot be read. A record that is not well-formed is logged and left out: it must not hide the others.
pub fn list(state_dir: &Path) -> Result<Vec<EndpointRecord>> {
    let entries = match fs::read_dir(state_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::State { action: "read", path: state_dir.to_owned(), source }),
    };
    let mut records = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read_path(&path) {
            Ok(record) => records.extend(record),
            Err(error) => {
                tracing::warn!(path = %path.display(), error = %error, "endpoint record skipped");
            }
        }
    }
    records.sort_by(|a, b| a.container_id.cmp(&b.container_id));
    Ok(records)
}

pub(super) fn write_then_rename(path: &Path, content: &[u8]) -> Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(Error::state("create", directory))?;
    let temporary = directory.join(format!(".{name}.tmp"));
    fs::write(&temporary, content).map_err(Error::state("write", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::state("rename", path))
}

pub(super) fn remove_if_present(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::state("remove", path)(error)),
        _ => Ok(()),
    }
}

const fn translated() -> bool {
    true
}

fn path(state_dir: &Path, container_id: &str) -> PathBuf {
    state_dir.join(format!("{container_id}.json"))
}

fn read_path(path: &Path) -> Result<Option<EndpointRecord>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::State { action: "read", path: path.to_owned(), source }),
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| Error::Record { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::{EndpointRecord, Mac, PodName, list, read, remove, write};

    fn record(id: &str) -> EndpointRecord {
        EndpointRecord {
            container_id: id.to_owned(),
            netns: "/run/netns/x".into(),
            ifname: "eth0".to_owned(),
            pod: PodName { namespace: "default".to_owned(), name: "web-0".to_owned(), uid: "u".to_owned() },
            ips: vec!["10.244.0.2/24".parse().unwrap(), "fd00::2/64".parse().unwrap()],
            gateways: vec!["10.244.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            mac: Mac([2, 0, 0, 0, 0, 0x1f]),
            gateway_mac: Mac([2, 0, 0, 0, 0, 1]),
            host_ifname: "tg00000000001".to_owned(),
            host_ifindex: 7,
            mtu: 1400,
            socket_lb: true,
            netns_cookie: 9,
        }
    }

    #[test]
    fn a_record_survives_the_round_trip_and_foreign_files_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        for id in ["b", "a"] {
            write(dir.path(), &record(id)).unwrap();
        }
        std::fs::write(dir.path().join("broken.json"), "{").unwrap();
        std::fs::write(dir.path().join("note.txt"), "x").unwrap();
        std::fs::write(dir.path().join(".a.json.tmp"), "{").unwrap();
        assert_eq!(list(dir.path()).unwrap(), vec![record("a"), record("b")]);
        remove(dir.path(), "a").unwrap();
        remove(dir.path(), "a").unwrap();
        assert_eq!(read(dir.path(), "a").unwrap(), None);
        assert_eq!(read(dir.path(), "b").unwrap(), Some(record("b")));
        assert_eq!(list(&dir.path().join("none")).unwrap(), vec![]);
    }

    #[test]
    fn macs_parse_only_when_whole() {
        assert_eq!("02:00:00:00:00:1f".parse::<Mac>().unwrap(), Mac([2, 0, 0, 0, 0, 0x1f]));
        for bad in ["", "02:00", "02:00:00:00:00:1f:00", "2:0:0:0:0:1", "zz:00:00:00:00:00"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
    }
}
