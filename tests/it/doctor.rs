//! Which drivers there are and what stands in their way, as `doctor`, `start --dry-run` and failures tell it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use crate::Test;
use crate::support::{Cluster, Output, command, kminik_binary, run};

pub const TESTS: &[Test] = &[
    ("doctor_tells_of_drivers_and_host", doctor),
    ("an_engine_that_cannot_be_used_is_explained", explained),
    ("a_dry_run_explains_the_drivers", dry_run),
    ("an_engine_that_ends_meanwhile_is_as_one_that_was_not_there", ended),
];

/// With this for an engine.
fn with_engine(cluster: &Cluster, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = cluster.command(arguments);
    command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT").env("DOCKER_CONFIG", cluster.home().join("docker"));
    run(command.envs(variables.iter().copied()), None)
}

fn doctor() {
    let cluster = Cluster::prepare("doctor");
    let none = [("DOCKER_HOST", "unix:///no/such/socket")];
    let told = with_engine(&cluster, &["doctor", "-o", "json"], &none);
    let report = told.json();
    let docker = report["drivers"].as_array().unwrap().iter().find(|driver| driver["name"] == "docker").unwrap();
    assert_eq!((&docker["installed"], &docker["healthy"]), (&false.into(), &false.into()));
    assert_eq!(docker["problem"]["reason"], "PROVIDER_DOCKER_NOT_FOUND");
    assert!(docker["problem"]["advice"].as_str().unwrap().contains("DOCKER_HOST"));
    assert!(docker["link"].as_str().unwrap().starts_with("https://"));
    let native = report["drivers"].as_array().unwrap().iter().find(|driver| driver["name"] == "native").unwrap();
    assert_eq!((&native["healthy"], &native["chosen"]), (&true.into(), &true.into()));
    for name in ["home", "disk", "kubeconfig", "memory", "cgroups", "kernel", "inotify", "network", "firewall"] {
        let found = report["host"].as_array().unwrap().iter().find(|check| check["name"] == name);
        assert_ne!(found.unwrap_or_else(|| panic!("{name}"))["state"], "failed", "{report}");
    }
    assert!(!cluster.home().join("home").exists(), "it makes nothing");
    // What is broken is said, and is the exit code.
    std::fs::write(cluster.kubeconfig(), "clusters: [unclosed\n").unwrap();
    let text = with_engine(&cluster, &["doctor"], &none);
    assert_eq!(text.code, 38, "{}", text.stderr);
    let line = |name: &str| text.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(line("kubeconfig").contains("failed"), "{}", text.stdout);
    assert!(line("docker").contains("absent") && line("native").contains("chosen"), "{}", text.stdout);
    std::fs::remove_file(cluster.kubeconfig()).unwrap();
}

/// Answers every request with this body.
fn fake_engine(body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = client.read(&mut request);
            let length = body.len();
            let _ = write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        }
    });
    address
}

/// Is well until it is asked for containers.
fn ended() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let engine = std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let length = client.read(&mut request).unwrap_or_default();
            if String::from_utf8_lossy(&request[..length]).contains("/containers/") {
                return;
            }
            let body = r#"{"Version": "28", "ApiVersion": "1.50", "Os": "linux", "Arch": "amd64"}"#;
            let length = body.len();
            let _ = write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        }
    });
    let cluster = Cluster::prepare("ended");
    with_engine(&cluster, &["delete"], &[("DOCKER_HOST", &address)]).ok();
    assert!(engine.is_finished(), "it was not asked");
}

fn explained() {
    let cluster = Cluster::prepare("engines");
    let start = |variables: &[(&str, &str)], code: i32, reason: &str| {
        let told = with_engine(&cluster, &["start", "--driver=docker"], variables).fails(code);
        assert!(told.contains(&format!("Exiting due to {reason}")), "{told}");
        assert!(!cluster.home().join("home/profiles").join(&cluster.profile).exists(), "{told}");
        told
    };
    start(&[("DOCKER_HOST", "unix:///no/such/socket")], 65, "PROVIDER_DOCKER_NOT_FOUND");
    start(&[("DOCKER_HOST", "npipe:////./pipe/docker_engine")], 58, "DRV_ENGINE_ADDRESS");
    start(&[("DOCKER_HOST", "10.0.0.1:2375")], 58, "DRV_ENGINE_ADDRESS");
    assert!(start(&[("DOCKER_CONTEXT", "no-such")], 58, "DRV_ENGINE_ADDRESS").contains("no-such"));
    let socket = cluster.home().join("deaf.sock");
    let _deaf = UnixListener::bind(&socket).unwrap();
    let began = Instant::now();
    start(&[("DOCKER_HOST", &format!("unix://{}", socket.display()))], 63, "PROVIDER_DOCKER_NOT_RUNNING");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let far = start(&[("DOCKER_HOST", "ssh://nobody@127.0.0.1:1")], 63, "PROVIDER_DOCKER_NOT_RUNNING");
    assert!(far.contains("ssh: "), "what ssh says is told: {far}");
    for (body, code, reason) in [
        (r#"{"Version": "19.3", "ApiVersion": "1.40", "Os": "linux"}"#, 66, "PROVIDER_DOCKER_VERSION_LOW"),
        (r#"{"Version": "28", "ApiVersion": "1.50", "Os": "windows"}"#, 66, "PROVIDER_DOCKER_WINDOWS_CONTAINERS"),
        (r#"{"Version": "28", "ApiVersion": "1.50", "Os": "linux", "Arch": "s390x"}"#, 86, "GUEST_ARCHITECTURE"),
        ("no engine at all", 55, "DRV_NOT_HEALTHY"),
    ] {
        start(&[("DOCKER_HOST", &fake_engine(body))], code, reason);
    }
    refused_user(&cluster);
}

/// Somebody who may not use the socket.
fn refused_user(cluster: &Cluster) {
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(cluster.home(), open).unwrap();
    let (binary, home, socket) =
        (cluster.home().join("kminik"), cluster.home().join("theirs"), cluster.home().join("root.sock"));
    run(&mut command("cp", &[kminik_binary().to_str().unwrap(), binary.to_str().unwrap()]), None).ok();
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
    let _engine = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut start = command(&binary, &["start", "--driver=docker", "-p", &cluster.profile]);
    start.env("KMINIK_HOME", &home).env("KUBECONFIG", home.join("config")).uid(65534).gid(65534);
    let told = run(start.env("DOCKER_HOST", format!("unix://{}", socket.display())), None).fails(67);
    assert!(told.contains("PROVIDER_DOCKER_NEWGRP") && told.contains("usermod -aG docker"), "{told}");
}

fn dry_run() {
    let cluster = Cluster::prepare("explained");
    let told = with_engine(&cluster, &["start", "--dry-run"], &[("DOCKER_HOST", "unix:///no/such/socket")]);
    assert!(
        told.stderr.contains("Driver docker cannot be used: there is no engine at unix:///no/such/socket"),
        "{told:?}"
    );
    assert!(told.stderr.contains("Driver native can be used: Linux"), "{told:?}");
    told.ok();
    assert!(!cluster.home().join("home/profiles").join(&cluster.profile).exists());
}
