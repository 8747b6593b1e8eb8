//! Archives in and out, names, removal.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::sync::{Arc, Mutex};

use kminik_oci::{Digest, ImageError, ImageStore, ResolverConfig, Room};

const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

fn store() -> (tempfile::TempDir, ImageStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path(), ResolverConfig::default()).unwrap();
    (dir, store)
}

struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Tar {
        Tar(tar::Builder::new(Vec::new()))
    }

    fn file(mut self, path: &str, content: &[u8]) -> Tar {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // Written by hand: the builder itself refuses the paths that are to be refused.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn link(mut self, path: &str, target: &str) -> Tar {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        self.0.append(&header, std::io::empty()).unwrap();
        self
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn config(layers: &[&[u8]], architecture: &str) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    serde_json::json!({
        "os": "linux", "architecture": architecture, "config": {"Entrypoint": ["/app"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string()
    .into_bytes()
}

/// As `docker save` wrote before version 25: a layer that repeats is a link to its first copy.
fn docker_save(name: &str, architecture: &str) -> Vec<u8> {
    let config = config(&[b"one", b"two", b"one"], architecture);
    let table = serde_json::json!([{
        "Config": "c.json", "RepoTags": [name], "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"],
    }]);
    Tar::new()
        .file("a/layer.tar", b"one")
        .file("./b/layer.tar", b"two")
        .link("c/layer.tar", "../a/layer.tar")
        .file("c.json", &config)
        .file("manifest.json", table.to_string().as_bytes())
        .finish()
}

#[tokio::test]
async fn docker_save_archives_come_in_plain_and_compressed() {
    let plain = docker_save("app:1", ARCH);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    for archive in [plain.clone(), gzip.finish().unwrap(), zstd::encode_all(plain.as_slice(), 1).unwrap()] {
        let (_dir, store) = store();
        let images = store.import(archive.as_slice()).await.unwrap();
        let [image] = images.as_slice() else { panic!("{images:?}") };
        assert_eq!(image.repo_tags, ["docker.io/library/app:1"]);
        assert_eq!(image.config.entrypoint, ["/app"]);
        let contents: Vec<_> = image.layers.iter().map(|layer| std::fs::read(&layer.blob).unwrap()).collect();
        assert_eq!(contents, [b"one", b"two", b"one"]);
        assert_eq!(image.layers[0].diff_id, Digest::of(b"one"));
    }
}

#[tokio::test]
async fn what_is_exported_can_be_imported_by_either_table() {
    let (_dir, first) = store();
    let image = first.import(docker_save("app:1", ARCH).as_slice()).await.unwrap().remove(0);
    first.tag("app:1", "other:2").await.unwrap();
    let mut archive = Vec::new();
    first.export(&["app:1".into()], &mut archive).await.unwrap();
    // Without the docker table what remains is an OCI layout.
    let mut oci = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
        let entry = entry.unwrap();
        if entry.path().unwrap().to_str() != Some("manifest.json") {
            oci.append(&entry.header().clone(), entry).unwrap();
        }
    }
    for archive in [archive.clone(), oci.into_inner().unwrap()] {
        let (_dir, second) = store();
        let images = second.import(archive.as_slice()).await.unwrap();
        assert_eq!(
            (images[0].id.clone(), images[0].repo_tags.clone()),
            (image.id.clone(), vec!["docker.io/library/app:1".to_owned()])
        );
    }
}

#[tokio::test]
async fn names_that_no_registry_has_given_are_told() {
    let (_dir, first) = store();
    first.import(docker_save("app:1", ARCH).as_slice()).await.unwrap();
    let listed = first.list().await.unwrap();
    assert_eq!(listed[0].local_tags, ["docker.io/library/app:1"]);
    // As a registry has served it, and then named once more here.
    let manifest = first.get("app:1").await.unwrap().unwrap().manifest;
    let mut archive = Vec::new();
    first.export(&["app:1".into()], &mut archive).await.unwrap();
    let mut served = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        match entry.path().unwrap().to_str().unwrap() {
            "manifest.json" => {}
            "index.json" => {
                let mut text = String::new();
                std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
                let mut index: serde_json::Value = serde_json::from_str(&text).unwrap();
                index["manifests"][0]["annotations"]["io.kminik.image.repo-digest"] =
                    format!("docker.io/library/app@{manifest}").into();
                let text = index.to_string();
                let mut header = entry.header().clone();
                header.set_size(text.len() as u64);
                header.set_cksum();
                served.append(&header, text.as_bytes()).unwrap();
            }
            _ => served.append(&entry.header().clone(), entry).unwrap(),
        }
    }
    let (_dir, second) = store();
    second.import(served.into_inner().unwrap().as_slice()).await.unwrap();
    second.tag("app:1", "app:mine").await.unwrap();
    let listed = second.list().await.unwrap();
    assert_eq!(listed[0].repo_digests.len(), 1);
    assert_eq!(listed[0].repo_tags.len(), 2);
    assert_eq!(listed[0].local_tags, ["docker.io/library/app:mine"]);
}

#[tokio::test]
async fn harmful_archives_are_refused_and_leave_nothing() {
    let good = config(&[], ARCH);
    let table = |config: &str| serde_json::json!([{"Config": config, "RepoTags": null, "Layers": []}]).to_string();
    let truncated = docker_save("app:1", ARCH)[..1200].to_vec();
    let blob = format!("blobs/sha256/{}", Digest::of(b"other").hex());
    let index = serde_json::json!({"manifests": [{"digest": Digest::of(b"other")}]}).to_string();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("parent", Tar::new().file("../evil", b"x").finish()),
        ("absolute", Tar::new().file("/etc/evil", b"x").finish()),
        ("absolute link", Tar::new().link("a", "/etc/passwd").file("manifest.json", table("a").as_bytes()).finish()),
        ("link out", Tar::new().link("a", "../../etc/passwd").finish()),
        ("link circle", Tar::new().link("a", "b").link("b", "a").file("manifest.json", table("a").as_bytes()).finish()),
        ("config out", Tar::new().file("manifest.json", table("../../etc/passwd").as_bytes()).finish()),
        ("config missing", Tar::new().file("manifest.json", table("c.json").as_bytes()).finish()),
        ("wrong digest", Tar::new().file(&blob, b"lies").file("index.json", index.as_bytes()).finish()),
        ("no table", Tar::new().file("c.json", &good).finish()),
        ("no tar", b"hello, this is no archive at all".repeat(64)),
        ("empty", Vec::new()),
        ("truncated", truncated),
    ];
    for (what, archive) in cases {
        let (dir, store) = store();
        let error = store.import(archive.as_slice()).await.unwrap_err();
        assert!(matches!(error, ImageError::BadArchive(_)), "{what}: {error:?}");
        assert!(store.list().await.unwrap().is_empty(), "{what}");
        let left: Vec<_> = std::fs::read_dir(dir.path().join("ingest")).unwrap().collect();
        assert!(left.is_empty(), "{what} left {left:?}");
        let file = dir.path().join("archive.tar");
        std::fs::write(&file, &archive).unwrap();
        assert!(matches!(store.scan_file(&file).await, Err(ImageError::BadArchive(_))), "{what} as a file");
        assert!(matches!(store.scan(archive.as_slice()).await, Err(ImageError::BadArchive(_))), "{what} as a stream");
    }
}

