//! The unpacked layers: `<directory>/<hex digest>/`, each there whole or not at all.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::unpack::{UnpackError, Whiteouts, unpack};
use crate::{LayerId, LayerSource, RuntimeError};

#[derive(Debug)]
pub(crate) struct Layers {
    directory: PathBuf,
    /// One unpacking of a layer at a time.
    busy: Mutex<HashMap<LayerId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Layers {
    /// Removes what a killed process left half unpacked.
    pub(crate) fn open(directory: PathBuf) -> Result<Layers, RuntimeError> {
        let failed = |source| io_error("prepare the layers in", &directory, source);
        std::fs::create_dir_all(&directory).map_err(failed)?;
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                std::fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(Layers { directory, busy: Mutex::default() })
    }

    /// Where the layer is.
    pub(crate) fn path(&self, id: &LayerId) -> Result<PathBuf, RuntimeError> {
        let path = self.directory.join(hex_digest(id)?);
        if path.exists() { Ok(path) } else { Err(RuntimeError::NoLayer(id.clone())) }
    }

    /// Unpacks it unless it is there.
    pub(crate) async fn ensure(&self, layer: LayerSource) -> Result<(), RuntimeError> {
        let name = hex_digest(&layer.id)?.to_owned();
        let lock = self.busy.lock().entry(layer.id.clone()).or_default().clone();
        let _alone = lock.lock().await;
        let path = self.directory.join(&name);
        if path.exists() {
            return Ok(());
        }
        let directory = self.directory.clone();
        let id = layer.id.clone();
        let work = tokio::task::spawn_blocking(move || unpack_aside(&directory, &name, &layer));
        let result = match work.await {
            Ok(result) => result,
            Err(panic) => Err(RuntimeError::Layer { id: id.clone(), detail: panic.to_string() }),
        };
        self.busy.lock().remove(&id);
        result
    }

    /// Lets an unpacked directory of the caller's, which must not change, serve as the layer. It is never removed by [`Layers::prune`].
    pub(crate) fn adopt(&self, id: &LayerId, directory: &Path) -> Result<(), RuntimeError> {
        let path = self.directory.join(hex_digest(id)?);
        match std::fs::read_link(&path) {
            Ok(target) if target == directory => return Ok(()),
            Ok(_) => std::fs::remove_file(&path).map_err(|source| io_error("replace", &path, source))?,
            // A real directory holds the same bytes.
            Err(_) if path.exists() => return Ok(()),
            Err(_) => {}
        }
        std::os::unix::fs::symlink(directory, &path).map_err(|source| io_error("link", &path, source))
    }

    /// Removes all layers but `keep`; the bytes freed.
    pub(crate) fn prune(&self, keep: &BTreeSet<LayerId>) -> Result<u64, RuntimeError> {
        let failed = |source| io_error("read", &self.directory, source);
        let mut freed = 0;
        for entry in std::fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = LayerId(format!("sha256:{name}"));
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if name.starts_with('.') || !is_directory || keep.contains(&id) {
                continue;
            }
            freed += disk_usage(&entry.path());
            // Out of sight first, so that a crash leaves no half layer.
            let aside = self.directory.join(format!(".old-{name}"));
            std::fs::rename(entry.path(), &aside).map_err(|source| io_error("remove", &entry.path(), source))?;
            std::fs::remove_dir_all(&aside).map_err(|source| io_error("remove", &aside, source))?;
        }
        Ok(freed)
    }
}

/// Unpacks one layer over a plain directory tree that holds the layers below it: whiteouts remove. `digest` is that of the uncompressed bytes.
/// Blocks; a failure leaves a part of the layer.
pub fn unpack_over(root: &Path, blob: &Path, compression: crate::Compression, digest: &str) -> Result<(), UnpackError> {
    std::fs::create_dir_all(root).map_err(|source| UnpackError::Prepare { path: root.to_owned(), source })?;
    unpack(root, blob, compression, digest, Whiteouts::Removals)
}

fn unpack_aside(directory: &Path, name: &str, layer: &LayerSource) -> Result<(), RuntimeError> {
    let failed = |error: UnpackError| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        RuntimeError::Layer { id: layer.id.clone(), detail: format!("{error}{source}") }
    };
    let aside = directory.join(format!(".new-{name}"));
    let target = directory.join(name);
    let prepare = |source| UnpackError::Prepare { path: aside.clone(), source };
    let outcome = std::fs::create_dir_all(&aside)
        .and_then(|()| rustix::fs::chmod(&aside, rustix::fs::Mode::from_raw_mode(0o755)).map_err(io::Error::from))
        .map_err(prepare)
        .and_then(|()| unpack(&aside, &layer.blob, layer.compression, &layer.id.0, Whiteouts::Marks))
        // After a power cut a layer that is there must be whole.
        .and_then(|()| sync_filesystem(&aside).map_err(prepare))
        .and_then(|()| std::fs::rename(&aside, &target).map_err(prepare));
    if outcome.is_err() {
        // What stays is removed at the next start.
        let _ = std::fs::remove_dir_all(&aside);
    }
    outcome.map_err(failed)
}

fn sync_filesystem(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(std::fs::File::open(path)?)?)
}

/// Bytes on disk of a tree, a hard-linked file counted once.
pub(crate) fn disk_usage(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut seen = std::collections::HashSet::new();
    let mut pending = vec![path.to_owned()];
    let mut total = 0;
    while let Some(path) = pending.pop() {
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if meta.nlink() > 1 && !meta.is_dir() && !seen.insert(meta.ino()) {
            continue;
        }
        total += meta.blocks() * 512;
        if meta.is_dir()
            && let Ok(entries) = std::fs::read_dir(&path)
        {
            pending.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    total
}

fn hex_digest(id: &LayerId) -> Result<&str, RuntimeError> {
    let hex = id.0.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    hex.ok_or_else(|| RuntimeError::Layer { id: id.clone(), detail: "not a sha256 digest".to_owned() })
}

fn io_error(step: &str, path: &Path, source: io::Error) -> RuntimeError {
    RuntimeError::Io { what: format!("cannot {step} {}", path.display()), source }
}
