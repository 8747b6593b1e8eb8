//! Collection of what nobody needs: of each repository untagged manifests that were long not used, then the blobs that no
//! manifest names, then the bytes that no repository has, and uploads that were given up.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use kminik_oci::Digest;

use crate::error::RegistryError;
use crate::manifest::Manifest;
use crate::name::{Reference, Repository};
use crate::storage::{BLOBS, MANIFESTS, Storage, UPLOADS, list};

/// What is kept for how long.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Manifests without a tag since their last push or pull; `None` is for ever. What an index lists or a referrer is about is
    /// kept as long as they are.
    pub untagged: Option<Duration>,
    /// What nothing names, since it was last pushed or looked for: a client that pushes an image looks for its layers first.
    pub unused: Duration,
    /// Uploads, since the last piece.
    pub uploads: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        Self { untagged: Some(hours(7 * 24)), unused: hours(1), uploads: hours(24) }
    }
}

/// How much went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    pub(crate) manifests: usize,
    pub(crate) blobs: usize,
    pub(crate) bytes: u64,
}

fn is_older(time: SystemTime, than: Duration, now: SystemTime) -> bool {
    now.duration_since(time).is_ok_and(|age| age > than)
}

/// One pass; nobody may change the storage meanwhile.
pub(crate) fn collect(storage: &Storage, policy: &Policy, now: SystemTime) -> Result<Collected, RegistryError> {
    let mut collected = Collected::default();
    let mut held: HashSet<Digest> = HashSet::new();
    for repository in storage.repositories()? {
        held.extend(sweep(storage, &repository, policy, now, &mut collected)?);
    }
    for name in list(&storage.blobs())? {
        let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
        let path = storage.blob_path(&digest);
        let metadata = fs::metadata(&path)?;
        if !held.contains(&digest) && is_older(metadata.modified()?, policy.unused, now) {
            fs::remove_file(&path)?;
            collected.blobs += 1;
            collected.bytes += metadata.len();
        }
    }
    Ok(collected)
}

/// What the repository still holds.
fn sweep(
    storage: &Storage,
    repository: &Repository,
    policy: &Policy,
    now: SystemTime,
    collected: &mut Collected,
) -> Result<HashSet<Digest>, RegistryError> {
    let manifests = storage.links(repository, MANIFESTS)?;
    let mut parsed: Vec<(Digest, SystemTime, Manifest)> = Vec::new();
    for (digest, used) in manifests {
        // One whose bytes are lost, or changed, holds nothing.
        let stored = storage.peek(repository, &digest)?;
        if let Some(manifest) = stored.and_then(|it| Manifest::parse(&it.bytes, Some(&it.media_type)).ok()) {
            parsed.push((digest, used, manifest));
        }
    }
    let mut roots: Vec<Digest> = Vec::new();
    for tag in storage.tags(repository)? {
        roots.extend(storage.tag(repository, &tag)?);
    }
    for (digest, used, _) in &parsed {
        if policy.untagged.is_none_or(|keep| !is_older(*used, keep, now)) {
            roots.push(digest.clone());
        }
    }
    let mut alive: HashSet<Digest> = HashSet::new();
    while let Some(digest) = roots.pop() {
        if !alive.insert(digest.clone()) {
            continue;
        }
        for (other, _, manifest) in &parsed {
            if *other == digest {
                roots.extend(manifest.children.iter().cloned());
            }
            // What is about a manifest lives as long as it.
            if manifest.subject.as_ref() == Some(&digest) {
                roots.push(other.clone());
            }
        }
    }
    let mut held: HashSet<Digest> = HashSet::new();
    for (digest, _, manifest) in &parsed {
        if alive.contains(digest) {
            held.insert(digest.clone());
            held.extend(manifest.blobs.iter().cloned());
        } else {
            storage.remove_manifest(repository, &Reference::Digest(digest.clone()))?;
            collected.manifests += 1;
        }
    }
    for (digest, used) in storage.links(repository, BLOBS)? {
        if held.contains(&digest) {
            continue;
        }
        if is_older(used, policy.unused, now) {
            storage.unlink_blob(repository, &digest)?;
        } else {
            held.insert(digest);
        }
    }
    let uploads = storage.repository(repository).join(UPLOADS);
    for name in list(&uploads)? {
        let path = uploads.join(name);
        if is_older(fs::metadata(&path)?.modified()?, policy.uploads, now) {
            fs::remove_file(&path)?;
        }
    }
    remove_if_empty(storage, repository)?;
    Ok(held)
}

/// A repository in which nothing is left is none.
fn remove_if_empty(storage: &Storage, repository: &Repository) -> io::Result<()> {
    let dir = storage.repository(repository);
    for name in list(&dir)?.into_iter().filter(|name| name.starts_with('_')) {
        for inner in list(&dir.join(&name))? {
            // Only empty directories go.
            let _ = fs::remove_dir(dir.join(&name).join(inner));
        }
        let _ = fs::remove_dir(dir.join(name));
    }
    let _ = fs::remove_dir(dir);
    Ok(())
}
