//! One stored object as reads see it: shared bytes, and a header that is parsed when a selector first asks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use kminik_meta::{Object, StatusError};
use kminik_store::Record;
use serde::Deserialize;

use super::{codec, key};

/// An object at the revision that last wrote it.
#[derive(Debug)]
pub struct Entry {
    pub key: Bytes,
    pub value: Bytes,
    pub revision: u64,
    /// Whether a conversion made it, and not the store.
    converted: bool,
    splice: usize,
    labels: OnceLock<BTreeMap<String, String>>,
    fields: OnceLock<Option<FieldValues>>,
    object: OnceLock<Option<Arc<Object>>>,
}

/// Paths of fields and their values as text.
pub type FieldValues = Box<[(Cow<'static, str>, String)]>;

#[derive(Deserialize)]
struct Labelled {
    #[serde(default)]
    metadata: LabelledMeta,
}

#[derive(Default, Deserialize)]
struct LabelledMeta {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl Entry {
    pub fn new(record: Record) -> Self {
        Self::at(record.key, record.value, record.mod_revision)
    }

    pub fn at(key: Bytes, value: Bytes, revision: u64) -> Self {
        let splice = codec::splice_at(&value).unwrap_or_default();
        Entry {
            key,
            value,
            revision,
            converted: false,
            splice,
            labels: OnceLock::new(),
            fields: OnceLock::new(),
            object: OnceLock::new(),
        }
    }

    /// The object of this entry in another version, in normal form there.
    ///
    /// # Errors
    /// 500 for an object that cannot be written.
    pub fn converted(&self, object: &Object) -> Result<Self, StatusError> {
        Ok(Entry { converted: true, ..Self::at(self.key.clone(), codec::encode(object)?, self.revision) })
    }

    /// The same object as of a later revision (a deletion's).
    pub fn moved_to(&self, revision: u64) -> Self {
        Entry { converted: self.converted, ..Self::at(self.key.clone(), self.value.clone(), revision) }
    }

    /// Whether it is in the normal form of its type, where what was stored up to revision `since` may not be.
    pub fn is_normal(&self, since: u64) -> bool {
        self.converted || since == 0 || self.revision > since
    }

    /// Namespace and name, the namespace empty for cluster-scoped objects.
    pub fn namespace_and_name(&self) -> (&str, &str) {
        let rest = key::split(&self.key).map(|(_, rest)| rest).unwrap_or_default();
        rest.split_once('/').unwrap_or(("", rest))
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        self.labels.get_or_init(|| {
            serde_json::from_slice::<Labelled>(&self.value)
                .ok()
                .and_then(|head| head.metadata.labels)
                .unwrap_or_default()
        })
    }

    /// The fields that selectors may ask for, read by `read` when the first one does and kept.
    ///
    /// # Errors
    /// 500 where the stored bytes are no object.
    pub fn fields(&self, read: impl FnOnce(&Object) -> FieldValues) -> Result<&FieldValues, StatusError> {
        self.fields
            .get_or_init(|| self.decode().ok().map(|object| read(&object)))
            .as_ref()
            .ok_or_else(|| self.damaged())
    }

    /// Decodes the object, with its revision.
    ///
    /// # Errors
    /// 500 where the stored bytes are no object.
    pub fn decode(&self) -> Result<Object, StatusError> {
        codec::decode(&self.value, self.revision).map_err(|_| self.damaged())
    }

    /// The decoded object, kept for as long as the entry: for the few objects that are looked at again and again, never
    /// for whole lists.
    ///
    /// # Errors
    /// 500 where the stored bytes are no object.
    pub fn object(&self) -> Result<Arc<Object>, StatusError> {
        self.object.get_or_init(|| self.decode().ok().map(Arc::new)).clone().ok_or_else(|| self.damaged())
    }

    /// The 500 of stored bytes that are no object.
    pub fn damaged(&self) -> StatusError {
        StatusError::internal(format!("unable to decode {}", String::from_utf8_lossy(&self.key)))
    }

    /// Appends the object as JSON, at its own revision or as of a later one (a deletion's).
    pub fn write_object_at(&self, out: &mut Vec<u8>, revision: u64) {
        codec::write_object(out, &self.value, self.splice, revision);
    }

    /// Appends the member `metadata` of the object and ends the JSON object that it is the last member of.
    ///
    /// # Errors
    /// 500 where the stored bytes are no object.
    pub fn write_metadata_at(&self, out: &mut Vec<u8>, revision: u64) -> Result<(), StatusError> {
        match codec::write_metadata(out, &self.value, self.splice, revision) {
            true => Ok(()),
            false => Err(self.damaged()),
        }
    }

    /// Appends the object as a list's item.
    pub fn write_item(&self, out: &mut Vec<u8>) {
        codec::write_item(out, &self.value, self.splice, self.revision);
    }
}
