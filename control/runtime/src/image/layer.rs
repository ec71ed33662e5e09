//! Unpacking of one layer into a directory that overlayfs can use as a lower layer.
//!
//! The tar may be hostile: entries cannot leave the directory by `..`, absolute names, symbolic or hard links, and only
//! extended attributes that mean nothing to the kernel's own bookkeeping are taken over. Whiteouts become the character
//! device 0:0 and the opaque attribute that overlayfs knows.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{SFlag, makedev};
use tar::{Entry, EntryType};

use super::compression::decompressed;
use super::digest::HashingReader;
use crate::error::{ImageError, IoContext};
use crate::tree::{Attributes, Place, Tree};

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// Prefix of extended attributes in PAX headers.
const PAX_XATTR: &str = "SCHILY.xattr.";

/// Unpacks a layer blob to a new directory and checks that its uncompressed tar has the promised digest.
pub(super) fn unpack(blob: &Path, target: &Path, diff_id: &str) -> Result<(), ImageError> {
    fs::create_dir(target).at("cannot create", target)?;
    let file = File::open(blob).at("cannot open", blob)?;
    let stream = decompressed(BufReader::with_capacity(1 << 16, file), blob)?;
    let mut stream = HashingReader::new(stream);
    let damaged = |error: io::Error| ImageError::Damaged { path: blob.to_owned(), detail: error.to_string() };
    unpack_tar(&mut stream, target, &damaged)?;
    // The digest covers the padding after the last entry too.
    io::copy(&mut stream, &mut io::sink()).map_err(damaged)?;
    let (actual, _) = stream.finish();
    if actual != diff_id {
        return Err(ImageError::DigestMismatch { expected: diff_id.to_owned(), actual });
    }
    Ok(())
}

fn unpack_tar(
    stream: &mut impl Read,
    target: &Path,
    damaged: &impl Fn(io::Error) -> ImageError,
) -> Result<(), ImageError> {
    let tree = Tree::open(target).at("cannot open", target)?;
    let mut archive = tar::Archive::new(stream);
    // Filling a directory changes its time, so those are set at the end.
    let mut directories = Vec::new();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        unpack_entry(&tree, &mut entry, &path, &mut directories)
            .map_err(|error| ImageError::BadLayer { path, detail: error.to_string() })?;
    }
    for (path, mtime) in directories.iter().rev() {
        // A later entry may have replaced the directory.
        let _ = tree.place(path).and_then(|place| place.set_mtime(*mtime));
    }
    Ok(())
}

fn unpack_entry(
    tree: &Tree,
    entry: &mut Entry<'_, impl Read>,
    path: &Path,
    directories: &mut Vec<(PathBuf, i64)>,
) -> io::Result<()> {
    let kind = entry.header().entry_type();
    if matches!(kind, EntryType::XGlobalHeader) {
        return Ok(());
    }
    let Some(path) = inside(path)? else { return root_attributes(tree, entry) };
    let name = path.file_name().unwrap_or_default().as_bytes();
    if name == OPAQUE_MARKER {
        let directory = path.parent().unwrap_or(Path::new(""));
        return mark_opaque(tree, directory);
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
        let place = tree.place(&path.with_file_name(OsStr::from_bytes(hidden)))?;
        place.clear(false)?;
        return Ok(place.make_node(SFlag::S_IFCHR, makedev(0, 0))?);
    }
    let place = tree.place(&path)?;
    place.clear(kind == EntryType::Directory)?;
    make(tree, entry, kind, &place)?;
    if kind == EntryType::Link {
        // The attributes are those of the file it links to.
        return Ok(());
    }
    let attributes = attributes(entry)?;
    place.set_attributes(attributes, kind == EntryType::Symlink)?;
    copy_xattrs(entry, &place)?;
    if kind == EntryType::Directory {
        directories.push((path, attributes.mtime));
    }
    Ok(())
}

