//! SHA-256 digests in the `sha256:<hex>` form, and readers that compute them on the way.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::error::ImageError;
use crate::layout::hex;

const PREFIX: &str = "sha256:";

pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(is_hex_digest)
}

pub(super) fn is_hex_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The hex part, which is safe as a file name.
pub(super) fn hex_part(digest: &str) -> Result<&str, ImageError> {
    digest.strip_prefix(PREFIX).filter(|hex| is_hex_digest(hex)).ok_or_else(|| ImageError::BadDigest(digest.to_owned()))
}

pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    format!("{PREFIX}{}", hex(&Sha256::digest(bytes)))
}

/// Passes bytes through and knows the digest and length of what passed.
pub(super) struct HashingReader<R> {
    inner: R,
    hash: Sha256,
    length: u64,
}

impl<R: Read> HashingReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), length: 0 }
    }

    pub(super) fn finish(self) -> (String, u64) {
        (format!("{PREFIX}{}", hex(&self.hash.finalize())), self.length)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.length += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(of_bytes(b""), empty);
        assert!(is_digest(empty));
        assert_eq!(hex_part(empty).unwrap().len(), 64);
        assert!(hex_part("sha256:../../etc/passwd").is_err());
        assert!(!is_digest(&empty.to_uppercase()));
    }

    #[test]
    fn the_reader_hashes_what_it_passes() {
        let mut reader = HashingReader::new(&b"abc"[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.finish(), (of_bytes(b"abc"), 3));
    }
}
