//! Named formats.

use kminik_meta::names;

use super::opaque::Opaque;
use super::{Outcome, text};
use crate::CallContext;
use crate::env::Row;
use crate::error::EvalError;
use crate::value::Value;

/// A format that text can be held against.
#[derive(Debug)]
pub struct Format {
    /// Its name.
    pub(crate) name: &'static str,
    /// The length of the regular expression that upstream reckons its cost from.
    pub(crate) regex_size: u64,
    validate: fn(&str) -> Vec<String>,
}

macro_rules! format {
    ($name:literal, $size:literal, $validate:expr) => {{
        static FORMAT: Format = Format { name: $name, regex_size: $size, validate: $validate };
        &FORMAT
    }};
}

/// The name in expressions, and the format.
static FORMATS: [&Format; 13] = [
    format!("dns1123Label", 30, names::dns1123_label),
    format!("dns1123Subdomain", 60, names::dns1123_subdomain),
    format!("dns1035Label", 30, names::dns1035_label),
    format!("qualifiedName", 60, names::qualified_name),
    format!("dns1123LabelPrefix", 30, |s| names::dns1123_label(&unmasked(s))),
    format!("dns1123SubdomainPrefix", 60, |s| names::dns1123_subdomain(&unmasked(s))),
    format!("dns1035LabelPrefix", 30, |s| names::dns1035_label(&unmasked(s))),
    format!("labelValue", 40, names::label_value),
    format!("uri", 2083, |s| super::url::Url::parse(s).err().into_iter().collect()),
    format!("uuid", 58, |s| checked(is_uuid(s), "does not match the UUID format")),
    format!("byte", 64, |s| checked(is_base64(s), "invalid base64")),
    format!("date", 161, |s| checked(crate::time::parse_date(s).is_some(), "invalid date")),
    format!("datetime", 161, |s| checked(crate::time::parse_timestamp(s).is_some(), "invalid datetime")),
];

/// Each format as a function without arguments, the lookup by name, and validation.
pub(super) const ROWS: &[Row] = &[
    ("format.dns1123Label", "format.dns1123Label", "() kubernetes.NamedFormat", |_, _| of("dns1123Label")),
    ("format.dns1123Subdomain", "format.dns1123Subdomain", "() kubernetes.NamedFormat", |_, _| of("dns1123Subdomain")),
    ("format.dns1035Label", "format.dns1035Label", "() kubernetes.NamedFormat", |_, _| of("dns1035Label")),
    ("format.qualifiedName", "format.qualifiedName", "() kubernetes.NamedFormat", |_, _| of("qualifiedName")),
    ("format.dns1123LabelPrefix", "format.dns1123LabelPrefix", "() kubernetes.NamedFormat", |_, _| {
        of("dns1123LabelPrefix")
    }),
    ("format.dns1123SubdomainPrefix", "format.dns1123SubdomainPrefix", "() kubernetes.NamedFormat", |_, _| {
        of("dns1123SubdomainPrefix")
    }),
    ("format.dns1035LabelPrefix", "format.dns1035LabelPrefix", "() kubernetes.NamedFormat", |_, _| {
        of("dns1035LabelPrefix")
    }),
    ("format.labelValue", "format.labelValue", "() kubernetes.NamedFormat", |_, _| of("labelValue")),
    ("format.uri", "format.uri", "() kubernetes.NamedFormat", |_, _| of("uri")),
    ("format.uuid", "format.uuid", "() kubernetes.NamedFormat", |_, _| of("uuid")),
    ("format.byte", "format.byte", "() kubernetes.NamedFormat", |_, _| of("byte")),
    ("format.date", "format.date", "() kubernetes.NamedFormat", |_, _| of("date")),
    ("format.datetime", "format.datetime", "() kubernetes.NamedFormat", |_, _| of("datetime")),
    ("format.named", "format-named", "(string) optional(kubernetes.NamedFormat)", |_, args| {
        Ok(find(text(args, 0)?).map_or(Value::Optional(None), |f| Value::some(Value::Opaque(Opaque::Format(f)))))
    }),
    ("validate", "format-validate", "kubernetes.NamedFormat.(string) optional(list(string))", validate),
];

fn checked(holds: bool, message: &str) -> Vec<String> {
    if holds { Vec::new() } else { vec![message.to_owned()] }
}

/// A prefix may end with a dash, as more follows.
fn unmasked(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format_args!("{rest}a").to_string(),
        _ => prefix.to_owned(),
    }
}

fn is_uuid(s: &str) -> bool {
    let hex: String = s.chars().filter(|c| *c != '-').collect();
    let plain = hex.len() == 32 && hex.chars().all(|c| c.is_ascii_hexdigit());
    plain && (s.len() == 32 || s.char_indices().all(|(i, c)| c != '-' || [8, 13, 18, 23].contains(&i)))
}

fn is_base64(s: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(s).is_ok()
}

fn find(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|f| f.name == name).copied()
}

fn of<'a>(name: &str) -> Outcome<'a> {
    find(name).map(|f| Value::Opaque(Opaque::Format(f))).ok_or_else(EvalError::no_such_overload)
}

fn validate<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let Some(Value::Opaque(Opaque::Format(format))) = args.first() else { return Err(EvalError::no_such_overload()) };
    let problems = (format.validate)(text(args, 1)?);
    if problems.is_empty() {
        return Ok(Value::Optional(None));
    }
    Ok(Value::some(Value::list(problems.into_iter().map(Value::text).collect())))
}
