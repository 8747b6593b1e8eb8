//! Images: from archives, from a real registry through mirrors, as the node's own userland.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::Test;
use crate::docker::{Engine, docker};
use crate::support::{
    Cluster, Registry, busybox, command, debian, eventually, foreign, kminik_binary, nginx, run, says, shared,
};

pub const TESTS: &[Test] = &[
    ("image_commands_list_tag_save_and_remove", commands),
    ("images_go_between_an_engine_and_the_cluster", engine),
    ("a_pull_goes_through_the_mirror_to_a_real_registry", mirror),
    ("a_base_image_survives_a_dead_and_a_cut_off_mirror", base_image),
    ("a_base_image_of_another_architecture_is_refused", foreign_base_image),
    ("kubernetes_own_images_come_from_the_image_repository", image_repository),
];

fn commands() {
    let cluster = shared();
    let listed = cluster.kminik(&["image", "ls"]).ok();
    assert!(listed.lines().any(|l| l == "docker.io/library/busybox:latest"), "{listed}");
    let table = cluster.kminik(&["image", "ls", "--format", "table"]).ok();
    assert!(table.contains("│ docker.io/library/busybox") && table.contains("Image ID"), "{table}");
    let json = cluster.kminik(&["image", "ls", "--format", "json"]).json();
    assert!(
        json.as_array()
            .unwrap()
            .iter()
            .all(|i| i["id"].is_string() && i["size"].is_string() && i["repoTags"].is_array())
    );
    assert!(cluster.kminik(&["image", "ls", "--format", "yaml"]).ok().contains("repoTags:"));
    cluster.kminik(&["image", "tag", "busybox:latest", "example.com/mine:1"]).ok();
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved.tar");
    cluster.kminik(&["image", "save", "example.com/mine:1", saved.to_str().unwrap()]).ok();
    cluster.kminik(&["image", "rm", "example.com/mine:1"]).ok();
    assert!(!cluster.kminik(&["image", "ls"]).ok().contains("example.com/mine"));
    cluster.kminik(&["image", "load", saved.to_str().unwrap()]).ok();
    assert!(cluster.kminik(&["image", "ls"]).ok().contains("example.com/mine:1"));
    // By pipes: nothing but the archive is on stdout.
    let binary = kminik_binary();
    let pipe = format!("{0} image save example.com/mine:1 - | {0} image load - 2>&1", binary.display());
    let mut piped = cluster.command(&[]);
    let envs: Vec<_> = piped.get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
    piped = command("sh", &["-c", &pipe]);
    piped.env("KMINIK_PROFILE", &cluster.profile);
    piped.envs(envs.into_iter().filter_map(|(key, value)| Some((key, value?))));
    assert!(run(&mut piped, None).ok().contains("Loaded example.com/mine:1"));
    let told = cluster.kminik(&["image", "load", "--overwrite=false", "example.com/mine:1"]);
    assert!(told.stderr.contains("there already"), "{told:?}");
    let absent = cluster.kminik(&["image", "load", "--remote", "registry.invalid/absent:1"]).fails(40);
    assert!(absent.contains("INET_PULL") && absent.contains("https://registry.invalid/absent"), "{absent}");
    cluster.kminik(&["image", "rm", "example.com/none:1"]).fails(80);
    cluster.kminik(&["image", "load", "/no/such/file.tar"]).fails(35);
    let bad = dir.path().join("bad.tar");
    std::fs::write(&bad, b"not an archive").unwrap();
    cluster.kminik(&["image", "load", bad.to_str().unwrap()]).fails(80);
    std::fs::write(&bad, "root:x:0:0:root:/root:/bin/sh\n".repeat(100)).unwrap();
    let told = cluster.kminik(&["image", "load", bad.to_str().unwrap()]).fails(80);
    assert!(told.contains("no tar archive") && !told.contains("root:x"), "{told}");
}

fn engine() {
    let _engine = Engine::get();
    let cluster = shared();
    docker(&["load", "-i", busybox().path().to_str().unwrap()]);
    docker(&["tag", "busybox:latest", "engine.example/tool:1"]);
    cluster.kminik(&["image", "load", "--daemon", "engine.example/tool:1"]).ok();
    let listed = || cluster.kminik(&["image", "ls"]).ok();
    assert!(listed().contains("engine.example/tool:1"));
    cluster.kminik(&["image", "rm", "engine.example/tool:1"]).ok();
    // What is no file is looked for in the engine.
    cluster.kminik(&["image", "load", "engine.example/tool:1"]).ok();
    assert!(listed().contains("engine.example/tool:1"));
    let told = cluster.kminik(&["image", "load", "--daemon", "engine.example/absent:1"]).fails(80);
    assert!(told.contains("GUEST_IMAGE_LOAD") && told.contains("engine.example/absent:1"), "{told}");
    cluster.kminik(&["image", "tag", "engine.example/tool:1", "engine.example/back:1"]).ok();
    cluster.kminik(&["image", "save", "--daemon", "engine.example/back:1"]).ok();
    assert_eq!(docker(&["run", "--rm", "--network=none", "engine.example/back:1", "-c", "echo back"]), "back\n");
    for name in ["engine.example/tool:1", "engine.example/back:1"] {
        cluster.kminik(&["image", "rm", name]).ok();
        docker(&["rmi", name]);
    }
    docker(&["rmi", "busybox:latest"]);
}

