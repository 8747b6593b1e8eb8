//! Layers: what an archive may and may not do.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use futures::FutureExt;
use kminik_runtime::{Compression, LayerId, LayerSource, Runtime, RuntimeError, UnpackError, unpack_over};
use sha2::Digest;

use crate::harness::Test;
use crate::pods::Pods;

macro_rules! tests {
    ($($name:ident)*) => {
        pub const ALL: &[Test] = &[$(Test { name: concat!("layers::", stringify!($name)), run: || $name().boxed_local() }),*];
    };
}

tests! {
    union_and_whiteouts
    compression_and_digest
    escapes_are_refused
    over_a_plain_tree
    attributes
}

struct Archive {
    tar: tar::Builder<Vec<u8>>,
}

impl Archive {
    fn new() -> Archive {
        Archive { tar: tar::Builder::new(Vec::new()) }
    }

    /// With the name as it is, however bad.
    fn entry(mut self, name: &str, kind: tar::EntryType, data: &[u8], link: &str) -> Archive {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_500_000_000);
        header.set_size(data.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.tar.append(&header, data).unwrap();
        self
    }

    fn file(self, name: &str, data: &str) -> Archive {
        self.entry(name, tar::EntryType::Regular, data.as_bytes(), "")
    }

    fn directory(self, name: &str) -> Archive {
        self.entry(name, tar::EntryType::Directory, &[], "")
    }

    fn symlink(self, name: &str, target: &str) -> Archive {
        self.entry(name, tar::EntryType::Symlink, &[], target)
    }

    fn hard_link(self, name: &str, target: &str) -> Archive {
        self.entry(name, tar::EntryType::Link, &[], target)
    }

    fn finish(self) -> Vec<u8> {
        self.tar.into_inner().unwrap()
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

fn blob(directory: &Path, bytes: &[u8]) -> (PathBuf, String) {
    let digest = digest(bytes);
    let path = directory.join(&digest[7..27]);
    std::fs::write(&path, bytes).unwrap();
    (path, digest)
}

fn source(directory: &Path, bytes: &[u8]) -> LayerSource {
    let (blob, id) = blob(directory, bytes);
    LayerSource { id: LayerId(id), blob, compression: Compression::None }
}

async fn union_and_whiteouts() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let lower = Archive::new()
        .directory("d")
        .file("d/gone", "1")
        .file("d/stays", "2")
        .directory("o")
        .file("o/hidden", "3")
        .symlink("l", "d");
    let upper = Archive::new()
        .file("d/.wh.gone", "")
        .directory("o")
        .file("o/.wh..wh..opq", "")
        .file("o/new", "4")
        .file("kept", "5")
        .hard_link("hard", "kept");
    let (lower, upper) = (source(&pods.directory, &lower.finish()), source(&pods.directory, &upper.finish()));
    for layer in [&lower, &upper, &upper] {
        pods.runtime.ensure_layer(layer.clone()).await.unwrap();
    }
    let script = "ls /d; ls /o; cat /l/stays; stat -c %h,%u,%g,%Y /hard; echo new > /d/stays; cat /d/stays";
    let (code, text) =
        pods.script("a", "look", script, |config| config.layers.extend([lower.id.clone(), upper.id.clone()])).await;
    assert_eq!((code, text.as_str()), (0, "stays\nnew\n22,7,8,1500000000\nnew\n"));

    // Used ones stay, others go.
    assert_eq!(pods.runtime.prune_layers(&[]).await.unwrap(), 0);
    pods.runtime.remove_container("look").await.unwrap();
    assert!(pods.runtime.prune_layers(std::slice::from_ref(&lower.id)).await.unwrap() > 0);
    let mut config = pods.config("late", "true");
    config.layers = vec![upper.id.clone()];
    assert!(
        matches!(pods.runtime.create_container("a", config).await, Err(RuntimeError::NoLayer(id)) if id == upper.id)
    );
    pods.finish().await;
}

async fn compression_and_digest() {
    let pods = Pods::new().await;
    let plain = Archive::new().file("f", "x").finish();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 3).unwrap();
    let id = LayerId(digest(&plain));
    for (compression, bytes) in [(Compression::Gzip, gzip.finish().unwrap()), (Compression::Zstd, zstd)] {
        let (blob, _) = blob(&pods.directory, &bytes);
        pods.runtime.ensure_layer(LayerSource { id: id.clone(), blob, compression }).await.unwrap();
        pods.runtime.prune_layers(&[]).await.unwrap();
    }
    let (blob, _) = blob(&pods.directory, &plain);
    let wrong = LayerId(format!("sha256:{}", "0".repeat(64)));
    let error =
        pods.runtime.ensure_layer(LayerSource { id: wrong, blob: blob.clone(), compression: Compression::None }).await;
    assert!(error.unwrap_err().to_string().contains("digest"));
    let cut = LayerSource { id, blob, compression: Compression::Gzip };
    assert!(pods.runtime.ensure_layer(cut).await.is_err());
    let left = std::fs::read_dir(pods.directory.join("state/layers"))
        .unwrap()
        .flatten()
        .filter(|e| e.file_name() != "x")
        .count();
    assert_eq!(left, 0, "no part of a failed layer stays");
    pods.finish().await;
}

