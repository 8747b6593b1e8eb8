//! The registry's directory.
//!
//! ```text
//! blobs/<hex>                                    bytes, of blobs and manifests, once for all repositories
//! repositories/<name>/_blobs/<hex>               the repository has this blob (empty)
//!                     _manifests/<hex>           … this manifest (its media type)
//!                     _tags/<tag>                the digest of a manifest
//!                     _referrers/<hex>/<hex>     the second is a manifest about the first (empty)
//!                     _uploads/<id>              bytes that have come so far
//! ```
//! The time of a link's last change is the time of its last use; what is not needed is collected some time after it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kminik_base::atomic_file;
use kminik_oci::Digest;

use crate::error::RegistryError;
use crate::manifest::{self, Manifest};
use crate::name::{Reference, Repository};

/// The kinds of links of a repository.
pub(crate) const BLOBS: &str = "_blobs";
pub(crate) const MANIFESTS: &str = "_manifests";
pub(crate) const TAGS: &str = "_tags";
pub(crate) const REFERRERS: &str = "_referrers";
pub(crate) const UPLOADS: &str = "_uploads";
/// Longest content of a link.
const LINK_BYTES: u64 = 1024;

/// A directory with everything that was pushed. All calls are short; those that write wait for the disk.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    root: PathBuf,
}

/// A manifest that is stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

impl Storage {
    /// # Errors
    /// If the directory cannot be made.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root.join("blobs"))?;
        fs::create_dir_all(root.join("repositories"))?;
        Ok(Self { root: root.to_owned() })
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn repository(&self, repository: &Repository) -> PathBuf {
        self.root.join("repositories").join(repository.as_str())
    }

    fn link(&self, repository: &Repository, kind: &str, name: &str) -> PathBuf {
        self.repository(repository).join(kind).join(name)
    }

    /// All repositories that have anything, sorted.
    pub(crate) fn repositories(&self) -> io::Result<Vec<Repository>> {
        let top = self.root.join("repositories");
        let mut found = Vec::new();
        let mut pending = vec![top.clone()];
        while let Some(dir) = pending.pop() {
            let mut is_one = false;
            for entry in list(&dir)? {
                if entry.starts_with('_') {
                    is_one |= matches!(entry.as_str(), MANIFESTS | BLOBS | UPLOADS);
                } else {
                    pending.push(dir.join(entry));
                }
            }
            let name = dir.strip_prefix(&top).ok().and_then(Path::to_str).unwrap_or_default();
            if is_one && let Ok(repository) = Repository::parse(name) {
                found.push(repository);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Where the blob is and how many bytes it has, if the repository has it; it counts as used now.
    pub(crate) fn blob(&self, repository: &Repository, digest: &Digest) -> Result<(PathBuf, u64), RegistryError> {
        let link = self.link(repository, BLOBS, digest.hex());
        let path = self.blob_path(digest);
        match (touch(&link), fs::metadata(&path)) {
            (true, Ok(metadata)) => Ok((path, metadata.len())),
            _ => Err(RegistryError::UnknownBlob(digest.clone())),
        }
    }

    /// Gives the repository a blob that is stored.
    pub(crate) fn link_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), RegistryError> {
        self.write_link(repository, BLOBS, digest.hex(), "")
    }

    /// Takes a blob from the repository; its bytes are collected when no repository has it.
    pub(crate) fn unlink_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), RegistryError> {
        match fs::remove_file(self.link(repository, BLOBS, digest.hex())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(RegistryError::UnknownBlob(digest.clone())),
            outcome => Ok(outcome?),
        }
    }

    /// Stores a manifest, under a tag if the reference is one; all that it needs has to be there.
    pub(crate) fn put_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        bytes: &[u8],
        content_type: Option<&str>,
    ) -> Result<(Digest, Manifest), RegistryError> {
        let digest = Digest::of(bytes);
        if let Reference::Digest(wanted) = reference
            && *wanted != digest
        {
            return Err(RegistryError::InvalidDigest(format!("the manifest's digest is {digest}")));
        }
        let manifest = Manifest::parse(bytes, content_type)?;
        for blob in &manifest.blobs {
            self.blob(repository, blob).map_err(|_| RegistryError::MissingPart(blob.clone()))?;
        }
        for child in &manifest.children {
            if !touch(&self.link(repository, MANIFESTS, child.hex())) {
                return Err(RegistryError::MissingPart(child.clone()));
            }
        }
        let path = self.blob_path(&digest);
        // One that the disk has changed is made good.
        let held = atomic_file::read_optional(&path, manifest::LIMIT_BYTES as u64)?;
        if held.is_none_or(|held| held != bytes) {
            atomic_file::write(&path, bytes, atomic_file::PUBLIC)?;
        }
        self.write_link(repository, MANIFESTS, digest.hex(), &manifest.media_type)?;
        if let Some(subject) = &manifest.subject {
            let kind = format!("{REFERRERS}/{}", subject.hex());
            self.write_link(repository, &kind, digest.hex(), "")?;
        }
        if let Reference::Tag(tag) = reference {
            self.write_link(repository, TAGS, tag, digest.as_str())?;
        }
        Ok((digest, manifest))
    }

