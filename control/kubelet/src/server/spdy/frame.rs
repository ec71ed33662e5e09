//! SPDY/3.1 frames, as far as streams of bytes need them.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Error;
use super::headers::{Headers, Packer, Unpacker};

const HEADER_BYTES: usize = 8;
/// A longer frame ends the session; clients send what one read gave them.
const FRAME_BYTES_MAX: usize = 1 << 20;
const CONTROL: u16 = 0x8000;
const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
const ID_MASK: u32 = 0x7fff_ffff;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Why a stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResetCode {
    ProtocolError = 1,
    InvalidStream = 2,
    RefusedStream = 3,
    Cancel = 5,
}

/// What a client sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Open {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    Data {
        id: u32,
        fin: bool,
        bytes: Bytes,
    },
    Reset {
        id: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// Settings, windows and more headers mean nothing here: the usual peer knows no flow control.
    Other,
}

pub(super) struct Decoder {
    unpacker: Unpacker,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { unpacker: Unpacker::new() }
    }

    /// Takes the next frame out of the buffer if it is complete.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Error> {
        let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [a, b, c, d, flags, length @ ..] = *header;
        let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Error::FrameTooLong(length));
        }
        if buffer.len() < HEADER_BYTES + length {
            buffer.reserve(HEADER_BYTES + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(HEADER_BYTES);
        let payload = buffer.split_to(length).freeze();
        let first = u16::from_be_bytes([a, b]);
        if first & CONTROL == 0 {
            let id = u32::from_be_bytes([a, b, c, d]);
            return Ok(Some(Frame::Data { id, fin: flags & FLAG_FIN != 0, bytes: payload }));
        }
        if first & !CONTROL != VERSION {
            return Err(Error::Version(first & !CONTROL));
        }
        self.control(u16::from_be_bytes([c, d]), flags, payload).map(Some)
    }

    fn control(&mut self, kind: u16, flags: u8, mut payload: Bytes) -> Result<Frame, Error> {
        let mut take = || payload.try_get_u32().map_err(|_| Error::Cut(kind));
        match kind {
            SYN_STREAM => {
                let id = take()? & ID_MASK;
                let _associated = take()?;
                let _priority = payload.try_get_u16().map_err(|_| Error::Cut(kind))?;
                Ok(Frame::Open { id, fin: flags & FLAG_FIN != 0, headers: self.unpacker.unpack(&payload)? })
            }
            RST_STREAM => Ok(Frame::Reset { id: take()? & ID_MASK }),
            PING => Ok(Frame::Ping { id: take()? }),
            GOAWAY => Ok(Frame::GoAway),
            SYN_REPLY | HEADERS => {
                take()?;
                // Unread, but all blocks are one compressed stream.
                self.unpacker.unpack(&payload)?;
                Ok(Frame::Other)
            }
            _ => Ok(Frame::Other),
        }
    }
}

/// Writes our frames.
pub(super) struct Encoder {
    packer: Packer,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { packer: Packer::new() }
    }

    pub(super) fn reply(&mut self, id: u32, out: &mut BytesMut) -> Result<(), Error> {
        let block = self.packer.pack(&[])?;
        control(SYN_REPLY, 0, 4 + block.len(), out);
        out.put_u32(id);
        out.put_slice(&block);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn open(&mut self, id: u32, headers: &[(&str, &str)], out: &mut BytesMut) {
        let block = self.packer.pack(headers).expect("packs");
        control(SYN_STREAM, 0, 10 + block.len(), out);
        out.put_u32(id);
        out.put_u32(0);
        out.put_u16(0);
        out.put_slice(&block);
    }

    pub(super) fn data(id: u32, fin: bool, bytes: &[u8], out: &mut BytesMut) {
        out.put_u32(id);
        put_flags_and_length(if fin { FLAG_FIN } else { 0 }, bytes.len(), out);
        out.put_slice(bytes);
    }

    pub(super) fn reset(id: u32, code: ResetCode, out: &mut BytesMut) {
        control(RST_STREAM, 0, 8, out);
        out.put_u32(id);
        out.put_u32(code as u32);
    }

    pub(super) fn ping(id: u32, out: &mut BytesMut) {
        control(PING, 0, 4, out);
        out.put_u32(id);
    }

    pub(super) fn go_away(last: u32, out: &mut BytesMut) {
        control(GOAWAY, 0, 8, out);
        out.put_u32(last);
        out.put_u32(0);
    }
}

fn control(kind: u16, flags: u8, length: usize, out: &mut BytesMut) {
    out.put_u16(CONTROL | VERSION);
    out.put_u16(kind);
    put_flags_and_length(flags, length, out);
}

fn put_flags_and_length(flags: u8, length: usize, out: &mut BytesMut) {
    let [_, length @ ..] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    out.put_u8(flags);
    out.put_slice(&length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_however_they_are_cut() {
        let mut wire = BytesMut::new();
        let mut encoder = Encoder::new();
        encoder.open(1, &[("streamtype", "error")], &mut wire);
        Encoder::data(1, false, b"hello", &mut wire);
        Encoder::ping(7, &mut wire);
        encoder.open(3, &[("streamtype", "data")], &mut wire);
        Encoder::reset(1, ResetCode::Cancel, &mut wire);
        Encoder::data(3, true, b"", &mut wire);
        encoder.reply(5, &mut wire).unwrap();
        Encoder::go_away(3, &mut wire);
        let (mut decoder, mut buffer, mut frames) = (Decoder::new(), BytesMut::new(), Vec::new());
        for byte in wire {
            buffer.put_u8(byte);
            frames.extend(decoder.decode(&mut buffer).unwrap());
        }
        let headers = |kind: &str| Headers::from([("streamtype".to_owned(), kind.to_owned())]);
        assert_eq!(
            frames,
            [
                Frame::Open { id: 1, fin: false, headers: headers("error") },
                Frame::Data { id: 1, fin: false, bytes: Bytes::from_static(b"hello") },
                Frame::Ping { id: 7 },
                Frame::Open { id: 3, fin: false, headers: headers("data") },
                Frame::Reset { id: 1 },
                Frame::Data { id: 3, fin: true, bytes: Bytes::new() },
                Frame::Other,
                Frame::GoAway,
            ]
        );
    }

    #[test]
    fn what_is_no_spdy_3_is_refused() {
        let decode = |bytes: &[u8]| Decoder::new().decode(&mut BytesMut::from(bytes));
        assert!(matches!(decode(b"GET / HTTP/1.1\r\n\r\n"), Err(Error::FrameTooLong(_))));
        assert!(matches!(decode(&[0x80, 2, 0, 6, 0, 0, 0, 0]), Err(Error::Version(2))));
        assert!(matches!(decode(&[0x80, 3, 0, 6, 0, 0, 0, 1, 0]), Err(Error::Cut(PING))));
        assert!(matches!(decode(&[0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0]), Err(Error::Cut(SYN_STREAM))));
    }

    #[test]
    fn a_reply_to_a_ping_is_the_ping_itself() {
        let mut out = BytesMut::new();
        Encoder::ping(9, &mut out);
        assert_eq!(&out[..], [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9]);
    }
}
