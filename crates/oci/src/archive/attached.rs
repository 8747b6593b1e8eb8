//! Files that go with an archive's images: called by their digests, their names in a table. Who does not know of them skips them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::contents::{Contents, refused};
use super::export::{document, header};
use crate::{Digest, ImageError};

/// Files by name.
pub type Attached = BTreeMap<String, Vec<u8>>;

const TABLE: &str = "attached.json";
const DIRECTORY: &str = "attached";
/// The largest that a file may be.
const LIMIT_BYTES: u64 = 16 << 20;
/// And all of them together, as they are in memory at once.
const TOTAL_BYTES: u64 = 64 << 20;

/// Why a file cannot go with images: it, or all with it, would not be read.
pub(super) fn check(attached: &Attached) -> Result<(), ImageError> {
    let too_large = |name: &str, what: &str, limit: u64| ImageError::TooLarge {
        name: format!("{name}{what}"),
        limit_mib: limit >> 20,
    };
    let mut left = TOTAL_BYTES;
    for (name, bytes) in attached {
        let size = bytes.len() as u64;
        if size > LIMIT_BYTES {
            return Err(too_large(name, "", LIMIT_BYTES));
        }
        left = left.checked_sub(size).ok_or_else(|| too_large(name, ", with those before it,", TOTAL_BYTES))?;
    }
    Ok(())
}

pub(super) fn write(tar: &mut tar::Builder<&mut impl Write>, attached: &Attached) -> Result<(), ImageError> {
    if attached.is_empty() {
        return Ok(());
    }
    let table: BTreeMap<&String, Digest> = attached.iter().map(|(name, bytes)| (name, Digest::of(bytes))).collect();
    let files: BTreeMap<&Digest, &Vec<u8>> = table.values().zip(attached.values()).collect();
    for (digest, bytes) in files {
        let path = format!("{DIRECTORY}/{}", digest.hex());
        tar.append_data(&mut header(bytes.len() as u64), path, bytes.as_slice()).map_err(ImageError::WriteArchive)?;
    }
    let table = serde_json::to_vec(&table).map_err(|error| ImageError::WriteArchive(error.into()))?;
    document(tar, TABLE, &table)
}

/// All of them, each as its digest says.
pub(super) fn read(contents: &Contents) -> Result<Attached, ImageError> {
    let Some(table) = contents.document(Path::new(TABLE))? else { return Ok(Attached::new()) };
    let table: BTreeMap<String, Digest> =
        serde_json::from_slice(&table).map_err(|error| refused(format!("{TABLE}: {error}")))?;
    let mut left = TOTAL_BYTES;
    let read = |(name, digest): (String, Digest)| {
        let found = contents.file(&Path::new(DIRECTORY).join(digest.hex()))?;
        if found.digest != digest || found.size > LIMIT_BYTES {
            return Err(refused(format!("the file {name} is not what it was")));
        }
        left = left.checked_sub(found.size).ok_or_else(|| refused("its attached files are too large together"))?;
        Ok((name, contents.begin(found, found.size)?))
    };
    table.into_iter().map(read).collect()
}
