//! Resources whose versions may differ in anything. A request works in its own version, as upstream's do: that is its hub, to
//! which objects come from whatever version they are stored in, and from which they go into the one that is stored now.
//!
//! ```text
//!  row ──────── as stored, for who looks at metadata only
//!   └─ forms ── one a version: bytes ──shown──► decode, admit, validate, select, render ──encode──► bytes
//! ```
//!
//! Rows without forms work in the stored version, and their [`Conversion`](super::def::Conversion)s are functions.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kminik_meta::decode::{self, FieldValidation};
use kminik_meta::schema::Schema;
use kminik_meta::{Object, StatusError, defaults};
use serde_json::Value;

use super::def::{ResourceDef, Storage, Text};
use super::shared::Conversions;
use crate::storage::codec;
use crate::storage::entry::Entry;

/// Stored objects are converted together up to about so many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Brings the objects of one resource from version to version.
#[async_trait]
pub trait Converter: Send + Sync + 'static {
    /// The objects in another version, in their order, without what its schema does not know. One that is in that version
    /// already stays as it is.
    ///
    /// # Errors
    /// 500 where it cannot be done.
    async fn convert(&self, objects: Vec<Object>, api_version: &str) -> Result<Vec<Object>, StatusError>;

    /// The type of objects in a version; `None` for a version that is not known any more.
    fn schema(&self, api_version: &str) -> Option<&Schema>;
}

/// The version that a row works in, and its way to the store.
#[derive(Clone)]
pub struct Hub {
    pub converter: Arc<dyn Converter>,
    api_version: Text,
    stored: Text,
    /// What stored objects of the hub's version begin with.
    head: Bytes,
    pub(super) conversions: Arc<Conversions>,
}

impl Hub {
    /// `api_version` is the hub's, `stored` the one in which objects are written.
    ///
    /// # Errors
    /// 500 for names that are no text: a mistake in the program.
    pub fn new(
        converter: Arc<dyn Converter>,
        kind: &str,
        api_version: Text,
        stored: Text,
    ) -> Result<Self, StatusError> {
        let head = codec::head(Some(&kind.into()), Some(&Value::from(api_version.as_ref())))?.into();
        Ok(Hub { converter, api_version, stored, head, conversions: Arc::default() })
    }

    /// Whether a stored object is in the hub's version already.
    pub(super) fn is_own(&self, entry: &Entry) -> bool {
        entry.value.starts_with(&self.head)
    }

    /// One object in another version; see [`Converter::convert`].
    ///
    /// # Errors
    /// 500 where it cannot be done.
    pub async fn convert_one(&self, object: Object, api_version: &str) -> Result<Object, StatusError> {
        let converted = self.converter.convert(vec![object], api_version).await?.pop();
        converted.ok_or_else(|| StatusError::internal("a conversion gave nothing"))
    }
}

impl ResourceDef {
    /// The row as requests in one of its versions have it.
    pub fn in_version(self: &Arc<Self>, version: &str) -> Arc<ResourceDef> {
        let form = self.forms.iter().find(|(name, _)| name == version);
        form.map_or_else(|| self.clone(), |(_, form)| form.clone())
    }

    /// apiVersion of the objects that the row works with; `None` where there are none.
    pub fn api_version(&self) -> Option<&str> {
        match &self.storage {
            Storage::Stored { api_version, .. } => Some(api_version),
            Storage::Virtual(_) | Storage::Computed(_) => None,
        }
    }

    /// apiVersion in which objects are written; `None` where they are not.
    pub fn stored_api_version(&self) -> Option<&str> {
        self.hub.as_ref().map(|hub| hub.stored.as_ref()).or_else(|| self.api_version())
    }

    /// A stored object in the version that the row works in.
    ///
    /// # Errors
    /// 500 for a conversion that fails.
    pub async fn shown(&self, entry: Arc<Entry>) -> Result<Arc<Entry>, StatusError> {
        let Some(hub) = self.hub.as_ref().filter(|hub| !hub.is_own(&entry)) else { return Ok(entry) };
        let object = hub.convert_one(self.decode(&entry)?, &hub.api_version).await?;
        entry.converted(&object).map(Arc::new)
    }

    /// As [`ResourceDef::shown`] for many, which are converted together.
    ///
    /// # Errors
    /// 500 for a conversion that fails.
    pub async fn shown_all(&self, mut entries: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>, StatusError> {
        let Some(hub) = &self.hub else { return Ok(entries) };
        let mut at = 0;
        while at < entries.len() {
            let (mut places, mut objects, mut size) = (Vec::new(), Vec::new(), 0);
            while size < BATCH_BYTES
                && let Some(entry) = entries.get(at)
            {
                if !hub.is_own(entry) {
                    size += entry.value.len();
                    objects.push(self.decode(entry)?);
                    places.push(at);
                }
                at += 1;
            }
            if objects.is_empty() {
                break;
            }
            let converted = hub.converter.convert(objects, &hub.api_version).await?;
            for (place, object) in places.into_iter().zip(converted) {
                if let Some(entry) = entries.get_mut(place) {
                    *entry = Arc::new(entry.converted(&object)?);
                }
            }
        }
        Ok(entries)
    }

    /// An object of the version that the row works in as the store is to have it.
    ///
    /// # Errors
    /// 500 for a conversion that fails.
    pub async fn encode(&self, object: &Object) -> Result<Bytes, StatusError> {
        match &self.hub {
            Some(hub) if hub.stored != hub.api_version => {
                codec::encode(&hub.convert_one(object.clone(), &hub.stored).await?)
            }
            _ => codec::encode(object),
        }
    }

    /// Brings an object that was written before its type became what it is into the normal form of the version that it is in.
    pub fn normalize(&self, object: &mut Object) {
        let version = self.versions.iter().find(|version| object.gvk().version == version.name);
        let mut normal = object.clone();
        if let Some(version) = version
            && let Ok(_dropped) = decode::conform(&mut normal, &version.schema, FieldValidation::Ignore)
        {
            defaults::apply(&mut normal, &version.schema);
            *object = normal;
        }
    }

    /// What was written up to this revision may not be in normal form.
    pub fn normal_since(&self) -> u64 {
        match &self.storage {
            Storage::Stored { normal_since, .. } => *normal_since,
            Storage::Virtual(_) | Storage::Computed(_) => 0,
        }
    }

    fn decode(&self, entry: &Entry) -> Result<Object, StatusError> {
        let mut object = entry.decode()?;
        if !entry.is_normal(self.normal_since()) {
            self.normalize(&mut object);
        }
        Ok(object)
    }
}