    /// The manifest; it counts as used now.
    pub(crate) fn manifest(&self, repository: &Repository, reference: &Reference) -> Result<Stored, RegistryError> {
        let unknown = |what: &str| RegistryError::UnknownManifest(what.to_owned());
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => self.tag(repository, tag)?.ok_or_else(|| unknown(tag))?,
        };
        let stored = self.peek(repository, &digest)?.ok_or_else(|| unknown(digest.as_str()))?;
        touch(&self.link(repository, MANIFESTS, digest.hex()));
        Ok(stored)
    }

    /// The manifest, which does not count as used; `None` if it is not there, or not as it was.
    pub(crate) fn peek(&self, repository: &Repository, digest: &Digest) -> Result<Option<Stored>, RegistryError> {
        let Some(media_type) = read(&self.link(repository, MANIFESTS, digest.hex()))? else { return Ok(None) };
        let bytes = atomic_file::read_optional(&self.blob_path(digest), manifest::LIMIT_BYTES as u64)?;
        // The disk may have changed what was written.
        let bytes = bytes.filter(|bytes| Digest::of(bytes) == *digest);
        Ok(bytes.map(|bytes| Stored { digest: digest.clone(), media_type, bytes }))
    }

    /// Removes a tag, or a manifest with all its tags.
    pub(crate) fn remove_manifest(&self, repository: &Repository, reference: &Reference) -> Result<(), RegistryError> {
        match reference {
            Reference::Tag(tag) => match fs::remove_file(self.link(repository, TAGS, tag)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(RegistryError::UnknownManifest(tag.clone()))
                }
                outcome => Ok(outcome?),
            },
            Reference::Digest(digest) => {
                let stored = self.manifest(repository, reference)?;
                for tag in self.tags(repository)? {
                    if self.tag(repository, &tag)?.as_ref() == Some(digest) {
                        fs::remove_file(self.link(repository, TAGS, &tag))?;
                    }
                }
                let subject = Manifest::parse(&stored.bytes, Some(&stored.media_type)).ok().and_then(|m| m.subject);
                if let Some(subject) = subject {
                    let kind = format!("{REFERRERS}/{}", subject.hex());
                    gone(fs::remove_file(self.link(repository, &kind, digest.hex())))?;
                }
                gone(fs::remove_file(self.link(repository, MANIFESTS, digest.hex())))?;
                Ok(())
            }
        }
    }

    /// All tags, sorted.
    pub(crate) fn tags(&self, repository: &Repository) -> io::Result<Vec<String>> {
        let mut tags = list(&self.repository(repository).join(TAGS))?;
        tags.retain(|tag| matches!(Reference::parse(tag), Ok(Reference::Tag(_))));
        tags.sort();
        Ok(tags)
    }

    pub(crate) fn tag(&self, repository: &Repository, tag: &str) -> Result<Option<Digest>, RegistryError> {
        Ok(read(&self.link(repository, TAGS, tag))?.and_then(|text| text.trim().parse().ok()))
    }

    /// Whether anything was ever pushed there.
    pub(crate) fn has(&self, repository: &Repository) -> bool {
        let dir = self.repository(repository);
        dir.join(MANIFESTS).exists() || dir.join(BLOBS).exists()
    }

    /// The manifests about another.
    pub(crate) fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Stored>, RegistryError> {
        let mut found = Vec::new();
        for name in list(&self.repository(repository).join(REFERRERS).join(subject.hex()))? {
            let Ok(digest) = crate::name::digest(&format!("sha256:{name}")) else { continue };
            match self.manifest(repository, &Reference::Digest(digest)) {
                Err(RegistryError::UnknownManifest(_)) => {}
                stored => found.push(stored?),
            }
        }
        found.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(found)
    }

    /// Digests of the repository's links of a kind, with the time of their last use.
    pub(crate) fn links(&self, repository: &Repository, kind: &str) -> io::Result<Vec<(Digest, SystemTime)>> {
        let dir = self.repository(repository).join(kind);
        let mut found = Vec::new();
        for name in list(&dir)? {
            if let Ok(digest) = format!("sha256:{name}").parse() {
                found.push((digest, fs::metadata(dir.join(&name))?.modified()?));
            }
        }
        Ok(found)
    }

    fn write_link(&self, repository: &Repository, kind: &str, name: &str, content: &str) -> Result<(), RegistryError> {
        let path = self.link(repository, kind, name);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        Ok(atomic_file::write(&path, content.as_bytes(), atomic_file::PUBLIC)?)
    }
}

/// Names in a directory; none in one that there is not. What begins with a dot is being written.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    let names: io::Result<Vec<String>> = names.collect();
    Ok(names?.into_iter().filter(|name| !name.is_empty() && !name.starts_with('.')).collect())
}

fn read(path: &Path) -> Result<Option<String>, RegistryError> {
    let bytes = atomic_file::read_optional(path, LINK_BYTES)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Notes that the link is used; false if there is none.
fn touch(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    // A time that cannot be set makes it go earlier, no more.
    let _ = file.set_modified(SystemTime::now());
    true
}

fn gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
