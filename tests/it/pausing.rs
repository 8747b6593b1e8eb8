//! Standing still, going on, and stopping when it is time.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Test;
use crate::support::{Cluster, Host, busybox, eventually};

pub const TESTS: &[Test] = &[
    ("pause_stops_the_control_plane_and_no_app", || control_plane(&Cluster::start("pause", &[]))),
    ("a_paused_namespace_stands_still_and_is_not_restarted", || namespace_only(&Cluster::start("pausens", &[]))),
    ("what_is_paused_can_be_started_stopped_and_deleted", ends),
    ("a_stop_comes_when_it_is_scheduled_and_not_when_cancelled", || {
        schedule(&Cluster::start("schedule", &["--wait=none"]))
    }),
];

/// Counts ten times a second; the probe fails when it does not answer.
const COUNT: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: count}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: 'busybox:latest'
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'httpd -p 8080; i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done']
    livenessProbe: {httpGet: {port: 8080, path: /nothing}, periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 3600}
    startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
    readinessProbe: {exec: {command: ['true']}, periodSeconds: 1, failureThreshold: 1}
"#;

fn run_counter(cluster: &Cluster) {
    cluster.load(&busybox());
    cluster.apply(COUNT);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/count", "--timeout=60s"]).ok();
}

/// What the counter has said, read from the node's disk: the API may stand still.
fn counted(cluster: &Cluster) -> usize {
    let pods = cluster.kminik(&["ssh", "ls", "/var/log/pods"]).ok();
    let pod = pods.split_whitespace().find(|pod| pod.starts_with("default_count_")).unwrap();
    cluster.kminik(&["ssh", "cat", &format!("/var/log/pods/{pod}/c/0.log")]).ok().lines().count()
}

/// Whether it goes on.
fn counts(cluster: &Cluster) -> bool {
    let before = counted(cluster);
    std::thread::sleep(Duration::from_secs(1));
    counted(cluster) > before + 2
}

fn restarts(cluster: &Cluster, arguments: &[&str]) -> Vec<i64> {
    let pods = cluster.json(&[&["get", "pods"], arguments].concat());
    let items = pods["items"].as_array().unwrap();
    items.iter().map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap()).collect()
}

pub fn control_plane(cluster: &Cluster) {
    run_counter(cluster);
    let told = cluster.kminik(&["pause"]);
    assert!(
        told.stderr.contains("Paused 2 containers in: kube-system, kubernetes-dashboard, istio-operator"),
        "{}",
        told.stderr
    );
    told.ok();
    let status = cluster.kminik(&["status"]);
    assert_eq!(status.code, 2, "{}", status.stderr);
    for line in ["host: Running", "kubelet: Stopped", "apiserver: Paused", "kubeconfig: Configured"] {
        assert!(status.stdout.contains(line), "{}", status.stdout);
    }
    let whole: Value =
        serde_json::from_str(&cluster.kminik(&["status", "-l", "cluster", "-o", "json"]).stdout).unwrap();
    assert_eq!((&whole["StatusCode"], &whole["StatusName"]), (&Value::from(418), &Value::from("Paused")));
    assert!(cluster.kminik(&["profile", "list"]).ok().contains("Paused"));
    let told = cluster.kubectl(&["get", "nodes"]).fails(1);
    assert!(told.contains("the cluster is paused; 'kminik unpause' lets it go on"), "{told}");
    let asked = Instant::now();
    for command in [&["image", "ls"][..], &["service", "list"], &["addons", "enable", "registry"]] {
        let told = cluster.kminik(command).fails(103);
        assert!(told.contains("is paused") && told.contains("kminik unpause -p"), "{command:?}: {told}");
    }
    assert!(asked.elapsed() < Duration::from_secs(40), "{:?}", asked.elapsed());
    assert!(counts(cluster), "apps go on");
    let told = cluster.kminik(&["resume"]);
    assert!(told.stderr.contains("Unpaused 2 containers in: kube-system"), "{}", told.stderr);
    told.ok();
    eventually("the cluster to be well", || (cluster.kminik(&["status"]).code == 0).then_some(()));
    assert!(restarts(cluster, &["-A"]).iter().all(|count| *count == 0), "no container was restarted");
    let events = cluster.kminik(&["pause", "-o", "json"]).ok();
    let steps: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(steps.last().unwrap()["data"]["name"], "Done");
    assert_eq!(steps.last().unwrap()["data"]["currentstep"], "1");
    cluster.kminik(&["unpause", "--output=json"]).ok();
}

