//! The dynamic object: a JSON tree whose root is always an object, with accessors for its metadata.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::gvk::{GroupVersion, Gvk};
use crate::{path, time};

/// Why bytes or a value are no [`Object`].
#[derive(Debug, Error)]
pub enum ObjectError {
    /// The bytes are not JSON.
    #[error("invalid JSON")]
    Json(#[from] serde_json::Error),
    /// The root of the tree is something else than a JSON object.
    #[error("the root is {found}, not an object")]
    NotAnObject {
        /// JSON type that was found.
        found: &'static str,
    },
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRef {
    /// `apiVersion` of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner; it lives in the same namespace or in none.
    pub name: String,
    /// UID of the owner.
    pub uid: String,
    /// Whether the owner manages the dependent; at most one entry says so.
    pub controller: bool,
    /// Whether a foreground deletion of the owner waits for the dependent.
    pub block_owner_deletion: bool,
}

impl OwnerRef {
    /// Reads an entry; absent members read as empty or false.
    pub fn from_value(value: &Value) -> Self {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or_default();
        Self {
            api_version: text("apiVersion"),
            kind: text("kind"),
            name: text("name"),
            uid: text("uid"),
            controller: flag("controller"),
            block_owner_deletion: flag("blockOwnerDeletion"),
        }
    }

    /// Group and version of the owner, `None` when `apiVersion` is malformed.
    pub fn group_version(&self) -> Option<GroupVersion> {
        GroupVersion::parse(&self.api_version)
    }
}

/// A Kubernetes object of any kind as a JSON tree.
///
/// The root is always a JSON object. Accessors that read never fail: a member that is absent or of another type reads as
/// absent. Accessors that write create the members on their way.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(Self)
    }
}

impl From<Map<String, Value>> for Object {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

impl TryFrom<Value> for Object {
    type Error = ObjectError;

    fn try_from(value: Value) -> Result<Self, ObjectError> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            other => Err(ObjectError::NotAnObject { found: crate::json_type(&other) }),
        }
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(object.0)
    }
}

impl Object {
    /// An object with only `apiVersion` and `kind`.
    pub fn new(gvk: &Gvk) -> Self {
        let mut object = Self::default();
        object.set_gvk(gvk);
        object
    }

