//! What a directory takes up on its disk.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const BLOCK_BYTES: u64 = 512;

/// Space of everything below a directory. What vanishes meanwhile does not count; links are not followed.
pub(super) fn bytes(directory: &Path) -> io::Result<u64> {
    let mut total = 0;
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            total += metadata.blocks() * BLOCK_BYTES;
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_all_levels_count_and_links_do_not() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        fs::write(directory.path().join("a/big"), vec![1; 200_000]).unwrap();
        std::os::unix::fs::symlink("/", directory.path().join("out")).unwrap();
        let found = bytes(directory.path()).unwrap();
        assert!((200_000..1_000_000).contains(&found), "{found}");
        assert_eq!(bytes(&directory.path().join("none")).unwrap(), 0);
    }
}