pub fn namespace_only(cluster: &Cluster) {
    run_counter(cluster);
    let told = cluster.kminik(&["pause", "-n", "default"]);
    assert!(told.stderr.contains("Paused 1 containers in: default"), "{}", told.stderr);
    told.ok();
    assert_eq!(cluster.kminik(&["status"]).code, 0, "the control plane goes on");
    let before = counted(cluster);
    // Several periods of its readiness probe, which must not run into nothing.
    std::thread::sleep(Duration::from_secs(4));
    assert!(counted(cluster) <= before + 2, "it stands still");
    let ready = ["get", "pod", "count", "-o", "jsonpath={.status.containerStatuses[0].ready}"];
    assert_eq!(cluster.kubectl(&ready).ok(), "true");
    cluster.kminik(&["unpause", "-n", "default"]).ok();
    eventually("the counter to go on", || counts(cluster).then_some(()));
    assert_eq!(restarts(cluster, &[]), [0]);
    // What stands still can be deleted.
    cluster.kminik(&["pause", "-n", "default"]).ok();
    cluster.kubectl(&["delete", "pod", "count", "--timeout=60s"]).ok();
}

fn ends() {
    let host = std::sync::Arc::new(Host::new());
    let before = host.state();
    let cluster = Cluster::on(&host, "pauseall");
    cluster.start_again(&[]).ok();
    cluster.kminik(&["pause", "-A"]).ok();
    let told = cluster.start_again(&[]);
    assert!(told.stderr.contains("Unpausing node"), "{}", told.stderr);
    told.ok();
    assert_eq!(cluster.kminik(&["status"]).code, 0);
    cluster.kminik(&["pause", "-A"]).ok();
    let asked = Instant::now();
    cluster.kminik(&["stop"]).ok();
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    cluster.start_again(&[]).ok();
    assert_eq!(cluster.kminik(&["status"]).code, 0, "nothing is paused after a stop");
    cluster.kminik(&["pause", "-A"]).ok();
    cluster.delete().ok();
    assert_eq!(host.state(), before);
}

pub fn schedule(cluster: &Cluster) {
    let left = || cluster.kminik(&["status", "--format={{.TimeToStop}}"]).stdout.trim().to_owned();
    cluster.kminik(&["stop", "--schedule", "5m"]).ok();
    let five = left();
    assert!(five.starts_with("4m") || five == "5m0s", "{five}");
    assert!(cluster.kminik(&["status"]).stdout.contains("\ntimeToStop: "));
    let status: Value = serde_json::from_str(&cluster.kminik(&["status", "-o", "json"]).stdout).unwrap();
    assert!(status["TimeToStop"].is_string(), "{status}");
    cluster.kminik(&["stop", "--schedule=1h"]).ok();
    let hour = left();
    assert!(hour.starts_with("59m") || hour == "1h0m0s", "the new one counts: {hour}");
    let told = cluster.kminik(&["stop", "--cancel-scheduled"]);
    assert!(told.stderr.contains("All existing scheduled stops cancelled"), "{}", told.stderr);
    assert_eq!(left(), "");
    assert!(!cluster.kminik(&["status"]).stdout.contains("timeToStop"));
    cluster.kminik(&["stop", "--schedule=1s", "--cancel-scheduled"]).fails(14);
    cluster.kminik(&["stop", "--schedule=2s"]).ok();
    cluster.kminik(&["stop", "--cancel-scheduled"]).ok();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(cluster.kminik(&["status", "-f", "{{.Host}}"]).stdout, "Running\n");
    cluster.kminik(&["stop", "--schedule=2s"]).ok();
    eventually("the stop", || (cluster.kminik(&["status", "-f", "{{.Host}}"]).stdout == "Stopped\n").then_some(()));
    let start = format!("kminik start -p {}", cluster.profile);
    for command in [&["stop", "--schedule=2s"][..], &["image", "ls"], &["service", "list"], &["ssh", "true"]] {
        let told = cluster.kminik(command).fails(83);
        assert!(told.contains("is not running") && told.contains(&start), "{command:?}: {told}");
    }
    cluster.start_again(&["--wait=none"]).ok();
    assert_eq!(left(), "", "a start forgets it");
}
