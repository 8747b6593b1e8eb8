//! The store's directory: an OCI image layout, and what is needed beside it.
//!
//! ```text
//! oci-layout                 {"imageLayoutVersion":"1.0.0"}
//! index.json                 one entry a manifest and name
//! blobs/sha256/<hex>         checked content, never changed
//! ingest/<hex>.part          a download that goes on where it stopped
//! ingest/import-*            files of a running import
//! places.json                how each registry and mirror has answered
//! index.lock, use.lock       flock: changes of the index; pulls (shared) against collection (exclusive)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kminik_base::atomic_file;
use oci_client::manifest::OciImageManifest;
use serde::{Deserialize, Serialize};

use crate::{Digest, ImageError};

/// Annotation with the full name of an entry.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation with `registry/repository@digest`, as the registry served it.
pub(crate) const REPO_DIGEST: &str = "io.kminik.image.repo-digest";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Largest manifest, index or configuration that is read.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Largest index.json of the layout.
const MAX_INDEX_BYTES: u64 = 64 * 1024 * 1024;
/// A partial download that nobody has continued for so long is removed.
const STALE_PART: Duration = Duration::from_secs(7 * 24 * 3600);

/// The directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

/// One manifest of index.json; of several entries with one digest each carries another name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    media_type: String,
    pub(crate) digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Entry {
    pub(crate) fn name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }

    pub(crate) fn repo_digest(&self) -> Option<&str> {
        self.annotations.get(REPO_DIGEST).map(String::as_str)
    }

    /// What the registry served under the name: this manifest, or the index that lists it.
    pub(crate) fn served(&self) -> Option<Digest> {
        self.repo_digest()?.rsplit_once('@')?.1.parse().ok()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    schema_version: u8,
    pub(crate) manifests: Vec<Entry>,
}

impl Default for Index {
    fn default() -> Self {
        Index { schema_version: 2, manifests: Vec::new() }
    }
}

impl Index {
    /// Adds a name or a repo digest (or both) to a manifest. A name moves from the manifest that had it; what that
    /// was pulled as keeps its repo digest, and so stays, without a name.
    pub(crate) fn add(&mut self, digest: &Digest, size: u64, name: Option<&str>, repo_digest: Option<&str>) {
        if let Some(name) = name {
            self.drop_name(name);
        }
        let mut annotations = BTreeMap::new();
        if let Some(name) = name {
            annotations.insert(REF_NAME.to_owned(), name.to_owned());
        }
        if let Some(repo_digest) = repo_digest {
            annotations.insert(REPO_DIGEST.to_owned(), repo_digest.to_owned());
        }
        let entry = Entry { media_type: MANIFEST_TYPE.to_owned(), digest: digest.clone(), size, annotations };
        // A nameless entry is only there to keep the manifest; a named one with the same digest says more.
        self.manifests.retain(|old| {
            *old != entry && !(old.digest == *digest && old.name().is_none() && old.repo_digest() == repo_digest)
        });
        self.manifests.push(entry);
    }

    fn drop_name(&mut self, name: &str) {
        for entry in &mut self.manifests {
            if entry.name() == Some(name) {
                entry.annotations.remove(REF_NAME);
            }
        }
        self.manifests.retain(|entry| !entry.annotations.is_empty());
    }

    /// Removes a name; the manifest goes too when nothing names it any more. False if there was none.
    pub(crate) fn remove_name(&mut self, name: &str) -> bool {
        let Some(digest) = self.manifests.iter().find(|entry| entry.name() == Some(name)).map(|e| e.digest.clone())
        else {
            return false;
        };
        self.manifests.retain(|entry| entry.name() != Some(name));
        if !self.manifests.iter().any(|entry| entry.digest == digest && entry.name().is_some()) {
            self.manifests.retain(|entry| entry.digest != digest);
        }
        true
    }
}

