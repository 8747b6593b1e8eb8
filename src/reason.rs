//! The catalogue of failures: stable ID, exit code, advice. IDs and codes are minikube's wherever minikube has them
//! (`pkg/minikube/reason`); an exit code's tens digit names the part at fault, its last digit the kind of fault.

use std::fmt;

/// One row: what scripts may match on.
#[derive(Debug, PartialEq, Eq)]
pub struct Reason {
    pub id: &'static str,
    pub exit_code: u8,
    /// What to do; empty where the message says it all.
    pub advice: &'static str,
}

macro_rules! reasons {
    ($($name:ident = $code:literal, $advice:literal;)*) => {
        $(pub const $name: Reason = Reason { id: stringify!($name), exit_code: $code, advice: $advice };)*
        /// Every row.
        #[cfg(test)]
        const ALL: &[&Reason] = &[$(&$name),*];
    };
}

reasons! {
    MK_USAGE = 14, "";
    MK_USAGE_NO_PROFILE = 14, "Run 'kminik start' to make a cluster.";
    MK_INTERRUPTED = 2, "";
    MK_INTERNAL = 10, "This is a fault of kminik: please report it with the output of 'kminik logs'.";
    MK_CONFIG_GET = 14, "'kminik config view' lists what is set.";
    MK_CONFIG_LOAD = 18, "Mend the file, or remove it: then nothing is set.";
    MK_CONFIG_SET = 10, "'kminik config defaults' lists what can be set.";
    MK_BAD_PROFILE_NAME = 14, "Use letters, digits and inner dashes or dots, two characters or more.";
    MK_PROFILE_BUSY = 11, "Another kminik command works on this cluster: wait until it has ended.";
    MK_PROFILE_BROKEN = 18, "Run 'kminik delete' for this profile, then 'kminik start'.";
    MK_PROFILE_NEWER = 18, "Use the newer kminik, or delete the cluster with it and start again; --force tries all the same.";
    MK_BAD_DATASTORE = 14, "Name each member of the etcd cluster as http://HOST:PORT or https://HOST:PORT, and its certificates with --datastore-cafile, --datastore-certfile and --datastore-keyfile.";
    MK_BAD_CLUSTER_FILE = 14, "docs/CLUSTER_FILE.md says what such a file may have.";
    MK_BAD_EXTRA_CONFIG = 14, "";
    MK_ADDON_ENABLE = 10, "Run 'kminik addons list' to see how it is, and 'kminik logs' to see what the node says.";
    MK_ADDON_DISABLE = 10, "Run 'kminik addons disable' again once the cluster works.";
    MK_ADDON_BROKEN = 18, "Mend the addon's folder in ~/.kminik/addons: docs/ADDONS.md says what has to be in it.";
    MK_BAD_SNAPSHOT = 14, "Name a file that 'kminik snapshot save' has written; 'kminik snapshot info FILE' checks one.";
    RSRC_INSUFFICIENT_CORES = 29, "Ask for fewer cpus with --cpus.";
    RSRC_INSUFFICIENT_REQ_MEMORY = 23, "Ask for more memory with --memory.";
    RSRC_INSUFFICIENT_SYS_MEMORY = 23, "Ask for less memory with --memory.";
    RSRC_INSUFFICIENT_STORAGE = 26, "Free space on the disk that holds the kminik home directory, or set KMINIK_HOME to another.";
    RSRC_INOTIFY = 27, "Run: sysctl -w fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288";
    HOST_HOME_PERMISSION = 37, "Make the directory yours: sudo chown -R $USER ~/.kminik && chmod -R u+wrx ~/.kminik   or set KMINIK_HOME to another";
    HOST_KUBECONFIG_UPDATE = 38, "Set KUBECONFIG to a file that can be written, or mend the one named.";
    HOST_KERNEL_FEATURE = 36, "";
    HOST_FIREWALL = 37, "";
    HOST_SAVE_PROFILE = 38, "";
    HOST_PURGE = 30, "";
    HOST_CLOCK = 38, "Set the clock, or delete the cluster and start it again.";
    HOST_KUBECTL = 35, "";
    HOST_PATH_MISSING = 35, "";
    HOST_AUTOSTART = 30, "";
    HOST_PORT_IN_USE = 31, "Find the process with 'ss -ltnp' and stop it, or choose another port.";
    DRV_NOT_FOUND = 55, "Run 'kminik start --help' for the drivers there are.";
    DRV_NOT_DETECTED = 55, "Install and start Docker, or run kminik as root for the native driver.";
    DRV_NOT_HEALTHY = 55, "";
    DRV_ENGINE_ADDRESS = 58, "'docker context ls' lists contexts. DOCKER_HOST is an address such as unix:///var/run/docker.sock, tcp://HOST:2376 or ssh://USER@HOST.";
    DRV_NEEDS_ROOT = 57, "Run it with sudo: home and kubeconfig stay yours.";
    DRV_CREATE = 50, "";
    PROVIDER_DOCKER_NOT_FOUND = 65, "Install Docker (https://docs.docker.com/engine/install), name an engine with DOCKER_HOST or a docker context, or use --driver=native as root.";
    PROVIDER_DOCKER_NOT_RUNNING = 63, "Start the Docker engine, or use --driver=native as root.";
    PROVIDER_DOCKER_NEWGRP = 67, "Add yourself to the docker group: sudo usermod -aG docker $USER && newgrp docker";
    PROVIDER_DOCKER_WINDOWS_CONTAINERS = 66, "Switch the engine to Linux containers.";
    PROVIDER_DOCKER_VERSION_LOW = 66, "Upgrade the engine to Docker 20.10 or Podman 4, or newer.";
    GUEST_DRIVER_MISMATCH = 81, "";
    GUEST_DATASTORE_MISMATCH = 81, "";
    GUEST_RUNNING = 84, "Stop the cluster first: kminik stop";
    GUEST_SNAPSHOT = 80, "";
    GUEST_START = 80, "Run 'kminik logs' to see what the node says.";
    GUEST_STOP_TIMEOUT = 82, "";
    GUEST_DELETION = 80, "";
    GUEST_NOT_FOUND = 85, "To start a cluster, run: \"kminik start\"";
    GUEST_NODE_ADD = 80, "";
    GUEST_NODE_NOT_FOUND = 85, "'kminik status' shows the nodes there are.";
    GUEST_NOT_RUNNING = 83, "To start a cluster, run: \"kminik start\"";
    GUEST_DATA_LOST = 85, "Begin anew with 'kminik delete' and 'kminik start', or 'kminik start --force' for an empty cluster of the same name; 'kminik snapshot' keeps objects elsewhere.";
    GUEST_EXEC = 80, "";
    GUEST_EXEC_TIMEOUT = 82, "The node may have no time or be stuck: see 'kminik status' and 'kminik logs'; 'kminik stop' and 'kminik start' begin it anew.";
    GUEST_EXEC_OUTPUT = 80, "Ask for less of it: fewer lines with --length, or one part with --component.";
    GUEST_CP = 80, "";
    GUEST_MOUNT = 80, "";
    GUEST_PAUSE = 80, "Run 'kminik unpause -A' to let everything go on.";
    GUEST_IMAGE_LIST = 80, "";
    GUEST_IMAGE_LOAD = 80, "";
    GUEST_IMAGE_PULL = 80, "";
    GUEST_IMAGE_PUSH = 80, "";
    GUEST_IMAGE_REMOVE = 80, "";
    GUEST_IMAGE_SAVE = 80, "";
    GUEST_IMAGE_TAG = 80, "";
    GUEST_CACHE_LOAD = 80, "";
    GUEST_ARCHITECTURE = 86, "Choose an image for this machine's architecture.";
    IF_SUBNET = 78, "Remove a route that is not needed, or choose a subnet that is free.";
    IF_NETWORK = 70, "";
    INET_PULL = 40, "Check the network, name a mirror with --registry-mirror or --image-mirror-country=cn, or load the image from a file.";
    INET_REPO = 40, "Countries with a list of mirrors: cn, global.";
    INET_BAD_MIRROR = 48, "A mirror is an http or https URL, optionally with a path, optionally for one registry: docker.io=https://mirror.example/dockerhub";
    INET_CACHE = 40, "";
    INET_ADDON = 40, "Check the network, or name a mirror of its host: kminik mirror add raw.githubusercontent.com=https://mirror.example/{registry}/{repository}";
    INET_KUBECTL = 40, "Install kubectl and put it on PATH, or name mirrors that are near with 'kminik start --image-mirror-country=cn'.";
    INET_MIRRORS = 40, "'kminik mirror test' shows what each place answers.";
    INET_BAD_CA = 48, "Give a file with certificates in PEM form.";
    INET_CREDENTIALS = 48, "Mend the file, or log in anew with 'docker login'.";
    SVC_LIST = 110, "";
    SVC_NOT_FOUND = 115, "";
    SVC_UNREACHABLE = 115, "";
    SVC_NO_NODE_PORT = 116, "Give it one: kubectl patch service NAME -p '{\"spec\":{\"type\":\"NodePort\"}}'. Or forward a port: kubectl port-forward service/NAME PORT";
    K8S_VERSION_UNAVAILABLE = 106, "";
    K8S_START = 100, "Run 'kminik logs' to see what the node says.";
    K8S_NOT_RESPONDING = 103, "Run 'kminik status' and 'kminik logs'.";
    K8S_TIMEOUT = 102, "Run 'kminik logs' to see what the node says, or allow more with --wait-timeout.";
}

