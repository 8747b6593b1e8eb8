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

/// The object of a watch event, not yet decoded. An object that stands before its event's type is an error: it would have to be
/// buffered, and no API server writes it so.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Undecoded(Box<RawValue>);

impl Undecoded {
    pub(crate) fn decode<K: DeserializeOwned>(&self) -> Result<K, kube::Error> {
        serde_json::from_str(self.0.get()).map_err(kube::Error::SerdeError)
    }
}
