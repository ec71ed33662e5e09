//! Which Service a frontend id belongs to: the kernel knows numbers only, people want names.
//!
//! A journal of JSON lines in the run folder, so that a change costs one line however many Services there are. It also
//! keeps the floors of the identifiers, written before they are used: an id that an earlier run gave out is not given
//! again, even if nothing in the maps remembers it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

/// Identifiers are reserved this many at a time.
const STRIDE: u32 = 4_096;
/// The journal is rewritten when it has this many lines more than twice the names.
const SLACK: usize = 4_096;

/// What a frontend id stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendName {
    pub namespace: Arc<str>,
    pub service: Arc<str>,
    /// The Service port's name; empty if it has none.
    pub port_name: Arc<str>,
    /// The frontend's address as text: `10.96.0.1:80/TCP`.
    pub address: String,
}

/// Names by id, shared with those who only read.
pub type SharedNames = Arc<RwLock<HashMap<u32, FrontendName>>>;

/// The names and their journal.
#[derive(Debug)]
pub struct Names {
    path: PathBuf,
    file: BufWriter<File>,
    names: SharedNames,
    floors: (u32, u32),
    lines: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    Name {
        id: u32,
        name: FrontendName,
    },
    Gone {
        id: u32,
    },
    /// No run has used a frontend id or backend id from these on.
    Floors {
        frontend: u32,
        backend: u32,
    },
}

/// Names and floors as a journal tells them; one that does not exist is empty, a torn last line is ignored.
///
/// # Errors
/// If the file exists and cannot be read.
pub fn read(path: &Path) -> io::Result<(BTreeMap<u32, FrontendName>, (u32, u32))> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let mut names = BTreeMap::new();
    let mut floors = (1, 1);
    for line in text.lines() {
        match serde_json::from_str(line) {
            Ok(Line::Name { id, name }) => drop(names.insert(id, name)),
            Ok(Line::Gone { id }) => drop(names.remove(&id)),
            Ok(Line::Floors { frontend, backend }) => floors = (frontend, backend),
            Err(_) => tracing::warn!(path = %path.display(), "unreadable line in the journal of names"),
        }
    }
    Ok((names, floors))
}

/// Where the journal of a run folder is.
#[must_use]
pub fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("frontends.jsonl")
}

impl Names {
    /// Opens the journal of a run folder and rewrites it without what is gone.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let (names, floors) = read(&path)?;
        let names: SharedNames = Arc::new(RwLock::new(names.into_iter().collect()));
        let (file, lines) = rewrite(&path, &names, floors)?;
        Ok(Self { path, file, names, floors, lines })
    }

    /// The identifiers from which on none was ever given.
    #[must_use]
    pub const fn floors(&self) -> (u32, u32) {
        self.floors
    }

    /// The names for readers.
    #[must_use]
    pub fn shared(&self) -> SharedNames {
        Arc::clone(&self.names)
    }

    /// Makes sure that identifiers below these may be used.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn reserve(&mut self, next_frontend: u32, next_backend: u32) -> io::Result<()> {
        if next_frontend <= self.floors.0 && next_backend <= self.floors.1 {
            return Ok(());
        }
        self.floors = (next_frontend.saturating_add(STRIDE), next_backend.saturating_add(STRIDE));
        self.write(&Line::Floors { frontend: self.floors.0, backend: self.floors.1 })?;
        self.file.flush()
    }

    /// Names an id.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn put(&mut self, id: u32, name: FrontendName) -> io::Result<()> {
        if self.names.read().unwrap_or_else(PoisonError::into_inner).get(&id) == Some(&name) {
            return Ok(());
        }
        self.write(&Line::Name { id, name: name.clone() })?;
        self.names.write().unwrap_or_else(PoisonError::into_inner).insert(id, name);
        Ok(())
    }

    /// Forgets an id.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn remove(&mut self, id: u32) -> io::Result<()> {
        if self.names.write().unwrap_or_else(PoisonError::into_inner).remove(&id).is_some() {
            self.write(&Line::Gone { id })?;
        }
        Ok(())
    }

    /// Forgets all ids for which the predicate is false.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) -> io::Result<()> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<u32> = names.keys().copied().filter(|id| !keep(*id)).collect();
        drop(names);
        gone.into_iter().try_for_each(|id| self.remove(id))
    }

    /// Hands everything to the operating system, after rewriting a journal that has grown too long.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        let live = self.names.read().unwrap_or_else(PoisonError::into_inner).len();
        if self.lines > 2 * live + SLACK {
            (self.file, self.lines) = rewrite(&self.path, &self.names, self.floors)?;
        }
        self.file.flush()
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        self.lines += 1;
        write_line(&mut self.file, line)
    }
}

/// Writes a new journal beside the old one and puts it in its place.
fn rewrite(path: &Path, names: &SharedNames, floors: (u32, u32)) -> io::Result<(BufWriter<File>, usize)> {
    let temporary = path.with_extension("tmp");
    let mut file = BufWriter::new(File::create(&temporary)?);
    write_line(&mut file, &Line::Floors { frontend: floors.0, backend: floors.1 })?;
    let names = names.read().unwrap_or_else(PoisonError::into_inner);
    for (id, name) in names.iter() {
        write_line(&mut file, &Line::Name { id: *id, name: name.clone() })?;
    }
    file.flush()?;
    fs::rename(&temporary, path)?;
    Ok((BufWriter::new(OpenOptions::new().append(true).open(path)?), names.len() + 1))
}

fn write_line(file: &mut BufWriter<File>, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{FrontendName, Names, read};

    fn name(service: &str) -> FrontendName {
        FrontendName {
            namespace: "a".into(),
            service: service.into(),
            port_name: "http".into(),
            address: "10.96.0.1:80/TCP".to_owned(),
        }
    }

    #[test]
    fn names_and_floors_survive_a_restart_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frontends.jsonl");
        let mut names = Names::open(path.clone()).unwrap();
        assert_eq!(names.floors(), (1, 1));
        names.reserve(3, 9_000).unwrap();
        for (id, service) in [(1, "web"), (2, "db"), (1, "web")] {
            names.put(id, name(service)).unwrap();
        }
        names.remove(2).unwrap();
        names.flush().unwrap();
        drop(names);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"name\":{\"id\":7").unwrap();
        let (found, floors) = read(&path).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(1, name("web"))]);
        assert_eq!(floors, (3 + 4_096, 9_000 + 4_096));
        let again = Names::open(path).unwrap();
        assert_eq!(again.floors(), floors);
        assert_eq!(again.shared().read().unwrap().len(), 1);
    }

    #[test]
    fn a_long_journal_is_rewritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frontends.jsonl");
        let mut names = Names::open(path.clone()).unwrap();
        for round in 0..6_000_u32 {
            names.put(1, name(&format!("s{round}"))).unwrap();
        }
        names.flush().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        names.put(2, name("after")).unwrap();
        names.flush().unwrap();
        assert_eq!(read(&path).unwrap().0.len(), 2);
    }
}
