//! Source text to tokens.

use std::sync::Arc;

use crate::ast::Literal;
use crate::error::Issue;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// An operator, bracket or `in`.
    Punct(&'static str),
    Ident(Arc<str>),
    Literal(Literal),
    /// A number without its sign, which the parser may put before it: the text, and whether it is unsigned or a double.
    Number(NumberKind),
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberKind {
    Int,
    Uint,
    Double,
}

/// A token with its place.
#[derive(Clone, Debug)]
pub(crate) struct Spanned {
    pub(crate) token: Token,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Longest first where one begins another.
const PUNCTUATION: &[&str] = &[
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];

/// Splits the source; characters that begin no token are issues and left out.
pub(crate) fn tokens(chars: &[char], issues: &mut Vec<Issue>) -> Vec<Spanned> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let next = |n: usize| chars.get(at + n).copied().unwrap_or('\0');
        if c.is_ascii_whitespace() || c == '\u{b}' {
            at += 1;
            continue;
        }
        if c == '/' && next(1) == '/' {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
            continue;
        }
        let start = at;
        let token = if c.is_ascii_digit() || (c == '.' && next(1).is_ascii_digit()) {
            number(chars, &mut at)
        } else if let Some(prefix) = string_prefix(&chars[at..]) {
            match string(chars, &mut at, prefix) {
                Ok(token) => token,
                Err(message) => {
                    issues.push(Issue { offset: start, message });
                    at = at.max(start + 1);
                    continue;
                }
            }
        } else if c.is_ascii_alphabetic() || c == '_' {
            while at < chars.len() && (chars[at].is_ascii_alphanumeric() || chars[at] == '_') {
                at += 1;
            }
            match chars[start..at].iter().collect::<String>().as_str() {
                "in" => Token::Punct("in"),
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                name => Token::Ident(name.into()),
            }
        } else if let Some(p) = PUNCTUATION.iter().find(|p| p.chars().enumerate().all(|(i, c)| next(i) == c)) {
            at += p.len();
            Token::Punct(p)
        } else {
            issues.push(Issue {
                offset: at,
                message: format!("Syntax error: token recognition error at: '{}'", escape(c)),
            });
            at += 1;
            continue;
        };
        found.push(Spanned { token, start, end: at });
    }
    found.push(Spanned { token: Token::End, start: chars.len(), end: chars.len() });
    found
}

fn escape(c: char) -> String {
    match c {
        '\n' => "\\n".into(),
        '\r' => "\\r".into(),
        '\t' => "\\t".into(),
        c => c.into(),
    }
}

fn number(chars: &[char], at: &mut usize) -> Token {
    let get = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let digits = |mut i: usize| {
        while get(i).is_ascii_digit() {
            i += 1;
        }
        i
    };
    let mut kind = NumberKind::Int;
    if get(*at) == '0' && get(*at + 1) == 'x' && get(*at + 2).is_ascii_hexdigit() {
        *at += 2;
        while get(*at).is_ascii_hexdigit() {
            *at += 1;
        }
    } else {
        *at = digits(*at);
        if get(*at) == '.' && get(*at + 1).is_ascii_digit() {
            kind = NumberKind::Double;
            *at = digits(*at + 1);
        }
        if matches!(get(*at), 'e' | 'E') {
            let sign = usize::from(matches!(get(*at + 1), '+' | '-'));
            if get(*at + 1 + sign).is_ascii_digit() {
                kind = NumberKind::Double;
                *at = digits(*at + 1 + sign);
            }
        }
    }
    if kind == NumberKind::Int && matches!(get(*at), 'u' | 'U') {
        *at += 1;
        kind = NumberKind::Uint;
    }
    Token::Number(kind)
}

/// The value of a number's text, its sign included.
pub(crate) fn number_value(text: &str, kind: NumberKind) -> Result<Literal, &'static str> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (hex, radix) = digits.strip_prefix("0x").map_or((digits, 10), |hex| (hex, 16));
    match kind {
        NumberKind::Double => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Literal::Double(value)),
            _ => Err("invalid double literal"),
        },
        NumberKind::Uint => u64::from_str_radix(hex.trim_end_matches(['u', 'U']), radix)
            .map(Literal::Uint)
            .map_err(|_| "invalid uint literal"),
        NumberKind::Int => {
            let signed = if negative { format!("-{hex}") } else { hex.to_owned() };
            i64::from_str_radix(&signed, radix).map(Literal::Int).map_err(|_| "invalid int literal")
        }
    }
}

