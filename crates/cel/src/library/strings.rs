//! The extension of strings, version 2 of upstream's.

use super::conversions::double;
use super::{Outcome, int, text};
use crate::CallContext;
use crate::env::Row;
use crate::error::EvalError;
use crate::time;
use crate::value::{List, Map, Value};

pub(super) const ROWS: &[Row] = &[
    ("contains", "contains_string", "string.(string) bool", |_, args| {
        Ok(text(args, 0)?.contains(text(args, 1)?).into())
    }),
    ("startsWith", "starts_with_string", "string.(string) bool", |_, args| {
        Ok(text(args, 0)?.starts_with(text(args, 1)?).into())
    }),
    ("endsWith", "ends_with_string", "string.(string) bool", |_, args| {
        Ok(text(args, 0)?.ends_with(text(args, 1)?).into())
    }),
    ("charAt", "string_char_at_int", "string.(int) string", char_at),
    ("indexOf", "string_index_of_string", "string.(string) int", |_, args| index_of(args, false)),
    ("indexOf", "string_index_of_string_int", "string.(string, int) int", |_, args| index_of(args, false)),
    ("lastIndexOf", "string_last_index_of_string", "string.(string) int", |_, args| index_of(args, true)),
    ("lastIndexOf", "string_last_index_of_string_int", "string.(string, int) int", |_, args| index_of(args, true)),
    ("join", "list_join", "list(string).() string", join),
    ("join", "list_join_string", "list(string).(string) string", join),
    ("lowerAscii", "string_lower_ascii", "string.() string", |_, args| {
        Ok(Value::text(text(args, 0)?.to_ascii_lowercase()))
    }),
    ("upperAscii", "string_upper_ascii", "string.() string", |_, args| {
        Ok(Value::text(text(args, 0)?.to_ascii_uppercase()))
    }),
    ("replace", "string_replace_string_string", "string.(string, string) string", replace),
    ("replace", "string_replace_string_string_int", "string.(string, string, int) string", replace),
    ("split", "string_split_string", "string.(string) list(string)", split),
    ("split", "string_split_string_int", "string.(string, int) list(string)", split),
    ("substring", "string_substring_int", "string.(int) string", substring),
    ("substring", "string_substring_int_int", "string.(int, int) string", substring),
    ("trim", "string_trim", "string.() string", |_, args| Ok(Value::text(text(args, 0)?.trim()))),
    ("format", "string_format", "string.(list(dyn)) string", format),
    ("strings.quote", "strings_quote", "(string) string", |_, args| Ok(Value::text(quote(text(args, 0)?)))),
    ("jsonpatch.escapeKey", "string_jsonpatch_escapeKey_string", "(string) string", |_, args| {
        Ok(Value::text(text(args, 0)?.replace('~', "~0").replace('/', "~1")))
    }),
];

/// Characters that one call may make of few.
const MAX_RESULT: usize = 16 << 20;

fn bounded<'a>(text: String) -> Outcome<'a> {
    if text.len() > MAX_RESULT { Err(EvalError::CostLimit) } else { Ok(Value::text(text)) }
}

fn range(index: i64) -> EvalError {
    EvalError::new(format_args!("index out of range: {index}"))
}

fn char_at<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let (s, at) = (text(args, 0)?, int(args, 1)?);
    let index = usize::try_from(at).map_err(|_| range(at))?;
    match s.chars().nth(index) {
        Some(c) => Ok(Value::text(c.to_string())),
        None if index == s.chars().count() => Ok(Value::text("")),
        None => Err(range(at)),
    }
}

/// The first place of a part, or the last, counted in characters; the offset says where to begin.
fn index_of<'a>(args: &[Value<'a>], last: bool) -> Outcome<'a> {
    let (s, part) = (text(args, 0)?, text(args, 1)?);
    let length = s.chars().count();
    let offset = match args.get(2) {
        None => None,
        Some(Value::Int(n)) => {
            Some(usize::try_from(*n).ok().filter(|n| *n < length.max(1) || part.is_empty()).ok_or_else(|| range(*n))?)
        }
        _ => return Err(EvalError::no_such_overload()),
    };
    let byte = |chars: usize| s.char_indices().nth(chars).map_or(s.len(), |(i, _)| i);
    let found = if last {
        let offset = offset.unwrap_or(length);
        // The part may begin at the offset at the latest.
        let end = byte(offset).saturating_add(part.len()).min(s.len());
        let mut end = end;
        while !s.is_char_boundary(end) {
            end -= 1;
        }
        s[..end].rfind(part)
    } else {
        let start = byte(offset.unwrap_or(0));
        s[start..].find(part).map(|i| i + start)
    };
    let index = found.map_or(-1, |i| i64::try_from(s[..i].chars().count()).unwrap_or(i64::MAX));
    Ok(Value::Int(index))
}

