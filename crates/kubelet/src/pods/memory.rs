//! What a worker knows of its pod beside the API's spec and the runtime's records.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodStatus;
use k8s_openapi::jiff::Timestamp;

use super::backoff::Backoffs;

/// State of a pod's volumes on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Volumes {
    #[default]
    Unmounted,
    /// An operation mounts or unmounts them.
    Changing,
    Mounted,
    Failed {
        message: String,
        retry_at: Timestamp,
    },
}

/// What an operation is doing to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Image, creation, start, postStart hook.
    Starting,
    /// preStop hook, stop signal, grace, kill.
    Stopping,
}

/// A failed start, or a sandbox that could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub reason: String,
    pub message: String,
    /// From then on, what is shown while it waits, e.g. `ImagePullBackOff`.
    pub later: Option<(Timestamp, String, String)>,
    pub retry_at: Timestamp,
}

impl Failure {
    /// Reason and message to show at a time.
    pub(crate) fn shown(&self, now: Timestamp) -> (String, String) {
        match &self.later {
            Some((from, reason, message)) if *from <= now => (reason.clone(), message.clone()),
            _ => (self.reason.clone(), self.message.clone()),
        }
    }
}

/// The pod ends with phase Failed for a reason of the node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub reason: String,
    pub message: String,
}

/// What probes say of one run of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdicts {
    /// `None`: no verdict yet.
    pub started: Option<bool>,
    pub ready: Option<bool>,
    /// The liveness or startup probe wants it killed; the message of the event.
    pub kill: Option<String>,
}

/// All of it. Everything here may be lost in a restart of the kubelet without harm.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// When this kubelet first saw the pod; becomes `status.startTime` unless one was reported before.
    pub first_seen: Option<Timestamp>,
    pub rejected: Option<Rejection>,
    /// The API no longer has the pod.
    pub gone: bool,
    pub volumes: Volumes,
    /// How many operations make, stop or remove sandboxes; none is begun while there is one.
    pub sandbox_operations: usize,
    pub sandbox_failure: Option<Failure>,
    pub operations: BTreeMap<String, Operation>,
    pub failures: BTreeMap<String, Failure>,
    pub crashes: Backoffs,
    /// By container id.
    pub verdicts: BTreeMap<String, Verdicts>,
    /// Termination messages by container id.
    pub messages: BTreeMap<String, String>,
    /// Containers whose postStart hook has not ended, by id.
    pub hooks: std::collections::BTreeSet<String>,
    /// When the pod began to end.
    pub ending_since: Option<Timestamp>,
    /// Everything on the node is gone; only the API's object may still be there.
    pub cleaned: bool,
    /// The status last reported, by this or an earlier kubelet.
    pub reported: PodStatus,
}

impl Memory {
    pub(crate) fn busy(&self) -> bool {
        self.sandbox_operations > 0 || self.volumes == Volumes::Changing || !self.operations.is_empty()
    }
}
