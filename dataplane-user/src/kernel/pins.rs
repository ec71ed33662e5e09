//! The pin folder: where things are, whether what is there fits, and what is no longer wanted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use dataplane_abi::{Layout, MAPS};
use nix::sys::statfs::{FsType, statfs};

use super::{KernelError, MapSizes};

const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// A pin folder that exists on a BPF file system, with its sub-folders.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// Makes the folders, after checking that they will be on a BPF file system.
    pub(super) fn prepare(folder: &Path) -> Result<Self, KernelError> {
        let existing = folder.ancestors().find(|path| path.exists()).unwrap_or(folder);
        let file_system = statfs(existing).map_err(|error| file("read", existing, error.into()))?;
        if file_system.filesystem_type() != FsType(BPF_FS_MAGIC) {
            return Err(KernelError::NotBpfFs { path: folder.to_owned() });
        }
        let pins = Self { folder: folder.to_owned() };
        for path in [pins.maps(), pins.links(), pins.generations()] {
            fs::create_dir_all(&path).map_err(|error| file("make", &path, error))?;
        }
        Ok(pins)
    }

    /// A folder that an agent made, if there is one.
    pub(super) fn existing(folder: &Path) -> Option<Self> {
        let pins = Self { folder: folder.to_owned() };
        pins.links().is_dir().then_some(pins)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn links(&self) -> PathBuf {
        self.folder.join("links")
    }

    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.links().join(name)
    }

    pub(super) fn generation(&self, number: u64) -> PathBuf {
        self.generations().join(number.to_string())
    }

    /// The number of the next generation: greater than any that has pins.
    pub(super) fn next_generation(&self) -> Result<u64, KernelError> {
        let numbers = names(&self.generations())?.into_iter().filter_map(|name| name.parse::<u64>().ok());
        Ok(numbers.max().map_or(1, |last| last + 1))
    }

    /// Checks every pinned map against this build's layout, before anything adopts it.
    pub(super) fn check_layouts(&self, sizes: &MapSizes) -> Result<(), KernelError> {
        for map in MAPS {
            let path = map_path(&self.folder, map);
            if !path.exists() {
                continue;
            }
            let info = check_layout(&path, map)?;
            if info.max_entries() != sizes.of(map) {
                let (entries, wanted) = (info.max_entries(), sizes.of(map));
                tracing::warn!(map = map.name, entries, wanted, "an existing map keeps its size");
            }
        }
        Ok(())
    }

    /// Removes the pins of other generations and of map versions that this build does not know.
    pub(super) fn prune(&self, generation: u64) -> Result<(), KernelError> {
        for name in names(&self.generations())? {
            if name != generation.to_string() {
                let path = self.generations().join(name);
                fs::remove_dir_all(&path).map_err(|error| file("remove", &path, error))?;
            }
        }
        for name in names(&self.maps())? {
            if !MAPS.iter().any(|map| file_name(map) == name) {
                let path = self.maps().join(&name);
                fs::remove_file(&path).map_err(|error| file("remove", &path, error))?;
                tracing::info!(map = name, "removed a map of another version");
            }
        }
        Ok(())
    }

    fn maps(&self) -> PathBuf {
        self.folder.join("maps")
    }

    fn generations(&self) -> PathBuf {
        self.folder.join("generations")
    }
}

/// The pin of a map below a pin folder.
pub(super) fn map_path(folder: &Path, map: &Layout) -> PathBuf {
    folder.join("maps").join(file_name(map))
}

/// Reads a pinned map's sizes and compares them with a layout.
pub(super) fn check_layout(path: &Path, map: &Layout) -> Result<MapInfo, KernelError> {
    if !path.exists() {
        return Err(KernelError::NoMap { path: path.to_owned() });
    }
    let info = MapInfo::from_pin(path).map_err(|source| KernelError::Map {
        action: "open",
        map: map.name,
        source: Box::new(source),
    })?;
    let (found_key, found_value) = (info.key_size(), info.value_size());
    if (found_key, found_value) == (map.key_size, map.value_size) {
        return Ok(info);
    }
    let path = path.to_owned();
    Err(KernelError::Layout { path, found_key, found_value, key: map.key_size, value: map.value_size })
}

/// The names in a folder.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, KernelError> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    read().map_err(|error| file("read", folder, error))
}

/// Removes one pin; also succeeds when it is gone.
pub(super) fn remove(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path, error)),
        _ => Ok(()),
    }
}

pub(super) fn file(action: &'static str, path: &Path, source: io::Error) -> KernelError {
    KernelError::File { action, path: path.to_owned(), source }
}

fn file_name(map: &Layout) -> String {
    format!("{}_v{}", map.name, map.version)
}
