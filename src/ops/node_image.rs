//! The built-in node image, assembled from the running binary: nothing is downloaded.
//!
//! ```text
//! /bin/kminik   a copy of this binary (never a link: the user's file may be replaced while the node runs)
//! /etc/{passwd,group,os-release,nsswitch.conf,ssl/certs/ca-certificates.crt}
//! /{proc,sys,dev,run,tmp,var,root}   mount points
//! ```

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::reason::{MK_INTERNAL, OrFail, Outcome};

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

/// Digest of the running binary, hex.
pub fn digest() -> Outcome<String> {
    let mut file = fs::File::open("/proc/self/exe").or_fail(&MK_INTERNAL, "cannot read the running binary")?;
    // Once at each start, over all of the binary: ring's code for it is the fastest there is.
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let n = file.read(&mut buffer).or_fail(&MK_INTERNAL, "cannot read the running binary")?;
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

/// Writes the image's directories and files below `root`; with a userland of its own there, only the binary.
pub fn assemble(root: &Path, has_userland: bool) -> std::io::Result<()> {
    let directories = if has_userland { &["bin"] } else { DIRECTORIES };
    for dir in directories {
        fs::create_dir_all(root.join(dir))?;
    }
    for (path, content) in if has_userland { Vec::new() } else { files() } {
        fs::write(root.join(path), content)?;
    }
    let binary = root.join(BINARY.trim_start_matches('/'));
    fs::copy("/proc/self/exe", &binary)?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))
}
