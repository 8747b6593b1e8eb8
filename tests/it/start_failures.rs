//! What start says when the machine does not let it, and that it then leaves nothing half made.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::sync::Arc;

use serde_json::Value;

use crate::Test;
use crate::support::{Cluster, Host, Output, command, kminik_binary, run};

pub const TESTS: &[Test] = &[
    ("a_full_disk", full_disk),
    ("a_disk_that_fills_up_meanwhile", filling_disk),
    ("a_kernel_without_overlayfs", kernel_feature),
    ("no_root", no_root),
    ("a_kubeconfig_that_cannot_be_read_stays_as_it_is", broken_kubeconfig),
    ("a_profile_that_is_damaged_newer_or_in_use", other_states),
    ("a_taken_api_port_of_the_host_is_told_by_status", taken_port),
    ("json_progress_ends_with_done", json_progress),
    ("a_node_that_cannot_work_leaves_its_last_words", last_words),
    ("a_part_that_never_gets_well_is_waited_for_in_vain", never_well),
    ("what_fails_to_start_is_deleted_and_tried_once_more_where_that_is_wished", delete_on_failure),
];

#[track_caller]
fn refused(cluster: &Cluster, output: Output, code: i32, reason: &str) -> String {
    let told = output.fails(code);
    assert!(told.contains(&format!("Exiting due to {reason}")), "{told}");
    assert!(!cluster.home().join("home/profiles").join(&cluster.profile).exists(), "a profile stays: {told}");
    told
}

/// A home on a disk of this size, on a host of its own.
fn with_disk(name: &str, size: &str) -> (Arc<Host>, Cluster) {
    let host = Arc::new(Host::new());
    let cluster = Cluster::on(&host, name);
    let home = cluster.home().join("home");
    host.sh(&format!("mkdir -p {0} && mount -t tmpfs -o size={size} tmpfs {0}", home.display())).ok();
    (host, cluster)
}

fn full_disk() {
    let (host, cluster) = with_disk("full", "64m");
    let told = refused(&cluster, cluster.start_again(&[]), 26, "RSRC_INSUFFICIENT_STORAGE");
    assert!(told.contains("MiB free"), "{told}");
    drop(host);
}

fn filling_disk() {
    let (host, cluster) = with_disk("fills", "24m");
    let before = host.state();
    refused(&cluster, cluster.start_again(&["--force"]), 26, "RSRC_INSUFFICIENT_STORAGE");
    assert_eq!(host.state(), before);
}

fn kernel_feature() {
    let host = Arc::new(Host::new());
    let cluster = Cluster::on(&host, "kernel");
    host.sh("mount -t tmpfs tmpfs /mnt && grep -v overlay /proc/filesystems > /mnt/f && mount --bind /mnt/f /proc/filesystems")
        .ok();
    let told = refused(&cluster, cluster.start_again(&[]), 36, "HOST_KERNEL_FEATURE");
    assert!(told.contains("modprobe overlay"), "{told}");
}

