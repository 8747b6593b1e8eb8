//! The image that tests of pods run; the kubelet's have it too.

use std::path::Path;

use kminik_runtime::{Compression, LayerId, LayerSource};
use sha2::Digest;

/// A layer with busybox under the names scripts use.
pub(crate) fn busybox_layer(directory: &Path) -> LayerSource {
    let mut tar = tar::Builder::new(Vec::new());
    let mut entry = |path: &str, kind: tar::EntryType, mode: u32, data: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        header.set_mtime(1_600_000_000);
        match link {
            Some(target) => tar.append_link(&mut header, path, target).unwrap(),
            None => tar.append_data(&mut header, path, data).unwrap(),
        }
    };
    let busybox = std::fs::read("/bin/busybox").unwrap();
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        entry(name, tar::EntryType::Directory, if name == "tmp" { 0o1777 } else { 0o755 }, &[], None);
    }
    entry("bin/busybox", tar::EntryType::Regular, 0o755, &busybox, None);
    let applets = [
        "sh", "cat", "echo", "sleep", "id", "ls", "hostname", "readlink", "tty", "stty", "kill", "mkdir", "touch",
        "dd", "head", "mknod", "wc", "ps", "pwd", "env", "true", "false", "nc", "seq", "grep", "mount", "stat", "tail",
        "unshare", "rm", "chmod", "date", "sysctl", "trap", "yes", "tr", "usleep", "httpd", "df",
    ];
    for applet in applets {
        entry(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, &[], Some("busybox"));
    }
    entry(
        "etc/passwd",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/home/web:/bin/sh\n",
        None,
    );
    entry("etc/group", tar::EntryType::Regular, 0o644, b"root:x:0:\nweb:x:1001:\nextra:x:1002:web\n", None);
    entry("bin/not-a-program", tar::EntryType::Regular, 0o755, b"\x7fELFnonsense", None);
    entry("bin/not-executable", tar::EntryType::Regular, 0o644, b"#!/bin/sh\n", None);
    let bytes = tar.into_inner().unwrap();
    let id = LayerId(format!("sha256:{}", hex::encode(sha2::Sha256::digest(&bytes))));
    let blob = directory.join("layer.tar");
    std::fs::write(&blob, bytes).unwrap();
    LayerSource { id, blob, compression: Compression::None }
}
