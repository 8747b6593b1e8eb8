//! Pulls from a real registry through networks that fail in every way they do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod registry;

use std::path::Path;
use std::time::{Duration, Instant};

use kminik_oci::{Credential, ImageError, ImageStore, MirrorArgument, NoProgress, ResolverConfig, Timeouts};
use registry::{Fault, Proxy, Registry, noise};

const LAYER: usize = 3_000_000;

fn config(mirrors: &[&Proxy]) -> ResolverConfig {
    let mirrors = mirrors.iter().map(|proxy| format!("test.invalid=http://{}", proxy.address));
    let mirrors = mirrors.map(|text| MirrorArgument::parse(&text).unwrap()).collect();
    let timeouts = Timeouts {
        connect: Duration::from_secs(2),
        answer: Duration::from_secs(3),
        stall: Duration::from_millis(700),
        settle: Duration::from_millis(500),
        retry_after: Duration::from_secs(3),
    };
    ResolverConfig { mirrors, timeouts, ..ResolverConfig::default() }
}

fn open(dir: &Path, config: ResolverConfig) -> ImageStore {
    ImageStore::open(dir, config).unwrap()
}

const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

#[tokio::test(flavor = "multi_thread")]
async fn one_good_place_is_enough_whatever_the_others_do() {
    let registry = Registry::start().await;
    let layers = [noise(1, LAYER), noise(2, 200_000)];
    let digest = registry.push("team/app", "1", ARCH, &layers).await;
    let refused = {
        // Bound and closed: nobody listens there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let faults = [
        Fault::Status(404),
        Fault::Status(500),
        Fault::Status(403),
        Fault::Busy { times: u64::MAX, retry_after: 3600 },
        Fault::Cut(1_000_000),
        Fault::Stall(1_000_000),
        Fault::Corrupt,
        Fault::Redirect,
        Fault::NoRanges,
        Fault::Token { login: Some("nobody has it") },
    ];
    for fault in faults {
        let dir = tempfile::tempdir().unwrap();
        let (bad, good) =
            (Proxy::start(registry.address, fault.clone()).await, Proxy::start(registry.address, Fault::None).await);
        let mut config = config(&[&bad, &good]);
        config.mirrors.insert(0, MirrorArgument::parse(&format!("test.invalid=http://{refused}")).unwrap());
        let store = open(dir.path(), config);
        let image = store.pull("test.invalid/team/app:1", &[], &NoProgress).await;
        let image = image.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(image.repo_tags, ["test.invalid/team/app:1"], "{fault:?}");
        assert_eq!(image.repo_digests, [format!("test.invalid/team/app@{digest}")]);
        assert_eq!(image.config.cmd, ["/bin/sh"]);
        for (layer, wanted) in image.layers.iter().zip(&layers) {
            assert!(std::fs::read(&layer.blob).unwrap() == *wanted, "{fault:?}");
        }
        let all: usize = layers.iter().map(Vec::len).sum();
        let sent = bad.sent() + good.sent();
        let needed = all as u64 + 1000;
        match fault {
            // Found out only at the end: everything twice.
            Fault::Corrupt => assert!(sent <= 2 * needed, "{fault:?}: {sent}"),
            // Which of the two serves a layer depends on their speed.
            _ => assert!(sent <= needed + 64 * 1024, "{fault:?}: {sent} bytes sent for {needed}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_place_is_cut_and_still_no_byte_comes_twice() {
    let registry = Registry::start().await;
    let layer = noise(3, LAYER);
    registry.push("app", "1", ARCH, std::slice::from_ref(&layer)).await;
    let one = Proxy::start(registry.address, Fault::Cut(400_000)).await;
    let two = Proxy::start(registry.address, Fault::Cut(300_000)).await;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), config(&[&one, &two]));
    let image = store.pull("test.invalid/app:1", &[], &NoProgress).await.unwrap();
    assert!(std::fs::read(&image.layers[0].blob).unwrap() == layer);
    let sent = one.sent() + two.sent();
    assert!(sent < LAYER as u64 + 200_000, "{sent} bytes sent for {LAYER}");
    assert!(one.sent() > 0 && two.sent() > 0, "the pull did not go on at the next place");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_two_places_of_which_one_lies_end_right() {
    let registry = Registry::start().await;
    let layer = noise(4, LAYER);
    registry.push("app", "1", ARCH, std::slice::from_ref(&layer)).await;
    // The first sends a right half and breaks; the second completes it wrongly; the third would have been right.
    let cut = Proxy::start(registry.address, Fault::Cut(1_500_000)).await;
    let liar = Proxy::start(registry.address, Fault::Corrupt).await;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), config(&[&cut, &liar]));
    let image = store.pull("test.invalid/app:1", &[], &NoProgress).await.unwrap();
    assert!(std::fs::read(&image.layers[0].blob).unwrap() == layer);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_off_and_refuses_ranges_is_asked_for_all() {
    let registry = Registry::start().await;
    let layer = noise(13, LAYER);
    registry.push("app", "1", ARCH, std::slice::from_ref(&layer)).await;
    for status in [400, 416, 501] {
        let proxy = Proxy::start(registry.address, Fault::RangesRefused { status, cut: 1_500_000 }).await;
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), config(&[&proxy]));
        let image = store.pull("test.invalid/app:1", &[], &NoProgress).await.unwrap();
        assert!(std::fs::read(&image.layers[0].blob).unwrap() == layer, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_goes_on_where_the_old_one_stopped() {
    let registry = Registry::start().await;
    let layer = noise(5, LAYER);
    registry.push("app", "1", ARCH, std::slice::from_ref(&layer)).await;
    let proxy = Proxy::start(registry.address, Fault::Stall(2_000_000)).await;
    let dir = tempfile::tempdir().unwrap();
    let mut patient = config(&[&proxy]);
    patient.timeouts.stall = Duration::from_secs(60);
    let store = open(dir.path(), patient);
    let interrupted =
        tokio::time::timeout(Duration::from_secs(4), store.pull("test.invalid/app:1", &[], &NoProgress)).await;
    assert!(interrupted.is_err(), "the stalled pull ended");
    drop(store);
    assert_eq!(proxy.sent(), 2_000_000 + sent_config(&proxy));

    proxy.set(Fault::None);
    let store = open(dir.path(), config(&[&proxy]));
    let image = store.pull("test.invalid/app:1", &[], &NoProgress).await.unwrap();
    assert!(std::fs::read(&image.layers[0].blob).unwrap() == layer);
    assert!(proxy.sent() < LAYER as u64 + 10_000, "{} bytes sent for {LAYER}", proxy.sent());

    let before = proxy.sent();
    store.pull("test.invalid/app:1", &[], &NoProgress).await.unwrap();
    assert_eq!(proxy.sent(), before, "a stored blob was fetched again");
}

/// The configuration, some hundred bytes.
fn sent_config(proxy: &Proxy) -> u64 {
    proxy.sent() % 1000
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_obeyed_when_nobody_else_is_left() {
    let registry = Registry::start().await;
    registry.push("app", "1", ARCH, &[noise(6, 1000)]).await;
    let proxy = Proxy::start(registry.address, Fault::Busy { times: 1, retry_after: 1 }).await;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), config(&[&proxy]));
    let started = Instant::now();
    store.pull("test.invalid/app:1", &[], &NoProgress).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "asked again after {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_gets_a_token_and_goes_nowhere_else() {
    let registry = Registry::start().await;
    registry.push("app", "1", ARCH, &[noise(7, 1000)]).await;
    let login = "Basic bWU6c2VjcmV0";
    let private = Proxy::start(registry.address, Fault::Token { login: Some(login) }).await;
    let other = Proxy::start(registry.address, Fault::Status(401)).await;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), config(&[&other, &private]));
    let credential =
        Credential { registry: private.address.to_string(), username: "me".into(), password: "secret".into() };
    store.pull("test.invalid/app:1", &[credential], &NoProgress).await.unwrap();
    assert!(other.authorizations().is_empty(), "another place was sent {:?}", other.authorizations());
    // One token serves the whole pull.
    assert_eq!(private.authorizations().iter().filter(|value| *value == login).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_exchanged_and_one_login_does_not_serve_another() {
    let registry = Registry::start().await;
    registry.push("app", "1", ARCH, &[noise(7, 1000)]).await;
    let proxy = Proxy::start(registry.address, Fault::Identity("id")).await;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), config(&[&proxy]));
    let login = |token: &str| {
        let auths = serde_json::json!({"auths": {proxy.address.to_string(): {"identitytoken": token}}});
        kminik_oci::credentials::DockerConfig::parse(auths.to_string().as_bytes()).unwrap().logins()
    };
    assert!(store.pull("test.invalid/app:1", &login("wrong"), &NoProgress).await.is_err());
    store.pull("test.invalid/app:1", &login("id"), &NoProgress).await.unwrap();
    // The token that one login was given is not used for who has none.
    assert!(store.pull("test.invalid/app:1", &[], &NoProgress).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_gives_this_machines_image_and_refuses_others() {
    let registry = Registry::start().await;
    let other = if ARCH == "amd64" { "arm64" } else { "amd64" };
    let both = [(other, vec![noise(8, 1000)]), (ARCH, vec![noise(9, 1000)])];
    let digest = registry.push_index("both", "1", &both).await;
    registry.push_index("foreign", "1", &both[..1]).await;
    registry.push("single", "1", other, &[noise(8, 1000)]).await;
    let proxy = Proxy::start(registry.address, Fault::None).await;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), config(&[&proxy]));
    let image = store.pull("test.invalid/both:1", &[], &NoProgress).await.unwrap();
    assert_eq!(image.platform.architecture, ARCH);
    assert_eq!(image.repo_digests, [format!("test.invalid/both@{digest}")]);
    assert!(store.get(&format!("test.invalid/both@{digest}")).await.unwrap().is_some());
    for name in ["test.invalid/foreign:1", "test.invalid/single:1"] {
        let error = store.pull(name, &[], &NoProgress).await.unwrap_err();
        assert!(matches!(error, ImageError::WrongPlatform { .. }), "{error}");
        assert!(error.to_string().contains(other), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_itself_outvotes_a_stale_mirror() {
    let (stale, fresh) = (Registry::start().await, Registry::start().await);
    stale.push("app", "1", ARCH, &[noise(10, 1000)]).await;
    let digest = fresh.push("app", "1", ARCH, &[noise(11, 1000)]).await;
    let mirror = Proxy::start(stale.address, Fault::None).await;
    let dir = tempfile::tempdir().unwrap();
    // A registry by its loopback address is asked itself, in plain text after TLS has failed.
    let mut config = config(&[]);
    let text = format!("{}=http://{}", fresh.address, mirror.address);
    config.mirrors = vec![MirrorArgument::parse(&text).unwrap()];
    let store = open(dir.path(), config);
    let image = store.pull(&format!("{}/app:1", fresh.address), &[], &NoProgress).await.unwrap();
    assert_eq!(image.manifest, digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_fail_the_error_is_a_table_of_what_each_said() {
    let registry = Registry::start().await;
    let one = Proxy::start(registry.address, Fault::Status(503)).await;
    let two = Proxy::start(registry.address, Fault::None).await;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), config(&[&one, &two]));
    let error = store.pull("test.invalid/absent:1", &[], &NoProgress).await.unwrap_err();
    let ImageError::AllFailed { attempts, .. } = &error else { panic!("{error}") };
    assert_eq!(attempts.len(), 3, "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("http://{}/absent", one.address)) && text.contains("503"), "{text}");
    assert!(text.contains("404"), "{text}");
    assert!(text.contains("https://test.invalid/absent"), "{text}");
    assert!(store.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_the_same_image_at_once_fetch_it_once() {
    let registry = Registry::start().await;
    registry.push("app", "1", ARCH, &[noise(12, LAYER)]).await;
    let proxy = Proxy::start(registry.address, Fault::None).await;
    let dir = tempfile::tempdir().unwrap();
    let stores = [open(dir.path(), config(&[&proxy])), open(dir.path(), config(&[&proxy]))];
    let pulls = stores.iter().cycle().take(6).map(|store| store.pull("test.invalid/app:1", &[], &NoProgress));
    for pulled in futures::future::join_all(pulls).await {
        pulled.unwrap();
    }
    assert!(proxy.sent() < LAYER as u64 + 10_000, "{} bytes sent for {LAYER}", proxy.sent());
}
