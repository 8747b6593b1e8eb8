//! What is on disk of a sandbox and a container.

use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::io_error;
use crate::sys::process::ProcessId;
use crate::{ContainerConfig, RuntimeError, SandboxConfig};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub config: SandboxConfig,
    pub created_at: SystemTime,
    pub ips: Vec<IpAddr>,
    pub ready: bool,
    /// The life of PID 1 in which its namespaces are.
    pub instance: String,
    /// Holds the shared pid namespace open.
    pub pause: Option<ProcessId>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub sandbox: String,
    pub config: ContainerConfig,
    pub created_at: SystemTime,
    pub phase: Phase,
    /// The life of PID 1 in which it was made.
    pub instance: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    Created,
    /// Its process is made, or is being made; it may or may not have been let go.
    Starting {
        process: Option<ProcessId>,
    },
    Running {
        process: ProcessId,
        started_at: SystemTime,
    },
    Exited(Ended),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub started_at: Option<SystemTime>,
    pub finished_at: SystemTime,
    pub code: i32,
    pub reason: String,
    pub message: Option<String>,
}

pub(super) fn save(path: &Path, record: &impl Serialize) -> Result<(), RuntimeError> {
    let text = serde_json::to_vec(record).map_err(|error| RuntimeError::Kernel {
        what: format!("record {}", path.display()),
        detail: error.to_string(),
    })?;
    crate::state_file::write(path, &text).map_err(io_error("write", path))
}

/// `None` if it is missing or damaged (a power cut).
pub(super) fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = std::fs::read(path).ok()?;
    serde_json::from_slice(&text)
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "a record is damaged"))
        .ok()
}