struct Prefix {
    raw: bool,
    bytes: bool,
    len: usize,
}

fn string_prefix(chars: &[char]) -> Option<Prefix> {
    let mut prefix = Prefix { raw: false, bytes: false, len: 0 };
    for c in chars.iter().take(3) {
        match c {
            'r' | 'R' if !prefix.raw => prefix.raw = true,
            'b' | 'B' if !prefix.bytes && !prefix.raw => prefix.bytes = true,
            '"' | '\'' => return Some(prefix),
            _ => return None,
        }
        prefix.len += 1;
    }
    None
}

fn string(chars: &[char], at: &mut usize, prefix: Prefix) -> Result<Token, String> {
    let start = *at;
    let open = start + prefix.len;
    let quote = chars[open];
    let triple = chars[open..].starts_with(&[quote; 3]);
    let width = if triple { 3 } else { 1 };
    let mut i = open + width;
    let unclosed = |end: usize| {
        let text: String = chars[start..end.min(chars.len())].iter().map(|c| escape(*c)).collect();
        format!("Syntax error: token recognition error at: '{text}'")
    };
    let mut bytes: Vec<u8> = Vec::new();
    let mut text = String::new();
    loop {
        let Some(&c) = chars.get(i) else {
            *at = chars.len();
            return Err(unclosed(i));
        };
        if c == quote && (!triple || chars[i..].starts_with(&[quote; 3])) {
            i += width;
            break;
        }
        if !triple && matches!(c, '\n' | '\r') {
            *at = i;
            return Err(unclosed(i + 1));
        }
        if c == '\\' && prefix.raw {
            // A raw string keeps the backslash, and the quote after it does not end the string.
            text.push(c);
            i += 1;
            if let Some(&next) = chars.get(i).filter(|n| **n == quote || **n == '\\') {
                text.push(next);
                i += 1;
            }
        } else if c == '\\' {
            let (unit, used) = unescape(&chars[i..], prefix.bytes).ok_or_else(|| {
                *at = i + 2;
                unclosed(i + 2)
            })?;
            i += used;
            match unit {
                Unit::Char(c) => text.push(c),
                Unit::Byte(b) => {
                    bytes.extend(std::mem::take(&mut text).as_bytes());
                    bytes.push(b);
                }
            }
        } else {
            text.push(c);
            i += 1;
        }
    }
    *at = i;
    Ok(Token::Literal(if prefix.bytes {
        bytes.extend(text.as_bytes());
        Literal::Bytes(bytes.into())
    } else {
        Literal::String(text.into())
    }))
}

enum Unit {
    Char(char),
    Byte(u8),
}

/// What an escape stands for, and how many characters it takes.
fn unescape(chars: &[char], bytes: bool) -> Option<(Unit, usize)> {
    let digits = |from: usize, len: usize, radix: u32| {
        let text: String = chars.get(from..from + len)?.iter().collect();
        if !text.chars().all(|c| c.is_digit(radix)) {
            return None;
        }
        u32::from_str_radix(&text, radix).ok()
    };
    let unit = |value: u32, len: usize| {
        if bytes {
            Some((Unit::Byte(u8::try_from(value).ok()?), len))
        } else {
            Some((Unit::Char(char::from_u32(value)?), len))
        }
    };
    let simple = |c: char| Some((Unit::Char(c), 2));
    match *chars.get(1)? {
        'a' => simple('\u{7}'),
        'b' => simple('\u{8}'),
        'f' => simple('\u{c}'),
        'n' => simple('\n'),
        'r' => simple('\r'),
        't' => simple('\t'),
        'v' => simple('\u{b}'),
        c @ ('\\' | '\'' | '"' | '`' | '?') => simple(c),
        'x' | 'X' => unit(digits(2, 2, 16)?, 4),
        'u' if !bytes => Some((Unit::Char(char::from_u32(digits(2, 4, 16)?)?), 6)),
        'U' if !bytes => Some((Unit::Char(char::from_u32(digits(2, 8, 16)?)?), 10)),
        '0'..='3' => unit(digits(1, 3, 8)?, 4),
        _ => None,
    }
}
