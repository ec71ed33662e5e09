//! Compression of layers and archives, recognised by content: media types and file names are not always right.

use std::io::{BufRead, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::{ImageError, IoContext};

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// A skippable frame may come first, with the magic 0x184d2a50 to 0x184d2a5f.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
/// Formats that nobody should have to guess at.
const UNSUPPORTED: [(&str, &[u8]); 2] = [("xz", &[0xfd, b'7', b'z', b'X', b'Z']), ("bzip2", b"BZh")];

/// The stream behind gzip or zstd, or the stream itself.
pub(super) fn decompressed<'a>(mut reader: impl BufRead + 'a, path: &Path) -> Result<Box<dyn Read + 'a>, ImageError> {
    let start = reader.fill_buf().at("cannot read", path)?;
    if let Some((name, _)) = UNSUPPORTED.iter().find(|(_, magic)| start.starts_with(magic)) {
        return Err(ImageError::UnsupportedCompression { path: path.to_owned(), name });
    }
    if start.starts_with(ZSTD_MAGIC) || start.get(1..4) == Some(ZSTD_SKIPPABLE) {
        let decoder = zstd::stream::read::Decoder::with_buffer(reader).at("cannot read", path)?;
        Ok(Box::new(decoder))
    } else if start.starts_with(GZIP_MAGIC) {
        Ok(Box::new(MultiGzDecoder::new(reader)))
    } else {
        Ok(Box::new(reader))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: &[u8]) -> Result<String, ImageError> {
        let mut text = String::new();
        let read = decompressed(bytes, Path::new("archive"))?.read_to_string(&mut text);
        read.at("cannot read", "archive")?;
        Ok(text)
    }

    #[test]
    fn formats_are_recognised_by_content() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"text").unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&b"text"[..], 1).unwrap();
        // An empty skippable frame first, as some tools write it.
        let skipping = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0][..], &zstd].concat();
        for bytes in [b"text".to_vec(), gzip.clone(), [gzip.clone(), gzip].concat(), zstd, skipping] {
            assert!(read(&bytes).unwrap().starts_with("text"), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let error = read(&[0xfd, b'7', b'z', b'X', b'Z', 0]).unwrap_err().to_string();
        assert!(error.contains("xz"), "{error}");
    }
}
