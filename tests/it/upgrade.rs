//! The life of a cluster: another binary takes a running node over, certificates are renewed before they end.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::Test;
use crate::support::{Cluster, busybox, command, eventually, kminik_binary, run};

pub const TESTS: &[Test] = &[
    ("another_binary_takes_the_node_over_and_no_container_notices", another_binary),
    ("what_a_newer_kminik_started_is_refused", downgrade),
    ("certificates_are_renewed_before_they_end", certificates),
];

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: stays}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, \
                   image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sleep, '3600']}]}}";

fn with_pod(name: &str, arguments: &[&str]) -> Cluster {
    let cluster = Cluster::start(name, arguments);
    cluster.load(&busybox());
    cluster.apply(POD);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/stays", "--timeout=60s"]).ok();
    cluster
}

/// Identity and restarts of every container of the cluster.
fn containers(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.json(&["get", "pods", "-A"]);
    let mut all = Vec::new();
    for pod in pods["items"].as_array().unwrap() {
        for container in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            all.push(format!("{} {} {}", pod["metadata"]["name"], container["containerID"], container["restartCount"]));
        }
    }
    all.sort();
    all
}

fn another_binary() {
    let cluster = with_pod("upgrade", &["--nodes=2", "--memory=1g"]);
    let on_worker = POD
        .replace("stays", "works")
        .replace("{terminationGrace", &format!("{{nodeName: {}-m02, terminationGrace", cluster.profile));
    cluster.apply(&on_worker);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/works", "--timeout=60s"]).ok();
    let before = containers(&cluster);
    assert!(before.len() >= 3, "{before:?}");
    // The same program by another digest, which is all that tells binaries apart.
    let other = cluster.home().join("kminik");
    run(&mut command("cp", &[kminik_binary().to_str().unwrap(), other.to_str().unwrap()]), None).ok();
    run(&mut command("sh", &["-c", &format!("echo newer >> {}", other.display())]), None).ok();
    let start = |binary: &PathBuf| {
        let mut start = command(binary, &["-p", &cluster.profile, "start"]);
        start.env("KMINIK_HOME", cluster.home().join("home")).env("KUBECONFIG", cluster.kubeconfig());
        run(&mut start, None)
    };
    let told = start(&other);
    assert!(told.stderr.contains("containers go on"), "{}", told.stderr);
    told.ok();
    assert_eq!(containers(&cluster), before);
    let size = std::fs::metadata(&other).unwrap().len();
    for node in ["m01", "m02"] {
        let running = cluster.kminik(&["ssh", "-n", node, "--", "ls", "-l", "/bin/kminik"]).ok();
        assert!(running.contains(&size.to_string()), "{node} has the other binary: {running}");
    }
    // Probes, logs and exec of the container that was adopted go on, and new ones start.
    cluster.kubectl(&["exec", "stays", "--", "true"]).ok();
    cluster.kubectl(&["exec", "works", "--", "true"]).ok();
    cluster.apply(&POD.replace("stays", "comes"));
    cluster.apply(&on_worker.replace("works", "comes-too"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/comes", "pod/comes-too", "--timeout=60s"]).ok();
    let told = start(&other);
    assert!(!told.stderr.contains("containers go on"), "it is that binary already: {}", told.stderr);
    // And after a stop it starts whole from either.
    cluster.kminik(&["stop"]).ok();
    cluster.start_again(&[]).ok();
    cluster.kubectl(&["get", "pod", "stays", "works", "comes", "comes-too"]).ok();
}

fn downgrade() {
    let cluster = Cluster::start("older", &["--wait=none"]);
    cluster.kminik(&["stop"]).ok();
    let path = cluster.home().join("home/profiles").join(&cluster.profile).join("config.json");
    let mut profile: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(profile["kminikVersion"], env!("CARGO_PKG_VERSION"));
    profile["kminikVersion"] = "99.1.0".into();
    std::fs::write(&path, profile.to_string()).unwrap();
    let told = cluster.start_again(&["--wait=none"]).fails(18);
    assert!(told.contains("MK_PROFILE_NEWER") && told.contains("99.1.0"), "{told}");
    cluster.start_again(&["--wait=none", "--force"]).ok();
}

fn certificates() {
    let cluster = with_pod("renew", &["--cert-expiration=60s"]);
    let before = containers(&cluster);
    let home = cluster.home().join("home");
    let files = [
        home.join("machines").join(&cluster.profile).join("data/lib/kminik/pki/apiserver.crt"),
        home.join("machines").join(&cluster.profile).join("data/lib/kminik/pki/kubelet.crt"),
        home.join("profiles").join(&cluster.profile).join("pki/client.crt"),
    ];
    let read = || files.each_ref().map(|file| std::fs::read(file).unwrap());
    let first = read();
    eventually("all certificates to be renewed", || {
        read().iter().zip(&first).all(|(now, before)| now != before).then_some(())
    });
    // Until the first ones have ended for sure.
    std::thread::sleep(Duration::from_secs(25));
    eventually("the API by the new ones", || (cluster.kubectl(&["get", "--raw", "/readyz"]).code == 0).then_some(()));
    assert_eq!(containers(&cluster), before, "no container was restarted");
    cluster.kubectl(&["exec", "stays", "--", "true"]).ok();
    let status: Value =
        serde_json::from_str(&cluster.kminik(&["status", "--layout=cluster", "-o", "json"]).ok()).unwrap();
    assert!(status["CertExpiration"].as_str().is_some_and(|end| end.ends_with('Z')), "{status}");
}
