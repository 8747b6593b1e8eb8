//! Where images come from: mirrors that are tried and changed while a cluster runs, logins, authorities, the cache that all
//! clusters share, bundles.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use kminik_base::pki::{Authority, Subject, Usage};
use serde_json::{Value, json};

use crate::Test;
use crate::docker::Engine;
use crate::support::{
    Cluster, Host, LOGIN, Output, Registry, Served, busybox, command, eventually, kminik_binary, nginx, run,
};

pub const TESTS: &[Test] = &[
    ("mirrors_are_listed_tried_and_changed_without_a_cluster", without_a_cluster),
    ("a_mirror_added_while_the_cluster_runs_serves_the_next_pod", added_while_running),
    ("a_second_cluster_pulls_nothing_twice_and_needs_no_network", shared_cache),
    ("the_cache_is_kept_within_its_limit", limited_cache),
    ("nodes_of_the_docker_driver_use_mirrors_and_the_cache_too", docker_driver),
    ("a_bundle_is_whole_or_refused", bundle),
    ("a_stopped_or_killed_download_goes_on_where_it_was", killed),
    ("what_was_only_downloaded_starts_a_cluster_without_a_network", downloaded_only),
    ("what_sudo_has_cached_is_the_users", sudo),
    ("logins_of_docker_and_its_helpers_pull_and_push", logins),
    ("pulls_go_through_a_proxy_on_this_machines_loopback", proxy),
    ("own_authorities_and_insecure_ranges_are_honoured", authorities),
];

/// kminik on a home alone.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(kminik_binary());
        command.args(arguments).env("KMINIK_HOME", self.0.path()).env("KUBECONFIG", self.0.path().join("kubeconfig"));
        command.env("DOCKER_CONFIG", self.0.path().join("docker"));
        command
    }

    #[track_caller]
    fn kminik(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments), None)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

fn rows(text: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(text).unwrap().as_array().unwrap().clone()
}

fn without_a_cluster() {
    let home = Home::new();
    let (one, two) = (Registry::start(), Registry::start());
    one.push(&busybox(), "library/app:1");
    two.push(&nginx(), "library/app:1");
    let places = |home: &Home| -> Vec<String> {
        let listed = rows(&home.kminik(&["mirror", "list", "-o", "json"]).ok());
        let hub = listed.into_iter().filter(|row| row["registry"] == "docker.io");
        hub.map(|row| row["place"].as_str().unwrap().to_owned()).collect()
    };
    let hub = "https://registry-1.docker.io".to_owned();
    assert_eq!(places(&home), std::slice::from_ref(&hub));
    let [a, b] = [format!("http://{}", one.address()), format!("http://{}", two.address())];
    home.kminik(&["mirror", "add", &a]).ok();
    home.kminik(&["mirror", "add", &format!("docker.io={b}"), "--first"]).ok();
    assert_eq!(places(&home), [b.clone(), a.clone(), hub.clone()]);
    home.kminik(&["mirror", "order", &a, &b]).ok();
    assert_eq!(places(&home), [a.clone(), b.clone(), hub.clone()]);
    home.kminik(&["mirror", "order", &a, "http://absent.example"]).fails(48);
    home.kminik(&["mirror", "add", "ftp://x"]).fails(14);
    // A third place is dead, and the registry itself out of reach: of the others the majority is none, so they differ.
    home.kminik(&["mirror", "add", "http://127.0.0.1:1"]).ok();
    let tried = home.kminik(&["mirror", "test", "app:1", "-o", "json"]).ok();
    let tried = rows(&tried);
    assert_eq!(tried.len(), 4);
    let find = |place: &str| tried.iter().find(|row| row["place"].as_str().unwrap().starts_with(place)).unwrap();
    assert!(find(&a)["bytesPerSecond"].as_u64().unwrap() > 0, "{tried:?}");
    assert_eq!(find(&a)["agrees"], json!(true));
    assert_eq!(find(&b)["agrees"], json!(false));
    assert!(find("http://127.0.0.1:1")["error"].as_str().unwrap().contains("refused"), "{tried:?}");
    assert!(find(&hub)["error"].is_string());
    // What was found out is remembered.
    let listed = home.kminik(&["mirror", "list"]).ok();
    let line = |place: &str| listed.lines().find(|line| line.contains(place)).unwrap();
    assert!(line(&a).contains("worked 2") && line("http://127.0.0.1:1 ").contains("failed 2"), "{listed}");
    let table = home.kminik(&["mirror", "test", "app:1"]).ok();
    assert!(table.contains("serves something else") && table.contains("Speed"), "{table}");
    let told = home.kminik(&["mirror", "test", "absent:1"]).fails(40);
    assert!(told.contains("INET_MIRRORS") && told.contains("docker.io/library/absent:1"), "{told}");
    home.kminik(&["mirror", "remove", &b]).ok();
    home.kminik(&["mirror", "remove", &b]).fails(48);
    assert!(!places(&home).contains(&b));

    // The list by country: the built-in one, a file's, one fetched through a URL, and back.
    let cn = rows(&home.kminik(&["mirror", "list", "--country=cn", "-o", "json"]).ok());
    assert!(cn.iter().filter(|row| row["registry"] == "ghcr.io" && row["source"] == "preset").count() > 2, "{cn:?}");
    let files: Vec<&Value> = cn.iter().filter(|row| row["registry"] == "dl.k8s.io").collect();
    assert!(files.len() > 2 && files.last().unwrap()["place"] == "https://dl.k8s.io", "{files:?}");
    home.kminik(&["mirror", "list", "--country=mars"]).fails(40);
    let list = "format = 1\nupdated = \"2031-02\"\n[country.mars]\n\"docker.io\" = [{ url = \"http://127.0.0.1:9/mars\", known = \"2031-01\" }]\n";
    let good = home.file("list.toml", list);
    let bad = home.file("bad.toml", "format = 9\n");
    home.kminik(&["mirror", "update", &bad]).fails(48);
    assert!(home.kminik(&["mirror", "update", &good]).ok().is_empty());
    let mars = home.kminik(&["mirror", "list", "--country=mars"]).ok();
    assert!(mars.contains("http://127.0.0.1:9/mars") && mars.contains("2031-01"), "{mars}");
    home.kminik(&["mirror", "update"]).fails(14);
    let url = web(list.replace("mars", "moon"));
    home.kminik(&["mirror", "update", &url]).ok();
    home.kminik(&["mirror", "list", "--country=moon"]).ok();
    home.kminik(&["mirror", "update", &format!("{url}/absent")]).fails(40);
    home.kminik(&["mirror", "update", "--built-in"]).ok();
    home.kminik(&["mirror", "list", "--country=moon"]).fails(40);
}