/// Held while blobs are in use that the index does not name yet.
pub struct InUse(#[expect(dead_code, reason = "the lock lives as long as the file is open")] File);

/// Held while blobs are removed.
pub(crate) struct Alone(#[expect(dead_code, reason = "the lock lives as long as the file is open")] File);

impl Layout {
    /// The directory, be it there or not; only to be read.
    pub(crate) fn at(root: &Path) -> Layout {
        Layout { root: root.to_path_buf() }
    }

    /// Opens the directory, making what is missing.
    pub(crate) fn open(root: &Path) -> Result<Layout, ImageError> {
        let layout = Layout::at(root);
        for dir in [layout.blobs(), layout.ingest()] {
            fs::create_dir_all(&dir).map_err(ImageError::io("create", &dir))?;
        }
        let marker = root.join("oci-layout");
        if !marker.exists() {
            atomic_file::write(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#, atomic_file::PUBLIC)?;
        }
        // All that is ever opened for writing is there from the beginning, so that it can be given to its owner at once.
        if !root.join("index.json").exists() {
            layout.update(|_| ())?;
        }
        layout.in_use()?;
        Ok(layout)
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn part(&self, digest: &Digest) -> PathBuf {
        self.ingest().join(format!("{}.part", digest.hex()))
    }

    /// The size of a stored blob.
    pub(crate) fn size_of(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.blob(digest)).ok().map(|metadata| metadata.len())
    }

    /// Makes a checked file the blob: it must be on the same file system, with its content synced.
    pub(crate) fn commit(&self, file: &Path, digest: &Digest) -> Result<(), ImageError> {
        let blob = self.blob(digest);
        fs::rename(file, &blob).map_err(ImageError::io("store", &blob))?;
        let dir = self.blobs();
        File::open(&dir).and_then(|dir| dir.sync_all()).map_err(ImageError::io("sync", &dir))
    }

    /// Stores a small blob, also in the place of one that the disk has changed.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let digest = Digest::of(bytes);
        let held = self.size_of(&digest) == Some(bytes.len() as u64);
        if !held || self.read(&digest).ok().is_none_or(|held| held != bytes) {
            atomic_file::write(&self.blob(&digest), bytes, atomic_file::PUBLIC)?;
        }
        Ok(digest)
    }

    /// Reads a manifest or configuration.
    pub(crate) fn read(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.blob(digest);
        let file = File::open(&path).map_err(ImageError::io("open", &path))?;
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT_BYTES).read_to_end(&mut bytes).map_err(ImageError::io("read", &path))?;
        Ok(bytes)
    }

    pub(crate) fn manifest(&self, digest: &Digest) -> Result<OciImageManifest, ImageError> {
        let bytes = self.read(digest)?;
        serde_json::from_slice(&bytes).map_err(|error| ImageError::BadDocument {
            what: "the manifest",
            name: digest.to_string(),
            detail: error.to_string(),
        })
    }

    pub(crate) fn index(&self) -> Result<Index, ImageError> {
        let path = self.root.join("index.json");
        let Some(bytes) = atomic_file::read_optional(&path, MAX_INDEX_BYTES)? else { return Ok(Index::default()) };
        serde_json::from_slice(&bytes).map_err(|error| ImageError::BadDocument {
            what: "the index",
            name: path.display().to_string(),
            detail: error.to_string(),
        })
    }

    /// Changes the index, alone among all processes.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Index) -> T) -> Result<T, ImageError> {
        let _alone = self.lock("index.lock", File::lock)?;
        let mut index = self.index()?;
        let result = change(&mut index);
        let bytes = serde_json::to_vec(&index).unwrap_or_default();
        atomic_file::write(&self.root.join("index.json"), &bytes, atomic_file::PUBLIC)?;
        Ok(result)
    }

    /// Keeps collection away while blobs are brought in.
    pub(crate) fn in_use(&self) -> Result<InUse, ImageError> {
        self.lock("use.lock", File::lock_shared).map(InUse)
    }

    fn lock(&self, name: &str, lock: impl FnOnce(&File) -> std::io::Result<()>) -> Result<File, ImageError> {
        let path = self.root.join(name);
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(&path).map_err(ImageError::io("open", &path))?;
        lock(&file).map_err(ImageError::io("lock", &path))?;
        Ok(file)
    }

    /// As long as nobody brings anything in: `None` while somebody does.
    pub(crate) fn alone(&self) -> Result<Option<Alone>, ImageError> {
        let path = self.root.join("use.lock");
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(&path).map_err(ImageError::io("open", &path))?;
        Ok(file.try_lock().is_ok().then_some(Alone(file)))
    }

    /// The blobs that an entry leads to.
    pub(crate) fn blobs_of(&self, entry: &Entry) -> Result<Vec<Digest>, ImageError> {
        let mut all = vec![entry.digest.clone()];
        // The index that the image was found by.
        all.extend(entry.served());
        let manifest = self.manifest(&entry.digest)?;
        let named = std::iter::once(&manifest.config).chain(&manifest.layers);
        all.extend(named.filter_map(|named| named.digest.parse().ok()));
        Ok(all)
    }

    /// Removes blobs that no entry leads to, and partial downloads nobody went on with; returns the bytes freed. While
    /// a pull or import runs nothing is removed.
    pub(crate) fn collect(&self) -> Result<u64, ImageError> {
        match self.alone()? {
            Some(alone) => self.collect_alone(&alone),
            None => Ok(0),
        }
    }

    pub(crate) fn collect_alone(&self, _: &Alone) -> Result<u64, ImageError> {
        let mut keep = BTreeSet::new();
        for entry in self.index()?.manifests {
            keep.extend(self.blobs_of(&entry)?.iter().map(|digest| digest.hex().to_owned()));
        }
        let mut freed = remove_files(&self.blobs(), |name, _| !keep.contains(name))?;
        freed += remove_files(&self.ingest(), |name, modified| {
            let stale = SystemTime::now().duration_since(modified).is_ok_and(|age| age > STALE_PART);
            !name.ends_with(".part") || stale
        })?;
        Ok(freed)
    }
}

