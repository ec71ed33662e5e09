//! From a reference to the manifest for this machine.

use http::header::CONTENT_TYPE;
use oci_spec::image::{Descriptor, DescriptorBuilder, ImageIndex, ImageManifest, MediaType, Sha256Digest};
use serde::Deserialize;

use super::error::PullError;
use super::session::{Get, Session};
use crate::error::ImageError;
use crate::image::{DOCKER_LIST, DOCUMENT_BYTES_MAX, Reference, choose, digest_of, is_index, parse_document};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An index that points at an index that points at an index … ends here.
const INDEX_DEPTH_MAX: usize = 4;

/// What a reference leads to.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Digest of what the reference itself names, which may be an index.
    pub(super) root: String,
    pub(super) descriptor: Descriptor,
    /// The manifest as it came.
    pub(super) text: Vec<u8>,
    pub(super) manifest: ImageManifest,
}

pub(super) async fn resolve(session: &Session, image: &Reference) -> Result<Resolved, PullError> {
    let name = image.digest.as_ref().or(image.tag.as_ref()).map_or("latest", String::as_str);
    let mut document = fetch(session, name).await.map_err(|error| named(error, image))?;
    let root = document.digest.clone();
    for _ in 0..INDEX_DEPTH_MAX {
        if !is_index(&document.media_type) {
            let manifest: ImageManifest = parse_document("image manifest", &document.text)?;
            let descriptor = descriptor(&document)?;
            return Ok(Resolved { root, descriptor, text: document.text, manifest });
        }
        let index: ImageIndex = parse_document("image index", &document.text)?;
        let next = choose(&index)?.digest().to_string();
        document = fetch(session, &next).await.map_err(|error| named(error, image))?;
    }
    Err(ImageError::BadDocument { what: "image index", detail: "indexes are nested too deeply".to_owned() }.into())
}

struct Document {
    media_type: MediaType,
    digest: String,
    text: Vec<u8>,
}

async fn fetch(session: &Session, name: &str) -> Result<Document, PullError> {
    let accept = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST].join(", ");
    let path = format!("manifests/{name}");
    let response = session.get(Get { path: &path, accept: Some(&accept), ..Get::default() }).await?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let content_type = header(CONTENT_TYPE.as_str());
    // Who asks for a digest gets that or nothing; for a tag, the registry says what it means to send.
    let expected = if name.contains(':') { Some(name.to_owned()) } else { header("docker-content-digest") };
    let max = usize::try_from(DOCUMENT_BYTES_MAX).unwrap_or(usize::MAX);
    let text = session.body(response, max).await?.to_vec();
    let digest = digest_of(&text);
    if let Some(expected) = expected.filter(|expected| expected.starts_with("sha256:") && *expected != digest) {
        return Err(ImageError::DigestMismatch { expected, actual: digest }.into());
    }
    let media_type = media_type(&text, content_type.as_deref()).ok_or_else(|| {
        session.strange(format!("{path} is of an unknown type, {}", content_type.unwrap_or_default()))
    })?;
    Ok(Document { media_type, digest, text })
}

/// What a document is: by what it says itself, else by what the registry says, else by what is in it.
fn media_type(text: &[u8], content_type: Option<&str>) -> Option<MediaType> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<serde_json::Value>,
        config: Option<serde_json::Value>,
    }
    const KNOWN: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];
    let shape: Shape = serde_json::from_slice(text).ok()?;
    let named = shape.media_type.as_deref().or(content_type).map(|name| name.split(';').next().unwrap_or(name).trim());
    match named.and_then(|name| KNOWN.iter().find(|known| **known == name)) {
        Some(known) => Some(MediaType::from(*known)),
        None if shape.manifests.is_some() => Some(MediaType::ImageIndex),
        None if shape.config.is_some() => Some(MediaType::ImageManifest),
        None => None,
    }
}

fn descriptor(document: &Document) -> Result<Descriptor, PullError> {
    let bad = || ImageError::BadDigest(document.digest.clone());
    let hex = document.digest.trim_start_matches("sha256:");
    let digest: Sha256Digest = hex.parse().map_err(|_| bad())?;
    let builder = DescriptorBuilder::default().media_type(document.media_type.clone());
    Ok(builder.digest(digest).size(document.text.len() as u64).build().map_err(|_| bad())?)
}

/// What is missing is the image, in the words of whoever asked for it.
fn named(error: PullError, image: &Reference) -> PullError {
    match error {
        PullError::NotFound { .. } => PullError::NotFound { image: image.to_string() },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_recognised() {
        let docker = format!(r#"{{"mediaType":"{DOCKER_MANIFEST}"}}"#);
        for (text, header, want) in [
            (docker.as_str(), None, Some(MediaType::from(DOCKER_MANIFEST))),
            ("{}", Some("application/vnd.oci.image.index.v1+json; charset=utf-8"), Some(MediaType::ImageIndex)),
            (r#"{"manifests":[]}"#, Some("application/json"), Some(MediaType::ImageIndex)),
            (r#"{"config":{}}"#, None, Some(MediaType::ImageManifest)),
            ("{}", Some("text/html"), None),
            (r#"{"schemaVersion":1}"#, Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), None),
            ("<html>", Some(OCI_MANIFEST), None),
        ] {
            assert_eq!(media_type(text.as_bytes(), header), want, "{text}");
        }
    }
}