/// A web server with one page.
fn web(page: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/list.toml", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let Some(head) = head(&mut client) else { continue };
            let (status, body) =
                if head.starts_with("GET /list.toml HTTP") { ("200 OK", page.as_str()) } else { ("404 Not Found", "") };
            let length = body.len();
            let _ = write!(client, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        }
    });
    url
}

/// A request up to its empty line.
fn head(client: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0_u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn pod(cluster: &Cluster, name: &str, image: &str) {
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: c, image: '{image}', \
         imagePullPolicy: IfNotPresent, command: [sleep, '3600']}}]}}}}"
    ));
}

fn runs(cluster: &Cluster, name: &str) {
    let pod = format!("pod/{name}");
    cluster.kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=60s"]).ok();
}

fn added_while_running() {
    let registry = Registry::start();
    registry.push(&busybox(), "library/late:1");
    let cluster = Cluster::start("late", &[]);
    pod(&cluster, "late", "late:1");
    let failed = || cluster.kubectl(&["get", "pod", "late"]).stdout;
    eventually("the pull to fail", || {
        let told = failed();
        (told.contains("ErrImagePull") || told.contains("ImagePullBackOff")).then_some(())
    });
    let starts = || cluster.kminik(&["logs", "--length=100000"]).ok().matches("node started").count();
    assert_eq!(starts(), 1);
    let told = cluster.kminik(&["mirror", "add", &format!("http://{}", registry.address())]);
    assert!(told.stderr.contains("go by it"), "{told:?}");
    runs(&cluster, "late");
    assert_eq!(starts(), 1, "the node was started anew");
    let listed = cluster.kminik(&["mirror", "list"]).ok();
    assert!(listed.contains("mirrors.toml") && listed.contains(&registry.address()), "{listed}");

    // What is removed is asked no more.
    eventually("the image in the cache", || cluster.kminik(&["cache", "list"]).ok().contains("late:1").then_some(()));
    cluster.kminik(&["mirror", "remove", &format!("http://{}", registry.address())]).ok();
    cluster.kminik(&["image", "rm", "late:1"]).ok();
    cluster.kminik(&["cache", "delete", "late:1"]).ok();
    let refused = cluster.kminik(&["image", "pull", "late:1"]).fails(80);
    assert!(refused.contains("registry-1.docker.io") && !refused.contains(&registry.address()), "{refused}");

    // So does a mirror that a second start gives.
    cluster.start_again(&[&format!("--registry-mirror=http://{}", registry.address())]).ok();
    cluster.kminik(&["image", "pull", "late:1"]).ok();
    assert_eq!(starts(), 1, "the node was started anew");
}

