//! Sets of field paths, and their `fieldsV1` form.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use crate::schema::{Schema, Shape};

/// One step of a field path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Element {
    /// A member by name: `f:name`.
    Field(String),
    /// An element of a map-like list by its keys, as canonical JSON of an object: `k:{"name":"a"}`.
    Key(String),
    /// An element of a set by its value, as JSON: `v:"a"`.
    Value(String),
    /// An element by position: `i:0`.
    Index(u64),
}

impl Element {
    /// Reads the form of `fieldsV1`; `None` when malformed.
    fn parse(text: &str) -> Option<Self> {
        let canonical = |json: &str| serde_json::from_str::<Value>(json).ok().map(|v| v.to_string());
        match text.split_once(':')? {
            ("f", name) => Some(Self::Field(name.to_owned())),
            ("k", json) => canonical(json).map(Self::Key),
            ("v", json) => canonical(json).map(Self::Value),
            ("i", index) => index.parse().ok().map(Self::Index),
            _ => None,
        }
    }

    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(json) => format!("k:{json}"),
            Self::Value(json) => format!("v:{json}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

impl fmt::Display for Element {
    /// Writes the form of conflict messages: `.name`, `[key="value"]`, `[="value"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(json) => {
                let keys: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "[{}]", pairs.join(","))
            }
            Self::Value(json) => write!(f, "[={json}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A set of field paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    members: BTreeSet<Element>,
    /// Never holds an empty set.
    children: BTreeMap<Element, FieldSet>,
}

impl FieldSet {
    /// Whether there is no path.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// Reads `fieldsV1`; steps that cannot be read are left out.
    pub fn decode(fields: &Value) -> Self {
        let mut set = Self::default();
        for (text, below) in fields.as_object().into_iter().flatten() {
            let Some(element) = Element::parse(text) else { continue };
            let child = Self::decode(below);
            if child.is_empty() || below.get(".").is_some() {
                set.members.insert(element.clone());
            }
            set.insert_child(element, child);
        }
        set
    }

    /// Writes `fieldsV1`.
    pub fn encode(&self) -> Value {
        let mut out = Map::new();
        for element in &self.members {
            out.insert(element.encode(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            let mut below = child.encode();
            if self.members.contains(element) {
                below["."] = Value::Object(Map::new());
            }
            out.insert(element.encode(), below);
        }
        Value::Object(out)
    }

    /// Adds the path itself; the empty path, which is the whole object, is not tracked.
    pub fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    pub(super) fn insert_member(&mut self, element: Element) {
        self.members.insert(element);
    }

    pub(super) fn insert_child(&mut self, element: Element, child: Self) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    /// A set of paths of member names.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(&path.iter().map(|name| Element::Field((*name).to_owned())).collect::<Vec<_>>());
        }
        set
    }

    /// Whether a path of one step is in the set.
    pub fn has(&self, element: &Element) -> bool {
        self.members.contains(element)
    }

    /// The paths below a step.
    pub fn below(&self, element: &Element) -> Option<&Self> {
        self.children.get(element)
    }

    /// All paths of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.members.extend(other.members.iter().cloned());
        for (element, child) in &other.children {
            let slot = out.children.entry(element.clone()).or_default();
            *slot = slot.union(child);
        }
        out
    }

    /// The paths that both have.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut out = Self { members: self.members.intersection(&other.members).cloned().collect(), ..Self::default() };
        for (element, child) in &self.children {
            if let Some(theirs) = other.children.get(element) {
                out.insert_child(element.clone(), child.intersection(theirs));
            }
        }
        out
    }

    /// The paths that the other does not have.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut out = Self { members: self.members.difference(&other.members).cloned().collect(), ..Self::default() };
        for (element, child) in &self.children {
            let rest = match other.children.get(element) {
                Some(theirs) => child.difference(theirs),
                None => child.clone(),
            };
            out.insert_child(element.clone(), rest);
        }
        out
    }

    /// The paths that neither are in the other nor lie below one of its paths.
    #[must_use]
    pub fn without_subtrees(&self, other: &Self) -> Self {
        let mut out = Self { members: self.members.difference(&other.members).cloned().collect(), ..Self::default() };
        for (element, child) in self.children.iter().filter(|(element, _)| !other.members.contains(element)) {
            let rest = match other.children.get(element) {
                Some(theirs) => child.without_subtrees(theirs),
                None => child.clone(),
            };
            out.insert_child(element.clone(), rest);
        }
        out
    }

    /// The paths on the way to one of these, or below it; `*` is any step.
    #[must_use]
    pub fn within(&self, paths: &[&[&str]]) -> Self {
        if paths.iter().any(|path| path.is_empty()) {
            return self.clone();
        }
        let behind = |step: &Element| -> Vec<&[&str]> {
            let named = |name: &str| name == "*" || matches!(step, Element::Field(own) if own == name);
            paths
                .iter()
                .filter_map(|path| path.split_first().filter(|(name, _)| named(name)))
                .map(|(_, rest)| rest)
                .collect()
        };
        let members = self.members.iter().filter(|step| !behind(step).is_empty()).cloned().collect();
        let mut out = Self { members, ..Self::default() };
        for (step, child) in &self.children {
            let rest = behind(step);
            if !rest.is_empty() {
                out.insert_child(step.clone(), child.within(&rest));
            }
        }
        out
    }

    /// Adds each struct member that has paths below it.
    #[must_use]
    pub(super) fn with_named_fields(&self, schema: Option<&Schema>) -> Self {
        let mut out = Self { members: self.members.clone(), ..Self::default() };
        for (element, child) in &self.children {
            let below = match (element, schema.map(|s| &s.shape)) {
                (Element::Field(name), Some(Shape::Struct { .. })) => {
                    let field = schema.and_then(|s| s.field(name));
                    if field.is_some() {
                        out.members.insert(element.clone());
                    }
                    field.map(|f| f.schema())
                }
                (Element::Field(_), Some(Shape::Map { value, .. })) => Some(value.get()),
                (Element::Key(_), Some(Shape::List { item, .. })) => Some(item.get()),
                _ => None,
            };
            out.insert_child(element.clone(), child.with_named_fields(below));
        }
        out
    }

    /// Every path, as conflict messages write it, in order.
    pub fn paths(&self) -> Vec<String> {
        let mut out: Vec<String> = self.members.iter().map(ToString::to_string).collect();
        for (element, child) in &self.children {
            out.extend(child.paths().into_iter().map(|below| format!("{element}{below}")));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_round_trip_and_combine() {
        let json = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}},
                "f:finalizers": {"v:\"x\"": {}}, "f:list": {"i:0": {}}}});
        let set = FieldSet::decode(&json);
        assert_eq!(set.encode(), json);
        assert_eq!(
            set.paths(),
            [
                ".metadata.labels",
                ".metadata.labels.a",
                ".spec.finalizers[=\"x\"]",
                ".spec.list[0]",
                ".spec.ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.ports[containerPort=80,protocol=\"TCP\"].name"
            ]
        );
        let labels = FieldSet::of_fields(&[&["metadata", "labels"]]);
        assert_eq!(set.difference(&labels).paths()[0], ".metadata.labels.a");
        assert_eq!(set.without_subtrees(&labels).paths()[0], ".spec.finalizers[=\"x\"]");
        assert_eq!(set.intersection(&labels), labels);
        assert_eq!(set.union(&labels), set);
        assert!(set.difference(&set).is_empty());
    }
}
