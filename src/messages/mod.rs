//! What users read, in their language: English is what the code says, `zh.toml` has it in Chinese.
//!
//! As with gettext the English text is the key, with its placeholders as the code writes them, so a call says nothing but its
//! message. A message is found again by its key's text around the values: `cannot read {}` is `cannot read /x`. What is not in the
//! table, such as what other programs say, stays as it is; so do data on stdout and the events of `-o json`, which scripts read.
//!
//! **Invariant:** every message that goes through the printer or a failure is in the table, and nothing else is (tests.rs).

pub mod help;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::env;

/// English key → Chinese.
const CHINESE: &str = include_str!("zh.toml");
/// A message in a message in a message: a failure within a warning.
const DEPTH: u8 = 3;

/// In which messages are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    English,
    Chinese,
}

impl Language {
    /// As the locale of the environment has it: the first that is set of `LC_ALL`, `LC_MESSAGES` and `LANG`. Only UTF-8 is written.
    pub fn of_environment() -> Self {
        let locale = env::LOCALE.iter().find_map(|name| env::get(name));
        locale.map_or(Self::English, |locale| Self::of(&locale))
    }

    /// Of `zh_CN.UTF-8` and the like.
    fn of(locale: &str) -> Self {
        let locale = locale.to_ascii_lowercase();
        let (name, charset) = locale.split_once('.').unwrap_or((&locale, "utf-8"));
        let charset = charset.split('@').next().unwrap_or(charset);
        let is_chinese = name.split(['_', '-', '@']).next() == Some("zh");
        if is_chinese && matches!(charset, "utf-8" | "utf8") { Self::Chinese } else { Self::English }
    }

    /// The message in this language; as it is where there is none.
    pub fn say(self, message: &str) -> String {
        match self {
            Self::English => message.to_owned(),
            Self::Chinese => {
                translate(table(), message, DEPTH).map_or_else(|| message.to_owned(), |(_, translated)| translated)
            }
        }
    }
}

impl Language {
    /// A form with these values in it, each of which may be a message: whatever they say they stay what they are.
    pub fn compose(self, form: &str, values: &[&str]) -> String {
        let form = parts(form);
        let row = || table().iter().find(|row| row.key == form).map(|row| &row.text);
        let text = match self {
            Self::English => &form,
            Self::Chinese => row().unwrap_or(&form),
        };
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(name) => name
                .parse::<usize>()
                .ok()
                .and_then(|number| values.get(number))
                .map_or_else(String::new, |v| self.say(v)),
        };
        text.iter().map(part).collect()
    }
}

/// A row, ready to be compared.
struct Row {
    key: Vec<Part>,
    text: Vec<Part>,
    /// Bytes of text around the values: of several rows that fit the one that says most is meant.
    weight: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// By name; those without one are numbered from 0.
    Value(String),
}

fn table() -> &'static [Row] {
    static TABLE: OnceLock<Vec<Row>> = OnceLock::new();
    TABLE.get_or_init(|| rows_of(&toml::from_str(CHINESE).unwrap_or_default()))
}

/// Those that say most first.
fn rows_of(rows: &BTreeMap<String, String>) -> Vec<Row> {
    let row = |(key, text): (&String, &String)| {
        let key = parts(key);
        let weight = key.iter().map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum();
        Row { key, text: parts(text), weight }
    };
    let mut rows: Vec<Row> = rows.iter().map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.weight));
    rows
}

/// A format string, taken apart. Of a placeholder what is behind the colon is how the code writes the value, not which it is.
fn parts(format: &str) -> Vec<Part> {
    let (mut parts, mut text, mut next, mut rest) = (Vec::new(), String::new(), 0, format);
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            text.push_str(&rest[..1]);
            rest = &rest[2..];
            continue;
        }
        let Some(end) = rest.find('}').filter(|end| *end > 0) else { break };
        let name = rest[1..end].split(':').next().unwrap_or_default();
        let name = if name.is_empty() {
            next += 1;
            (next - 1).to_string()
        } else {
            name.to_owned()
        };
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(Part::Value(name));
        rest = &rest[end + 1..];
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    parts
}

/// The values of a message that has this form.
fn values<'a>(key: &'a [Part], message: &'a str) -> Option<BTreeMap<&'a str, &'a str>> {
    match key {
        [] => message.is_empty().then(BTreeMap::new),
        [Part::Text(text), rest @ ..] => values(rest, message.strip_prefix(text.as_str())?),
        [Part::Value(name)] => Some(BTreeMap::from([(name.as_str(), message)])),
        [Part::Value(name), rest @ ..] => {
            let ends: Vec<usize> = match rest.first() {
                Some(Part::Text(text)) => message.match_indices(text.as_str()).map(|(at, _)| at).collect(),
                _ => message.char_indices().map(|(at, _)| at).collect(),
            };
            ends.into_iter().find_map(|end| {
                let mut found = values(rest, &message[end..])?;
                // One that stands twice has one value.
                let value = *found.entry(name.as_str()).or_insert(&message[..end]);
                (value == &message[..end]).then_some(found)
            })
        }
    }
}

/// The translation, and how much of the message its row says.
fn translate(table: &[Row], message: &str, depth: u8) -> Option<(usize, String)> {
    let below = depth.checked_sub(1)?;
    let within = |message: &str| {
        translate(table, message, below).map_or_else(|| message.to_owned(), |(_, translated)| translated)
    };
    let whole = table.iter().find_map(|row| Some((row, values(&row.key, message)?))).map(|(row, values)| {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(name) => values.get(name.as_str()).map(|value| within(value)).unwrap_or_default(),
        };
        (row.weight, row.text.iter().map(part).collect())
    });
    // A failure's cause stands behind what failed, and is often another program's.
    let caused = message.match_indices(": ").find_map(|(at, colon)| {
        let (weight, what) = translate(table, &message[..at], below)?;
        Some((weight, format!("{what}：{}", within(&message[at + colon.len()..]))))
    });
    match (whole, caused) {
        (Some(whole), Some(caused)) if caused.0 > whole.0 => Some(caused),
        (None, caused) => caused,
        (whole, _) => whole,
    }
}
