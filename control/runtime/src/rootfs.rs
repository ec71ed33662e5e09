//! A container's root file system: the image's layers below a writable layer of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::error::{FileError, IoContext};
use crate::layout::RootDir;

/// `mount(2)` takes one page of options.
const MOUNT_OPTIONS_MAX: usize = 4095;

/// Makes the directories of a container's writable layer.
pub(crate) fn create(dir: &RootDir) -> Result<(), FileError> {
    for path in [dir.upper(), dir.work(), dir.rootfs()] {
        fs::create_dir_all(&path).at("cannot create", &path)?;
    }
    // Whoever may look into the container sees its files; nobody else on the node does.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).at("cannot protect", dir.path())?;
    // The upper directory's mode is the mode of `/` in the container.
    fs::set_permissions(dir.upper(), fs::Permissions::from_mode(0o755)).at("cannot set mode of", dir.upper())
}

/// Mounts the root in the caller's mount namespace. Layers are named relative to `layer_dir`, lowest first.
pub(crate) fn mount_overlay(dir: &RootDir, layer_dir: &Path, layers: &[String]) -> Result<(), FileError> {
    let rootfs = dir.rootfs();
    // Relative names keep an image of dozens of layers within one page of options.
    std::env::set_current_dir(layer_dir).at("cannot enter", layer_dir)?;
    let result = overlay_options(dir, layers)
        .ok_or(std::io::ErrorKind::ArgumentListTooLong.into())
        .and_then(|options| {
            mount(Some("overlay"), &rootfs, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
                .map_err(std::io::Error::from)
        })
        .at("cannot mount the container's root", &rootfs);
    std::env::set_current_dir("/").at("cannot enter", "/")?;
    result
}

fn overlay_options(dir: &RootDir, layers: &[String]) -> Option<String> {
    // overlayfs wants the uppermost layer first.
    let lower: Vec<&str> = layers.iter().rev().map(String::as_str).collect();
    // `volatile`: a container's writable layer does not outlive a crash of the node, so nobody waits for its disk.
    let options = format!(
        "lowerdir={},upperdir={},workdir={},volatile",
        lower.join(":"),
        escape(&dir.upper())?,
        escape(&dir.work())?
    );
    (options.len() <= MOUNT_OPTIONS_MAX && !layers.is_empty()).then_some(options)
}

/// Commas separate options; overlayfs takes them escaped.
fn escape(path: &Path) -> Option<String> {
    Some(path.to_str()?.replace('\\', "\\\\").replace(',', "\\,"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uppermost_layer_comes_first() {
        let dir = RootDir::new(Path::new("/state"), "c");
        let options = overlay_options(&dir, &["base".to_owned(), "top".to_owned()]).unwrap();
        assert_eq!(options, "lowerdir=top:base,upperdir=/state/c/upper,workdir=/state/c/work,volatile");
        assert_eq!(overlay_options(&dir, &[]), None);
        assert_eq!(overlay_options(&dir, &vec!["x".repeat(64); 100]), None);
    }

    #[test]
    fn a_comma_in_a_path_is_no_option() {
        let dir = RootDir::new(Path::new("/a,b"), "c");
        assert!(overlay_options(&dir, &["l".to_owned()]).unwrap().contains("upperdir=/a\\,b/c/upper,"));
    }
}
