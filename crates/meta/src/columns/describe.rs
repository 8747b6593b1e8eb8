//! Parts of cells that several kinds share.

use serde_json::Value;

use crate::labels::LabelSelector;
use crate::{Object, time};

pub(super) const NONE: &str = "<none>";
pub(super) const UNSET: &str = "<unset>";
/// Elements of a list that are written out before `+ n more...`.
const MAX_LISTED: usize = 3;

/// The string at a path, or a stand-in when it is absent or empty.
pub(super) fn or<'a>(object: &'a Object, path: &[&str], absent: &'a str) -> &'a str {
    object.str(path).filter(|text| !text.is_empty()).unwrap_or(absent)
}

/// The integer at a path, 0 when absent.
pub(super) fn count(object: &Object, path: &[&str]) -> i64 {
    object.i64(path).unwrap_or_default()
}

/// A member's string, empty when absent.
pub(super) fn member<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Texts joined, or a stand-in for none.
pub(super) fn join_or<S: AsRef<str>>(texts: &[S], separator: &str, absent: &str) -> String {
    if texts.is_empty() {
        return absent.to_owned();
    }
    texts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(separator)
}

/// The first few texts and how many more there are, or a stand-in for none.
pub(super) fn few<S: AsRef<str>>(texts: &[S], absent: &str) -> String {
    match texts.split_at_checked(MAX_LISTED) {
        Some((listed, more)) if !more.is_empty() => {
            format!("{} + {} more...", join_or(listed, ",", absent), more.len())
        }
        _ => join_or(texts, ",", absent),
    }
}

/// Members of a JSON object as `key=value,…`.
pub(super) fn labels(map: Option<&Value>) -> String {
    let pairs: Vec<String> = map
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    join_or(&pairs, ",", NONE)
}

/// A label selector in its string form.
pub(super) fn selector(value: Option<&Value>) -> String {
    match LabelSelector::from_value(value) {
        Ok(selector) if selector.requirements().is_empty() => NONE.to_owned(),
        Ok(selector) => selector.to_string(),
        Err(_) => "<error>".to_owned(),
    }
}

/// One member of each container of a template, joined: `name` or `image`.
pub(super) fn of_containers(object: &Object, template: &[&str], what: &str) -> Value {
    let path: Vec<&str> = template.iter().copied().chain(["spec", "containers"]).collect();
    let texts: Vec<&str> = object.array(&path).iter().map(|c| member(c, what)).collect();
    texts.join(",").into()
}

/// The boolean at a path, told apart from an absent one.
pub(super) fn flag_at(object: &Object, path: &[&str]) -> Value {
    match object.bool(path) {
        None => UNSET,
        Some(true) => "true",
        Some(false) => "false",
    }
    .into()
}

/// The time at a path.
pub(super) fn time_at(object: &Object, path: &[&str]) -> Option<jiff::Timestamp> {
    object.str(path).and_then(time::parse)
}

/// The status of a condition by its type.
pub(super) fn condition<'a>(object: &'a Object, kind: &str) -> Option<&'a Value> {
    object.array(&["status", "conditions"]).iter().find(|c| member(c, "type") == kind)
}

/// Whether a condition is `True`.
pub(super) fn holds(object: &Object, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| member(c, "status") == "True")
}
