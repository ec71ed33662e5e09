//! The wire: keys, varints and length-delimited fields.

pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const BYTES: u8 = 2;
pub(super) const FIXED32: u8 = 5;

/// What can go wrong below the level of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RawError {
    Truncated,
    Varint,
    WireType(u8),
}

/// One field as it stands on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawField<'a> {
    pub tag: u32,
    pub wire_type: u8,
    /// Varints and fixed numbers.
    pub number: u64,
    /// Length-delimited content.
    pub bytes: &'a [u8],
}

/// The fields of a message, one after the other.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<RawField<'a>, RawError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<RawField<'a>, RawError> {
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).map_err(|_| RawError::Varint)?;
        let wire_type = (key & 7) as u8;
        let mut field = RawField { tag, wire_type, number: 0, bytes: &[] };
        match wire_type {
            VARINT => field.number = self.varint()?,
            FIXED64 => field.number = u64::from_le_bytes(self.fixed()?),
            FIXED32 => field.number = u64::from(u32::from_le_bytes(self.fixed()?)),
            BYTES => {
                let length = usize::try_from(self.varint()?).map_err(|_| RawError::Truncated)?;
                field.bytes = self.take(length)?;
            }
            other => return Err(RawError::WireType(other)),
        }
        Ok(field)
    }

    fn varint(&mut self) -> Result<u64, RawError> {
        let (value, rest) = varint(self.0)?;
        self.0 = rest;
        Ok(value)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], RawError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(RawError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], RawError> {
        self.take(N)?.try_into().map_err(|_| RawError::Truncated)
    }
}

/// Reads one varint and returns what follows it.
pub(super) fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), RawError> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate() {
        if at == 9 && *byte > 1 {
            return Err(RawError::Varint);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[at + 1..]));
        }
    }
    Err(RawError::Truncated)
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_key(out: &mut Vec<u8>, tag: u32, wire_type: u8) {
    put_varint(out, u64::from(tag) << 3 | u64::from(wire_type));
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, tag: u32, content: &[u8]) {
    put_key(out, tag, BYTES);
    put_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

pub(crate) fn put_number(out: &mut Vec<u8>, tag: u32, value: u64) {
    put_key(out, tag, VARINT);
    put_varint(out, value);
}