fn join<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let separator = args.get(1).and_then(Value::as_str).unwrap_or_default();
    let Some(Value::List(list)) = args.first() else { return Err(EvalError::no_such_overload()) };
    let mut joined = String::new();
    for (i, item) in list.iter().enumerate() {
        if i > 0 {
            joined.push_str(separator);
        }
        joined.push_str(item?.as_str().ok_or_else(EvalError::no_such_overload)?);
        if joined.len() > MAX_RESULT {
            return Err(EvalError::CostLimit);
        }
    }
    Ok(Value::text(joined))
}

fn replace<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let (s, from, to) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let count = match args.get(3) {
        Some(Value::Int(n)) => usize::try_from(*n).ok(),
        _ => None,
    };
    let times = if from.is_empty() { s.chars().count() + 1 } else { s.len() / from.len() };
    if times.min(count.unwrap_or(usize::MAX)).saturating_mul(to.len()) > MAX_RESULT {
        return Err(EvalError::CostLimit);
    }
    bounded(match count {
        Some(count) => s.replacen(from, to, count),
        None => s.replace(from, to),
    })
}

fn split<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let (s, separator) = (text(args, 0)?, text(args, 1)?);
    let count = match args.get(2) {
        Some(Value::Int(n)) => usize::try_from(*n).ok(),
        _ => None,
    };
    let limit = count.unwrap_or(usize::MAX);
    let parts: Vec<Value<'a>> = if limit == 0 {
        Vec::new()
    } else if separator.is_empty() {
        let mut parts = Vec::new();
        let mut rest = s;
        while let Some(c) = rest.chars().next() {
            if parts.len() + 1 == limit {
                break;
            }
            parts.push(Value::text(&rest[..c.len_utf8()]));
            rest = &rest[c.len_utf8()..];
        }
        if !rest.is_empty() {
            parts.push(Value::text(rest));
        }
        parts
    } else {
        s.splitn(limit, separator).map(Value::text).collect()
    };
    Ok(Value::list(parts))
}

fn substring<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let (s, start) = (text(args, 0)?, int(args, 1)?);
    let length = i64::try_from(s.chars().count()).unwrap_or(i64::MAX);
    let end = if args.len() > 2 { int(args, 2)? } else { length };
    if args.len() > 2 && start > end {
        return Err(EvalError::new(format_args!("invalid substring range. start: {start}, end: {end}")));
    }
    for bound in [start, end] {
        if bound < 0 || bound > length {
            return Err(range(bound));
        }
    }
    let (skip, take) = (usize::try_from(start).unwrap_or_default(), usize::try_from(end - start).unwrap_or_default());
    Ok(Value::text(s.chars().skip(skip).take(take).collect::<String>()))
}

/// Text in quotes, with what cannot stand in them escaped.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn format<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let template = text(args, 0)?;
    let Some(Value::List(values)) = args.get(1) else { return Err(EvalError::no_such_overload()) };
    let mut out = String::new();
    let mut next = 0;
    let mut rest = template.chars().peekable();
    while let Some(c) = rest.next() {
        if out.len() > MAX_RESULT {
            return Err(EvalError::CostLimit);
        }
        if c != '%' {
            out.push(c);
            continue;
        }
        if rest.peek() == Some(&'%') {
            rest.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if rest.peek() == Some(&'.') {
            rest.next();
            let mut digits = String::new();
            while let Some(d) = rest.next_if(char::is_ascii_digit) {
                digits.push(d);
            }
            precision = Some(digits.parse::<usize>().ok().filter(|p| *p <= 1000).ok_or_else(|| {
                EvalError::new("could not parse formatting clause: error while converting precision to integer")
            })?);
        }
        let Some(verb) = rest.next() else {
            return Err(EvalError::new("could not parse formatting clause: unexpected end of string"));
        };
        let value = values.get(next).ok_or_else(|| EvalError::new(format_args!("index {next} out of range")))??;
        next += 1;
        out.push_str(&clause(verb, precision, &value)?);
    }
    bounded(out)
}