fn shared_cache() {
    let registry = Registry::start();
    registry.push(&busybox(), "library/shared:1");
    let mirror = format!("--registry-mirror=http://{}", registry.address());
    let cluster = Cluster::start("first", &[&mirror]);
    pod(&cluster, "one", "shared:1");
    runs(&cluster, "one");
    let cached = || cluster.kminik(&["cache", "list"]).ok();
    eventually("the image in the cache", || cached().contains("docker.io/library/shared:1").then_some(()));
    // It is served to those who know the cluster's token, as a registry to any client.
    let config = cluster.home().join(format!("home/profiles/{}/config.json", cluster.profile));
    let config: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    let source = format!("docker://{}:24999/library/shared:1", config["gateway"].as_str().unwrap());
    let target = format!("dir:{}", cluster.home().join("copied").display());
    let copy = |login: &str| {
        let login = format!("--src-creds={login}");
        run(
            &mut command("skopeo", &["--insecure-policy", "copy", "--src-tls-verify=false", &login, &source, &target]),
            None,
        )
    };
    copy(&format!("kminik:{}", config["cacheToken"].as_str().unwrap())).ok();
    assert_ne!(copy("kminik:guessed").code, 0);
    drop(registry);
    cluster.delete().ok();
    // Another cluster of the same home, no mirror, no registry.
    cluster.start_again(&[]).ok();
    pod(&cluster, "two", "shared:1");
    runs(&cluster, "two");
    cluster.kminik(&["cache", "delete", "shared:1"]).ok();
    assert!(!cached().contains("shared:1"));
}

fn limited_cache() {
    let registry = Registry::start();
    registry.push(&busybox(), "library/small:1");
    registry.push(&nginx(), "library/large:1");
    let home = Home::new();
    home.kminik(&["mirror", "add", &format!("http://{}", registry.address())]).ok();
    home.kminik(&["cache", "add", "small:1", "large:1"]).ok();
    let info = || home.kminik(&["cache", "info", "-o", "json"]).json();
    let before = info();
    assert_eq!((&before["images"], &before["limitBytes"]), (&2.into(), &(32_u64 << 30).into()), "{before}");
    assert_eq!(before["bytes"], walk(&home.0.path().join("cache/images/blobs")));
    home.kminik(&["config", "set", "cache-limit", "none"]).fails(10);
    home.kminik(&["config", "set", "cache-limit", "1m"]).ok();

    // A bundle has all that it is to have, whatever the limit.
    let file = home.0.path().join("both.tar");
    home.kminik(&["bundle", "create", file.to_str().unwrap(), "small:1", "large:1"]).ok();
    let elsewhere = Home::new();
    elsewhere.kminik(&["bundle", "load", file.to_str().unwrap()]).ok();
    assert_eq!(elsewhere.kminik(&["cache", "list"]).ok().lines().count(), 2);

    home.kminik(&["cache", "add", "large:1"]).ok();
    home.kminik(&["cache", "add", "small:1"]).ok();
    assert_eq!(home.kminik(&["cache", "list"]).ok(), "docker.io/library/small:1\n", "what was wanted last stays");
    let after = info();
    assert_eq!((&after["images"], &after["limitBytes"]), (&1.into(), &(1 << 20).into()), "{after}");
    assert!(after["bytes"].as_u64() < before["bytes"].as_u64(), "{after}");
    assert!(home.kminik(&["cache", "info"]).ok().contains("limit: 1.05MB"));
    home.kminik(&["config", "set", "cache-limit", "no-limit"]).ok();
    home.kminik(&["cache", "add", "large:1"]).ok();
    assert_eq!(info()["limitBytes"], Value::Null);
    assert_eq!(info()["images"], 2);
}

