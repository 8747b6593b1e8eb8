//! What the records on disk say of containers, without a runtime.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::record::{ContainerRecord, SandboxRecord, load};

/// A container: its sandbox' labels, its control group.
pub(crate) struct Recorded {
    pub labels: BTreeMap<String, String>,
    pub group: PathBuf,
}

/// Every container that has a record, running or not.
pub(crate) fn recorded(state_dir: &Path, pods_cgroup: &Path) -> Vec<Recorded> {
    let sandboxes: BTreeMap<String, SandboxRecord> =
        all(&state_dir.join("sandboxes"), "").map(|record: SandboxRecord| (record.config.id.clone(), record)).collect();
    all(&state_dir.join("containers"), "record.json")
        .filter_map(|container: ContainerRecord| {
            let sandbox = &sandboxes.get(&container.sandbox)?.config;
            let group = super::group_of(pods_cgroup, sandbox).join(&container.config.id);
            Some(Recorded { labels: sandbox.labels.clone(), group })
        })
        .collect()
}

/// The records of a directory: each of its files, or the one of that name in each of its directories.
fn all<T: DeserializeOwned>(directory: &Path, name: &'static str) -> impl Iterator<Item = T> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(move |entry| if name.is_empty() { entry.path() } else { entry.path().join(name) })
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter_map(|path| load(&path))
}
