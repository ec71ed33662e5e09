//! Imports the images of a directory at start: OCI layouts and archives, one below another.

use std::path::{Path, PathBuf};

use control_runtime::ImageStore;

/// Imports everything that looks like an image; one that cannot be imported does not stop the others.
pub(crate) async fn run(images: &ImageStore, directory: &Path) {
    for path in candidates(directory) {
        match images.import(&path).await {
            Ok(records) => {
                let names: Vec<&String> = records.iter().flat_map(|record| &record.references).collect();
                tracing::info!(path = %path.display(), images = ?names, "images imported");
            }
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot import images"),
        }
    }
}

/// The directory itself if it is a layout, else what is in it, in order of names.
fn candidates(directory: &Path) -> Vec<PathBuf> {
    if is_layout(directory) {
        return vec![directory.to_owned()];
    }
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(path = %directory.display(), %error, "cannot read the directory of images");
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| is_layout(path) || is_archive(path));
    paths.sort();
    paths
}

fn is_layout(path: &Path) -> bool {
    path.join("oci-layout").is_file()
}

fn is_archive(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_file() && [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"].iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_and_archives_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir(root.join("b")).unwrap();
        std::fs::write(root.join("b/oci-layout"), "{}").unwrap();
        std::fs::write(root.join("a.tar"), "").unwrap();
        std::fs::write(root.join("notes.txt"), "").unwrap();
        std::fs::create_dir(root.join("empty")).unwrap();
        assert_eq!(candidates(root), [root.join("a.tar"), root.join("b")]);
        assert_eq!(candidates(&root.join("b")), [root.join("b")]);
        assert!(candidates(&root.join("none")).is_empty());
    }
}