fn docker_driver() {
    let _engine = Engine::get();
    let registry = Registry::start();
    registry.push(&busybox(), "library/contained:1");
    let cluster = Cluster::start("contained", &["--driver=docker"]);
    let told = cluster.kminik(&["mirror", "add", &format!("http://{}", registry.address())]);
    assert!(told.stderr.contains("go by it"), "{told:?}");
    pod(&cluster, "contained", "contained:1");
    runs(&cluster, "contained");
    let cached = || cluster.kminik(&["cache", "list"]).ok();
    eventually("the image in the cache", || cached().contains("contained:1").then_some(()));
    drop(registry);
    cluster.kubectl(&["delete", "pod", "contained", "--force", "--grace-period=0"]).ok();
    cluster.kminik(&["image", "rm", "contained:1"]).ok();
    cluster.kminik(&["image", "pull", "contained:1"]).ok();
}

fn bundle() {
    let registry = Registry::start();
    registry.push(&busybox(), "library/packed:1");
    let home = Home::new();
    home.kminik(&["mirror", "add", &format!("http://{}", registry.address())]).ok();
    let file = home.0.path().join("bundle.tar");
    let name = file.to_str().unwrap();
    home.kminik(&["bundle", "create", name]).fails(14);
    home.kminik(&["bundle", "create", name, "absent:1"]).fails(40);
    assert!(!file.exists());
    let told = home.kminik(&["bundle", "create", name, "packed:1"]);
    assert!(told.stderr.contains("sha256:"), "{told:?}");
    drop(registry);

    let cluster = Cluster::prepare("bundle");
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 3] ^= 1;
    let outward = {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..11].copy_from_slice(b"../../evil1");
        header.set_size(0);
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
        tar.into_inner().unwrap()
    };
    for (what, content) in [("flipped", &flipped), ("cut", &whole[..whole.len() / 2].to_vec()), ("outward", &outward)] {
        let path = home.file(what, "");
        std::fs::write(&path, content).unwrap();
        let told = cluster.kminik(&["bundle", "load", &path]).fails(80);
        assert!(told.contains("GUEST_CACHE_LOAD"), "{what}: {told}");
        assert_eq!(cluster.kminik(&["cache", "list"]).ok(), "", "{what}");
    }
    cluster.kminik(&["bundle", "load", "/no/such/bundle"]).fails(35);
    cluster.kminik(&["bundle", "load", name]).ok();
    assert!(cluster.kminik(&["cache", "list"]).ok().contains("docker.io/library/packed:1"));
    cluster.start_again(&[]).ok();
    pod(&cluster, "packed", "packed:1");
    runs(&cluster, "packed");
}

/// Passes requests on, counts the bytes of the answers, and stops in the midst of a long one twice.
fn stalling_proxy(upstream: u16, at: usize) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent = Arc::new(AtomicU64::new(0));
    let (counter, stalls) = (sent.clone(), Arc::new(AtomicUsize::new(0)));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (counter, stalls) = (counter.clone(), stalls.clone());
            std::thread::spawn(move || pass(client, upstream, at, &counter, &stalls));
        }
    });
    (port, sent)
}

fn pass(mut client: TcpStream, upstream: u16, at: usize, sent: &AtomicU64, stalls: &AtomicUsize) -> Option<()> {
    let request = head(&mut client)?.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).ok()?;
    server.write_all(request.as_bytes()).ok()?;
    let mut buffer = [0_u8; 8192];
    let mut passed = 0;
    loop {
        let read = server.read(&mut buffer).ok().filter(|read| *read > 0)?;
        client.write_all(&buffer[..read]).ok()?;
        passed += read;
        sent.fetch_add(read as u64, Ordering::SeqCst);
        if passed > at && stalls.fetch_add(1, Ordering::SeqCst) < 2 {
            // As long as the reader is there.
            let _ = client.set_read_timeout(Some(Duration::from_secs(60)));
            let _ = client.read(&mut buffer);
            return None;
        }
    }
}

