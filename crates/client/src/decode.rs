//! The typed form of JSON, always decoded from text.
//!
//! A decoder of a kind is some hundred kB of code for each source it can read from (text, a [`Value`], buffered content), so
//! the program holds one of each kind: the one that lists and answers need anyway.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

/// The typed form of a JSON value.
pub fn typed<K: DeserializeOwned>(value: &Value) -> serde_json::Result<K> {
    serde_json::from_str(&value.to_string())
}

/// One line of a watch.
#[derive(Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub(crate) kind: EventKind,
    object: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum EventKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl Event {
    pub(crate) fn read(line: &str) -> Result<Self, kube::Error> {
        serde_json::from_str(line).map_err(kube::Error::SerdeError)
    }

    /// What the event is about.
    pub(crate) fn object<K: DeserializeOwned>(&self) -> Result<K, kube::Error> {
        serde_json::from_str(self.object.get()).map_err(kube::Error::SerdeError)
    }
}
