//! From store to store: what is there is not sent, a cache serves whoever comes second, a push arrives.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "each program of tests uses its part")]
mod registry;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kminik_oci::mirrors::CacheAddress;
use kminik_oci::transfer::{RemoteStore, TransferError};
use kminik_oci::{Digest, ImageStore, MirrorArgument, NoProgress, Progress, ResolverConfig, serve_cache};
use registry::{Fault, Proxy, Registry, noise, tls};

const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
const LAYER: usize = 2_000_000;
const TOKEN: &str = "0123456789";

fn open(dir: &Path, config: ResolverConfig) -> ImageStore {
    ImageStore::open(dir, config).unwrap()
}

/// A server over a store; ends with the test.
async fn serve(store: &ImageStore) -> CacheAddress {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let store = store.clone();
    tokio::spawn(async move { serve_cache(store, listener, TOKEN).await });
    CacheAddress { address, token: TOKEN.to_owned() }
}

fn remote(at: &CacheAddress, token: &str) -> RemoteStore {
    let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls()).build().unwrap();
    RemoteStore::new(client, format!("http://{}", at.address), Some(("kminik".to_owned(), token.to_owned())))
}

#[derive(Default)]
struct Count(AtomicU64);

impl Progress for Count {
    fn advance(&self, _: &str, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::SeqCst);
    }
}

