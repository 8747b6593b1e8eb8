//! A store that is kept within a size: what was wanted last stays.
//!
//! When a blob was wanted last is the time of its file. An image was wanted when its manifest, the index that it was found by or its
//! configuration were; layers, which images share, say nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::SystemTime;

use crate::layout::{Entry, Layout};
use crate::{Digest, ImageError};

/// What a store is kept within.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    /// Names of images that never go.
    pub kept: Vec<String>,
}

/// How much a store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub images: usize,
    /// Of all blobs and partial downloads.
    pub bytes: u64,
}

/// One image, for the choice of what goes.
struct Stored {
    blobs: Vec<Digest>,
    names: Vec<String>,
    wanted: SystemTime,
}

impl Layout {
    /// Notes that a blob is wanted now. What cannot be noted (another user's file) only goes earlier.
    pub(crate) fn want(&self, digest: &Digest) {
        let _ = File::open(self.blob(digest)).and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// As [`Layout::want`], of an image.
    pub(crate) fn want_image(&self, manifest: &Digest) {
        self.want(manifest);
        let config = self.manifest(manifest).ok().and_then(|manifest| manifest.config.digest.parse().ok());
        config.iter().for_each(|config| self.want(config));
    }

    pub(crate) fn usage(&self) -> Result<Usage, ImageError> {
        let mut manifests: Vec<Digest> = self.index()?.manifests.into_iter().map(|entry| entry.digest).collect();
        manifests.sort();
        manifests.dedup();
        Ok(Usage { images: manifests.len(), bytes: size_of_files(&self.blobs())? + size_of_files(&self.ingest())? })
    }

    /// Removes images, those that nobody has wanted for longest first, until all is within `limit_bytes`; the one wanted last stays
    /// whatever its size, as do those of these manifests. Their names, or digests where they have none. While a pull or import
    /// runs nothing is removed.
    pub(crate) fn make_room(&self, limit_bytes: u64, kept: &[Digest]) -> Result<Vec<String>, ImageError> {
        if self.usage()?.bytes <= limit_bytes {
            return Ok(Vec::new());
        }
        let Some(alone) = self.alone()? else { return Ok(Vec::new()) };
        // An entry that cannot be read is in its way; it is the first to go.
        let _ = self.collect_alone(&alone);
        let mut bytes = self.usage()?.bytes;
        let mut images = self.stored()?;
        let mut shared: BTreeMap<Digest, usize> = BTreeMap::new();
        images.values().flat_map(|image| &image.blobs).for_each(|blob| *shared.entry(blob.clone()).or_default() += 1);
        let newest = images.iter().max_by_key(|(_, image)| image.wanted).map(|(manifest, _)| manifest.clone());
        images.retain(|manifest, _| Some(manifest) != newest.as_ref() && !kept.contains(manifest));
        let mut names = Vec::new();
        while bytes > limit_bytes {
            let oldest = images.iter().min_by_key(|(_, image)| image.wanted).map(|(manifest, _)| manifest.clone());
            let Some((manifest, image)) = oldest.and_then(|manifest| images.remove_entry(&manifest)) else { break };
            self.update(|index| index.manifests.retain(|entry| entry.digest != manifest))?;
            for blob in &image.blobs {
                let users = shared.entry(blob.clone()).or_default();
                *users = users.saturating_sub(1);
                if *users == 0 {
                    bytes = bytes.saturating_sub(self.size_of(blob).unwrap_or_default());
                }
            }
            let named = if image.names.is_empty() { vec![manifest.to_string()] } else { image.names };
            names.extend(named);
        }
        self.collect_alone(&alone)?;
        Ok(names)
    }

    /// All images by their manifests. One that cannot be read is the first to go.
    fn stored(&self) -> Result<BTreeMap<Digest, Stored>, ImageError> {
        let mut images: BTreeMap<Digest, Stored> = BTreeMap::new();
        for entry in self.index()?.manifests {
            let blobs = self.blobs_of(&entry);
            let image = images.entry(entry.digest.clone()).or_insert_with(|| Stored {
                blobs: Vec::new(),
                names: Vec::new(),
                wanted: SystemTime::UNIX_EPOCH,
            });
            if let Ok(blobs) = blobs {
                image.wanted = image.wanted.max(self.wanted(&entry));
                image.blobs.extend(blobs);
                image.blobs.sort();
                image.blobs.dedup();
            }
            image.names.extend(entry.name().map(str::to_owned));
        }
        Ok(images)
    }

    /// When an entry was wanted last.
    fn wanted(&self, entry: &Entry) -> SystemTime {
        let config = self.manifest(&entry.digest).ok().and_then(|manifest| manifest.config.digest.parse().ok());
        let blobs = [Some(entry.digest.clone()), entry.served(), config];
        let times = blobs.iter().flatten().filter_map(|blob| fs::metadata(self.blob(blob)).ok()?.modified().ok());
        times.max().unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

fn size_of_files(dir: &Path) -> Result<u64, ImageError> {
    let mut bytes = 0;
    let entries = match fs::read_dir(dir) {
        // A store that nothing has come to yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(ImageError::io("list", dir))?,
    };
    for entry in entries {
        let entry = entry.map_err(ImageError::io("list", dir))?;
        // One that has gone meanwhile has no size.
        bytes += entry.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(bytes)
}
