//! The file that says which format a data directory has, so that another one is recognised instead of misread.

use std::io;

use crate::directory::Directory;
use crate::disk::Disk;

pub(crate) const FORMAT: &str = "tidegate-store 1";
const FILE: &str = "format";
const TEMPORARY: &str = "format.tmp";
/// More than any format's name has.
const NAME_BYTES_MAX: u64 = 80;

/// What a directory holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No store yet.
    Nothing,
    Ours,
    Other(String),
}

/// Looks, and changes nothing. `store` is the file that a store of any format has.
pub(crate) fn find(directory: &dyn Directory, store: &str) -> io::Result<Found> {
    match directory.open(FILE)? {
        Some(disk) => {
            let name = read(&*disk)?;
            Ok(if name == FORMAT { Found::Ours } else { Found::Other(name) })
        }
        // The format is durable before the store gets its first byte.
        None => match directory.open(store)? {
            Some(disk) if !disk.is_empty()? => Ok(Found::Other("without a name".into())),
            _ => Ok(Found::Nothing),
        },
    }
}

fn read(disk: &dyn Disk) -> io::Result<String> {
    let mut bytes = vec![0; disk.len()?.min(NAME_BYTES_MAX) as usize];
    disk.read(0, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// Names the format. It is durable after the directory's next sync.
pub(crate) fn write(directory: &dyn Directory) -> io::Result<()> {
    let text = format!("{FORMAT}\n");
    let disk = directory.create(TEMPORARY)?;
    disk.set_len(text.len() as u64)?;
    disk.write(0, text.as_bytes())?;
    disk.sync()?;
    directory.rename(TEMPORARY, FILE)
}
