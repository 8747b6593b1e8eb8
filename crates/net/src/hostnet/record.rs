//! What was done to the host, written before it is done.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kminik_base::{atomic_file, file_lock};
use serde::{Deserialize, Serialize};

use super::HostNetError;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProfileRecord {
    /// Node to its link on the bridge.
    pub(super) nodes: BTreeMap<String, String>,
}

/// The records of all profiles, locked.
pub(super) struct Records {
    dir: PathBuf,
    _lock: File,
}

const LOCK: &str = "lock";
const SYSCTLS: &str = "sysctls";
const LIMIT_BYTES: u64 = 1 << 20;
/// Of the whole wait; a holder that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

impl Records {
    /// Waits for others that hold the lock; they mostly hold it for milliseconds.
    pub(super) async fn lock(dir: &Path) -> Result<Self, HostNetError> {
        let path = dir.join(LOCK);
        let failed = |action| {
            let path = path.clone();
            move |source| HostNetError::Record { path, action, source }
        };
        let since = Instant::now();
        loop {
            std::fs::create_dir_all(dir).map_err(failed("created"))?;
            let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = match open {
                // The holder before us removed the directory between the two calls.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                outcome => outcome.map_err(failed("opened"))?,
            };
            file_lock::acquire(&file, PATIENCE.saturating_sub(since.elapsed()))
                .await
                .map_err(|error| failed("locked")(error.into()))?;
            // The holder before us may have removed the file that we waited for; then another may lock a new one.
            let held = file.metadata().map_err(failed("read"))?.ino();
            if std::fs::metadata(&path).is_ok_and(|metadata| metadata.ino() == held) {
                return Ok(Self { dir: dir.to_owned(), _lock: file });
            }
        }
    }

    /// An empty record if there is none.
    pub(super) fn load(&self, profile: &str) -> Result<ProfileRecord, HostNetError> {
        self.read(&self.profile(profile)).map(Option::unwrap_or_default)
    }

    pub(super) fn save(&self, profile: &str, record: &ProfileRecord) -> Result<(), HostNetError> {
        self.write(&self.profile(profile), record)
    }

    pub(super) fn remove(&self, profile: &str) -> Result<(), HostNetError> {
        remove(&self.profile(profile))
    }

    /// Whether no profile is left.
    pub(super) fn is_empty(&self) -> Result<bool, HostNetError> {
        let failed = |source| HostNetError::Record { path: self.dir.clone(), action: "listed", source };
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if Path::new(&name).extension().is_some_and(|extension| extension == "json") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Keeps the value a sysctl had before anyone here changed it.
    pub(super) fn remember_sysctl(&self, key: &str, value: &str) -> Result<(), HostNetError> {
        let mut values = self.sysctls()?;
        values.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        self.write(&self.dir.join(SYSCTLS), &values)
    }

    pub(super) fn remembered_sysctl(&self, key: &str) -> Result<Option<String>, HostNetError> {
        Ok(self.sysctls()?.remove(key))
    }

    /// Removes what is left when the last profile is gone, the lock last.
    pub(super) fn finish(self) -> Result<(), HostNetError> {
        remove(&self.dir.join(SYSCTLS))?;
        remove(&self.dir.join(LOCK))?;
        // Another call may have begun by now; then the directory is its.
        let _ = std::fs::remove_dir(&self.dir);
        Ok(())
    }

    fn sysctls(&self) -> Result<BTreeMap<String, String>, HostNetError> {
        self.read(&self.dir.join(SYSCTLS)).map(Option::unwrap_or_default)
    }

    fn profile(&self, profile: &str) -> PathBuf {
        self.dir.join(format!("{profile}.json"))
    }

    fn read<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, HostNetError> {
        let bytes = atomic_file::read_optional(path, LIMIT_BYTES)?;
        let Some(bytes) = bytes else { return Ok(None) };
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|source| HostNetError::RecordDamaged { path: path.to_owned(), source })
    }

    fn write<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), HostNetError> {
        let bytes = serde_json::to_vec(value)
            .map_err(|source| HostNetError::RecordDamaged { path: path.to_owned(), source })?;
        Ok(atomic_file::write(path, &bytes, 0o600)?)
    }
}

/// Under the lock, so what a killed writer left is nobody's.
fn remove(path: &Path) -> Result<(), HostNetError> {
    atomic_file::sweep(path)?;
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(HostNetError::Record { path: path.to_owned(), action: "removed", source })
        }
        _ => Ok(()),
    }
}
