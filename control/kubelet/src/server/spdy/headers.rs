//! SPDY/3 header blocks: name/value lists in one zlib stream per direction, primed with the protocol's dictionary.

use std::collections::HashMap;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Error;

/// A longer block, unpacked, ends the session.
const BLOCK_BYTES_MAX: usize = 64 << 10;
const PACKED_STEP: usize = 256;
const UNPACKED_STEP: usize = 4 << 10;

/// Names of the dictionary, each with its length before it.
const WORDS: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// The rest of the dictionary.
const PHRASES: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
    publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

pub(crate) type Headers = HashMap<String, String>;

/// Unpacks the peer's header blocks, in the order in which they come.
pub(super) struct Unpacker(Decompress);

/// Packs our own.
pub(super) struct Packer(Compress);

impl Unpacker {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn unpack(&mut self, packed: &[u8]) -> Result<Headers, Error> {
        parse(&self.inflate(packed)?)
    }

    fn inflate(&mut self, mut packed: &[u8]) -> Result<Vec<u8>, Error> {
        let mut block = Vec::new();
        loop {
            if block.len() > BLOCK_BYTES_MAX {
                return Err(Error::Headers("header block is too long"));
            }
            block.reserve(UNPACKED_STEP);
            let (before, room) = (self.0.total_in(), block.capacity() - block.len());
            let length = block.len();
            let result = self.0.decompress_vec(packed, &mut block, FlushDecompress::Sync);
            packed = &packed[usize::try_from(self.0.total_in() - before).unwrap_or(packed.len()).min(packed.len())..];
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    let known = self.0.set_dictionary(&dictionary());
                    known.map_err(|_| Error::Headers("header block needs an unknown dictionary"))?;
                }
                Err(_) => return Err(Error::Headers("header block is damaged")),
                Ok(Status::StreamEnd) => return Err(Error::Headers("header stream has ended")),
                // Everything is in, and not because the room was used up.
                Ok(_) if packed.is_empty() && block.len() - length < room => return Ok(block),
                Ok(_) => {}
            }
        }
    }
}

impl Packer {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::best(), true);
        // A fresh stream always takes a dictionary.
        if let Err(error) = compress.set_dictionary(&dictionary()) {
            tracing::error!(%error, "cannot prime header compression");
        }
        Self(compress)
    }

    pub(super) fn pack(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, Error> {
        let mut block = length(headers.len()).to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&length(text.len()));
            block.extend_from_slice(text.as_bytes());
        }
        let mut packed = Vec::new();
        let mut rest = block.as_slice();
        loop {
            packed.reserve(PACKED_STEP);
            let (before, room, start) = (self.0.total_in(), packed.capacity() - packed.len(), packed.len());
            let result = self.0.compress_vec(rest, &mut packed, FlushCompress::Sync);
            result.map_err(|_| Error::Headers("headers cannot be packed"))?;
            rest = &rest[usize::try_from(self.0.total_in() - before).unwrap_or(rest.len()).min(rest.len())..];
            if rest.is_empty() && packed.len() - start < room {
                return Ok(packed);
            }
        }
    }
}

fn length(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes()
}

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in WORDS {
        bytes.extend_from_slice(&length(word.len()));
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(PHRASES.as_bytes());
    bytes
}

fn parse(block: &[u8]) -> Result<Headers, Error> {
    let mut rest = block;
    let count = take_length(&mut rest)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = take_text(&mut rest)?.to_ascii_lowercase();
        let value = take_text(&mut rest)?;
        headers.insert(name, value);
    }
    Ok(headers)
}

fn take_text(rest: &mut &[u8]) -> Result<String, Error> {
    let length = take_length(rest)?;
    let (text, after) = rest.split_at_checked(length).ok_or(Error::Headers("header block is cut"))?;
    *rest = after;
    String::from_utf8(text.to_vec()).map_err(|_| Error::Headers("header is not text"))
}

fn take_length(rest: &mut &[u8]) -> Result<usize, Error> {
    let (bytes, after) = rest.split_first_chunk::<4>().ok_or(Error::Headers("header block is cut"))?;
    *rest = after;
    Ok(usize::try_from(u32::from_be_bytes(*bytes)).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adler-32, which zlib uses to name a dictionary.
    fn adler32(bytes: &[u8]) -> u32 {
        let (a, b) = bytes.iter().fold((1_u32, 0_u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65_521;
            (a, (b + a) % 65_521)
        });
        b << 16 | a
    }

    #[test]
    fn the_dictionary_is_the_one_everybody_has() {
        assert_eq!((dictionary().len(), adler32(&dictionary())), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_share_one_stream() {
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        let headers = [("streamtype", "data"), ("port", "8080"), ("requestid", "0")];
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let packed = packer.pack(&headers).unwrap();
            sizes.push(packed.len());
            let unpacked = unpacker.unpack(&packed).unwrap();
            assert_eq!(unpacked.len(), 3);
            assert_eq!(unpacked["requestid"], "0");
        }
        assert!(sizes[1] < sizes[0], "{sizes:?}");
        assert!(unpacker.unpack(&packer.pack(&[]).unwrap()).unwrap().is_empty());
        let long = "x".repeat(20_000);
        assert_eq!(unpacker.unpack(&packer.pack(&[("A", &long)]).unwrap()).unwrap()["a"], long);
    }

    #[test]
    fn bad_blocks_are_refused() {
        assert!(Unpacker::new().unpack(b"nonsense").is_err());
        let bomb = "x".repeat(BLOCK_BYTES_MAX * 2);
        assert!(Unpacker::new().unpack(&Packer::new().pack(&[("a", &bomb)]).unwrap()).is_err());
        for cut in [&[0_u8, 0][..], &[0, 0, 0, 1, 0, 0, 0, 9], &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]] {
            assert!(parse(cut).is_err(), "{cut:?}");
        }
    }
}
