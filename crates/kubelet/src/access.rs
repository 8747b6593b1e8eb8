//! What the HTTPS server asks for: containers and sandboxes by pod name.

/// A container found for exec, attach or logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerTarget {
    /// The runtime's id.
    pub id: String,
    pub sandbox: String,
    pub name: String,
    /// The container was made with a terminal / an open stdin; attach must match.
    pub tty: bool,
    pub stdin: bool,
    /// Its log file; rotated ones lie beside it.
    pub log_path: std::path::PathBuf,
}

/// A pod's sandbox, for port-forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxTarget {
    pub id: String,
    pub host_network: bool,
}

/// Why a pod or container cannot be reached; `status()` is the HTTP answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AccessError {
    #[error("pod \"{pod}\" in namespace \"{namespace}\" not found on this node")]
    NoPod { namespace: String, pod: String },
    #[error("container {container} is not valid for pod {pod}")]
    NoContainer { pod: String, container: String },
    #[error("a container name must be specified for pod {pod}, choose one of: {choices:?}")]
    ContainerRequired { pod: String, choices: Vec<String> },
    #[error("container \"{container}\" in pod \"{pod}\" is not running")]
    NotRunning { pod: String, container: String },
    #[error("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}")]
    WaitingToStart { pod: String, container: String, reason: String },
    #[error("previous terminated container \"{container}\" in pod \"{pod}\" not found")]
    NoPrevious { pod: String, container: String },
    #[error("runtime: {0}")]
    Runtime(String),
}

impl AccessError {
    /// The HTTP status code of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoPod { .. } => 404,
            Self::NoContainer { .. }
            | Self::ContainerRequired { .. }
            | Self::NotRunning { .. }
            | Self::WaitingToStart { .. }
            | Self::NoPrevious { .. } => 400,
            Self::Runtime(_) => 500,
        }
    }
}
