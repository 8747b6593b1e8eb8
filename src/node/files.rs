//! Files of the node, for who comes through the driver: one comes in, one goes out, or a directory goes out as an archive.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Of a file that comes in.
const MODE: u32 = 0o644;

/// Where a file called `name` comes to lie: the path itself, or below it if it is a directory or ends with a slash.
pub fn target(path: &str, name: &str) -> PathBuf {
    let given = Path::new(path);
    if path.ends_with('/') || given.is_dir() { given.join(name) } else { given.to_owned() }
}

/// Writes what comes in to the path; it appears whole, its directories are made.
pub fn put(path: &str, name: &str, mut from: impl Read) -> io::Result<()> {
    let path = target(path, name);
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let mut draft = tempfile::Builder::new().prefix(".kminik-").tempfile_in(directory)?;
    io::copy(&mut from, draft.as_file_mut())?;
    draft.as_file().set_permissions(fs::Permissions::from_mode(MODE))?;
    draft.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Prints the file.
pub fn get(path: &str, mut to: impl Write) -> io::Result<()> {
    let mut file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    io::copy(&mut file, &mut to)?;
    to.flush()
}

/// Prints an archive of the regular files below a directory; links are followed, what vanishes meanwhile is left out.
pub fn archive(directory: &Path, to: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        for entry in fs::read_dir(directory.join(&relative)).into_iter().flatten().flatten() {
            let name = relative.join(entry.file_name());
            let path = directory.join(&name);
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if metadata.is_dir() && !entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                pending.push(name);
            } else if metadata.is_file()
                && let Ok(file) = File::open(&path)
            {
                let mut header = tar::Header::new_gnu();
                header.set_mode(MODE);
                header.set_mtime(0);
                // A log that grows meanwhile is cut, one that shrinks is filled: the archive stays readable.
                header.set_size(metadata.len());
                let content = file.chain(io::repeat(0)).take(metadata.len());
                archive.append_data(&mut header, &name, content)?;
            }
        }
    }
    archive.into_inner()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_in_and_goes_out() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("a/b/");
        put(missing.to_str().unwrap(), "x.txt", &b"content"[..]).unwrap();
        put(missing.to_str().unwrap(), "x.txt", &b"again"[..]).unwrap();
        let mut out = Vec::new();
        get(directory.path().join("a/b/x.txt").to_str().unwrap(), &mut out).unwrap();
        assert_eq!(out, b"again");
        assert_eq!(fs::metadata(directory.path().join("a/b/x.txt")).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(directory.path().join("a/b")).unwrap().count(), 1);
        assert!(get(directory.path().to_str().unwrap(), &mut out).is_err());
    }

    #[test]
    fn an_archive_has_files_and_what_links_lead_to() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("pods/p")).unwrap();
        fs::write(directory.path().join("pods/p/0.log"), "line").unwrap();
        std::os::unix::fs::symlink("pods/p/0.log", directory.path().join("link.log")).unwrap();
        std::os::unix::fs::symlink("nowhere", directory.path().join("dangling")).unwrap();
        let mut bytes = Vec::new();
        archive(directory.path(), &mut bytes).unwrap();
        let mut names = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            names.push((entry.path().unwrap().display().to_string(), text));
        }
        names.sort();
        let expected = [("link.log", "line"), ("pods/p/0.log", "line")];
        assert_eq!(names, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
}
