//! Spreads an image archive out into a directory, under names that cannot leave it.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

use super::compression::decompressed;
use crate::error::{ImageError, IoContext};

/// Links that point at links that point at links … end here.
const LINK_DEPTH_MAX: usize = 8;

/// Regular files with plain relative names, and links among them: `docker save` wrote a layer that two images share once,
/// and a link for the other. Nothing else is made.
pub(super) fn unpack(path: &Path, target: &Path) -> Result<(), ImageError> {
    let file = File::open(path).at("cannot open", path)?;
    let reader = decompressed(BufReader::with_capacity(1 << 16, file), path)?;
    let damaged = |error: io::Error| ImageError::Damaged { path: path.to_owned(), detail: error.to_string() };
    let escapes = |name: &Path| ImageError::Damaged {
        path: path.to_owned(),
        detail: format!("it holds the file name {}", name.display()),
    };
    let mut archive = tar::Archive::new(reader);
    let mut files = 0_usize;
    let mut links = Vec::new();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = entry.path().map_err(damaged)?.into_owned();
        let kind = entry.header().entry_type();
        if !kind.is_file() && !kind.is_symlink() && !kind.is_hard_link() {
            continue;
        }
        let name = plain_path(&name).ok_or_else(|| escapes(&name))?;
        if !kind.is_file() {
            let to = entry.link_name().map_err(damaged)?.unwrap_or_default().into_owned();
            links.push((name.clone(), link_target(&name, &to, kind).ok_or_else(|| escapes(&to))?));
            continue;
        }
        let destination = place(target, &name)?;
        let mut output = File::create(&destination).at("cannot create", &destination)?;
        let copied = io::copy(&mut entry, &mut output).map_err(damaged)?;
        if copied != entry.size() {
            return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        files += 1;
    }
    if files == 0 {
        return Err(ImageError::UnknownFormat(path.to_owned()));
    }
    resolve(target, links)
}

/// Makes hard links of the links that lead to a file; the others are of no use.
fn resolve(target: &Path, mut links: Vec<(PathBuf, PathBuf)>) -> Result<(), ImageError> {
    for _ in 0..LINK_DEPTH_MAX {
        let mut open = Vec::new();
        for (name, to) in links {
            let (source, link) = (target.join(&to), target.join(&name));
            if link.exists() {
                continue;
            }
            if source.is_file() {
                place(target, &name)?;
                fs::hard_link(&source, &link).at("cannot link", &link)?;
            } else {
                open.push((name, to));
            }
        }
        links = open;
    }
    Ok(())
}

/// Where a file of this name goes, its directories made.
fn place(target: &Path, name: &Path) -> Result<PathBuf, ImageError> {
    let destination = target.join(name);
    if let Some(parent) = destination.parent() {
        fs::create_dir_all(parent).at("cannot create", parent)?;
    }
    Ok(destination)
}

/// What a link in the archive leads to, from the archive's root; `None` if that is outside.
fn link_target(name: &Path, to: &Path, kind: EntryType) -> Option<PathBuf> {
    if kind == EntryType::Link {
        return plain_path(to);
    }
    let mut target = name.parent().unwrap_or(Path::new("")).to_owned();
    for component in to.components() {
        match component {
            Component::Normal(part) => target.push(part),
            Component::CurDir => {}
            Component::ParentDir if target.pop() => {}
            _ => return None,
        }
    }
    plain_path(&target)
}

/// The components of a relative path that stays below its start.
pub(super) fn plain_path(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!plain.as_os_str().is_empty()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_archive_are_refused() {
        assert_eq!(plain_path(Path::new("./a/b")), Some(PathBuf::from("a/b")));
        for bad in ["/a", "../a", "a/../../b", "."] {
            assert_eq!(plain_path(Path::new(bad)), None, "{bad}");
        }
    }

    #[test]
    fn links_stay_inside() {
        let symbolic = |name: &str, to: &str| link_target(Path::new(name), Path::new(to), EntryType::Symlink);
        assert_eq!(symbolic("b/layer.tar", "../a/layer.tar"), Some("a/layer.tar".into()));
        assert_eq!(symbolic("layer.tar", "a"), Some("a".into()));
        for (name, to) in [("b/layer.tar", "../../etc/passwd"), ("b", "/etc/passwd"), ("b/c", "..")] {
            assert_eq!(symbolic(name, to), None, "{name} -> {to}");
        }
    }
}
