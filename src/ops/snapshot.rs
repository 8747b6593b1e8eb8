//! Snapshots of the node's own store: taken from a running cluster, brought back by the start after `restore`.
//!
//! A restore only lays the file ready, in the profile; `start` hands it to the machine it makes, whatever its driver, and
//! the node replaces its store with it before it opens it.

use std::fs::File;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use kminik_base::atomic_file::SECRET;
use kminik_store::{SnapshotInfo, inspect};
use tokio::io::AsyncWriteExt;

use super::client;
use crate::drivers::{self, MachineState, NodeFile};
use crate::home::Home;
use crate::node::config::RESTORE_FILE;
use crate::profile::{Lock, Profile};
use crate::reason::{
    Failure, GUEST_DATASTORE_MISMATCH, GUEST_RUNNING, GUEST_SNAPSHOT, HOST_PATH_MISSING, K8S_NOT_RESPONDING,
    MK_BAD_SNAPSHOT, OrFail, Outcome,
};

/// Saves all objects as of one moment. The file appears only when it is complete, readable by its owner only.
///
/// # Errors
/// `GUEST_NOT_RUNNING`, or what broke the transfer.
pub async fn save(home: &Home, name: &str, file: &Path) -> Outcome<SnapshotInfo> {
    let profile = own_store(Profile::load(home, name)?)?;
    drivers::of_running(home, profile.control_plane()).await?;
    let url = format!("{}/kminik/snapshot", profile.api_url());
    let response = client::https(home, &profile)?.get(url).send().await;
    let response = response.or_fail(&K8S_NOT_RESPONDING, "the cluster does not answer")?;
    if !response.status().is_success() {
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        return Err(Failure::new(&GUEST_SNAPSHOT, format!("the cluster gives no snapshot: {status}: {}", text.trim())));
    }
    let cannot = format!("cannot write {}", file.display());
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A temporary file is its owner's alone.
    let draft = tempfile::Builder::new()
        .prefix(".kminik-snapshot-")
        .tempfile_in(directory)
        .or_fail(&HOST_PATH_MISSING, &cannot)?;
    let mut out = tokio::fs::File::from_std(draft.reopen().or_fail(&HOST_PATH_MISSING, &cannot)?);
    let mut body = response.bytes_stream();
    while let Some(piece) = body.next().await {
        let piece = piece.or_fail(&K8S_NOT_RESPONDING, "the snapshot broke off")?;
        out.write_all(&piece).await.or_fail(&HOST_PATH_MISSING, &cannot)?;
    }
    out.sync_all().await.or_fail(&HOST_PATH_MISSING, &cannot)?;
    let info = info(draft.path())?;
    draft.persist(file).map_err(|error| error.error).or_fail(&HOST_PATH_MISSING, &cannot)?;
    home.give(file)?;
    Ok(info)
}

/// Checks a snapshot from beginning to end.
///
/// # Errors
/// `MK_BAD_SNAPSHOT`, saying what is wrong with it.
pub fn info(file: &Path) -> Outcome<SnapshotInfo> {
    let opened =
        File::open(file).or_fail(&HOST_PATH_MISSING, format_args!("cannot read the snapshot {}", file.display()))?;
    inspect(opened).or_fail(&MK_BAD_SNAPSHOT, format_args!("{} is no snapshot to use", file.display()))
}

/// Lays a snapshot ready for the next start of a cluster that is stopped, or not made yet.
///
/// # Errors
/// `MK_BAD_SNAPSHOT`, or `GUEST_RUNNING`.
pub async fn restore(home: &Home, name: &str, file: &Path) -> Outcome<SnapshotInfo> {
    let _lock = Lock::acquire(home, name).await?;
    if let Some(profile) = Profile::load_optional(home, name)? {
        let profile = own_store(profile)?;
        if drivers::of(home, &profile)?.state(profile.control_plane()).await? == MachineState::Running {
            return Err(Failure::new(&GUEST_RUNNING, format!("the cluster \"{name}\" is running"))
                .advise(format!("Stop it first: kminik stop -p {name}")));
        }
    }
    let bytes =
        std::fs::read(file).or_fail(&HOST_PATH_MISSING, format_args!("cannot read the snapshot {}", file.display()))?;
    let info = inspect(bytes.as_slice())
        .or_fail(&MK_BAD_SNAPSHOT, format_args!("{} is no snapshot to use", file.display()))?;
    home.write(&waiting_path(home, name), &bytes, SECRET)?;
    Ok(info)
}

fn own_store(profile: Profile) -> Outcome<Profile> {
    if profile.datastore.is_none() {
        return Ok(profile);
    }
    let message = format!("the cluster \"{}\" keeps its objects in etcd", profile.name);
    Err(Failure::new(&GUEST_DATASTORE_MISMATCH, message)
        .advise("Use etcd's own tools: etcdctl snapshot save, etcdctl snapshot restore"))
}

fn waiting_path(home: &Home, name: &str) -> PathBuf {
    home.profile(name).join("restore.snapshot")
}

/// The snapshot that waits for the next start, as the node's file.
pub fn waiting(home: &Home, name: &str) -> Outcome<Option<NodeFile>> {
    match std::fs::read(waiting_path(home, name)) {
        Ok(content) => Ok(Some(NodeFile { path: RESTORE_FILE.into(), content, mode: SECRET })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::because(&GUEST_SNAPSHOT, "cannot read the snapshot to restore", &error)),
    }
}

/// The machine has the snapshot: no later start brings it back once more.
pub fn handed_over(home: &Home, name: &str) -> Outcome<()> {
    match std::fs::remove_file(waiting_path(home, name)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::because(&GUEST_SNAPSHOT, "cannot remove the restored snapshot", &error))
        }
        _ => Ok(()),
    }
}
