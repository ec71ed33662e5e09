//! Which of an index's manifests is for this machine. Pure.

use oci_spec::image::{Arch, Descriptor, ImageIndex, MediaType, Os, Platform};

use crate::error::ImageError;

/// Docker's name of an image index.
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

pub(crate) fn is_index(media_type: &MediaType) -> bool {
    match media_type {
        MediaType::ImageIndex => true,
        MediaType::Other(other) => other == DOCKER_LIST,
        _ => false,
    }
}

/// Whether a manifest can run here; one that does not say is taken at its word.
pub(crate) fn fits(descriptor: &Descriptor) -> bool {
    descriptor.platform().as_ref().is_none_or(|platform| rank(platform).is_some())
}

/// The manifest for this machine.
pub(crate) fn choose(index: &ImageIndex) -> Result<&Descriptor, ImageError> {
    let ranked = index.manifests().iter().filter_map(|descriptor| {
        // One without a platform is better than nothing.
        let rank = match descriptor.platform() {
            Some(platform) => rank(platform)?,
            None => u8::MAX,
        };
        Some((rank, descriptor))
    });
    let (arch, os) = (Arch::default(), Os::default());
    let best = ranked.min_by_key(|(rank, _)| *rank);
    best.map(|(_, descriptor)| descriptor).ok_or_else(|| ImageError::NoPlatform(format!("{os}/{arch}")))
}

/// Smaller is better; `None` does not run here. Variants beyond the plain one may need newer processors.
fn rank(platform: &Platform) -> Option<u8> {
    if *platform.architecture() != Arch::default() || *platform.os() != Os::default() {
        return None;
    }
    match (platform.architecture(), platform.variant().as_deref()) {
        (_, None | Some("")) => Some(0),
        (Arch::Amd64, Some("v1")) | (Arch::ARM64, Some("v8")) => Some(0),
        (Arch::Amd64 | Arch::ARM64, Some(_)) => None,
        _ => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &str = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };
    const OWN: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

    fn index(platforms: &[(&str, &str, Option<&str>)]) -> ImageIndex {
        let manifests: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(number, (os, architecture, variant))| {
                let mut platform = serde_json::json!({ "os": os, "architecture": architecture });
                if let Some(variant) = variant {
                    platform["variant"] = (*variant).into();
                }
                serde_json::json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": format!("sha256:{number:064}"), "size": number, "platform": platform,
                })
            })
            .collect();
        serde_json::from_value(serde_json::json!({ "schemaVersion": 2, "manifests": manifests })).unwrap()
    }

    fn chosen(platforms: &[(&str, &str, Option<&str>)]) -> Option<u64> {
        choose(&index(platforms)).ok().map(Descriptor::size)
    }

    #[test]
    fn the_own_platform_is_chosen() {
        assert_eq!(chosen(&[("linux", OTHER, None), ("linux", OWN, None)]), Some(1));
        assert_eq!(chosen(&[("windows", OWN, None), ("unknown", "unknown", None), ("linux", OWN, None)]), Some(2));
        assert_eq!(chosen(&[("linux", OTHER, None)]), None);
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn no_newer_processor_is_asked_for() {
        assert_eq!(chosen(&[("linux", OWN, Some("v3")), ("linux", OWN, None)]), Some(1));
        assert_eq!(chosen(&[("linux", OWN, Some("v9"))]), None);
    }
}