fn no_root() {
    let cluster = Cluster::prepare("nobody");
    // Somewhere that everybody may run it from.
    let binary = cluster.home().join("kminik");
    // By another process: children of this one's other threads would hold the file open for writing.
    run(&mut command("cp", &[kminik_binary().to_str().unwrap(), binary.to_str().unwrap()]), None).ok();
    let home = cluster.home().join("theirs");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
    std::fs::set_permissions(cluster.home(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut start = command(&binary, &["start", "--driver=native", "-p", &cluster.profile]);
    start.env("KMINIK_HOME", &home).env("KUBECONFIG", home.join("config")).uid(65534).gid(65534);
    refused(&cluster, run(&mut start, None), 57, "DRV_NEEDS_ROOT");
}

fn broken_kubeconfig() {
    let cluster = Cluster::prepare("kubeconfig");
    let text = "apiVersion: v1\nclusters: [unclosed\n";
    std::fs::write(cluster.kubeconfig(), text).unwrap();
    refused(&cluster, cluster.start_again(&["--wait=none"]), 38, "HOST_KUBECONFIG_UPDATE");
    assert_eq!(std::fs::read_to_string(cluster.kubeconfig()).unwrap(), text);
    std::fs::remove_file(cluster.kubeconfig()).unwrap();
}

fn other_states() {
    let cluster = Cluster::prepare("states");
    let home = cluster.home().join("home");
    let profile = home.join("profiles").join(&cluster.profile);
    std::fs::create_dir_all(&profile).unwrap();
    for (content, reason) in [("{", "MK_PROFILE_BROKEN"), ("{\"format\": 99}", "MK_PROFILE_NEWER")] {
        std::fs::write(profile.join("config.json"), content).unwrap();
        let told = cluster.start_again(&[]).fails(18);
        assert!(told.contains(reason), "{told}");
        assert_eq!(std::fs::read_to_string(profile.join("config.json")).unwrap(), content, "it is left as it was");
    }
    let lock = File::options().create(true).truncate(false).write(true).open(home.join("locks").join(&cluster.profile));
    let lock = lock.unwrap();
    lock.lock().unwrap();
    assert!(cluster.start_again(&[]).fails(11).contains("MK_PROFILE_BUSY"));
    drop(lock);
    // What start refuses to touch, delete takes away.
    cluster.delete().ok();
    assert!(!profile.exists());
}

fn taken_port() {
    let host = Arc::new(Host::new());
    let cluster = Cluster::on(&host, "port");
    host.sh("busybox httpd -p 127.0.0.1:8443 -h /nonexistent || busybox httpd -p 127.0.0.1:8443").ok();
    cluster.start_again(&["--wait=node_ready"]).ok();
    let told = crate::support::eventually("the note", || {
        let told = cluster.kminik(&["status"]);
        told.stderr.contains("8443").then_some(told)
    });
    assert!(told.stderr.contains("is not on localhost"), "{}", told.stderr);
    assert!(told.ok().contains("apiserver: Running"), "it is no failure");
}

fn last_words() {
    let cluster = Cluster::prepare("lastwords");
    let arguments = ["--datastore-endpoint=http://203.0.113.1:2379", "--wait-timeout=4s"];
    let told = refused(&cluster, cluster.start_again(&arguments), 100, "K8S_START");
    assert!(told.contains("--last-start-only"), "{told}");
    let kept = cluster.kminik(&["logs", "--last-start-only", "-n", "200"]).ok();
    assert!(kept.contains("the store cannot be read") && kept.contains("K8S_START"), "{kept}");
}

fn never_well() {
    let cluster = Cluster::start("unwell", &["--wait=node_ready"]);
    cluster.kubectl(&["-n", "kube-system", "run", "unwell", "--image=none:1", "--image-pull-policy=Never"]).ok();
    let told = cluster.start_again(&["--wait=system_pods", "--wait-timeout=3s"]).fails(102);
    assert!(told.contains("K8S_TIMEOUT") && told.contains("DNS and storage"), "{told}");
    assert!(told.contains("--wait-timeout"), "{told}");
    assert_eq!(cluster.kminik(&["status"]).code, 0, "it is left as it was");
    cluster.start_again(&["--wait=node_ready", "--wait-timeout=3s"]).ok();
    // A new one does not stay.
    let new = Cluster::prepare("impatient");
    refused(&new, new.start_again(&["--wait=all", "--wait-timeout=50ms"]), 100, "K8S_START");
}

fn delete_on_failure() {
    let cluster = Cluster::start("broken", &["--wait=node_ready"]);
    cluster.kubectl(&["create", "configmap", "of-the-old-one"]).ok();
    cluster.kminik(&["stop"]).ok();
    let store = cluster.home().join(format!("home/machines/{}/data/lib/kminik/store", cluster.profile));
    let files: Vec<_> = std::fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files.iter().filter(|file| file.is_file()) {
        std::fs::write(file, [7_u8; 100_000]).unwrap();
    }
    let arguments = ["--wait=node_ready", "--wait-timeout=15s"];
    let told = cluster.start_again(&arguments).fails(100);
    assert!(told.contains("K8S_START") && !told.contains("once more"), "{told}");
    assert!(store.exists(), "without the flag nothing of an old cluster is deleted");
    let told = cluster.start_again(&[&arguments[..], &["--delete-on-failure"]].concat());
    assert!(told.stderr.contains("deleting the cluster and trying once more"), "{}", told.stderr);
    told.ok();
    cluster.kubectl(&["get", "configmap", "of-the-old-one"]).fails(1);
    // The second attempt fails as well: nothing stays.
    cluster.kminik(&["stop"]).ok();
    let told = cluster.start_again(&["--wait-timeout=1ms", "--delete-on-failure"]);
    assert!(told.stderr.contains("once more"), "{}", told.stderr);
    refused(&cluster, told, 100, "K8S_START");
    assert!(!store.exists());
}

fn json_progress() {
    let cluster = Cluster::prepare("events");
    let told = cluster.start_again(&["-o", "json"]).ok();
    let events: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<&Value> = events.iter().filter(|e| e["type"] == "io.k8s.sigs.minikube.step").collect();
    let numbers: Vec<u32> = steps.iter().map(|e| e["data"]["currentstep"].as_str().unwrap().parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    assert!(steps.iter().all(|e| e["data"]["totalsteps"] == steps[0]["data"]["totalsteps"]));
    let total: u32 = steps[0]["data"]["totalsteps"].as_str().unwrap().parse().unwrap();
    assert!(numbers.last().unwrap() < &total, "{numbers:?} of {total}");
    assert_eq!(steps[0]["data"]["name"], "Initial Minikube Setup");
    assert_eq!(steps.last().unwrap()["data"]["name"], "Done");
    let stopped = cluster.kminik(&["stop", "-o", "json"]).ok();
    assert!(stopped.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{stopped}");
}

/// The port of the host on which the docker driver serves the API is another program's when the cluster comes back.
pub fn taken_docker_port(cluster: &Cluster, port: u16) {
    cluster.kminik(&["stop"]).ok();
    let other = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let told = cluster.start_again(&["--driver=docker"]).fails(31);
    assert!(told.contains("HOST_PORT_IN_USE") && told.contains(&port.to_string()), "{told}");
    drop(other);
    cluster.start_again(&["--driver=docker"]).ok();
}
