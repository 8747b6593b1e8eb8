//! The CRI log format: `<RFC 3339 time> <stream> <P|F> <text>` a line; `P` parts end without a line break of their own.

use k8s_openapi::jiff::Timestamp;

/// One line of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// As written.
    pub time: &'a [u8],
    pub stderr: bool,
    /// With its line break, unless it is a part.
    pub text: &'a [u8],
}

impl Line<'_> {
    /// When it was written.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        std::str::from_utf8(self.time).ok()?.parse().ok()
    }
}

/// Parses a line with its break; `None` if it is not in the format (a torn first or last line).
pub(crate) fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let (time, rest) = split(line)?;
    let (stream, rest) = split(rest)?;
    let (tag, text) = split(rest)?;
    let stderr = match stream {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    if !line.ends_with(b"\n") || !time.first()?.is_ascii_digit() {
        return None;
    }
    let partial = tag.split(|b| *b == b':').next() == Some(b"P");
    let text = if partial { &text[..text.len().saturating_sub(1)] } else { text };
    Some(Line { time, stderr, text })
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|b| *b == b' ')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}
