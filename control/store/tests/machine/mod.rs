//! A machine without hardware: one directory whose files and names can be torn, reordered and forgotten, that loses power
//! at any operation, fails a sync once, and fills up.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use control_store::{Directory, Disk};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

const SECTOR: usize = 512;
const BLOCK: usize = 4096;

/// What happens to a process on the machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Writes, syncs and changes of names until the power goes.
    pub(crate) operations: u64,
    /// Syncs until one fails, once.
    pub(crate) syncs: u64,
    /// Blocks of all files together.
    pub(crate) blocks: usize,
}

impl Limits {
    pub(crate) const NONE: Self = Self { operations: u64::MAX, syncs: u64::MAX, blocks: usize::MAX };
}

#[derive(Debug, Clone)]
pub(crate) struct Machine(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    files: Vec<File>,
    /// What processes see.
    names: BTreeMap<String, usize>,
    /// What a power loss cannot take away.
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<Rename>,
    limits: Limits,
    syncs_failed: u64,
    syncs_after_failure: u64,
}

#[derive(Debug, Default)]
struct File {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// Blocks that have a place on the disk.
    blocks: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum Change {
    Sector { offset: usize, data: Vec<u8> },
    Length(usize),
}

/// A file got a name, and lost the one it had.
#[derive(Debug, Clone)]
struct Rename {
    from: Option<String>,
    to: String,
    file: usize,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            files: vec![],
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: vec![],
            limits: Limits::NONE,
            syncs_failed: 0,
            syncs_after_failure: 0,
        })))
    }

    pub(crate) fn set_limits(&self, limits: Limits) {
        self.0.lock().limits = limits;
    }

    /// The power went: of what was not synced, any part may be there, in any order.
    pub(crate) fn lose_power(&self, random: &mut StdRng) {
        let mut state = self.0.lock();
        let state = &mut *state;
        for file in &mut state.files {
            let mut changes = std::mem::take(&mut file.unsynced);
            for change in some(&mut changes, random) {
                apply(&mut file.durable, change);
            }
            file.seen = file.durable.clone();
        }
        let mut renames = std::mem::take(&mut state.unsynced_names);
        for rename in some(&mut renames, random) {
            rename.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        state.start_process();
    }

    /// The process was killed: the kernel still has what was not synced, but not what a failed sync dropped.
    pub(crate) fn kill(&self) {
        let mut state = self.0.lock();
        for file in &mut state.files {
            file.seen = file.durable.clone();
            for change in &file.unsynced {
                apply(&mut file.seen, change);
            }
        }
        state.start_process();
    }

    /// Syncs that failed, and those that this process tried after one had.
    pub(crate) fn failed_syncs(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.syncs_failed, state.syncs_after_failure)
    }

    pub(crate) fn used_blocks(&self) -> usize {
        self.0.lock().used_blocks()
    }
}

fn some<'a, T>(all: &'a mut [T], random: &mut StdRng) -> &'a [T] {
    all.shuffle(random);
    let keep = random.random_range(0..=all.len());
    &all[..keep]
}

fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => image.resize(*length, 0),
        Change::Sector { offset, data } => {
            if image.len() < offset + data.len() {
                image.resize(offset + data.len(), 0);
            }
            image[*offset..offset + data.len()].copy_from_slice(data);
        }
    }
}

impl Rename {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        if let Some(from) = &self.from {
            names.remove(from);
        }
        names.insert(self.to.clone(), self.file);
    }
}

impl State {
    fn start_process(&mut self) {
        self.limits = Limits { blocks: self.limits.blocks, ..Limits::NONE };
        (self.syncs_failed, self.syncs_after_failure) = (0, 0);
    }

    fn step(&mut self) -> io::Result<()> {
        let left = self.limits.operations.checked_sub(1);
        self.limits.operations = left.ok_or_else(|| io::Error::other("no power"))?;
        Ok(())
    }

    fn used_blocks(&self) -> usize {
        self.files.iter().map(|file| file.blocks.len()).sum()
    }

    fn sync(&mut self) -> io::Result<bool> {
        self.step()?;
        self.syncs_after_failure += u64::from(self.syncs_failed > 0);
        let left = self.limits.syncs.checked_sub(1);
        // The kernel says so once; the next sync would "succeed".
        self.limits.syncs = left.unwrap_or(u64::MAX);
        self.syncs_failed += u64::from(left.is_none());
        Ok(left.is_some())
    }

    fn rename(&mut self, from: Option<String>, to: &str, file: usize) {
        let rename = Rename { from, to: to.into(), file };
        rename.apply(&mut self.names);
        self.unsynced_names.push(rename);
    }
}

impl Directory for Machine {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        let file = self.0.lock().names.get(name).copied();
        Ok(file.map(|file| Arc::new(MachineFile { machine: self.clone(), file }) as Arc<dyn Disk>))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        if let Some(disk) = self.open(name)? {
            return Ok(disk);
        }
        let mut state = self.0.lock();
        state.step()?;
        state.files.push(File::default());
        let file = state.files.len() - 1;
        state.rename(None, name, file);
        Ok(Arc::new(MachineFile { machine: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let file = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.rename(Some(from.into()), to, file);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        let worked = state.sync()?;
        state.unsynced_names.clear();
        if !worked {
            return Err(io::Error::other("sync failed"));
        }
        state.durable_names = state.names.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct MachineFile {
    machine: Machine,
    file: usize,
}

impl MachineFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, usize) -> io::Result<T>) -> io::Result<T> {
        act(&mut self.machine.0.lock(), self.file)
    }
}

impl Disk for MachineFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|state, file| Ok(state.files[file].seen.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|state, file| {
            let from = offset as usize;
            let part = state.files[file].seen.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(part);
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|state, file| {
            state.step()?;
            let from = offset as usize;
            let end = from + data.len();
            if end > state.files[file].seen.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Sectors are cut at multiples of their size on the disk, not in the write; a full disk takes a part of it.
            let mut at = from;
            while at < end {
                let next = ((at / SECTOR + 1) * SECTOR).min(end);
                let is_new = !state.files[file].blocks.contains(&(at / BLOCK));
                if is_new && state.used_blocks() >= state.limits.blocks {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let file = &mut state.files[file];
                file.blocks.insert(at / BLOCK);
                let data = data[at - from..next - from].to_vec();
                file.seen[at..next].copy_from_slice(&data);
                file.unsynced.push(Change::Sector { offset: at, data });
                at = next;
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|state, file| {
            state.step()?;
            let file = &mut state.files[file];
            file.seen.resize(len as usize, 0);
            file.unsynced.push(Change::Length(len as usize));
            file.blocks.split_off(&(len as usize).div_ceil(BLOCK));
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.with(|state, file| {
            let wanted = 0..(len as usize).div_ceil(BLOCK);
            let new = wanted.clone().filter(|block| !state.files[file].blocks.contains(block)).count();
            if state.used_blocks().saturating_add(new) > state.limits.blocks {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.files[file].blocks.extend(wanted);
            Ok(())
        })?;
        if self.len()? < len { self.set_len(len) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, file| {
            let worked = state.sync()?;
            let file = &mut state.files[file];
            let changes = std::mem::take(&mut file.unsynced);
            if !worked {
                // The kernel has dropped the pages, and still shows them to this process.
                return Err(io::Error::other("sync failed"));
            }
            for change in &changes {
                apply(&mut file.durable, change);
            }
            Ok(())
        })
    }
}
