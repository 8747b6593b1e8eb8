//! JSON set in lines, as people read it: two spaces a level, put in while the bytes pass.

/// Where in a JSON text the bytes so far have ended.
#[derive(Debug, Default)]
pub(crate) struct Pretty {
    depth: usize,
    /// In a string.
    quoted: bool,
    /// Behind the backslash of a string.
    escaped: bool,
    /// Behind the opening bracket of what may be empty.
    opened: bool,
}

impl Pretty {
    /// Appends the next bytes of a JSON text without white space.
    pub(crate) fn push(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let mut rest = text;
        while let Some((byte, behind)) = rest.split_first() {
            if self.quoted {
                rest = self.string(rest, out);
                continue;
            }
            rest = behind;
            let closes = matches!(byte, b'}' | b']');
            if self.opened && !closes {
                self.line(out);
            }
            match byte {
                b'{' | b'[' => {
                    out.push(*byte);
                    self.depth += 1;
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if !self.opened {
                        self.line(out);
                    }
                    out.push(*byte);
                }
                b',' => {
                    out.push(b',');
                    self.line(out);
                }
                b':' => out.extend_from_slice(b": "),
                b'"' => {
                    out.push(b'"');
                    self.quoted = true;
                }
                _ => out.push(*byte),
            }
            self.opened = matches!(byte, b'{' | b'[');
        }
    }

    /// Copies a string's bytes up to its end; gives what follows.
    fn string<'t>(&mut self, text: &'t [u8], out: &mut Vec<u8>) -> &'t [u8] {
        if std::mem::take(&mut self.escaped) {
            let (byte, rest) = text.split_at(1);
            out.extend_from_slice(byte);
            return rest;
        }
        let end = text.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        let (part, rest) = text.split_at(end.map_or(text.len(), |end| end + 1));
        out.extend_from_slice(part);
        match part.last().filter(|_| end.is_some()) {
            Some(b'"') => self.quoted = false,
            Some(_) => self.escaped = true,
            None => {}
        }
        rest
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + 2 * self.depth, b' ');
    }
}

/// A whole JSON text without white space, set in lines.
pub(crate) fn pretty(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 2);
    Pretty::default().push(text, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_those_of_serde() {
        let value = json!({
            "a": {}, "b": [], "c": {"d": [1, -2.5, [], {}, [[]], {"e": null}]}, "f{": "\"}\\", "g": ["\\\"", "", ",:[]{}"],
            "h": true, "i\n": "\u{7f} é 𝄞",
        });
        for value in [value, json!([]), json!({}), json!("x"), json!(1)] {
            let text = value.to_string();
            let wanted = serde_json::to_string_pretty(&value).unwrap();
            assert_eq!(String::from_utf8(pretty(text.as_bytes())).unwrap(), wanted);
            // Wherever the bytes are cut.
            for size in 1..4 {
                let (mut state, mut out) = (Pretty::default(), Vec::new());
                text.as_bytes().chunks(size).for_each(|part| state.push(part, &mut out));
                assert_eq!(String::from_utf8(out).unwrap(), wanted, "{size}");
            }
        }
    }
}