fn make(tree: &Tree, entry: &mut Entry<'_, impl Read>, kind: EntryType, place: &Place) -> io::Result<()> {
    match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => place.write_file(entry)?,
        EntryType::Directory => place.make_dir()?,
        EntryType::Symlink => place.make_symlink(&link_name(entry)?)?,
        EntryType::Link => {
            let target = PathBuf::from(OsStr::from_bytes(&link_name(entry)?));
            let target = inside(&target)?.ok_or(io::ErrorKind::InvalidInput)?;
            place.link_to(&tree.place(&target)?)?;
        }
        EntryType::Char => place.make_node(SFlag::S_IFCHR, device(entry)?)?,
        EntryType::Block => place.make_node(SFlag::S_IFBLK, device(entry)?)?,
        EntryType::Fifo => place.make_node(SFlag::S_IFIFO, 0)?,
        other => return Err(io::Error::other(format!("entry type {other:?} is not supported"))),
    }
    Ok(())
}

/// The path relative to the root; `None` is the root itself. Names with `..` have no honest use in a layer.
fn inside(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other("the name leaves the image"));
            }
        }
    }
    Ok((!inside.as_os_str().is_empty()).then_some(inside))
}

fn root_attributes(tree: &Tree, entry: &Entry<'_, impl Read>) -> io::Result<()> {
    if entry.header().entry_type() != EntryType::Directory {
        return Err(io::Error::other("the root is not a directory"));
    }
    let root = tree.place(Path::new("./x"))?.sibling(".");
    Ok(root.set_attributes(attributes(entry)?, false)?)
}

fn mark_opaque(tree: &Tree, directory: &Path) -> io::Result<()> {
    // Finding a place inside the directory makes the directory.
    let place = tree.place(&directory.join("x"))?.sibling(".");
    Ok(place.set_xattr("trusted.overlay.opaque", b"y")?)
}

fn attributes(entry: &Entry<'_, impl Read>) -> io::Result<Attributes> {
    let header = entry.header();
    let number = |value: u64| u32::try_from(value).map_err(|_| io::Error::other("owner is out of range"));
    Ok(Attributes {
        uid: number(header.uid()?)?,
        gid: number(header.gid()?)?,
        mode: header.mode()?,
        mtime: i64::try_from(header.mtime()?).unwrap_or(0),
    })
}