fn remove_files(dir: &Path, unwanted: impl Fn(&str, SystemTime) -> bool) -> Result<u64, ImageError> {
    let mut freed = 0;
    for entry in fs::read_dir(dir).map_err(ImageError::io("list", dir))? {
        let entry = entry.map_err(ImageError::io("list", dir))?;
        let metadata = entry.metadata().map_err(ImageError::io("look at", entry.path()))?;
        let name = entry.file_name();
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        if metadata.is_file() && name.to_str().is_none_or(|name| unwanted(name, modified)) {
            fs::remove_file(entry.path()).map_err(ImageError::io("remove", entry.path()))?;
            freed += metadata.len();
        }
    }
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_moves_and_the_old_manifest_keeps_its_repo_digest() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let mut index = Index::default();
        index.add(&a, 1, Some("x:1"), Some("x@a"));
        index.add(&b, 1, Some("x:1"), Some("x@b"));
        let rows: Vec<_> = index.manifests.iter().map(|e| (e.digest.clone(), e.name(), e.repo_digest())).collect();
        assert_eq!(rows, [(a, None, Some("x@a")), (b, Some("x:1"), Some("x@b"))]);
    }

    #[test]
    fn an_image_goes_with_its_last_name() {
        let a = Digest::of(b"a");
        let mut index = Index::default();
        index.add(&a, 1, Some("x:1"), Some("x@a"));
        index.add(&a, 1, Some("x:2"), None);
        assert!(index.remove_name("x:1"));
        assert_eq!(index.manifests.len(), 1);
        assert!(index.remove_name("x:2"));
        assert!(index.manifests.is_empty());
        assert!(!index.remove_name("x:2"));
    }

    #[test]
    fn the_same_pull_twice_is_one_entry() {
        let a = Digest::of(b"a");
        let mut index = Index::default();
        index.add(&a, 1, None, Some("x@a"));
        index.add(&a, 1, Some("x:1"), Some("x@a"));
        index.add(&a, 1, Some("x:1"), Some("x@a"));
        assert_eq!(index.manifests.len(), 1);
    }
}