fn killed() {
    let registry = Registry::start();
    registry.push(&nginx(), "library/large:1");
    let (port, sent) = stalling_proxy(registry.port, 1_000_000);
    let home = Home::new();
    home.kminik(&["mirror", "add", &format!("http://127.0.0.1:{port}")]).ok();
    for (reached, signal, code) in [(1_000_000, "INT", Some(2)), (2_000_000, "KILL", None)] {
        let mut download = home.command(&["cache", "add", "large:1"]).spawn().unwrap();
        eventually("so many bytes", || (sent.load(Ordering::SeqCst) > reached).then_some(()));
        std::thread::sleep(Duration::from_millis(300));
        run(&mut command("kill", &["-s", signal, &download.id().to_string()]), None).ok();
        assert_eq!(download.wait().unwrap().code(), code);
        assert_eq!(home.kminik(&["cache", "list"]).ok(), "");
    }
    home.kminik(&["cache", "add", "large:1"]).ok();
    assert!(home.kminik(&["cache", "list"]).ok().contains("library/large:1"));
    let size: u64 = walk(&home.0.path().join("cache/images/blobs"));
    let all = sent.load(Ordering::SeqCst);
    assert!(all < size + 400_000, "{all} bytes came for {size}");
}

/// As sudo runs it, for a user who then does without.
fn sudo() {
    let registry = Registry::start();
    registry.push(&busybox(), "library/mine:1");
    registry.push(&nginx(), "library/more:1");
    let home = Home::new();
    // Somewhere that everybody may run it from.
    let binary = home.0.path().join("kminik");
    run(std::process::Command::new("cp").arg(kminik_binary()).arg(&binary), None).ok();
    let theirs = home.0.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
    std::fs::set_permissions(home.0.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let kminik = |root: bool, arguments: &[&str]| {
        let mut command = std::process::Command::new(&binary);
        command.args(arguments).env("KMINIK_HOME", theirs.join("kminik")).env("HOME", &theirs);
        match root {
            true => command.env("SUDO_UID", "65534").env("SUDO_GID", "65534"),
            false => command.uid(65534).gid(65534),
        };
        run(&mut command, None)
    };
    kminik(true, &["mirror", "add", &format!("http://{}", registry.address())]).ok();
    kminik(true, &["cache", "add", "mine:1"]).ok();
    kminik(false, &["cache", "add", "more:1"]).ok();
    assert_eq!(kminik(false, &["cache", "list"]).ok().lines().count(), 2);
    kminik(false, &["mirror", "remove", &format!("http://{}", registry.address())]).ok();
    kminik(true, &["cache", "delete", "more:1"]).ok();
    kminik(false, &["cache", "delete", "--all"]).ok();
    assert_eq!(kminik(false, &["cache", "list"]).ok(), "");
}

/// The base image is busybox: a userland is whatever it has.
fn downloaded_only() {
    let registry = Registry::start();
    registry.push(&busybox(), "library/base:1");
    let mirror = format!("--registry-mirror=http://{}", registry.address());
    let cluster = Cluster::prepare("offline");
    let told = cluster.start_again(&["--download-only", "--base-image=base:1", &mirror]);
    assert!(told.stderr.contains("Download complete!"), "{told:?}");
    assert!(!cluster.home().join("home/profiles").join(&cluster.profile).exists());
    let packed = cluster.home().join("packed.tar");
    let name = packed.to_str().unwrap();
    cluster.kminik(&["bundle", "create", name, "--base-image=base:1"]).ok();
    drop(registry);
    cluster.start_again(&["--base-image=base:1"]).ok();
    assert!(cluster.kminik(&["ssh", "busybox true && echo userland"]).ok().contains("userland"));
    // The same on another machine, from the bundle.
    let elsewhere = Cluster::prepare("elsewhere");
    elsewhere.start_again(&["--base-image=base:1"]).fails(40);
    elsewhere.kminik(&["bundle", "load", name]).ok();
    elsewhere.start_again(&["--base-image=base:1", "--wait=none"]).ok();
}

fn walk(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { walk(&path) } else { path.metadata().unwrap().len() }).sum()
}

