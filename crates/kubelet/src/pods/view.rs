//! A pod's spec in the order the kubelet works through it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use sha2::{Digest, Sha256};

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the others, stops after them.
    Sidecar,
    App,
    /// Added to a running pod for debugging; never restarted.
    Ephemeral,
}

/// One container of the spec.
#[derive(Clone, Debug)]
pub(crate) struct ContainerView {
    pub kind: Kind,
    pub spec: Container,
    /// Ephemeral only: the container whose processes it sees.
    pub target: Option<String>,
    /// Of what cannot change without a restart (name and image), as upstream.
    pub hash: String,
}

/// A pod as read from the API, with its containers in order: init and sidecars, app, ephemeral.
#[derive(Clone, Debug)]
pub(crate) struct PodView {
    pub pod: Arc<Pod>,
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub containers: Vec<ContainerView>,
}

/// `restartPolicy` of a pod or container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            Some("Always") => Some(Self::Always),
            Some("OnFailure") => Some(Self::OnFailure),
            Some("Never") => Some(Self::Never),
            _ => None,
        }
    }
}

static NO_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

impl PodView {
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let spec = pod.spec.as_ref().unwrap_or(&NO_SPEC);
        let mut containers = Vec::new();
        for container in spec.init_containers.iter().flatten() {
            let sidecar = container.restart_policy.as_deref() == Some("Always");
            containers.push(ContainerView::new(
                if sidecar { Kind::Sidecar } else { Kind::Init },
                container.clone(),
                None,
            ));
        }
        for container in &spec.containers {
            containers.push(ContainerView::new(Kind::App, container.clone(), None));
        }
        for ephemeral in spec.ephemeral_containers.iter().flatten() {
            let target = ephemeral.target_container_name.clone().filter(|name| !name.is_empty());
            containers.push(ContainerView::new(Kind::Ephemeral, as_container(ephemeral), target));
        }
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            containers,
            pod,
        }
    }

    pub(crate) fn spec(&self) -> &PodSpec {
        self.pod.spec.as_ref().unwrap_or(&NO_SPEC)
    }

    pub(crate) fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::parse(self.spec().restart_policy.as_deref()).unwrap_or(RestartPolicy::Always)
    }

    pub(crate) fn container(&self, name: &str) -> Option<&ContainerView> {
        self.containers.iter().find(|c| c.spec.name == name)
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &ContainerView> {
        self.containers.iter().filter(move |c| c.kind == kind)
    }

    /// The API asked for its end.
    pub(crate) fn deleting(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// How long containers may take to stop when the pod ends.
    pub(crate) fn grace(&self) -> Duration {
        let seconds = self
            .pod
            .metadata
            .deletion_grace_period_seconds
            .or(self.spec().termination_grace_period_seconds)
            .unwrap_or(30);
        // A container always gets a moment to end by itself, also when it is deleted by force.
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
    }

    /// `name_namespace(uid)`, as upstream writes pods in messages.
    pub(crate) fn formatted(&self) -> String {
        format!("{}_{}({})", self.name, self.namespace, self.uid)
    }

    pub(crate) fn host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }

    /// Whether a container that ended with this code is started again.
    pub(crate) fn restarts(&self, container: &ContainerView, exit_code: i32) -> bool {
        match container.kind {
            Kind::Sidecar => return true,
            Kind::Ephemeral => return false,
            Kind::Init | Kind::App => {}
        }
        for rule in container.spec.restart_policy_rules.iter().flatten() {
            let Some(codes) = rule.exit_codes.as_ref() else { continue };
            let listed = codes.values.as_ref().is_some_and(|values| values.contains(&exit_code));
            if rule.action == "Restart" && listed == (codes.operator == "In") {
                return true;
            }
        }
        let own = RestartPolicy::parse(container.spec.restart_policy.as_deref());
        match own.unwrap_or(self.restart_policy()) {
            // An init container that succeeded is done whatever the policy.
            RestartPolicy::Always => container.kind == Kind::App || exit_code != 0,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Never => false,
        }
    }
}

impl ContainerView {
    fn new(kind: Kind, spec: Container, target: Option<String>) -> Self {
        let mut digest = Sha256::new();
        digest.update(spec.name.as_bytes());
        digest.update([0]);
        digest.update(spec.image.as_deref().unwrap_or_default().as_bytes());
        let hash = hex::encode(&digest.finalize()[..8]);
        Self { kind, spec, target, hash }
    }

    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    pub(crate) fn image(&self) -> &str {
        self.spec.image.as_deref().unwrap_or_default()
    }
}

fn as_container(from: &EphemeralContainer) -> Container {
    Container {
        name: from.name.clone(),
        image: from.image.clone(),
        image_pull_policy: from.image_pull_policy.clone(),
        command: from.command.clone(),
        args: from.args.clone(),
        working_dir: from.working_dir.clone(),
        env: from.env.clone(),
        env_from: from.env_from.clone(),
        ports: from.ports.clone(),
        security_context: from.security_context.clone(),
        resources: from.resources.clone(),
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        tty: from.tty,
        termination_message_path: from.termination_message_path.clone(),
        termination_message_policy: from.termination_message_policy.clone(),
        volume_mounts: from.volume_mounts.clone(),
        volume_devices: from.volume_devices.clone(),
        ..Container::default()
    }
}
