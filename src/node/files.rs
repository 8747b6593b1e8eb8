//! Files of the node, for who comes through the driver: one comes in, one goes out, or many do as an archive.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// Of a file that comes in alone.
const MODE: u32 = 0o644;

/// Where a file called `name` comes to lie: the path itself, or below it if it is a directory or ends with a slash.
pub fn target(path: &str, name: &str) -> PathBuf {
    let given = Path::new(path);
    if path.ends_with('/') || given.is_dir() { given.join(name) } else { given.to_owned() }
}

/// Writes what comes in to the path; it appears whole, its directories are made.
pub fn put(path: &str, name: &str, from: impl Read) -> io::Result<()> {
    write(&target(path, name), MODE, from)
}

fn write(path: &Path, mode: u32, mut from: impl Read) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let mut draft = tempfile::Builder::new().prefix(".kminik-").tempfile_in(directory)?;
    io::copy(&mut from, draft.as_file_mut())?;
    draft.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
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

/// Writes the files of an archive to their paths below `root`, each as [`put`] does, with its own mode.
pub fn take(root: &Path, from: impl Read) -> io::Result<()> {
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries()? {
        let entry = entry?;
        let name = entry.path()?.into_owned();
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} leads elsewhere", name.display())));
        }
        let mode = entry.header().mode()? & 0o777;
        write(&root.join(name), mode, entry)?;
    }
    Ok(())
}

/// Writes an archive of the regular files below a directory; links are followed, what vanishes meanwhile is left out.
pub fn archive<W: Write>(directory: &Path, to: W) -> io::Result<W> {
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
                header.set_mode(metadata.permissions().mode() & 0o777);
                header.set_mtime(0);
                // A log that grows meanwhile is cut, one that shrinks is filled: the archive stays readable.
                header.set_size(metadata.len());
                let content = file.chain(io::repeat(0)).take(metadata.len());
                archive.append_data(&mut header, &name, content)?;
            }
        }
    }
    let mut to = archive.into_inner()?;
    to.flush()?;
    Ok(to)
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
    fn an_archive_is_taken_whole_and_only_below_its_root() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(from.path().join("etc/a")).unwrap();
        fs::write(from.path().join("etc/a/run"), "#!").unwrap();
        fs::set_permissions(from.path().join("etc/a/run"), fs::Permissions::from_mode(0o750)).unwrap();
        let bytes = archive(from.path(), Vec::new()).unwrap();
        take(to.path(), bytes.as_slice()).unwrap();
        take(to.path(), bytes.as_slice()).unwrap();
        assert_eq!(fs::read(to.path().join("etc/a/run")).unwrap(), b"#!");
        assert_eq!(fs::metadata(to.path().join("etc/a/run")).unwrap().permissions().mode() & 0o777, 0o750);
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..6].copy_from_slice(b"../out");
        header.set_size(0);
        header.set_cksum();
        let mut outward = tar::Builder::new(Vec::new());
        outward.append(&header, io::empty()).unwrap();
        assert!(take(to.path(), outward.into_inner().unwrap().as_slice()).is_err());
    }

    #[test]
    fn an_archive_has_files_and_what_links_lead_to() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("pods/p")).unwrap();
        fs::write(directory.path().join("pods/p/0.log"), "line").unwrap();
        std::os::unix::fs::symlink("pods/p/0.log", directory.path().join("link.log")).unwrap();
        std::os::unix::fs::symlink("nowhere", directory.path().join("dangling")).unwrap();
        let bytes = archive(directory.path(), Vec::new()).unwrap();
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