/// A docker-save archive of these layers.
fn archive(dir: &Path, name: &str, layers: &[Vec<u8>]) -> std::path::PathBuf {
    let path = dir.join("image.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
    let mut file = |path: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content).unwrap();
    };
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = serde_json::json!({
        "os": "linux", "architecture": ARCH, "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let mut paths = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        file(&format!("{number}.tar"), layer);
        paths.push(format!("{number}.tar"));
    }
    file("c.json", config.to_string().as_bytes());
    let table = serde_json::json!([{"Config": "c.json", "RepoTags": [name], "Layers": paths}]);
    file("manifest.json", table.to_string().as_bytes());
    tar.finish().unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_changed_image_only_the_changed_layer_is_sent() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sender = open(here.path(), ResolverConfig::default());
    let receiver = open(there.path(), ResolverConfig::default());
    let at = serve(&receiver).await;
    let remote_store = remote(&at, TOKEN);
    let files = tempfile::tempdir().unwrap();
    let mut sent = Vec::new();
    for top in [1, 2, 2] {
        let layers = [noise(20, LAYER), noise(21, LAYER), noise(21 + top, 50_000)];
        let path = archive(files.path(), "app:1", &layers);
        let count = Arc::new(Count::default());
        let progress: Arc<dyn Progress> = count.clone();
        let images = sender.scan_file(&path).await.unwrap();
        let names = remote_store.load(images, &progress).await.unwrap();
        assert_eq!(names, ["docker.io/library/app:1"]);
        let image = receiver.get("app:1").await.unwrap().unwrap();
        for (layer, wanted) in image.layers.iter().zip(&layers) {
            assert!(std::fs::read(&layer.blob).unwrap() == *wanted);
        }
        sent.push(count.0.load(Ordering::SeqCst));
    }
    assert!(sent[0] > 2 * LAYER as u64, "{sent:?}");
    assert!((50_000..100_000).contains(&sent[1]), "{sent:?}");
    assert!(sent[2] < 20_000, "{sent:?}");
    // What was only scanned has not been stored.
    assert!(sender.list().await.unwrap().is_empty());

    // The same as a stream, compressed.
    let path = archive(files.path(), "stream:1", &[noise(20, LAYER), noise(30, 1000)]);
    let compressed = zstd::encode_all(std::fs::File::open(path).unwrap(), 1).unwrap();
    let progress: Arc<dyn Progress> = Arc::new(NoProgress);
    remote_store.load(sender.scan(compressed.as_slice()).await.unwrap(), &progress).await.unwrap();
    assert!(receiver.get("stream:1").await.unwrap().is_some());
    let stranger = remote(&at, "another");
    let refused = stranger.load(sender.scan(compressed.as_slice()).await.unwrap(), &progress).await;
    assert!(matches!(refused, Err(TransferError::Refused { status, .. }) if status == 401), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_served_blob_goes_on_from_any_byte_and_names_stay_within_their_registry() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ResolverConfig::default());
    let layer = noise(80, 100_000);
    let path = archive(dir.path(), "team.example/app:1", std::slice::from_ref(&layer));
    let image = store.import(tokio::fs::File::open(path).await.unwrap()).await.unwrap().remove(0);
    let at = serve(&store).await;
    let remote = remote(&at, TOKEN);
    let get = |path: &str| remote.request(reqwest::Method::GET, path);
    let blob = format!("/v2/app/blobs/{}", Digest::of(&layer));
    let part = get(&blob).header("range", "bytes=60000-").send().await.unwrap();
    assert_eq!(
        (part.status().as_u16(), &part.headers()["content-range"]),
        (206, &"bytes 60000-99999/100000".parse().unwrap())
    );
    assert!(part.bytes().await.unwrap() == layer[60_000..]);
    assert_eq!(get(&blob).header("range", "bytes=100000-").send().await.unwrap().status(), 416);
    let manifest = remote.request(reqwest::Method::HEAD, "/v2/app/manifests/1?ns=team.example").send().await.unwrap();
    assert_eq!(manifest.headers()["docker-content-digest"], image.manifest.as_str());
    for absent in ["/v2/app/manifests/1", "/v2/app/manifests/2?ns=team.example", "/v2/app/blobs/sha256:..", "/v2/../x"]
    {
        assert_eq!(get(absent).send().await.unwrap().status(), 404, "{absent}");
    }
    // What changes the store but by its content is not for those it serves.
    for (method, path) in [("DELETE", "/?image=team.example/app:1"), ("POST", "/tag?source=a&target=b"), ("GET", "/")] {
        let answer = remote.request(method.parse().unwrap(), path).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_pulls_a_second_gets_from_the_cache_also_without_the_registry() {
    let registry = Registry::start().await;
    let both = [("s390x", vec![noise(40, 1000)]), (ARCH, vec![noise(41, LAYER)])];
    let served = registry.push_index("app", "1", &both).await;
    let proxy = Proxy::start(registry.address, Fault::None).await;
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let cache_store = open(dirs[0].path(), ResolverConfig::default());
    let cache = serve(&cache_store).await;
    let config = |mirror: &Proxy| ResolverConfig {
        cache: Some(cache.clone()),
        mirrors: vec![MirrorArgument::parse(&format!("test.invalid=http://{}", mirror.address)).unwrap()],
        ..ResolverConfig::default()
    };
    let first = open(dirs[1].path(), config(&proxy));
    first.pull("test.invalid/app:1", &[], &NoProgress).await.unwrap();
    let by_digest = format!("test.invalid/app@{served}");
    for _ in 0..100 {
        if cache_store.get("test.invalid/app:1").await.unwrap().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The index came too, so that the image is found by the digest that people pin.
    assert!(cache_store.manifest(&by_digest).await.unwrap().is_some());

    let before = proxy.sent();
    let second = open(dirs[2].path(), config(&proxy));
    let image = second.pull("test.invalid/app:1", &[], &NoProgress).await.unwrap();
    assert_eq!(image.repo_digests, std::slice::from_ref(&by_digest));
    assert_eq!(proxy.sent(), before, "a layer came twice");

    proxy.set(Fault::Status(503));
    for name in ["test.invalid/app:1", &by_digest] {
        let third = open(&dirs[3].path().join(Digest::of(name.as_bytes()).hex()), config(&proxy));
        let image = third.pull(name, &[], &NoProgress).await.unwrap();
        assert!(std::fs::read(&image.layers[0].blob).unwrap() == noise(41, LAYER));
    }
    // A new tag is the registry's to tell, whatever the cache has.
    let newer = registry.push("app", "1", ARCH, &[noise(42, 1000)]).await;
    proxy.set(Fault::None);
    assert_eq!(second.pull("test.invalid/app:1", &[], &NoProgress).await.unwrap().manifest, newer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_image_arrives_and_what_is_there_is_not_sent() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ResolverConfig::default());
    let layers = [noise(50, LAYER), noise(51, 1000)];
    let name = format!("{}/team/app:1", registry.address);
    let path = archive(dir.path(), &name, &layers);
    store.import(tokio::fs::File::open(path).await.unwrap()).await.unwrap();
    let count = Count::default();
    let pushed = store.push(&name, &[], &count).await.unwrap();
    assert!(count.0.load(Ordering::SeqCst) > LAYER as u64);
    let again = Count::default();
    store.push(&name, &[], &again).await.unwrap();
    assert_eq!(again.0.load(Ordering::SeqCst), 0, "pushed twice");

    let other = tempfile::tempdir().unwrap();
    let puller = open(other.path(), ResolverConfig::default());
    let image = puller.pull(&name, &[], &NoProgress).await.unwrap();
    assert_eq!(image.manifest, pushed);
    assert!(std::fs::read(&image.layers[0].blob).unwrap() == layers[0]);
    let error = store.push("127.0.0.1:1/none:1", &[], &NoProgress).await.unwrap_err();
    assert!(error.to_string().contains("no image"), "{error}");
    store.tag(&name, "127.0.0.1:1/none:1").await.unwrap();
    let error = store.push("127.0.0.1:1/none:1", &[], &NoProgress).await.unwrap_err();
    assert!(
        error.to_string().contains("cannot be pushed") && error.to_string().contains("http://127.0.0.1:1"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_waits_for_a_busy_registry_and_gives_a_broken_one_up() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ResolverConfig::default());
    let busy = Proxy::start(registry.address, Fault::Busy { times: 2, retry_after: 1 }).await;
    let broken = Proxy::start(registry.address, Fault::Status(500)).await;
    for proxy in [&busy, &broken] {
        let name = format!("{}/app:1", proxy.address);
        let path = archive(dir.path(), &name, &[noise(70, 1000)]);
        store.import(tokio::fs::File::open(path).await.unwrap()).await.unwrap();
    }
    let started = std::time::Instant::now();
    store.push(&format!("{}/app:1", busy.address), &[], &NoProgress).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    let error = store.push(&format!("{}/app:1", broken.address), &[], &NoProgress).await.unwrap_err();
    assert!(error.to_string().contains("500"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_store_takes_other_mirrors() {
    let registry = Registry::start().await;
    registry.push("app", "1", ARCH, &[noise(60, 1000)]).await;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), ResolverConfig::default());
    assert!(store.pull("test.invalid/app:1", &[], &NoProgress).await.is_err());
    let text = format!("[registry.\"test.invalid\"]\nmirrors = [\"http://{}\"]\n", registry.address);
    store.reconfigure(ResolverConfig { mirrors_toml: Some(text), ..ResolverConfig::default() }).unwrap();
    store.pull("test.invalid/app:1", &[], &NoProgress).await.unwrap();
    let broken = ResolverConfig { mirrors_toml: Some("[".to_owned()), ..ResolverConfig::default() };
    assert!(store.reconfigure(broken).is_err());
    store.pull("test.invalid/app:1", &[], &NoProgress).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let _ = std::io::Read::read(&mut client, &mut [0; 4096]);
        let mut send = |bytes: &[u8]| std::io::Write::write_all(&mut client, bytes).is_ok();
        let mut goes_on = send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[");
        while goes_on {
            goes_on = send(&[b' '; 64 * 1024]);
        }
    });
    let remote = remote(&CacheAddress { address, token: TOKEN.to_owned() }, TOKEN);
    let asked = remote.json::<serde_json::Value>(remote.request(reqwest::Method::GET, ""));
    let answer = tokio::time::timeout(Duration::from_secs(60), asked).await.expect("it reads on");
    assert!(matches!(answer, Err(TransferError::Answer)), "{answer:?}");
}
