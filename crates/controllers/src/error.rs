//! Why a reconciliation failed; it is retried with back-off.

use kminik_client::{ObjectKey, Unsettled};

/// One failed step of a reconciliation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused a request or did not answer.
    #[error("cannot {verb} {kind} {key}")]
    Request {
        verb: &'static str,
        kind: String,
        key: ObjectKey,
        #[source]
        source: Box<kube::Error>,
    },
    /// An object could not be turned into JSON.
    #[error("cannot encode {kind} {key}")]
    Encode {
        kind: String,
        key: ObjectKey,
        #[source]
        source: serde_json::Error,
    },
    /// The API does not say which resources it serves.
    #[error("cannot discover the resources")]
    Discovery {
        #[source]
        source: Box<kube::Error>,
    },
    /// The API takes too long to say which resources it serves.
    #[error("the resources were not discovered within {within:?}")]
    DiscoveryTime { within: std::time::Duration },
    /// The server of a group's version does not answer: what it has is not known.
    #[error("the server of {version} does not answer")]
    Unanswered { version: String },
    /// The caches lag behind the controller's own writes.
    #[error(transparent)]
    Unsettled(#[from] Unsettled),
    /// The shared informers were stopped.
    #[error("the informers were stopped")]
    InformersStopped,
    /// An object's label selector cannot be read.
    #[error("the selector of {kind} {key} is invalid")]
    Selector { kind: String, key: ObjectKey },
    /// The size of what controls a pod is not known.
    #[error("found no controllers for pod {pod:?}")]
    NoScale { pod: String },
    /// No address range is left for a node.
    #[error("no pod network is left for node {node}")]
    NoPodNetwork { node: String },
    /// Some of several writes failed; the first failure.
    #[error("{failed} of {attempted} requests failed")]
    Several {
        failed: usize,
        attempted: usize,
        #[source]
        first: Box<Error>,
    },
}

impl Error {
    /// The API's answer, if that is what failed.
    pub fn request(&self) -> Option<&kube::Error> {
        match self {
            Error::Request { source, .. } => Some(source),
            Error::Several { first, .. } => first.request(),
            _ => None,
        }
    }

    /// The request failed because the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.request().is_some_and(kminik_client::is_not_found)
    }

    /// The create failed because the object exists.
    pub fn is_already_exists(&self) -> bool {
        self.request().is_some_and(kminik_client::is_already_exists)
    }

    /// The create failed because the namespace is being deleted: nothing to retry.
    pub fn is_terminating(&self) -> bool {
        self.request().is_some_and(kminik_client::is_terminating)
    }
}
