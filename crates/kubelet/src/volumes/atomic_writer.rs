//! Directories whose content changes as a whole.
//!
//! ```text
//! volume/..2026_01_02_03_04_05.123456789/key     the content
//! volume/..data -> ..2026_01_02_03_04_05.…       swapped by rename
//! volume/key -> ..data/key
//! ```
//! A reader that opens `..data` once sees one version; a reader of `key` sees the old or the new one, never a mixture.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub content: Vec<u8>,
    pub mode: u32,
    /// Owner, if not root.
    pub uid: Option<u32>,
}

/// Files by relative path.
pub(crate) type Payload = BTreeMap<String, File>;

/// Whether a path of the payload may be written: relative, without `..`.
pub(crate) fn valid(path: &str) -> bool {
    let path = Path::new(path);
    !path.as_os_str().is_empty()
        && path.components().all(|c| matches!(c, Component::Normal(_)))
        && !path.to_string_lossy().starts_with("..")
}

/// Makes `target` hold exactly the payload; does nothing if it does. `gid`: group that may read all of it.
///
/// # Errors
/// The first step that failed; the old content then is still whole.
pub(crate) fn write(target: &Path, payload: &Payload, gid: Option<u32>) -> io::Result<bool> {
    let current = fs::read_link(target.join(DATA)).ok();
    if let Some(current) = &current
        && same(&target.join(current), payload, gid)
    {
        return Ok(false);
    }
    let now = k8s_openapi::jiff::Timestamp::now();
    let version = format!("..{}.{:09}", now.strftime("%Y_%m_%d_%H_%M_%S"), rand::random::<u32>() % 1_000_000_000);
    let dir = target.join(&version);
    let written = write_version(&dir, payload, gid).and_then(|()| {
        let next = target.join(NEXT);
        let _ = fs::remove_file(&next);
        symlink(&version, &next)?;
        fs::rename(&next, target.join(DATA))
    });
    if let Err(error) = written {
        // The first error is the one to report.
        let _ = fs::remove_dir_all(&dir);
        return Err(error);
    }
    link_names(target, payload)?;
    if let Some(old) = current {
        fs::remove_dir_all(target.join(old))?;
    }
    Ok(true)
}

fn write_version(dir: &Path, payload: &Payload, gid: Option<u32>) -> io::Result<()> {
    fs::create_dir(dir)?;
    own_dir(dir, gid)?;
    for (path, file) in payload {
        if !valid(path) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {path:?}")));
        }
        let full = dir.join(path);
        let mut made = dir.to_path_buf();
        for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
            made.push(part);
            if !made.is_dir() {
                fs::create_dir(&made)?;
                own_dir(&made, gid)?;
            }
        }
        fs::write(&full, &file.content)?;
        if file.uid.is_some() || gid.is_some() {
            chown(&full, file.uid, gid)?;
        }
        fs::set_permissions(&full, fs::Permissions::from_mode(effective_mode(file, gid)))?;
    }
    Ok(())
}

fn effective_mode(file: &File, gid: Option<u32>) -> u32 {
    if gid.is_some() { file.mode | 0o440 } else { file.mode }
}

fn own_dir(dir: &Path, gid: Option<u32>) -> io::Result<()> {
    let mode = if gid.is_some() { 0o2755 } else { 0o755 };
    if gid.is_some() {
        chown(dir, None, gid)?;
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

fn same(dir: &Path, payload: &Payload, gid: Option<u32>) -> bool {
    let Ok(found) = files_below(dir) else { return false };
    let wanted: BTreeSet<PathBuf> = payload.keys().map(PathBuf::from).collect();
    found == wanted
        && payload.iter().all(|(path, file)| {
            let full = dir.join(path);
            let mode = fs::metadata(&full).map(|m| m.permissions().mode() & 0o7777);
            mode.is_ok_and(|mode| mode == effective_mode(file, gid)) && fs::read(&full).is_ok_and(|c| c == file.content)
        })
}

fn files_below(dir: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut out = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        for entry in fs::read_dir(dir.join(&relative))? {
            let entry = entry?;
            let path = relative.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(path);
            } else {
                out.insert(path);
            }
        }
    }
    Ok(out)
}

/// Links the first component of every path to the data, and removes links to what is no longer there.
fn link_names(target: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<String> =
        payload.keys().filter_map(|path| path.split('/').next()).map(ToString::to_string).collect();
    for name in &wanted {
        let link = target.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(target)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(target.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |content: &str| File { content: content.into(), mode: 0o644, uid: None };
        files.iter().map(|(path, content)| ((*path).to_string(), file(content))).collect()
    }

    #[test]
    fn swaps_adds_and_removes() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path();
        assert!(write(target, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert!(
            !write(target, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap(),
            "the same again changes nothing"
        );
        let before = fs::read_link(target.join(DATA)).unwrap();
        assert!(write(target, &payload(&[("a", "3"), ("c", "4")]), None).unwrap());
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "3");
        assert_eq!(fs::read_to_string(target.join("c")).unwrap(), "4");
        assert!(!target.join("sub").exists() && fs::symlink_metadata(target.join("sub")).is_err());
        assert!(!target.join(before).exists());
    }

    #[test]
    fn a_group_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = File { content: vec![], mode: 0o400, uid: None };
        write(dir.path(), &Payload::from([("k".to_string(), file)]), Some(1234)).unwrap();
        let meta = fs::metadata(dir.path().join("k")).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o440);
        assert_eq!(std::os::unix::fs::MetadataExt::gid(&meta), 1234);
    }

    #[test]
    fn paths_stay_inside() {
        assert!(valid("a/b"));
        assert!(["", "/a", "../a", "a/../b", "..a"].iter().all(|path| !valid(path)));
    }
}
