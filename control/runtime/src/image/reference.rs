//! Image references, written in full: `busybox` is `docker.io/library/busybox:latest`.

use std::fmt;

use crate::error::ImageError;

/// A reference with registry, repository, and a tag or a digest (or both, of which the digest counts).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// `docker.io/library/busybox`.
    pub repository: String,
    pub tag: Option<String>,
    /// `sha256:<hex>`.
    pub digest: Option<String>,
}

/// Limit of the distribution specification for a repository's name.
const REPOSITORY_LENGTH_MAX: usize = 255;
const TAG_LENGTH_MAX: usize = 128;

impl Reference {
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let bad = || ImageError::BadReference(text.to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if super::digest::is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(bad()),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad());
        }
        let repository = complete_repository(name).ok_or_else(bad)?;
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn complete_repository(name: &str) -> Option<String> {
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (first, path.to_owned()),
        Some(_) => ("docker.io", name.to_owned()),
        None => ("docker.io", format!("library/{name}")),
    };
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
    let registry_fits = registry.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    let full = format!("{registry}/{path}");
    (registry_fits && full.len() <= REPOSITORY_LENGTH_MAX && path.split('/').all(is_path_component)).then_some(full)
}

/// Only a host name can hold a dot or a port, so the first component is a registry exactly then.
fn is_registry(component: &str) -> bool {
    component == "localhost" || component.contains(['.', ':'])
}

/// Lower-case alphanumerics with `.`, `_`, `__` or dashes between them.
fn is_path_component(component: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    is_alphanumeric(*first)
        && is_alphanumeric(*last)
        && bytes.iter().all(|byte| is_alphanumeric(*byte) || b"._-".contains(byte))
        && !component.contains("..")
        && !component.contains("___")
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_LENGTH_MAX
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        let hex = "a".repeat(64);
        let digest = format!("sha256:{hex}");
        for (text, want) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("busybox:1.36", "docker.io/library/busybox:1.36".to_owned()),
            ("tidegate/echo:dev", "docker.io/tidegate/echo:dev".to_owned()),
            ("docker.io/library/busybox:latest", "docker.io/library/busybox:latest".to_owned()),
            ("index.docker.io/a/b", "docker.io/a/b:latest".to_owned()),
            ("localhost/x", "localhost/x:latest".to_owned()),
            ("localhost:5000/x/y:v1.2-rc", "localhost:5000/x/y:v1.2-rc".to_owned()),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9".to_owned()),
            (&format!("busybox@{digest}"), format!("docker.io/library/busybox@{digest}")),
            (&format!("a.b/c:t@{digest}"), format!("a.b/c:t@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn a_completed_name_parses_to_itself() {
        for text in ["busybox", "a/b:c", "localhost:5000/x", "ghcr.io/a/b/c:1"] {
            let once = Reference::parse(text).unwrap();
            assert_eq!(Reference::parse(&once.to_string()).unwrap(), once);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in
            ["", "Busybox", "a//b", "a/../b", "x:", "x:ta/g:", "x@sha256:12", "x@md5:00", "-x", "x-", "a b", "x:-t"]
        {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }
}