async fn escapes_are_refused() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let outside = directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "untouched").unwrap();
    let root = directory.path().join("root");
    let out = outside.to_str().unwrap();
    let unpack = |archive: Archive| {
        let (blob, id) = blob(directory.path(), &archive.finish());
        let _ = std::fs::remove_dir_all(&root);
        unpack_over(&root, &blob, Compression::None, &id)
    };
    let refused =
        |result: Result<(), UnpackError>| assert!(matches!(result, Err(UnpackError::Escape { .. })), "{result:?}");
    refused(unpack(Archive::new().file("../outside/new", "x")));
    refused(unpack(Archive::new().directory("a").file("a/../../outside/new", "x")));
    refused(unpack(Archive::new().hard_link("a", "../outside/secret")));
    // Links that lead out lead to the same path inside.
    let _ = unpack(Archive::new().symlink("way", out).file("way/new", "x"));
    let _ = unpack(Archive::new().symlink("way", "../../../../../..").file("way/new", "x"));
    let _ = unpack(Archive::new().symlink("secret", &format!("{out}/secret")).file("secret", "x"));
    let _ = unpack(Archive::new().symlink("way", out).hard_link("stolen", "way/secret"));
    assert!(!root.join("stolen").exists());
    let _ = unpack(Archive::new().symlink("way", out).file("way/.wh.secret", ""));
    unpack(Archive::new().file("/absolute", "x")).unwrap();
    assert!(root.join("absolute").exists() && !Path::new("/absolute").exists() && !Path::new("/new").exists());
    assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "untouched");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
}

async fn over_a_plain_tree() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = directory.path().join("root");
    let first =
        Archive::new().directory("d").file("d/gone", "1").file("d/stays", "2").directory("o").file("o/old", "3");
    let second = Archive::new()
        .file("d/.wh.gone", "")
        .directory("o")
        .file("o/new", "4")
        .file("o/.wh..wh..opq", "")
        .file("d/stays", "5");
    for archive in [first, second] {
        let (blob, id) = blob(directory.path(), &archive.finish());
        unpack_over(&root, &blob, Compression::None, &id).unwrap();
    }
    assert!(!root.join("d/gone").exists() && !root.join("o/old").exists() && root.join("o/new").exists());
    assert_eq!(std::fs::read_to_string(root.join("d/stays")).unwrap(), "5");
}

async fn attributes() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = directory.path().join("root");
    let mut tar = tar::Builder::new(Vec::new());
    let attributes: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.user.mine", b"value"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("mtime", b"1500000000.25"),
    ];
    tar.append_pax_extensions(attributes).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o4755);
    header.set_uid(1000);
    header.set_gid(0);
    header.set_size(0);
    tar.append_data(&mut header, "program", std::io::empty()).unwrap();
    let bytes = tar.into_inner().unwrap();
    let more = Archive::new().entry("pipe", tar::EntryType::Fifo, &[], "").finish();
    for bytes in [bytes, more] {
        let (blob, id) = blob(directory.path(), &bytes);
        unpack_over(&root, &blob, Compression::None, &id).unwrap();
    }
    let meta = std::fs::metadata(root.join("program")).unwrap();
    assert_eq!(
        (meta.mode() & 0o7777, meta.uid(), meta.mtime(), meta.mtime_nsec()),
        (0o4755, 1000, 1_500_000_000, 250_000_000)
    );
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(root.join("program"), "user.mine", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"value");
    assert!(rustix::fs::getxattr(root.join("program"), "trusted.overlay.opaque", &mut value[..]).is_err());
    assert!(std::fs::metadata(root.join("pipe")).unwrap().file_type().is_fifo());
}
