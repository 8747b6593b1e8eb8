//! Volumes that are directories of the node: emptyDir, hostPath, local.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown};
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{VolumeError, io_error};
use crate::container::quantity;

/// Makes the directory of an emptyDir: anyone may write, or the memory it is made of is mounted.
pub(super) fn empty_dir(path: &Path, source: &EmptyDirVolumeSource) -> Result<(), VolumeError> {
    fs::create_dir_all(path).map_err(io_error("create", path))?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            let limit = source.size_limit.as_ref().map(quantity::value).filter(|bytes| *bytes > 0);
            let options = limit.map_or("mode=0777".to_string(), |bytes| format!("mode=0777,size={bytes}"));
            mount_memory(path, &options)?;
        }
        _ => return Err(VolumeError::Unsupported),
    }
    let mode = fs::metadata(path).map_err(io_error("read", path))?.permissions().mode() & 0o7777;
    if mode & 0o777 != 0o777 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).map_err(io_error("set the mode of", path))?;
    }
    Ok(())
}

/// Mounts a file system of memory on a directory, unless something is mounted there.
pub(super) fn mount_memory(path: &Path, options: &str) -> Result<(), VolumeError> {
    if is_mount_point(path) {
        return Ok(());
    }
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options))
        .map_err(|errno| io_error("mount tmpfs on", path)(errno.into()))
}

/// Checks or makes the path of a hostPath, by its type.
pub(super) fn host_path(source: &HostPathVolumeSource) -> Result<(), VolumeError> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let found = fs::metadata(path);
    let fail = |what: &'static str| VolumeError::HostPath { path: source.path.clone(), what };
    match (kind, found) {
        // What does not exist is made, so that there is something to mount.
        ("" | "DirectoryOrCreate", Err(e)) if e.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path).map_err(io_error("create", path))
        }
        ("FileOrCreate", Err(e)) if e.kind() == io::ErrorKind::NotFound => {
            fs::OpenOptions::new().create_new(true).write(true).open(path).map(drop).map_err(io_error("create", path))
        }
        ("", Ok(_)) => Ok(()),
        ("DirectoryOrCreate" | "Directory", Ok(m)) if m.is_dir() => Ok(()),
        ("DirectoryOrCreate" | "Directory", _) => Err(fail("directory")),
        ("FileOrCreate" | "File", Ok(m)) if m.is_file() => Ok(()),
        ("FileOrCreate" | "File", _) => Err(fail("file")),
        ("Socket", Ok(m)) if m.file_type().is_socket() => Ok(()),
        ("Socket", _) => Err(fail("socket file")),
        ("CharDevice", Ok(m)) if m.file_type().is_char_device() => Ok(()),
        ("CharDevice", _) => Err(fail("character device")),
        ("BlockDevice", Ok(m)) if m.file_type().is_block_device() => Ok(()),
        ("BlockDevice", _) => Err(fail("block device")),
        (_, Err(e)) => Err(io_error("read", path)(e)),
        (_, Ok(_)) => Err(VolumeError::Unsupported),
    }
}

/// Gives a volume to a group: everything below is the group's, readable and writable, and new files inherit it.
/// `only_if_root_differs`: fsGroupChangePolicy OnRootMismatch.
pub(super) fn give_to_group(path: &Path, gid: u32, only_if_root_differs: bool) -> Result<(), VolumeError> {
    let root = fs::metadata(path).map_err(io_error("read", path))?;
    let fits = root.gid() == gid && root.permissions().mode() & 0o2770 == 0o2770;
    if only_if_root_differs && fits {
        return Ok(());
    }
    let mut open = vec![path.to_path_buf()];
    while let Some(current) = open.pop() {
        let meta = fs::symlink_metadata(&current).map_err(io_error("read", &current))?;
        if meta.is_symlink() {
            lchown(&current, None, Some(gid)).map_err(io_error("change the group of", &current))?;
            continue;
        }
        chown(&current, None, Some(gid)).map_err(io_error("change the group of", &current))?;
        let extra = if meta.is_dir() { 0o2770 } else { 0o660 };
        let mode = (meta.permissions().mode() & 0o7777) | extra;
        fs::set_permissions(&current, fs::Permissions::from_mode(mode))
            .map_err(io_error("set the mode of", &current))?;
        if meta.is_dir() {
            for entry in fs::read_dir(&current).map_err(io_error("read", &current))? {
                open.push(entry.map_err(io_error("read", &current))?.path());
            }
        }
    }
    Ok(())
}

/// Whether something is mounted on a directory.
pub(super) fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|m| m.dev());
    match (device(path), path.parent().map(device)) {
        (Ok(own), Some(Ok(parent))) => own != parent,
        _ => false,
    }
}

/// Unmounts all that is mounted at or below a directory, innermost first. Files of open mounts stay readable to their users.
pub(super) fn unmount_below(path: &Path) -> io::Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<String> = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect();
    points.retain(|point| Path::new(point).starts_with(path));
    for point in points.iter().rev() {
        match umount2(point.as_str(), MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// mountinfo writes blanks and backslashes in octal.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if bytes[at] == b'\\' => {
                out.push(byte);
                at += 4;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_path_types() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str, kind: &str| {
            let path = dir.path().join(name).to_string_lossy().into_owned();
            host_path(&HostPathVolumeSource { path, type_: Some(kind.into()) })
        };
        assert!(check("d", "Directory").is_err());
        assert!(check("d", "DirectoryOrCreate").is_ok());
        assert!(check("d", "Directory").is_ok());
        assert!(check("d", "File").is_err());
        assert!(check("f", "FileOrCreate").is_ok());
        assert!(check("f", "Socket").is_err());
    }

    #[test]
    fn groups_own_all_below() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        give_to_group(dir.path(), 4321, false).unwrap();
        let meta = fs::metadata(dir.path().join("f")).unwrap();
        assert_eq!((meta.gid(), meta.permissions().mode() & 0o660), (4321, 0o660));
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o2770, 0o2770);
    }

    #[test]
    fn octal_escapes() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
