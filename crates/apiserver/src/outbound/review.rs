//! The envelope of a question put to a webhook, and of its answer: what AdmissionReview and ConversionReview have in common.
//! Texts are upstream's.

use kminik_meta::{GroupVersion, Gvk, StatusError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The versions of reviews; they differ only in how strictly answers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReviewVersion {
    V1,
    V1Beta1,
}

impl ReviewVersion {
    pub(crate) fn parse(version: &str) -> Option<Self> {
        match version {
            "v1" => Some(ReviewVersion::V1),
            "v1beta1" => Some(ReviewVersion::V1Beta1),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            ReviewVersion::V1 => "v1",
            ReviewVersion::V1Beta1 => "v1beta1",
        }
    }
}

/// A kind of review.
pub(crate) struct Review {
    pub(crate) group: &'static str,
    pub(crate) kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<R> {
    kind: &'static str,
    api_version: String,
    request: R,
}

/// What a webhook sent back.
#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase", bound = "R: DeserializeOwned")]
pub(crate) struct Answered<R> {
    api_version: String,
    kind: String,
    pub(crate) response: Option<R>,
}

impl<R> Default for Answered<R> {
    fn default() -> Self {
        Answered { api_version: String::new(), kind: String::new(), response: None }
    }
}

/// Why an answer's envelope cannot be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadEnvelope {
    #[error("couldn't get version/kind; json parse error: {0}")]
    Json(String),
    #[error("expected webhook response of {wanted}, got {found}")]
    Kind { wanted: Box<Gvk>, found: Box<Gvk> },
    #[error("expected response.uid={wanted:?}, got {found:?}")]
    Uid { wanted: String, found: String },
}

impl Review {
    fn gvk(&self, version: ReviewVersion) -> Gvk {
        Gvk::new(self.group, version.name(), self.kind)
    }

    /// The question as bytes.
    ///
    /// # Errors
    /// 500 for an object that cannot be written.
    pub(crate) fn question(&self, version: ReviewVersion, request: impl Serialize) -> Result<Vec<u8>, StatusError> {
        let question = Question { kind: self.kind, api_version: self.gvk(version).api_version(), request };
        serde_json::to_vec(&question).map_err(StatusError::internal)
    }

    /// Whether the answer is a review of the version that was asked.
    ///
    /// # Errors
    /// `Kind`.
    pub(crate) fn check_kind<R>(&self, version: ReviewVersion, answered: &Answered<R>) -> Result<(), BadEnvelope> {
        let wanted = self.gvk(version);
        if answered.kind == self.kind && answered.api_version == wanted.api_version() {
            return Ok(());
        }
        let found = GroupVersion::parse(&answered.api_version).unwrap_or_default().kind(&answered.kind);
        Err(BadEnvelope::Kind { wanted: Box::new(wanted), found: Box::new(found) })
    }
}

impl<R: DeserializeOwned> Answered<R> {
    /// Reads an answer; what is not said is empty.
    ///
    /// # Errors
    /// `Json`.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, BadEnvelope> {
        serde_json::from_slice(bytes).map_err(|error| BadEnvelope::Json(error.to_string()))
    }
}

/// Whether the answer is to the question that was asked.
///
/// # Errors
/// `Uid`.
pub(crate) fn check_uid(wanted: &str, found: &str) -> Result<(), BadEnvelope> {
    if wanted == found {
        return Ok(());
    }
    Err(BadEnvelope::Uid { wanted: wanted.to_owned(), found: found.to_owned() })
}