    /// Parses JSON without checking it against a schema.
    ///
    /// # Errors
    /// When the bytes are not JSON or the root is not an object.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ObjectError> {
        Self::try_from(serde_json::from_slice::<Value>(bytes)?)
    }

    /// Canonical JSON: members in byte order of their names, no white space.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        // Writing a tree with string keys into memory cannot fail.
        let _ = serde_json::to_writer(&mut out, &self.0);
        out
    }

    /// The root's members.
    pub fn map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The root's members, mutable.
    pub fn map_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.0
    }

    /// The tree as a plain value, by clone.
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// `apiVersion`, empty when absent.
    pub fn api_version(&self) -> &str {
        self.0.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
    }

    /// `kind`, empty when absent.
    pub fn kind(&self) -> &str {
        self.0.get("kind").and_then(Value::as_str).unwrap_or_default()
    }

    /// Group, version and kind; empty parts where `apiVersion` is absent or malformed.
    pub fn gvk(&self) -> Gvk {
        GroupVersion::parse(self.api_version()).unwrap_or_default().kind(self.kind())
    }

    /// Sets `apiVersion` and `kind`.
    pub fn set_gvk(&mut self, gvk: &Gvk) {
        self.0.insert("apiVersion".into(), Value::String(gvk.api_version()));
        self.0.insert("kind".into(), Value::String(gvk.kind.clone()));
    }

    /// The value at a path of member names, such as `&["spec", "replicas"]`.
    pub fn get(&self, path: &[&str]) -> Option<&Value> {
        path::get(&self.0, path)
    }

    /// The value at a path of member names, mutable.
    pub fn get_mut(&mut self, path: &[&str]) -> Option<&mut Value> {
        path::get_mut(&mut self.0, path)
    }

    /// The string at a path; `None` when absent or not a string.
    pub fn str(&self, path: &[&str]) -> Option<&str> {
        self.get(path).and_then(Value::as_str)
    }

    /// The integer at a path; `None` when absent or not an integer.
    pub fn i64(&self, path: &[&str]) -> Option<i64> {
        self.get(path).and_then(Value::as_i64)
    }

    /// The boolean at a path; `None` when absent or not a boolean.
    pub fn bool(&self, path: &[&str]) -> Option<bool> {
        self.get(path).and_then(Value::as_bool)
    }

    /// The elements of the array at a path; empty when absent or not an array.
    pub fn array(&self, path: &[&str]) -> &[Value] {
        self.get(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// Sets the value at a path, creating objects on the way and replacing what is not an object.
    pub fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        path::set(&mut self.0, path, value.into());
    }

    /// Removes and returns the value at a path.
    pub fn remove(&mut self, path: &[&str]) -> Option<Value> {
        path::remove(&mut self.0, path)
    }

    /// The value at an RFC 6901 pointer such as `/spec/containers/0`; the empty pointer names no value here.
    pub fn pointer(&self, pointer: &str) -> Option<&Value> {
        let (key, rest) = path::split_pointer(pointer)?;
        self.0.get(&key)?.pointer(rest)
    }

    /// The value at an RFC 6901 pointer, mutable.
    pub fn pointer_mut(&mut self, pointer: &str) -> Option<&mut Value> {
        let (key, rest) = path::split_pointer(pointer)?;
        self.0.get_mut(&key)?.pointer_mut(rest)
    }

    /// `metadata`, `None` when absent.
    pub fn metadata(&self) -> Option<&Map<String, Value>> {
        self.0.get("metadata").and_then(Value::as_object)
    }

    /// `metadata`, created when absent.
    pub fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        path::object_at(&mut self.0, "metadata")
    }

    /// `metadata.name`, empty when absent.
    pub fn name(&self) -> &str {
        self.meta_str("name")
    }

    /// `metadata.generateName`, empty when absent.
    pub fn generate_name(&self) -> &str {
        self.meta_str("generateName")
    }

    /// `metadata.namespace`, empty when absent.
    pub fn namespace(&self) -> &str {
        self.meta_str("namespace")
    }

    /// `metadata.uid`, empty when absent.
    pub fn uid(&self) -> &str {
        self.meta_str("uid")
    }

    /// `metadata.resourceVersion`, empty when absent.
    pub fn resource_version(&self) -> &str {
        self.meta_str("resourceVersion")
    }

    /// `metadata.generation`, 0 when absent.
    pub fn generation(&self) -> i64 {
        self.metadata().and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or_default()
    }

    /// `metadata.creationTimestamp`.
    pub fn creation_timestamp(&self) -> Option<Timestamp> {
        time::parse(self.meta_str("creationTimestamp"))
    }

    /// `metadata.deletionTimestamp`: set while the object is being deleted.
    pub fn deletion_timestamp(&self) -> Option<Timestamp> {
        time::parse(self.meta_str("deletionTimestamp"))
    }

    /// Whether a deletion has begun.
    pub fn is_deleting(&self) -> bool {
        !self.meta_str("deletionTimestamp").is_empty()
    }

    /// `metadata.deletionGracePeriodSeconds`.
    pub fn deletion_grace_period_seconds(&self) -> Option<i64> {
        self.metadata().and_then(|m| m.get("deletionGracePeriodSeconds")).and_then(Value::as_i64)
    }

    /// One label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata()?.get("labels")?.get(key)?.as_str()
    }

    /// One annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata()?.get("annotations")?.get(key)?.as_str()
    }

    /// All labels whose value is a string, in order of their keys.
    pub fn labels(&self) -> BTreeMap<&str, &str> {
        self.meta_strings("labels")
    }

    /// All annotations whose value is a string, in order of their keys.
    pub fn annotations(&self) -> BTreeMap<&str, &str> {
        self.meta_strings("annotations")
    }

    /// `metadata.finalizers`.
    pub fn finalizers(&self) -> Vec<&str> {
        self.array(&["metadata", "finalizers"]).iter().filter_map(Value::as_str).collect()
    }

    /// `metadata.ownerReferences`.
    pub fn owner_references(&self) -> Vec<OwnerRef> {
        self.array(&["metadata", "ownerReferences"]).iter().map(OwnerRef::from_value).collect()
    }

    /// The owner that manages this object.
    pub fn controller_of(&self) -> Option<OwnerRef> {
        self.owner_references().into_iter().find(|owner| owner.controller)
    }

    /// Sets a string member of `metadata`; an empty value removes it.
    pub fn set_meta(&mut self, key: &str, value: &str) {
        let metadata = self.metadata_mut();
        if value.is_empty() {
            metadata.remove(key);
        } else {
            metadata.insert(key.to_owned(), Value::from(value));
        }
    }

    /// Sets `metadata.name`.
    pub fn set_name(&mut self, name: &str) {
        self.set_meta("name", name);
    }

    /// Sets `metadata.namespace`; empty removes it.
    pub fn set_namespace(&mut self, namespace: &str) {
        self.set_meta("namespace", namespace);
    }

    /// Sets `metadata.resourceVersion`; empty removes it.
    pub fn set_resource_version(&mut self, revision: &str) {
        self.set_meta("resourceVersion", revision);
    }

    /// Sets `metadata.generation`; 0 removes it.
    pub fn set_generation(&mut self, generation: i64) {
        let metadata = self.metadata_mut();
        if generation == 0 {
            metadata.remove("generation");
        } else {
            metadata.insert("generation".into(), Value::from(generation));
        }
    }

    /// Replaces `metadata.finalizers`; an empty list removes the member.
    pub fn set_finalizers<S: AsRef<str>>(&mut self, finalizers: &[S]) {
        let metadata = self.metadata_mut();
        if finalizers.is_empty() {
            metadata.remove("finalizers");
        } else {
            metadata.insert("finalizers".into(), finalizers.iter().map(|f| Value::from(f.as_ref())).collect());
        }
    }

    /// Sets one label.
    pub fn set_label(&mut self, key: &str, value: &str) {
        path::object_at(self.metadata_mut(), "labels").insert(key.to_owned(), Value::from(value));
    }

    /// Sets one annotation.
    pub fn set_annotation(&mut self, key: &str, value: &str) {
        path::object_at(self.metadata_mut(), "annotations").insert(key.to_owned(), Value::from(value));
    }

    fn meta_str(&self, key: &str) -> &str {
        self.metadata().and_then(|m| m.get(key)).and_then(Value::as_str).unwrap_or_default()
    }

    fn meta_strings(&self, key: &str) -> BTreeMap<&str, &str> {
        let Some(map) = self.metadata().and_then(|m| m.get(key)).and_then(Value::as_object) else {
            return BTreeMap::new();
        };
        map.iter().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_reads_and_writes() {
        let mut object = Object::try_from(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"app": "web"}, "generation": 3,
                "deletionTimestamp": "2024-01-02T03:04:05Z",
                "ownerReferences": [{"kind": "X", "name": "x", "uid": "u", "controller": true}]},
        }))
        .unwrap();
        assert_eq!(object.gvk(), Gvk::new("apps", "v1", "Deployment"));
        assert_eq!((object.name(), object.namespace(), object.generation()), ("web", "", 3));
        assert_eq!(object.label("app"), Some("web"));
        assert_eq!(object.controller_of().unwrap().uid, "u");
        assert!(object.deletion_timestamp().is_some() && object.is_deleting());
        object.set_label("tier", "front");
        object.set(&["spec", "replicas"], 2);
        object.set_namespace("default");
        assert_eq!(object.pointer("/spec/replicas"), Some(&json!(2)));
        assert_eq!(object.labels().len(), 2);
        assert_eq!(object.remove(&["spec", "replicas"]), Some(json!(2)));
        assert_eq!(object.i64(&["spec", "replicas"]), None);
    }

    #[test]
    fn the_root_is_an_object() {
        assert!(matches!(Object::from_slice(b"[]"), Err(ObjectError::NotAnObject { found: "array" })));
        assert!(matches!(Object::from_slice(b"{"), Err(ObjectError::Json(_))));
    }
}
