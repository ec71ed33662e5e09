//! hostPath volumes: what must be there, and what is made if it is not.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::SetUpError;

/// Checks the path against the volume's type.
pub(crate) fn check(path: &str, kind: &str) -> Result<(), SetUpError> {
    let place = Path::new(path);
    match kind {
        "DirectoryOrCreate" if !place.exists() => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(place).map_err(SetUpError::io(place))?;
        }
        "FileOrCreate" if !place.exists() => {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(place)
                .map_err(SetUpError::io(place))?;
        }
        _ => {}
    }
    let metadata = fs::metadata(place);
    let is = |test: fn(&fs::FileType) -> bool| metadata.as_ref().is_ok_and(|metadata| test(&metadata.file_type()));
    let (good, wanted) = match kind {
        "" => return Ok(()),
        "Directory" | "DirectoryOrCreate" => (is(fs::FileType::is_dir), "directory"),
        "File" | "FileOrCreate" => (is(fs::FileType::is_file), "file"),
        "Socket" => (is(|file| file.is_socket()), "socket file"),
        "CharDevice" => (is(|file| file.is_char_device()), "character device"),
        "BlockDevice" => (is(|file| file.is_block_device()), "block device"),
        _ => (false, "path of a known type"),
    };
    if good { Ok(()) } else { Err(SetUpError::HostPath { path: path.into(), wanted }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        assert!(check(&path("none"), "").is_ok(), "no type, no check");
        assert!(check(&path("none"), "Directory").is_err());
        assert!(check(&path("made/deep"), "DirectoryOrCreate").is_ok());
        assert!(check(&path("made"), "Directory").is_ok());
        assert!(check(&path("made"), "File").is_err());
        assert!(check(&path("file"), "FileOrCreate").is_ok());
        assert!(check(&path("file"), "File").is_ok());
        assert!(check(&path("file"), "Socket").is_err());
        assert!(check("/dev/null", "CharDevice").is_ok());
    }
}