fn logins() {
    let registry = Registry::serve(&Served { login: true, ..Served::default() });
    let cluster = Cluster::prepare("logins");
    let home = Home::new();
    let address = registry.address();
    cluster.start_again(&[&format!("--insecure-registry={address}")]).ok();
    cluster.load(&busybox());
    let target = format!("{address}/team/tool:1");
    cluster.kminik(&["image", "tag", "busybox:latest", &target]).ok();
    let kminik = |arguments: &[&str], docker: &str, path: &str| {
        let mut command = cluster.command(arguments);
        command.env("DOCKER_CONFIG", home.0.path().join(docker)).env("PATH", path);
        run(&mut command, None)
    };
    let path = std::env::var("PATH").unwrap();
    let none = kminik(&["image", "push", &target], "nothing", &path).fails(80);
    assert!(none.contains("GUEST_IMAGE_PUSH") && none.contains("credentials are needed"), "{none}");
    let (user, password) = LOGIN;
    let auth = |password: &str| base64(&format!("{user}:{password}"));
    home.file("wrong/config.json", &json!({"auths": {&address: {"auth": auth("wrong")}}}).to_string());
    home.file("right/config.json", &json!({"auths": {&address: {"auth": auth(password)}}}).to_string());
    assert!(kminik(&["image", "push", &target], "wrong", &path).fails(80).contains("401"));
    kminik(&["image", "push", &target], "right", &path).ok();

    // A helper, found by PATH; then one that never answers, and one that has nothing.
    let tools = home.0.path().join("tools");
    for (name, script) in [
        (
            "good",
            format!(
                "#!/bin/sh\nread server; [ \"$server\" = {address} ] && echo '{{\"Username\":\"{user}\",\"Secret\":\"{password}\"}}'\n"
            ),
        ),
        ("empty", "#!/bin/sh\necho 'credentials not found in native keychain'; exit 1\n".to_owned()),
    ] {
        let path = home.file(&format!("tools/docker-credential-{name}"), &script);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        home.file(&format!("{name}/config.json"), &json!({"credHelpers": {&address: name}}).to_string());
    }
    home.file("missing/config.json", &json!({"credsStore": "missing"}).to_string());
    let path = format!("{}:{path}", tools.display());
    cluster.kminik(&["image", "rm", &target]).ok();
    let pull = ["image", "pull", target.as_str()];
    kminik(&pull, "empty", &path).fails(80);
    let told = kminik(&pull, "missing", &path).fails(80);
    assert!(told.contains("docker-credential-missing"), "{told}");
    kminik(&pull, "good", &path).ok();
    assert!(cluster.kminik(&["image", "ls"]).ok().contains(&target));
    // What needs a login does not go to everybody's cache.
    assert!(!cluster.kminik(&["cache", "list"]).ok().contains("team/tool"));

    // A pod's own pull secret.
    cluster.kminik(&["image", "rm", &target]).ok();
    let server = format!("--docker-server={address}");
    cluster
        .kubectl(&[
            "create",
            "secret",
            "docker-registry",
            "pull",
            &server,
            "--docker-username=me",
            "--docker-password=secret",
        ])
        .ok();
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: private}}, spec: {{imagePullSecrets: [{{name: pull}}], \
         containers: [{{name: c, image: '{target}', command: [sleep, '3600']}}]}}}}"
    ));
    runs(&cluster, "private");
}

fn base64(text: &str) -> String {
    run(std::process::Command::new("base64").arg("-w0"), Some(text.as_bytes())).ok()
}

/// A proxy that knows one registry, whatever it is called; what went through it.
fn forwarding_proxy(upstream: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let passed = Arc::new(AtomicUsize::new(0));
    let counter = passed.clone();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let counter = counter.clone();
            std::thread::spawn(move || {
                let request = head(&mut client)?;
                let Some(path) = request.strip_prefix("GET http://registry.test:5000/") else {
                    return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").ok();
                };
                counter.fetch_add(1, Ordering::SeqCst);
                let mut server = TcpStream::connect(("127.0.0.1", upstream)).ok()?;
                let request = format!("GET /{path}").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
                server.write_all(request.as_bytes()).ok()?;
                std::io::copy(&mut server, &mut client).ok().map(drop)
            });
        }
    });
    (port, passed)
}

fn proxy() {
    let registry = Registry::start();
    registry.push(&busybox(), "tool:1");
    let (port, passed) = forwarding_proxy(registry.port);
    let url = format!("http://127.0.0.1:{port}");
    let cluster = Cluster::prepare("proxy");
    let mut start = cluster.command(&["start", "--driver=native", "--insecure-registry=registry.test"]);
    run(start.env("HTTP_PROXY", &url).env("HTTPS_PROXY", &url).env("http_proxy", &url), None).ok();
    pod(&cluster, "tool", "registry.test:5000/tool:1");
    runs(&cluster, "tool");
    let by_node = passed.load(Ordering::SeqCst);
    assert!(by_node > 2, "{by_node} requests went through the proxy");
    // The command line's own pulls go through it too.
    let mut add = cluster.command(&["cache", "add", "registry.test:5000/tool:1"]);
    run(add.env("HTTP_PROXY", &url).env("HTTPS_PROXY", &url).env("http_proxy", &url), None).ok();
    assert!(passed.load(Ordering::SeqCst) > by_node);
}