/// A failure on its way to the user.
#[derive(Debug)]
pub struct Failure {
    pub reason: &'static Reason,
    /// What failed and why, one sentence.
    pub message: String,
    /// Advice for this very case; replaces the row's.
    pub advice: Option<String>,
}

/// What operations return.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub fn new(reason: &'static Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), advice: None }
    }

    /// A failure caused by an error: `what: error: its sources`.
    pub fn because(reason: &'static Reason, what: impl fmt::Display, error: &dyn std::error::Error) -> Self {
        Self::new(reason, format!("{what}: {}", kminik_base::component::chain(error)))
    }

    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    pub fn advice(&self) -> &str {
        self.advice.as_deref().unwrap_or(self.reason.advice)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Turns any error into a failure for one reason.
pub trait OrFail<T> {
    /// `what` is what was being done: `cannot read the profile`.
    fn or_fail(self, reason: &'static Reason, what: impl fmt::Display) -> Outcome<T>;
}

impl<T, E: std::error::Error> OrFail<T> for Result<T, E> {
    fn or_fail(self, reason: &'static Reason, what: impl fmt::Display) -> Outcome<T> {
        self.map_err(|error| Failure::because(reason, what, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_codes_leave_the_bits_of_status_alone() {
        let mut ids: Vec<_> = ALL.iter().map(|r| r.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ALL.len());
        for reason in ALL {
            assert!(!(3..=7).contains(&reason.exit_code) && reason.exit_code > 1, "{}", reason.id);
        }
    }
}
