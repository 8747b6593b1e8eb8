//! What is known of a node container on disk: written whole and atomically before each effect.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{NodeError, NodeSpec, io_error};
use crate::sys::process::ProcessId;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub spec: NodeSpec,
    /// PID 1, from its creation until it is known to have ended. A creation that was cut short leaves none; its processes are found by
    /// the cgroup.
    pub process: Option<ProcessId>,
}

impl Record {
    /// `None` if there is no record (a directory without one is what a crash left before any effect).
    pub(super) fn load(directory: &Path) -> Result<Option<Record>, NodeError> {
        let path = file(directory);
        let text = match std::fs::read(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            result => result.map_err(io_error("read", &path))?,
        };
        serde_json::from_slice(&text).map(Some).map_err(|source| NodeError::Record { path, source })
    }

    pub(super) fn save(&self) -> Result<(), NodeError> {
        let path = file(&self.spec.state_dir);
        let text =
            serde_json::to_vec_pretty(self).map_err(|source| NodeError::Record { path: path.clone(), source })?;
        crate::state_file::write(&path, &text).map_err(io_error("write", &path))
    }
}

fn file(directory: &Path) -> PathBuf {
    directory.join("node.json")
}
