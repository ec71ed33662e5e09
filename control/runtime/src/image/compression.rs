//! Compression of layers and archives, recognised by content: media types are not always right.

use std::io::{BufRead, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::{ImageError, IoContext};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The stream behind gzip, or the stream itself.
pub(super) fn decompressed<'a>(mut reader: impl BufRead + 'a, path: &Path) -> Result<Box<dyn Read + 'a>, ImageError> {
    let start = reader.fill_buf().at("cannot read", path)?;
    if start.starts_with(&ZSTD_MAGIC) {
        Err(ImageError::UnsupportedLayer("tar+zstd".to_owned()))
    } else if start.starts_with(&GZIP_MAGIC) {
        Ok(Box::new(MultiGzDecoder::new(reader)))
    } else {
        Ok(Box::new(reader))
    }
}