#[tokio::test]
async fn blobs_have_the_sizes_that_are_said_of_them() {
    let (_dir, first) = store();
    first.import(docker_save("app:1", ARCH).as_slice()).await.unwrap();
    let outgoing = first.outgoing(&["app:1".into()]).await.unwrap();
    let mut archive = Vec::new();
    outgoing.clone().send(outgoing.digests().into_iter().collect(), &mut archive).await.unwrap();
    let manifest = first.get("app:1").await.unwrap().unwrap().manifest;
    let said = format!("\"size\":{}", std::fs::metadata(first.blob(&manifest).unwrap().0).unwrap().len());
    let at = archive.windows(said.len()).position(|bytes| bytes == said.as_bytes()).unwrap();
    let (_dir, second) = store();
    let mut lies = archive.clone();
    lies[at + said.len() - 1] ^= 1;
    let error = second.import(lies.as_slice()).await.unwrap_err();
    assert!(error.to_string().contains(&format!("blob {manifest} is of")), "{error}");
    assert!(second.list().await.unwrap().is_empty());
    second.import(archive.as_slice()).await.unwrap();
}

#[tokio::test]
async fn what_goes_with_images_is_bounded_where_it_is_written() {
    let (_dir, store) = store();
    let mut outgoing = store.outgoing(&[]).await.unwrap();
    let files = |count: usize, bytes: usize| (0..count).map(|n| (n.to_string(), vec![0; bytes])).collect();
    assert!(matches!(outgoing.attach(files(1, (16 << 20) + 1)), Err(ImageError::TooLarge { limit_mib: 16, .. })));
    let mut outgoing = store.outgoing(&[]).await.unwrap();
    assert!(matches!(outgoing.attach(files(5, 16 << 20)), Err(ImageError::TooLarge { limit_mib: 64, .. })));
    let mut outgoing = store.outgoing(&[]).await.unwrap();
    outgoing.attach(files(4, 16 << 20)).unwrap();
}

/// What comes out of a thread that panics is `Cancelled`.
#[tokio::test]
async fn damaged_archives_are_refused_or_right_and_never_a_panic() {
    let (dir, store) = store();
    let good = docker_save("app:1", ARCH);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    let file = dir.path().join("archive.tar");
    for _ in 0..300 {
        let mut archive = good.clone();
        for _ in 0..=next() % 4 {
            let at = next() % archive.len();
            archive[at] = next() as u8;
        }
        if next() % 3 == 0 {
            archive.truncate(next() % good.len());
        }
        std::fs::write(&file, &archive).unwrap();
        for outcome in [store.scan_file(&file).await.map(drop), store.import(archive.as_slice()).await.map(drop)] {
            assert!(!matches!(outcome, Err(ImageError::Cancelled)), "a panic");
        }
    }
    for image in store.list().await.unwrap() {
        let image = store.get(image.id.as_str()).await.unwrap().unwrap();
        assert!(image.layers.iter().all(|layer| layer.blob.exists()));
    }
}

