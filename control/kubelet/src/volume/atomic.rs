//! Writes all files of a volume at once: readers see the old set or the new one, never a mixture.
//!
//! Files live in a directory of their own (`..<time>.<random>`), which the symbolic link `..data` names; the visible
//! names are links into `..data`. A change makes a new directory and renames a new link over `..data`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::payload::Payload;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Makes the directory hold exactly this payload; files belong to `group` if one is given.
pub(crate) fn write(directory: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    let data = directory.join(DATA);
    let old = fs::read_link(&data).ok();
    let holds = old.as_ref().is_some_and(|old| holds(&directory.join(old), payload, group));
    if !holds {
        let new = write_set(directory, payload, group)?;
        let link = directory.join(DATA_NEW);
        let _ = fs::remove_file(&link);
        symlink(&new, &link)?;
        fs::rename(&link, &data)?;
    }
    show(directory, payload)?;
    hide(directory, payload)?;
    if let Some(old) = old.filter(|_| !holds) {
        fs::remove_dir_all(directory.join(old))?;
    }
    Ok(())
}

/// Writes the set into a new directory and returns its name.
fn write_set(directory: &Path, payload: &Payload, group: Option<u32>) -> io::Result<PathBuf> {
    let stamp = Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S").to_string();
    let name = PathBuf::from(format!("..{stamp}.{}", rand::random::<u32>()));
    let set = directory.join(&name);
    make_dir(&set, group)?;
    for (path, file) in payload {
        let path = Path::new(path);
        let mut parent = set.clone();
        for component in path.parent().into_iter().flat_map(Path::components) {
            parent.push(component);
            if !parent.exists() {
                make_dir(&parent, group)?;
            }
        }
        let target = set.join(path);
        fs::write(&target, &file.data)?;
        chown(&target, None, group)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(mode(file.mode, group)))?;
    }
    Ok(name)
}

fn make_dir(path: &Path, group: Option<u32>) -> io::Result<()> {
    fs::create_dir(path)?;
    chown(path, None, group)?;
    let mode = if group.is_some() { 0o2755 } else { 0o755 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// A group that owns the volume can read every file.
fn mode(mode: u32, group: Option<u32>) -> u32 {
    if group.is_some() { mode | 0o440 } else { mode }
}

fn holds(set: &Path, payload: &Payload, group: Option<u32>) -> bool {
    let same = payload.iter().all(|(path, file)| {
        let path = set.join(path);
        let modes =
            fs::metadata(&path).is_ok_and(|metadata| metadata.permissions().mode() & 0o777 == mode(file.mode, group));
        modes && fs::read(&path).is_ok_and(|data| data == file.data)
    });
    same && files(set).is_ok_and(|files| files.len() == payload.len())
}

fn files(directory: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.insert(entry.path());
        }
    }
    Ok(found)
}

/// The first component of each path becomes a link into the data directory.
fn visible(payload: &Payload) -> BTreeSet<&str> {
    payload.keys().filter_map(|path| path.split('/').next()).collect()
}

fn show(directory: &Path, payload: &Payload) -> io::Result<()> {
    for name in visible(payload) {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    Ok(())
}

fn hide(directory: &Path, payload: &Payload) -> io::Result<()> {
    let visible = visible(payload);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let stale = name.to_str().is_some_and(|name| !name.starts_with("..") && !visible.contains(name));
        if stale && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::payload::File;
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), File { data: text.as_bytes().to_vec(), mode: 0o640 }))
            .collect()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_links_into_one_swapped_directory() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(root, &payload(&[("a", "1"), ("sub/deep/b", "2")]), None).unwrap();
        assert_eq!(fs::read_link(root.join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(fs::read_to_string(root.join("sub/deep/b")).unwrap(), "2");
        assert_eq!(fs::metadata(root.join("a")).unwrap().permissions().mode() & 0o777, 0o640);

        // A container that holds the old directory open still sees the whole old set.
        let before = fs::read_link(root.join(DATA)).unwrap();
        write(root, &payload(&[("a", "new"), ("c", "3")]), None).unwrap();
        assert_ne!(fs::read_link(root.join(DATA)).unwrap(), before);
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "new");
        assert!(!root.join("sub").exists() && !root.join(&before).exists());
        assert_eq!(names(root).iter().filter(|name| !name.starts_with("..")).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(names(root).len(), 4, "one set, its link, two names");
    }

    #[test]
    fn an_equal_payload_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &payload(&[("a", "1")]), None).unwrap();
        let before = names(directory.path());
        write(directory.path(), &payload(&[("a", "1")]), None).unwrap();
        assert_eq!(names(directory.path()), before);
    }

    #[test]
    fn an_emptied_payload_empties_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &payload(&[("a", "1")]), None).unwrap();
        write(directory.path(), &Payload::new(), None).unwrap();
        assert!(names(directory.path()).iter().all(|name| name.starts_with("..")));
    }
}