/// The registry listens on the user's loopback only, as does the mirror's address that is given.
fn mirror() {
    let registry = Registry::start();
    registry.push(&nginx(), "library/nginx:latest");
    let mirror = format!("--registry-mirror=docker.io=http://127.0.0.1:{}", registry.port);
    let cluster = Cluster::start("mirror", &[&mirror]);
    cluster.kubectl(&["create", "deployment", "nginx", "--image=nginx:latest"]).ok();
    cluster.kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]).ok();
    assert!(cluster.kminik(&["image", "ls"]).ok().contains("docker.io/library/nginx:latest"));
    // A name that was given here is handed on to a node that comes, which would find it nowhere.
    cluster.kminik(&["image", "tag", "nginx:latest", "example.com/mine:1"]).ok();
    cluster.kminik(&["node", "add"]).ok();
    let second = format!("/api/v1/nodes/{}-m02/proxy/kminik/v1/images", cluster.profile);
    let listed = cluster.kubectl(&["get", "--raw", &second]).ok();
    assert!(listed.contains("example.com/mine:1"), "{listed}");
    // Of an image that one node has its word counts, not that of those who lack it.
    cluster.kminik(&["image", "tag", "nginx:latest", "127.0.0.1:1/refused:1"]).ok();
    let told = cluster.kminik(&["image", "push", "127.0.0.1:1/refused:1"]).fails(80);
    assert!(told.contains("cannot be pushed") && !told.contains("is stored"), "{told}");
}

/// Kubernetes' own images by their whole path and by its last part; others are none of this repository's.
fn image_repository() {
    let registry = Registry::start();
    registry.push(&says("x", "nested"), "mine/coredns/coredns:v1");
    registry.push(&says("x", "flat"), "mine/storage-provisioner:v5");
    registry.push(&says("x", "plain"), "mine/pause:3");
    registry.push(&says("x", "foreign"), "mine/library/foreign:1");
    let repository = format!("--image-repository=http://{}/mine/", registry.address());
    let cluster = Cluster::start("repository", &[&repository]);
    for (name, image) in [
        ("nested", "registry.k8s.io/coredns/coredns:v1"),
        ("flat", "gcr.io/k8s-minikube/storage-provisioner:v5"),
        ("plain", "k8s.gcr.io/pause:3"),
        ("foreign", "foreign:1"),
    ] {
        cluster.kubectl(&["run", name, "--image", image]).ok();
    }
    for name in ["nested", "flat", "plain"] {
        cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("pod/{name}")]).ok();
        assert_eq!(cluster.kubectl(&["exec", name, "--", "cat", "/says"]).ok(), name);
    }
    eventually("the foreign image to be refused", || {
        let told = cluster.kubectl(&["describe", "pod", "foreign"]).stdout;
        (told.contains("Failed to pull image") && !told.contains("mine/")).then_some(())
    });
}

/// Answers every request through to `upstream`, but cuts each answer's body off after `limit` bytes.
fn cutting_proxy(upstream: u16, limit: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || cut(client, upstream, limit));
        }
    });
    port
}

fn cut(mut client: TcpStream, upstream: u16, limit: usize) -> Option<()> {
    let mut request = Vec::new();
    let mut byte = [0_u8; 1];
    while !request.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&request).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).ok()?;
    server.write_all(text.as_bytes()).ok()?;
    let mut answer = Vec::new();
    server.take(limit as u64).read_to_end(&mut answer).ok()?;
    client.write_all(&answer).ok()
}

/// `--base-image=anjone/kicbase` and the mirrors to look for it: one that is dead, one that cuts off, one that works.
fn base_image() {
    let registry = Registry::start();
    registry.push(&debian(), "anjone/kicbase:latest");
    let cut_off = cutting_proxy(registry.port, 20_000_000);
    let cluster = Cluster::prepare("base");
    let mirrors = [
        "--registry-mirror=http://127.0.0.1:1".to_owned(),
        format!("--registry-mirror=http://127.0.0.1:{cut_off}"),
        format!("--registry-mirror=http://127.0.0.1:{}", registry.port),
    ];
    let mut arguments = vec!["--base-image=anjone/kicbase"];
    arguments.extend(mirrors.iter().map(String::as_str));
    cluster.start_again(&arguments).ok();
    // The userland's own shell answers.
    let told = cluster.kminik(&["ssh", "echo $BASH_VERSION; cat /etc/debian_version; dpkg -s bash | head -1"]).ok();
    assert!(told.starts_with("5.") && told.contains("Package: bash"), "{told}");
    eventually("the node to be ready", || cluster.kubectl(&["get", "nodes"]).stdout.contains(" Ready ").then_some(()));
    // A second cluster takes it from the cache: no place is asked.
    drop(registry);
    cluster.delete().ok();
    cluster.start_again(&arguments).ok();
}

fn foreign_base_image() {
    let registry = Registry::start();
    registry.push(&foreign(), "anjone/foreign:latest");
    let cluster = Cluster::prepare("foreign");
    let mirror = format!("--registry-mirror=http://127.0.0.1:{}", registry.port);
    let told = cluster.start_again(&["--base-image=anjone/foreign", &mirror]).fails(86);
    assert!(told.contains("GUEST_ARCHITECTURE") && told.contains("s390x"), "{told}");
    assert!(!cluster.home().join("home/profiles").join(&cluster.profile).exists());
}
