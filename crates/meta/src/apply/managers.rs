//! `metadata.managedFields`: who set which fields.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::set::FieldSet;
use crate::{Object, time};

/// Managers by plain writes that are kept apart; older ones are merged into one bucket.
const MAX_UPDATE_MANAGERS: usize = 10;
const BUCKET: &str = "ancient-changes";

/// What tells managers apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) name: String,
    /// Whether by server-side apply; else by plain writes.
    pub(super) applies: bool,
    /// Empty for those who apply: they are the same in every version.
    pub(super) version: String,
    pub(super) subresource: String,
}

impl Identity {
    pub(super) fn new(name: &str, applies: bool, api_version: &str, subresource: &str) -> Self {
        Self {
            name: if name.is_empty() { "unknown" } else { name }.to_owned(),
            applies,
            version: if applies { String::new() } else { api_version.to_owned() },
            subresource: subresource.to_owned(),
        }
    }
}

impl std::fmt::Display for Identity {
    /// How conflict messages name a manager.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::field::quote(&self.name))?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {}", crate::field::quote(&self.subresource))?;
        }
        if !self.applies {
            write!(f, " using {}", self.version)?;
        }
        Ok(())
    }
}

/// One manager's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Managed {
    pub(super) fields: FieldSet,
    pub(super) api_version: String,
    /// RFC 3339; empty when unknown.
    pub(super) time: String,
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Managers(pub(super) BTreeMap<Identity, Managed>);

impl Managers {
    /// Reads an object's entries; `None` when there are entries that cannot be read.
    pub(super) fn decode(object: &Object) -> Option<Self> {
        let mut out = Self::default();
        for entry in object.array(&["metadata", "managedFields"]) {
            let text = |member: &str| entry.get(member).and_then(Value::as_str).unwrap_or_default();
            let applies = match text("operation") {
                "Apply" => true,
                "Update" => false,
                _ => return None,
            };
            if text("fieldsType") != "FieldsV1" || text("apiVersion").is_empty() {
                return None;
            }
            let identity = Identity::new(text("manager"), applies, text("apiVersion"), text("subresource"));
            let fields = entry.get("fieldsV1").map(FieldSet::decode).unwrap_or_default();
            let managed = Managed { fields, api_version: text("apiVersion").into(), time: text("time").into() };
            out.0.insert(identity, managed);
        }
        Some(out)
    }

    /// Writes the entries into an object; none removes the member.
    pub(super) fn encode(&self, object: &mut Object) {
        let mut entries: Vec<(&Identity, &Managed)> = self.0.iter().filter(|(_, m)| !m.fields.is_empty()).collect();
        entries.sort_by_key(|(i, m)| (!i.applies, &m.time, &i.name, &m.api_version, &i.subresource));
        let entries: Vec<Value> = entries
            .into_iter()
            .map(|(identity, managed)| {
                let mut entry = Map::new();
                let operation = if identity.applies { "Apply" } else { "Update" };
                entry.insert("manager".into(), json!(identity.name));
                entry.insert("operation".into(), json!(operation));
                entry.insert("apiVersion".into(), json!(managed.api_version));
                entry.insert("fieldsType".into(), json!("FieldsV1"));
                entry.insert("fieldsV1".into(), managed.fields.encode());
                if !managed.time.is_empty() {
                    entry.insert("time".into(), json!(managed.time));
                }
                if !identity.subresource.is_empty() {
                    entry.insert("subresource".into(), json!(identity.subresource));
                }
                Value::Object(entry)
            })
            .collect();
        if entries.is_empty() {
            object.remove(&["metadata", "managedFields"]);
        } else {
            object.set(&["metadata", "managedFields"], entries);
        }
    }

    /// All that is owned, by the version that names it.
    pub(super) fn by_version(&self) -> BTreeMap<&str, FieldSet> {
        let mut out: BTreeMap<&str, FieldSet> = BTreeMap::new();
        for managed in self.0.values() {
            let slot = out.entry(&managed.api_version).or_default();
            *slot = slot.union(&managed.fields);
        }
        out
    }

    /// Removes managers without fields.
    pub(super) fn drop_empty(&mut self) {
        self.0.retain(|_, managed| !managed.fields.is_empty());
    }

    pub(super) fn touch(&mut self, identity: &Identity, now: Timestamp) {
        if let Some(managed) = self.0.get_mut(identity) {
            managed.time = time::format(now);
        }
    }

    /// Merges the oldest managers by plain writes of one version until few enough are left.
    pub(super) fn cap(&mut self) {
        let mut writers: Vec<(String, Identity)> =
            self.0.iter().filter(|(i, _)| !i.applies).map(|(i, m)| (m.time.clone(), i.clone())).collect();
        writers.sort();
        let mut left = writers.len();
        let mut first: BTreeMap<String, Identity> = BTreeMap::new();
        for (_, writer) in writers {
            if left <= MAX_UPDATE_MANAGERS {
                return;
            }
            let version = writer.version.clone();
            let Some(earlier) = first.get(&version).cloned() else {
                first.insert(version, writer);
                continue;
            };
            let bucket = Identity::new(BUCKET, false, &version, "");
            if !self.0.contains_key(&bucket)
                && let Some(managed) = self.0.remove(&earlier)
            {
                self.0.insert(bucket.clone(), managed);
            }
            if writer == bucket {
                continue;
            }
            if let Some(managed) = self.0.remove(&writer) {
                let slot = self.0.entry(bucket).or_insert_with(|| managed.clone());
                slot.fields = slot.fields.union(&managed.fields);
                slot.time = managed.time;
                left -= 1;
            }
        }
    }
}
