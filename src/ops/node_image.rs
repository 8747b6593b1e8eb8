//! The built-in node image, assembled from the running binary: nothing is downloaded.
//!
//! ```text
//! /bin/kminik   a copy of this binary (never a link to it: the user's file may be replaced while the node runs)
//! /etc/{passwd,group,os-release,nsswitch.conf,ssl/certs/ca-certificates.crt}
//! /{proc,sys,dev,run,tmp,var,root}   mount points
//! ```

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use crate::reason::{MK_INTERNAL, OrFail, Outcome};

/// The running binary, also where its file was replaced.
const RUNNING: &str = "/proc/self/exe";
/// Where the binary lies in a node, whatever its userland.
pub const BINARY: &str = "/bin/kminik";

pub const DIRECTORIES: &[&str] =
    &["bin", "etc/ssl/certs", "proc", "sys", "dev", "run", "tmp", "var", "root", "usr/bin", "lib/modules"];

/// The text files of the image.
pub fn files() -> Vec<(&'static str, String)> {
    vec![
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n".into()),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\n".into()),
        ("etc/nsswitch.conf", "hosts: files dns\n".into()),
        (
            "etc/os-release",
            format!("NAME=kminik\nID=kminik\nPRETTY_NAME=\"kminik {0}\"\nVERSION_ID=\"{0}\"\n", crate::version::KMINIK),
        ),
    ]
}

/// Digest of the running binary, hex; read once.
pub fn digest() -> Outcome<&'static str> {
    static DIGEST: OnceLock<String> = OnceLock::new();
    match DIGEST.get() {
        Some(known) => Ok(known),
        None => digest_of(Path::new(RUNNING)).map(|digest| DIGEST.get_or_init(|| digest).as_str()),
    }
}

/// SHA-256 of a binary, hex.
pub fn digest_of(path: &Path) -> Outcome<String> {
    let cannot = || format!("cannot read {}", path.display());
    let mut file = fs::File::open(path).or_fail(&MK_INTERNAL, cannot())?;
    // Over all of the binary: ring's code for it is the fastest there is.
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let n = file.read(&mut buffer).or_fail(&MK_INTERNAL, cannot())?;
        if n == 0 {
            return Ok(hex::encode(digest.finish()));
        }
        digest.update(&buffer[..n]);
    }
}

/// A name for what a node's root filesystem is made of: this binary and the layers below it.
pub fn identity(layers: &[String]) -> Outcome<String> {
    let mut hasher = Sha256::new();
    hasher.update(digest()?);
    layers.iter().for_each(|layer| hasher.update(layer));
    Ok(hex::encode(hasher.finalize())[..16].to_owned())
}

/// Writes the image's directories and files below `root`; with a userland of its own there, only the binary. That is linked
/// from `copy`, a copy of the running binary, where it lies on the same disk: processes that run either then share memory.
pub fn assemble(root: &Path, has_userland: bool, copy: Option<&Path>) -> io::Result<()> {
    let directories = if has_userland { &["bin"] } else { DIRECTORIES };
    for dir in directories {
        fs::create_dir_all(root.join(dir))?;
    }
    for (path, content) in if has_userland { Vec::new() } else { files() } {
        fs::write(root.join(path), content)?;
    }
    let binary = root.join(BINARY.trim_start_matches('/'));
    if copy.is_some_and(|copy| fs::hard_link(copy, &binary).is_ok()) {
        return Ok(());
    }
    copy_binary(&binary)
}

/// A copy of the running binary.
pub fn copy_binary(target: &Path) -> io::Result<()> {
    fs::copy(RUNNING, target)?;
    fs::set_permissions(target, fs::Permissions::from_mode(0o755))
}

/// The built-in image in `<dir>/<identity>`, made if it is not there; of others the `kept` newest stay, from which containers
/// may run. `copy` as for [`assemble`].
pub fn ensure(dir: &Path, identity: &str, copy: Option<&Path>, kept: usize) -> io::Result<PathBuf> {
    let root = dir.join(identity);
    let temporary = dir.join("new");
    // What a start that was killed has left is none of the images.
    match fs::remove_dir_all(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let others = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).filter(|entry| entry.path() != root);
    let mut others: Vec<_> =
        others.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    others.sort_by(|a, b| b.cmp(a));
    for (_, old) in others.iter().skip(kept) {
        fs::remove_dir_all(old)?;
    }
    if root.exists() {
        return Ok(root);
    }
    assemble(&temporary, false, copy)?;
    fs::rename(&temporary, &root)?;
    Ok(root)
}

/// The identity of the image below `dir` whose binary is, as a link, the running one: known without reading it.
pub fn identity_of_linked(dir: &Path) -> Option<String> {
    let file = |path: &Path| fs::metadata(path).ok().map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
    let running = file(Path::new("/proc/self/exe"))?;
    fs::read_dir(dir).ok()?.filter_map(Result::ok).find_map(|entry| {
        let linked = file(&entry.path().join(BINARY.trim_start_matches('/')))? == running;
        if linked { entry.file_name().into_string().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_start_has_left_takes_no_images_place() {
        let dir = tempfile::tempdir().unwrap();
        let (old, left) = (dir.path().join("old"), dir.path().join("new"));
        fs::create_dir(&old).unwrap();
        let binary = left.join(BINARY.trim_start_matches('/'));
        fs::create_dir_all(binary.parent().unwrap()).unwrap();
        // Linked to what runs elsewhere, as the assembly does it.
        let elsewhere = dir.path().join("old").join("binary");
        fs::write(&elsewhere, "of another kminik").unwrap();
        fs::hard_link(&elsewhere, &binary).unwrap();
        let root = ensure(dir.path(), "identity", None, 1).unwrap();
        assert!(root.join(BINARY.trim_start_matches('/')).exists() && !left.exists());
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "of another kminik", "and the image before is kept");
    }
}
