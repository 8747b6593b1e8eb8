//! SPDY/3.1 frames: an 8-byte head, then a control frame's fields or data.

use crate::StreamingError;

pub(crate) const HEAD_BYTES: usize = 8;
/// Longest control frame taken; a header block of the streams carried here is far below.
pub(crate) const MAX_CONTROL_BYTES: usize = 64 * 1024;
pub(crate) const FLAG_FIN: u8 = 0x01;
const VERSION: u16 = 3;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;
const SETTING_INITIAL_WINDOW: u32 = 7;

/// RST_STREAM status codes used here.
pub(crate) const RST_INVALID_STREAM: u32 = 2;
pub(crate) const RST_REFUSED_STREAM: u32 = 3;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Data { stream: u32, fin: bool, length: usize },
    Control { kind: u16, flags: u8, length: usize },
}

impl Head {
    pub(crate) fn parse(bytes: [u8; HEAD_BYTES]) -> Result<Head, StreamingError> {
        let [a, b, c, d, flags, e, f, g] = bytes;
        let length = u32::from_be_bytes([0, e, f, g]) as usize;
        if a & 0x80 == 0 {
            return Ok(Head::Data { stream: u32::from_be_bytes([a, b, c, d]), fin: flags & FLAG_FIN != 0, length });
        }
        if u16::from_be_bytes([a & 0x7f, b]) != VERSION {
            return Err(StreamingError::Spdy("frame of another version"));
        }
        if length > MAX_CONTROL_BYTES {
            return Err(StreamingError::Spdy("control frame too large"));
        }
        Ok(Head::Control { kind: u16::from_be_bytes([c, d]), flags, length })
    }
}

/// What a control frame says; header blocks are still compressed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Control<'a> {
    SynStream {
        stream: u32,
        fin: bool,
        block: &'a [u8],
    },
    SynReply {
        stream: u32,
        fin: bool,
        block: &'a [u8],
    },
    Reset {
        stream: u32,
    },
    InitialWindow(u32),
    Ping(u32),
    GoAway,
    Headers {
        stream: u32,
        fin: bool,
        block: &'a [u8],
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// Known to nobody here; skipped, as the specification asks.
    Ignored,
}

impl<'a> Control<'a> {
    pub(crate) fn parse(kind: u16, flags: u8, payload: &'a [u8]) -> Result<Control<'a>, StreamingError> {
        let fin = flags & FLAG_FIN != 0;
        Ok(match kind {
            // Stream, associated stream, priority and slot, then the block.
            SYN_STREAM => Control::SynStream { stream: id(payload, 0)?, fin, block: after(payload, 10)? },
            SYN_REPLY => Control::SynReply { stream: id(payload, 0)?, fin, block: after(payload, 4)? },
            HEADERS => Control::Headers { stream: id(payload, 0)?, fin, block: after(payload, 4)? },
            RST_STREAM => Control::Reset { stream: id(payload, 0)? },
            PING => Control::Ping(word(payload, 0)?),
            GOAWAY => Control::GoAway,
            WINDOW_UPDATE => Control::WindowUpdate { stream: id(payload, 0)?, delta: id(payload, 4)? },
            SETTINGS => settings(payload)?,
            _ => Control::Ignored,
        })
    }
}

fn settings(payload: &[u8]) -> Result<Control<'_>, StreamingError> {
    let mut found = Control::Ignored;
    for entry in after(payload, 4)?.chunks_exact(8) {
        if word(entry, 0)? & 0x00ff_ffff == SETTING_INITIAL_WINDOW {
            found = Control::InitialWindow(id(entry, 4)?);
        }
    }
    Ok(found)
}

fn after(payload: &[u8], at: usize) -> Result<&[u8], StreamingError> {
    payload.get(at..).ok_or(StreamingError::Spdy("control frame too short"))
}

fn word(payload: &[u8], at: usize) -> Result<u32, StreamingError> {
    let bytes = after(payload, at)?.first_chunk::<4>().ok_or(StreamingError::Spdy("control frame too short"))?;
    Ok(u32::from_be_bytes(*bytes))
}