#[tokio::test]
async fn another_machines_archive_is_refused_with_its_platform() {
    let (_dir, store) = store();
    let error = store.import(docker_save("app:1", "riscv64").as_slice()).await.unwrap_err();
    assert!(matches!(&error, ImageError::WrongPlatform { .. }), "{error:?}");
    assert!(error.to_string().contains("linux/riscv64"), "{error}");
}

#[tokio::test]
async fn names_come_and_go_and_blobs_with_the_last() {
    let (dir, store) = store();
    let image = store.import(docker_save("app:1", ARCH).as_slice()).await.unwrap().remove(0);
    store.tag("app:1", "quay.io/x/y:z").await.unwrap();
    let listed = store.list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].repo_tags, ["docker.io/library/app:1", "quay.io/x/y:z"]);
    let short = &image.id.hex()[..12];
    assert_eq!(store.get(short).await.unwrap().unwrap().id, image.id);

    store.remove("app:1").await.unwrap();
    assert!(matches!(store.remove("app:1").await, Err(ImageError::NotFound(_))));
    assert!(store.get("app:1").await.unwrap().is_none());
    assert!(store.get("quay.io/x/y:z").await.unwrap().is_some());
    store.remove(image.id.as_str()).await.unwrap();
    assert!(store.list().await.unwrap().is_empty());
    assert_eq!(std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_store_is_found_again_and_unnamed_blobs_are_not() {
    let (dir, store) = store();
    store.import(docker_save("app:1", ARCH).as_slice()).await.unwrap();
    drop(store);
    let stray = dir.path().join("blobs/sha256").join(Digest::of(b"stray").hex());
    std::fs::write(&stray, b"stray").unwrap();
    std::fs::write(dir.path().join("ingest/import-left-over"), b"x").unwrap();
    let store = ImageStore::open(dir.path(), ResolverConfig::default()).unwrap();
    assert!(store.get("app:1").await.unwrap().is_some());
    assert!(!stray.exists() && std::fs::read_dir(dir.path().join("ingest")).unwrap().next().is_none());
}

/// An image of these layers, as `docker save` writes it.
fn saved(name: &str, layers: &[&[u8]]) -> Vec<u8> {
    let paths: Vec<String> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let table = serde_json::json!([{"Config": "c.json", "RepoTags": [name], "Layers": paths}]);
    let tar = paths.iter().zip(layers).fold(Tar::new(), |tar, (path, layer)| tar.file(path, layer));
    tar.file("c.json", &config(layers, ARCH)).file("manifest.json", table.to_string().as_bytes()).finish()
}

#[tokio::test]
async fn what_was_wanted_last_stays_within_the_limit() {
    let (_dir, store) = store();
    let (base, layers) = (vec![0; 50_000], [vec![1; 20_000], vec![2; 20_000], vec![3; 20_000]]);
    for (name, layer) in ["a:1", "b:1", "c:1"].iter().zip(&layers) {
        store.import(saved(name, &[&base, layer]).as_slice()).await.unwrap();
    }
    store.tag("b:1", "also-b:1").await.unwrap();
    let full = store.usage().await.unwrap();
    assert_eq!(full.images, 3);
    assert!((110_000..120_000).contains(&full.bytes), "{full:?}");
    assert!(store.make_room().await.is_empty(), "without a limit all stays");

    // `a` is asked for after `b` came, as is the layer that all share.
    store.manifest("docker.io/library/a:1").await.unwrap().unwrap();
    store.blob(&Digest::of(&base)).unwrap();
    let room = Arc::new(Mutex::new(Room { bytes: full.bytes, kept: Vec::new() }));
    let now = room.clone();
    store.limit_to(move || Some(now.lock().unwrap().clone()));
    assert!(store.make_room().await.is_empty(), "it is within its limit");
    room.lock().unwrap().bytes -= 1;
    let held = store.hold().await.unwrap();
    assert!(store.make_room().await.is_empty(), "what is held stays");
    drop(held);
    let mut gone = store.make_room().await;
    gone.sort();
    assert_eq!(gone, ["docker.io/library/also-b:1", "docker.io/library/b:1"]);
    let left = store.usage().await.unwrap();
    assert!(left.images == 2 && (90_000..95_000).contains(&left.bytes), "{left:?}");
    assert!(store.get("a:1").await.unwrap().is_some_and(|image| image.layers.iter().all(|layer| layer.blob.exists())));

    // One that is too large by itself is there as long as nothing else is wanted.
    *room.lock().unwrap() = Room { bytes: 1, kept: vec!["c:1".to_owned()] };
    assert!(store.make_room().await.is_empty(), "one of both is kept, the other was wanted last");
    room.lock().unwrap().kept.clear();
    assert_eq!(store.make_room().await, ["docker.io/library/c:1"]);
    assert!(store.get("a:1").await.unwrap().is_some());
}