fn device(entry: &Entry<'_, impl Read>) -> io::Result<u64> {
    let header = entry.header();
    let (major, minor) = (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
    Ok(makedev(u64::from(major), u64::from(minor)))
}

fn link_name(entry: &Entry<'_, impl Read>) -> io::Result<Vec<u8>> {
    let name = entry.link_name_bytes().ok_or_else(|| io::Error::other("the link has no target"))?;
    Ok(name.into_owned())
}

/// File capabilities and user attributes; never those by which overlayfs or a security module steers itself.
fn copy_xattrs(entry: &mut Entry<'_, impl Read>, place: &Place) -> io::Result<()> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
    for extension in extensions {
        let extension = extension?;
        let Some(key) = extension.key().ok().and_then(|key| key.strip_prefix(PAX_XATTR)) else { continue };
        if key != "security.capability" && !key.starts_with("user.") {
            continue;
        }
        match place.set_xattr(key, extension.value_bytes()) {
            // The file system, or the kind of file, has no such attributes.
            Ok(()) | Err(Errno::ENOTSUP | Errno::EPERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use super::super::digest;
    use super::*;

    type Builder = tar::Builder<Vec<u8>>;

    fn header(kind: EntryType, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_000_000);
        header.set_size(0);
        header
    }

    fn file(builder: &mut Builder, path: &str, content: &[u8]) {
        let mut header = header(EntryType::Regular, 0o640);
        header.set_size(content.len() as u64);
        // Straight into the header: the builder itself refuses names such as `../x`.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    fn link(builder: &mut Builder, kind: EntryType, path: &str, target: &str) {
        let mut header = header(kind, 0o777);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
    }

    fn directory(builder: &mut Builder, path: &str) {
        builder.append_data(&mut header(EntryType::Directory, 0o750), path, &b""[..]).unwrap();
    }

    /// Unpacks what `fill` builds into `<dir>/layer`.
    fn unpack_built(dir: &Path, fill: impl FnOnce(&mut Builder)) -> Result<PathBuf, ImageError> {
        let mut builder = Builder::new(Vec::new());
        fill(&mut builder);
        let tar = builder.into_inner().unwrap();
        let (blob, target) = (dir.join("blob"), dir.join("layer"));
        fs::write(&blob, &tar).unwrap();
        unpack(&blob, &target, &digest::of_bytes(&tar)).map(|()| target)
    }

    #[test]
    fn entries_keep_their_attributes() {
        let dir = tempfile::tempdir().unwrap();
        let layer = unpack_built(dir.path(), |tar| {
            directory(tar, "d");
            file(tar, "d/f", b"hello");
            link(tar, EntryType::Link, "hard", "d/f");
            link(tar, EntryType::Symlink, "soft", "/d/f");
        })
        .unwrap();
        let metadata = fs::metadata(layer.join("d/f")).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (1000, 1001, 0o640));
        assert_eq!((metadata.mtime(), metadata.nlink()), (1_000_000, 2));
        let directory = fs::metadata(layer.join("d")).unwrap();
        assert_eq!((directory.mode() & 0o7777, directory.mtime()), (0o750, 1_000_000));
        assert_eq!(fs::read_link(layer.join("soft")).unwrap(), Path::new("/d/f"));
        assert_eq!(fs::read(layer.join("hard")).unwrap(), b"hello");
    }

    #[test]
    fn whiteouts_become_what_overlayfs_knows() {
        let dir = tempfile::tempdir().unwrap();
        let layer = unpack_built(dir.path(), |tar| {
            file(tar, "d/.wh.gone", b"");
            file(tar, "o/.wh..wh..opq", b"");
            file(tar, "o/new", b"1");
        })
        .unwrap();
        let gone = fs::symlink_metadata(layer.join("d/gone")).unwrap();
        assert!(gone.file_type().is_char_device());
        assert_eq!(gone.rdev(), 0);
        assert!(!layer.join("o/.wh..wh..opq").exists());
        let mut value = [0_u8; 8];
        let path = std::ffi::CString::new(layer.join("o").as_os_str().as_bytes()).unwrap();
        // SAFETY: the strings end with NUL and the buffer is as long as said.
        let length = unsafe {
            nix::libc::getxattr(
                path.as_ptr(),
                c"trusted.overlay.opaque".as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        assert_eq!((length, value[0]), (1, b'y'));
    }

    #[test]
    fn nothing_is_written_outside() {
        let names: [&dyn Fn(&mut Builder); 5] = [
            &|tar| file(tar, "../escaped", b"1"),
            &|tar| file(tar, "d/../../escaped", b"1"),
            &|tar| {
                link(tar, EntryType::Symlink, "out", "..");
                file(tar, "out/escaped", b"1");
            },
            &|tar| {
                link(tar, EntryType::Symlink, "escape", "../escaped");
                file(tar, "escape", b"1");
            },
            &|tar| link(tar, EntryType::Link, "stolen", "../secret"),
        ];
        for fill in names {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("secret"), "secret").unwrap();
            let _ = unpack_built(dir.path(), fill);
            assert!(!dir.path().join("escaped").exists());
            assert!(!dir.path().join("layer/stolen").exists());
            assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"secret");
        }
    }

    #[test]
    fn a_link_to_the_host_is_followed_inside_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let layer = unpack_built(dir.path(), |tar| {
            link(tar, EntryType::Symlink, "etc", "/usr/etc");
            directory(tar, "usr");
            directory(tar, "usr/etc");
            file(tar, "etc/made-by-a-layer", b"1");
        })
        .unwrap();
        assert!(layer.join("usr/etc/made-by-a-layer").exists());
        assert!(!Path::new("/usr/etc/made-by-a-layer").exists());
    }

    #[test]
    fn a_wrong_digest_or_a_cut_tar_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = Builder::new(Vec::new());
        file(&mut builder, "f", &[7; 5000]);
        let tar = builder.into_inner().unwrap();
        let blob = dir.path().join("blob");
        fs::write(&blob, &tar).unwrap();
        let wrong = unpack(&blob, &dir.path().join("a"), &digest::of_bytes(b"other"));
        assert!(matches!(wrong, Err(ImageError::DigestMismatch { .. })), "{wrong:?}");
        fs::write(&blob, &tar[..2000]).unwrap();
        assert!(unpack(&blob, &dir.path().join("b"), &digest::of_bytes(&tar[..2000])).is_err());
    }
}