/// A 31-bit value.
fn id(payload: &[u8], at: usize) -> Result<u32, StreamingError> {
    Ok(word(payload, at)? & 0x7fff_ffff)
}

pub(crate) fn put_data_head(out: &mut Vec<u8>, stream: u32, fin: bool, length: usize) {
    out.extend_from_slice(&stream.to_be_bytes());
    put_flags_and_length(out, fin, length);
}

pub(crate) fn put_syn_stream(out: &mut Vec<u8>, stream: u32, block: &[u8]) {
    put_control(out, SYN_STREAM, false, 10 + block.len());
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(block);
}

pub(crate) fn put_syn_reply(out: &mut Vec<u8>, stream: u32, block: &[u8]) {
    put_control(out, SYN_REPLY, false, 4 + block.len());
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(block);
}

pub(crate) fn put_reset(out: &mut Vec<u8>, stream: u32, status: u32) {
    put_pair(out, RST_STREAM, stream, status);
}

pub(crate) fn put_window_update(out: &mut Vec<u8>, stream: u32, delta: u32) {
    put_pair(out, WINDOW_UPDATE, stream, delta);
}

pub(crate) fn put_goaway(out: &mut Vec<u8>, last: u32) {
    put_pair(out, GOAWAY, last, 0);
}

pub(crate) fn put_ping(out: &mut Vec<u8>, ping: u32) {
    put_control(out, PING, false, 4);
    out.extend_from_slice(&ping.to_be_bytes());
}

fn put_pair(out: &mut Vec<u8>, kind: u16, first: u32, second: u32) {
    put_control(out, kind, false, 8);
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&second.to_be_bytes());
}

fn put_control(out: &mut Vec<u8>, kind: u16, fin: bool, length: usize) {
    out.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    put_flags_and_length(out, fin, length);
}

fn put_flags_and_length(out: &mut Vec<u8>, fin: bool, length: usize) {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    out.extend_from_slice(&[if fin { FLAG_FIN } else { 0 }, a, b, c]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Control<'_> {
        let head = Head::parse(*bytes.first_chunk().unwrap()).unwrap();
        let Head::Control { kind, flags, length } = head else { panic!("not a control frame") };
        assert_eq!(length, bytes.len() - HEAD_BYTES);
        Control::parse(kind, flags, &bytes[HEAD_BYTES..]).unwrap()
    }

    #[test]
    fn control_frames_round_trip() {
        let mut out = Vec::new();
        put_syn_stream(&mut out, 7, b"block");
        assert_eq!(parse(&out), Control::SynStream { stream: 7, fin: false, block: b"block" });
        out.clear();
        put_window_update(&mut out, 3, 4096);
        assert_eq!(parse(&out), Control::WindowUpdate { stream: 3, delta: 4096 });
        out.clear();
        put_ping(&mut out, 9);
        assert_eq!(out, [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9]);
        assert_eq!(parse(&out), Control::Ping(9));
    }

    #[test]
    fn data_head_is_stream_flags_length() {
        let mut out = Vec::new();
        put_data_head(&mut out, 5, true, 0x01_02_03);
        assert_eq!(out, [0, 0, 0, 5, 1, 1, 2, 3]);
        let head = Head::parse(*out.first_chunk().unwrap()).unwrap();
        assert_eq!(head, Head::Data { stream: 5, fin: true, length: 0x01_02_03 });
    }

    #[test]
    fn settings_give_the_initial_window() {
        let payload = [0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 100, 0, 0, 0, 7, 0, 1, 0, 0];
        assert_eq!(Control::parse(SETTINGS, 0, &payload).unwrap(), Control::InitialWindow(65536));
    }

    #[test]
    fn short_frames_and_other_versions_are_errors() {
        assert!(Control::parse(SYN_STREAM, 0, &[0; 9]).is_err());
        assert!(Control::parse(PING, 0, &[]).is_err());
        assert!(Head::parse([0x80, 2, 0, 1, 0, 0, 0, 0]).is_err());
        assert!(Head::parse([0x80, 3, 0, 1, 0, 1, 0, 1]).is_err());
    }
}
