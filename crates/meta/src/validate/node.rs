//! A place in an object: its value and the path that errors name it by.

use serde_json::{Map, Value};

use crate::field::Path;
use crate::{Object, Quantity};

static ABSENT: Value = Value::Null;

/// A value with its path; an absent one is null.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    /// Null for the object itself, whose members are in `root`.
    pub(crate) value: &'a Value,
    pub(crate) path: Path,
    root: Option<&'a Map<String, Value>>,
}

impl<'a> Node<'a> {
    /// The object itself; its path is empty.
    pub(crate) fn root(object: &'a Object) -> Self {
        Self { value: &ABSENT, path: Path::root(), root: Some(object.map()) }
    }

    pub(crate) fn new(value: &'a Value, path: Path) -> Self {
        Self { value, path, root: None }
    }

    /// The members of an object; `None` for other values.
    pub(crate) fn members(&self) -> Option<&'a Map<String, Value>> {
        self.root.or_else(|| self.value.as_object())
    }

    pub(crate) fn is_root(&self) -> bool {
        self.root.is_some()
    }

    pub(crate) fn child(&self, name: &str) -> Node<'a> {
        let value = self.members().and_then(|members| members.get(name));
        Node::new(value.unwrap_or(&ABSENT), self.path.child(name))
    }

    pub(crate) fn at(&self, names: &[&str]) -> Node<'a> {
        names.iter().fold(self.clone(), |node, name| node.child(name))
    }

    /// The same value under another path.
    pub(crate) fn renamed(mut self, path: &Path) -> Self {
        self.path = path.clone();
        self
    }

    /// The elements of a list; none when it is absent.
    pub(crate) fn items(&self) -> impl Iterator<Item = Node<'a>> + '_ {
        let elements = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        elements.iter().enumerate().map(|(i, value)| Node::new(value, self.path.index(i)))
    }

    /// The members of a map with their keys; none when it is absent.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a String, Node<'a>)> + '_ {
        let members = self.value.as_object().into_iter().flatten();
        members.map(|(key, value)| (key, Node::new(value, self.path.key(key))))
    }

    /// Of a pod's specification: all containers, in the order in which upstream visits them.
    pub(crate) fn containers(&self) -> impl Iterator<Item = Node<'a>> {
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        lists.map(|list| self.child(list).items().collect::<Vec<_>>()).into_iter().flatten()
    }

    /// The text, empty when absent.
    pub(crate) fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The amount; `None` when absent or none.
    pub(crate) fn quantity(&self) -> Option<Quantity> {
        Quantity::from_value(self.value)?.ok()
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        self.value.as_i64()
    }

    pub(crate) fn is_true(&self) -> bool {
        self.value.as_bool() == Some(true)
    }

    pub(crate) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Whether there is nothing: absent, or no text, element or member.
    pub(crate) fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(elements) => elements.is_empty(),
            Value::Object(members) => members.is_empty(),
            _ => false,
        }
    }
}
