//! What the runtime has of a pod, found by the labels the kubelet gave it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;
use kminik_runtime::{ContainerState, ContainerStatus, SandboxState, SandboxStatus};

use super::view::{ContainerView, PodView};

/// Labels of sandboxes and containers; the names are the ones CRI runtimes see.
pub(crate) mod label {
    pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
    pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
    pub(crate) const CONTAINER: &str = "io.kubernetes.container.name";
}

/// Annotations: the state a restarted kubelet needs to go on.
pub(crate) mod annotation {
    pub(crate) const HASH: &str = "io.kubernetes.container.hash";
    pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    pub(crate) const TERMINATION_FILE: &str = "io.kubernetes.container.terminationMessageFile";
    pub(crate) const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub(crate) const IMAGE: &str = "io.kubernetes.container.image";
    pub(crate) const IMAGE_ID: &str = "io.kubernetes.container.imageID";
    pub(crate) const STOP_SIGNAL: &str = "io.kubernetes.container.stopSignal";
    pub(crate) const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
    pub(crate) const ATTEMPT: &str = "io.kubernetes.sandbox.attempt";
}

/// A container record of the runtime with what its annotations say.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub status: ContainerStatus,
    pub restart_count: u32,
    pub hash: String,
}

impl Seen {
    pub(crate) fn new(status: ContainerStatus) -> Self {
        let restart_count = status.annotations.get(annotation::RESTART_COUNT).and_then(|n| n.parse().ok()).unwrap_or(0);
        let hash = status.annotations.get(annotation::HASH).cloned().unwrap_or_default();
        Self { status, restart_count, hash }
    }

    pub(crate) fn running(&self) -> bool {
        self.status.state == ContainerState::Running
    }

    pub(crate) fn exited(&self) -> bool {
        self.status.state == ContainerState::Exited
    }

    /// The code it ended with; one whose record is damaged ended as if killed.
    pub(crate) fn exit_code(&self) -> i32 {
        self.status.exit_code.unwrap_or(137)
    }

    pub(crate) fn finished_at(&self) -> Option<Timestamp> {
        self.status.finished_at.map(timestamp)
    }
}

/// All of one pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Newest first.
    pub sandboxes: Vec<SandboxStatus>,
    /// Newest first.
    pub containers: Vec<Seen>,
}

impl Observed {
    /// Picks what belongs to the pod of that UID.
    pub(crate) fn of(uid: &str, sandboxes: Vec<SandboxStatus>, containers: Vec<ContainerStatus>) -> Self {
        let mine = |labels: &BTreeMap<String, String>| labels.get(label::POD_UID).is_some_and(|found| found == uid);
        let mut sandboxes: Vec<_> = sandboxes.into_iter().filter(|s| mine(&s.labels)).collect();
        sandboxes.sort_by_key(|s| std::cmp::Reverse((attempt(s), s.created_at)));
        let mut containers: Vec<_> = containers.into_iter().filter(|c| mine(&c.labels)).map(Seen::new).collect();
        containers.sort_by_key(|c| std::cmp::Reverse((c.restart_count, c.status.created_at)));
        Self { sandboxes, containers }
    }

    pub(crate) fn sandbox(&self) -> Option<&SandboxStatus> {
        self.sandboxes.first()
    }

    /// The newest sandbox, if it can hold containers.
    pub(crate) fn ready_sandbox(&self) -> Option<&SandboxStatus> {
        self.sandbox().filter(|s| s.state == SandboxState::Ready)
    }

    /// The number the next sandbox gets.
    pub(crate) fn next_attempt(&self) -> u32 {
        self.sandbox().map_or(0, |s| attempt(s) + 1)
    }

    /// The newest record of a container.
    pub(crate) fn latest(&self, name: &str) -> Option<&Seen> {
        self.records(name).next()
    }

    /// All records of a container, newest first.
    pub(crate) fn records<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Seen> {
        let name = name.to_string();
        self.containers.iter().filter(move |c| c.status.name == name)
    }

    /// The newest record, if it is in the newest sandbox and that one lives.
    pub(crate) fn current(&self, container: &ContainerView) -> Option<&Seen> {
        let sandbox = self.ready_sandbox()?;
        self.latest(container.name()).filter(|seen| seen.status.sandbox == sandbox.id)
    }

    /// Whether any process of the pod may run.
    pub(crate) fn any_alive(&self) -> bool {
        self.containers.iter().any(|c| matches!(c.status.state, ContainerState::Running | ContainerState::Created))
    }
}

/// The labels that say whose it is.
pub(crate) fn pod_labels(view: &PodView) -> BTreeMap<String, String> {
    BTreeMap::from([
        (label::POD_NAME.to_string(), view.name.clone()),
        (label::POD_NAMESPACE.to_string(), view.namespace.clone()),
        (label::POD_UID.to_string(), view.uid.clone()),
    ])
}

fn attempt(sandbox: &SandboxStatus) -> u32 {
    sandbox.annotations.get(annotation::ATTEMPT).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The API's form of a point in time; one outside its range is the epoch.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}
