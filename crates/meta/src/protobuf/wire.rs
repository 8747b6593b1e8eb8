//! Protobuf's wire format: numbers, lengths and tags.

use super::ProtobufError;

pub(crate) const VARINT: u8 = 0;
pub(crate) const FIXED64: u8 = 1;
pub(crate) const BYTES: u8 = 2;
pub(crate) const FIXED32: u8 = 5;

/// A value as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Wire<'a> {
    fn wire_type(&self) -> u8 {
        match self {
            Self::Varint(_) => VARINT,
            Self::Fixed64(_) => FIXED64,
            Self::Bytes(_) => BYTES,
            Self::Fixed32 => FIXED32,
        }
    }

    pub(crate) fn varint(&self, field: u32) -> Result<u64, ProtobufError> {
        match self {
            Self::Varint(number) => Ok(*number),
            other => Err(ProtobufError::WireType { field, wire: other.wire_type() }),
        }
    }

    pub(crate) fn fixed64(&self, field: u32) -> Result<u64, ProtobufError> {
        match self {
            Self::Fixed64(number) => Ok(*number),
            other => Err(ProtobufError::WireType { field, wire: other.wire_type() }),
        }
    }

    pub(crate) fn bytes(&self, field: u32) -> Result<&'a [u8], ProtobufError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(ProtobufError::WireType { field, wire: other.wire_type() }),
        }
    }

    pub(crate) fn text(&self, field: u32) -> Result<&'a str, ProtobufError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| ProtobufError::Utf8(field))
    }
}

/// The fields of a message in the order in which they stand.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field's number and value.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = varint(&mut self.rest)?;
        let field = u32::try_from(tag >> 3).map_err(|_| ProtobufError::Overflow)?;
        let wire = (tag & 7) as u8;
        let value = match wire {
            VARINT => Wire::Varint(varint(&mut self.rest)?),
            FIXED64 => {
                let (number, rest) = self.rest.split_first_chunk::<8>().ok_or(ProtobufError::Truncated)?;
                self.rest = rest;
                Wire::Fixed64(u64::from_le_bytes(*number))
            }
            BYTES => {
                let length = usize::try_from(varint(&mut self.rest)?).map_err(|_| ProtobufError::Overflow)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
                self.rest = rest;
                Wire::Bytes(bytes)
            }
            FIXED32 => {
                self.rest = self.rest.get(4..).ok_or(ProtobufError::Truncated)?;
                Wire::Fixed32
            }
            wire => return Err(ProtobufError::WireType { field, wire }),
        };
        Ok(Some((field, value)))
    }
}

pub(crate) fn varint(rest: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut number = 0u64;
    for index in 0..10 {
        let (byte, tail) = rest.split_first().ok_or(ProtobufError::Truncated)?;
        *rest = tail;
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(ProtobufError::Overflow)
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    put_varint(out, u64::from(field) << 3 | u64::from(VARINT));
    put_varint(out, number);
}

pub(crate) fn put_double(out: &mut Vec<u8>, field: u32, number: f64) {
    put_varint(out, u64::from(field) << 3 | u64::from(FIXED64));
    out.extend_from_slice(&number.to_bits().to_le_bytes());
}

/// What stands before the length of bytes, text or a message.
pub(crate) fn put_tag(out: &mut Vec<u8>, field: u32) {
    put_varint(out, u64::from(field) << 3 | u64::from(BYTES));
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_tag(out, field);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