/// Ends when dropped.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says of every name that it is at 203.0.113.1.
const NAME_SERVER: &str = r#"
    use IO::Socket::INET;
    my $socket = IO::Socket::INET->new(LocalAddr => "203.0.113.1", LocalPort => 53, Proto => "udp") or die;
    while ($socket->recv(my $query, 512)) {
        my $end = 12;
        while (my $length = ord(substr($query, $end, 1))) { $end += $length + 1 }
        my $is_a = unpack("n", substr($query, $end + 1, 2)) == 1;
        my $answer = $is_a ? pack("nnnNnC4", 0xc00c, 1, 1, 60, 4, 203, 0, 113, 1) : "";
        my $head = substr($query, 0, 2) . pack("nnnnn", 0x8180, 1, $is_a ? 1 : 0, 0, 0);
        $socket->send($head . substr($query, 12, $end - 7) . $answer);
    }
"#;

/// Behind the uplink are a registry whose certificate an authority of the company has signed, and one in plain text.
fn authorities() {
    let host = Arc::new(Host::new());
    let outside = host.with_outside();
    let address = "203.0.113.1";
    let _dns = Running(outside.command("perl", &["-e", NAME_SERVER]).spawn().unwrap());
    let resolv = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(resolv.path(), format!("nameserver {address}\n")).unwrap();
    host.sh(&format!("mount --bind {} /etc/resolv.conf", resolv.path().display())).ok();
    let authority = Authority::generate("company", Duration::from_secs(86_400)).unwrap();
    let usage = Usage::Server { names: Vec::new(), addresses: vec![address.parse().unwrap()] };
    let identity = authority.issue(&Subject::new("registry", None), &usage, Duration::from_secs(86_400)).unwrap();
    let signed = Registry::serve(&Served {
        at: Some((&outside, address)),
        tls: Some((identity.cert_pem, identity.key_pem)),
        ..Served::default()
    });
    let plain = Registry::serve(&Served { at: Some((&outside, address)), ..Served::default() });
    let cluster = Cluster::on(&host, "company");
    let ca = cluster.home().join("company.crt");
    std::fs::write(&ca, authority.cert_pem()).unwrap();
    let image = |registry: &Registry, name: &str| format!("{address}:{}/{name}", registry.port);
    let push = |image: &str| {
        cluster.kminik(&["image", "tag", "busybox:latest", image]).ok();
        let pushed = cluster.kminik(&["image", "push", image]);
        cluster.kminik(&["image", "rm", image]).ok();
        pushed
    };
    let start = |arguments: &[&str]| {
        cluster.kminik(&["delete"]).ok();
        cluster.start_again(arguments).ok();
        cluster.load(&busybox());
    };
    cluster.start_again(&["--ca-cert=/no/such/file"]).fails(48);
    start(&[&format!("--ca-cert={}", ca.display())]);
    push(&image(&signed, "tool:1")).ok();
    push(&image(&signed, "tool:2")).ok();
    pod(&cluster, "signed", &image(&signed, "tool:1"));
    runs(&cluster, "signed");
    push(&image(&plain, "tool:1")).fails(80);

    start(&["--insecure-registry=203.0.113.0/24"]);
    push(&image(&plain, "tool:1")).ok();
    pod(&cluster, "plain", &image(&plain, "tool:1"));
    runs(&cluster, "plain");
    // A name that leads into the range.
    push(&format!("plain.example:{}/tool:2", plain.port)).ok();

    let certs = cluster.home().join("home/certs");
    std::fs::create_dir_all(&certs).unwrap();
    std::fs::copy(&ca, certs.join("company.pem")).unwrap();
    start(&[]);
    cluster.kminik(&["image", "pull", &image(&signed, "tool:2")]).ok();
    let absent = cluster.kminik(&["image", "pull", &image(&signed, "absent:1")]).fails(80);
    assert!(absent.contains("404"), "{absent}");
    std::fs::remove_file(certs.join("company.pem")).unwrap();
    cluster.kminik(&["stop"]).ok();
    cluster.start_again(&[]).ok();
    let unknown = cluster.kminik(&["image", "pull", &image(&signed, "absent:1")]).fails(80);
    assert!(unknown.contains("certificate"), "{unknown}");
}