fn clause(verb: char, precision: Option<usize>, value: &Value<'_>) -> Result<String, EvalError> {
    let name = || value.runtime_type().runtime_name();
    let wrong = |what: &str| {
        EvalError::new(format_args!(
            "error during formatting: {what} clause can only be used on {}, was given {}",
            kinds(verb),
            name()
        ))
    };
    let number = match value {
        Value::Int(n) => Some(*n as f64),
        Value::Uint(n) => Some(*n as f64),
        Value::Double(d) => Some(*d),
        _ => None,
    };
    Ok(match verb {
        's' => show(value, false),
        'd' => match value {
            Value::Int(n) => n.to_string(),
            Value::Uint(n) => n.to_string(),
            _ => return Err(wrong("decimal")),
        },
        'f' => fixed(number.ok_or_else(|| wrong("fixed-point"))?, precision.unwrap_or(6)),
        'e' => scientific(number.ok_or_else(|| wrong("scientific"))?, precision.unwrap_or(6)),
        'b' => match value {
            Value::Int(n) if *n < 0 => format!("-{:b}", n.unsigned_abs()),
            Value::Int(n) => format!("{n:b}"),
            Value::Uint(n) => format!("{n:b}"),
            Value::Bool(b) => u8::from(*b).to_string(),
            _ => return Err(wrong("binary")),
        },
        'o' => match value {
            Value::Int(n) if *n < 0 => format!("-{:o}", n.unsigned_abs()),
            Value::Int(n) => format!("{n:o}"),
            Value::Uint(n) => format!("{n:o}"),
            _ => return Err(wrong("octal")),
        },
        'x' | 'X' => {
            let bytes = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
            let hex = match value {
                Value::Int(n) if *n < 0 => format!("-{:x}", n.unsigned_abs()),
                Value::Int(n) => format!("{n:x}"),
                Value::Uint(n) => format!("{n:x}"),
                Value::String(s) => bytes(s.as_str().as_bytes()),
                Value::Bytes(b) => bytes(b),
                _ => return Err(wrong("hex")),
            };
            if verb == 'X' { hex.to_uppercase() } else { hex }
        }
        other => {
            return Err(EvalError::new(format_args!(
                "could not parse formatting clause: unrecognized formatting clause \"{other}\""
            )));
        }
    })
}

fn special(number: f64) -> Option<String> {
    match number {
        n if n.is_nan() => Some("NaN".into()),
        n if n.is_infinite() => Some(if n > 0.0 { "∞".into() } else { "-∞".into() }),
        _ => None,
    }
}

/// As Go's printer of American English writes a number: in groups of three digits.
fn fixed(number: f64, precision: usize) -> String {
    if let Some(special) = special(number) {
        return special;
    }
    let text = format!("{number:.precision$}");
    let (sign, digits) = text.strip_prefix('-').map_or(("", &*text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, ""), |(w, _)| (w, &digits[w.len()..]));
    let mut grouped = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(c);
    }
    format!("{sign}{grouped}{fraction}")
}

/// As the same printer writes a number with an exponent: `1.5×10⁰³`.
fn scientific(number: f64, precision: usize) -> String {
    if let Some(special) = special(number) {
        return special;
    }
    let text = format!("{number:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(("", exponent), |digits| ("⁻", digits));
    let raised: String = format!("{digits:0>2}")
        .bytes()
        .filter_map(|d| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(usize::from(d.wrapping_sub(b'0'))))
        .collect();
    format!("{mantissa}×10{sign}{raised}")
}

fn kinds(verb: char) -> &'static str {
    match verb {
        'd' => "integers",
        'f' | 'e' => "numbers",
        'b' => "integers and bools",
        'o' => "integers",
        _ => "integers, byte buffers, and strings",
    }
}

/// How `%s` writes a value; strings inside of lists and maps are quoted.
fn show(value: &Value<'_>, quoted: bool) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(d) => double(*d),
        Value::String(s) if quoted => quote(s.as_str()),
        Value::String(s) => s.as_str().to_owned(),
        Value::Bytes(b) => String::from_utf8_lossy(b).into_owned(),
        Value::Timestamp(n) => time::format_timestamp(*n),
        Value::Duration(n) => time::format_duration(*n),
        Value::List(list) => show_list(list),
        Value::Map(map) => show_map(map),
        Value::Type(t) => t.runtime_name(),
        Value::Optional(None) => "optional.none()".into(),
        Value::Optional(Some(inner)) => show(inner, quoted),
        Value::Opaque(opaque) => opaque.type_name().into(),
    }
}

fn show_list(list: &List<'_>) -> String {
    let items: Vec<String> = list.iter().flatten().map(|item| show(&item, true)).collect();
    format!("[{}]", items.join(", "))
}

fn show_map(map: &Map<'_>) -> String {
    let mut entries: Vec<String> = map
        .keys()
        .iter()
        .filter_map(|key| {
            let value = map.get(key)?.ok()?;
            Some(format!("{}:{}", show(&key.value(), true), show(&value, true)))
        })
        .collect();
    entries.sort();
    format!("{{{}}}", entries.join(", "))
}
