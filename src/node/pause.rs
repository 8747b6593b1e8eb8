//! Pausing, seen from within the node: containers of namespaces stand still, and with those of kube-system the API answers nobody
//! outside of the node process but other nodes. What keeps the others going (their logs, their exits, service addresses) is in that process and goes
//! on. Who continues them comes through the driver, never through the API.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kminik_base::atomic_file;
use kminik_runtime::freezer;
use rustix::process::{Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::config::DATA_DIR;
use super::init::PODS_CGROUP;
use super::process;

/// The namespace of the control plane.
pub const SYSTEM: &str = "kube-system";
/// What is paused; gone with the machine's life.
const STATE: &str = "/run/kminik/paused.json";
const LIMIT_BYTES: u64 = 1 << 20;
const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";

/// Which containers are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Selection {
    All,
    Namespaces(BTreeSet<String>),
}

impl Selection {
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Selection::All => true,
            Selection::Namespaces(names) => names.contains(namespace),
        }
    }
}

/// What is paused, and how many containers the last change was about.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// The API answers nobody but nodes.
    pub control_plane: bool,
    /// Containers of these do; all but what was continued since if [`State::all`].
    pub namespaces: BTreeSet<String>,
    pub all: bool,
    pub containers: usize,
}

impl State {
    /// Whether anything is.
    pub fn is_any(&self) -> bool {
        self.control_plane || self.all || !self.namespaces.is_empty()
    }

    /// What is paused in this node or another.
    pub fn and(mut self, other: State) -> State {
        self.namespaces.extend(other.namespaces);
        State {
            control_plane: self.control_plane || other.control_plane,
            namespaces: self.namespaces,
            all: self.all || other.all,
            containers: self.containers + other.containers,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    #[error("cannot change the containers")]
    Runtime(#[from] kminik_runtime::RuntimeError),
    #[error("cannot write what is paused")]
    State(#[from] atomic_file::FileError),
    #[error("cannot find the node process")]
    Find(#[source] std::io::Error),
    #[error("cannot signal the node process")]
    Signal(#[from] rustix::io::Errno),
}

/// What is paused now.
pub fn state() -> State {
    let bytes = atomic_file::read_optional(Path::new(STATE), LIMIT_BYTES).ok().flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Pauses what is selected.
///
/// # Errors
/// If containers do not stand still: what was paused stays so until it is continued.
pub fn pause(selection: &Selection) -> Result<State, PauseError> {
    let mut state = state();
    let control_plane = selection.has(SYSTEM);
    if control_plane {
        state.control_plane = true;
    }
    match selection {
        Selection::All => state.all = true,
        Selection::Namespaces(names) => state.namespaces.extend(names.iter().cloned()),
    }
    save(&state)?;
    tell_node()?;
    state.containers = freezer::freeze(&runtime_dir(), Path::new(PODS_CGROUP), |labels| {
        labels.get(NAMESPACE_LABEL).is_some_and(|namespace| selection.has(namespace))
    })?;
    Ok(state)
}

/// Continues what is selected.
///
/// # Errors
/// As [`pause`].
pub fn unpause(selection: &Selection) -> Result<State, PauseError> {
    let mut state = state();
    state.containers = freezer::thaw(&runtime_dir(), Path::new(PODS_CGROUP), |labels| {
        labels.get(NAMESPACE_LABEL).is_some_and(|namespace| selection.has(namespace))
    })?;
    match selection {
        Selection::All => {
            freezer::thaw_all(Path::new(PODS_CGROUP))?;
            (state.all, state.namespaces) = (false, BTreeSet::new());
        }
        Selection::Namespaces(names) => state.namespaces.retain(|name| !names.contains(name)),
    }
    if selection.has(SYSTEM) {
        state.control_plane = false;
    }
    save(&state)?;
    // Last: who can ask finds everything going.
    tell_node()?;
    Ok(state)
}

fn runtime_dir() -> PathBuf {
    Path::new(DATA_DIR).join("runtime")
}

fn save(state: &State) -> Result<(), PauseError> {
    let bytes = serde_json::to_vec(state).unwrap_or_default();
    Ok(atomic_file::write(Path::new(STATE), &bytes, atomic_file::SECRET)?)
}

/// Whether the API is to answer nobody: as it is now, and whenever that changes. Called in the node process.
pub(super) fn follow() -> std::io::Result<Arc<AtomicBool>> {
    let mut told = signal(SignalKind::user_defined1())?;
    let paused = Arc::new(AtomicBool::new(state().control_plane));
    let kept = paused.clone();
    tokio::spawn(async move {
        while told.recv().await.is_some() {
            kept.store(state().control_plane, Ordering::Relaxed);
        }
    });
    Ok(paused)
}

/// Has the node process read the state; one that is just being started reads it anyway.
fn tell_node() -> Result<(), PauseError> {
    let Some(pid) = process::find().map_err(PauseError::Find)? else { return Ok(()) };
    match kill_process(pid, Signal::USR1) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_nodes_what_is_paused_in_any_is() {
        let on = |control_plane, all, namespaces: &[&str], containers| State {
            control_plane,
            all,
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
            containers,
        };
        let whole = State::default().and(on(true, false, &["a"], 2)).and(on(false, true, &["b"], 3));
        assert!(whole.control_plane && whole.all);
        assert_eq!((whole.namespaces.len(), whole.containers), (2, 5));
        assert!(!State::default().and(State::default()).is_any());
    }
}
