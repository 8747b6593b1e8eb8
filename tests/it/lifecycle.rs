//! Stop, start, kill: what survives.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Test;
use crate::storage::STATEFUL;
use crate::support::{Cluster, busybox, command, curl, eventually, nginx, run};

pub const TESTS: &[Test] = &[
    ("everything_survives_stop_and_start", stop_start),
    ("killing_the_node_process_disturbs_no_container", kill_node),
    ("killing_pid_1_loses_no_write_and_doubles_no_pod", kill_init),
    ("two_clusters_live_side_by_side", side_by_side),
    ("start_twice_is_start_once", idempotent),
    ("logs_status_and_ssh_work_with_the_api_dead", api_dead),
    ("what_a_daemon_set_wrote_to_its_host_outlives_pod_stop_and_kill", daemon_data),
    ("the_current_context_stays_where_it_is_to_be_kept", keep_context),
    ("a_cluster_comes_up_with_the_machine_where_it_is_to", autostart),
];

fn uids(cluster: &Cluster) -> BTreeSet<String> {
    let objects = cluster.json(&["get", "deploy,sts,svc,cm,pvc,pv,sa,nodes", "-A"]);
    objects["items"].as_array().unwrap().iter().map(|o| o["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
}

/// A pid of a machine as the host sees it: PID 1 of the node, or its only program child.
pub fn host_pid(machine: &str, program: &str) -> i32 {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        // A worker's machine begins with its cluster's name.
        let is_of_it = group.lines().any(|line| format!("{line}/").contains(&format!("/kminik/{machine}/")));
        if words.get(1) == Some(&program.as_bytes()) && is_of_it {
            found.push(pid);
        }
    }
    assert_eq!(found.len(), 1, "{program}: {found:?}");
    found[0]
}

pub fn kill(pid: i32) {
    run(&mut command("kill", &["-9", &pid.to_string()]), None).ok();
}

/// nginx on port 30090 of the node.
const WEB: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: nginx, image: 'nginx:latest', imagePullPolicy: IfNotPresent}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: 30090}]}
"#;

/// What is served there; nothing if nobody answers.
fn served(url: &str) -> String {
    curl(url).unwrap_or_default()
}

fn stop_start() {
    let cluster = Cluster::start("restart", &[]);
    cluster.load(&nginx());
    cluster.load(&busybox());
    cluster.apply(&STATEFUL.replace("NS", "default"));
    cluster.apply(WEB);
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).ok();
    eventually("nginx on localhost", || served("http://localhost:30090").contains("nginx works").then_some(()));
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    let (before, ip) = (uids(&cluster), cluster.kminik(&["ip"]).ok());
    let certificate =
        std::fs::read(cluster.home().join(format!("home/profiles/{}/pki/ca.crt", cluster.profile))).unwrap();
    cluster.kminik(&["stop"]).ok();
    assert_eq!(cluster.kminik(&["status"]).code & 3, 3);
    assert_eq!(served("http://localhost:30090"), "", "the port went with the cluster");
    assert!(cluster.kminik(&["profile", "list"]).ok().contains("Stopped"));
    let logs = long_logs(&cluster);
    cluster.start_again(&[]).ok();
    for (log, length) in logs {
        let of = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_default();
        let aside = log.with_added_extension("1");
        // The node's at its first word.
        eventually(&format!("{} to be put aside", log.display()), || {
            (of(&log) < length && of(&aside) >= length).then_some(())
        });
    }
    assert_eq!(cluster.kminik(&["ip"]).ok(), ip);
    assert_eq!(
        std::fs::read(cluster.home().join(format!("home/profiles/{}/pki/ca.crt", cluster.profile))).unwrap(),
        certificate
    );
    assert!(before.is_subset(&uids(&cluster)), "every object is there");
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).ok();
    let log = eventually("the stateful pod", || {
        let output = cluster.kubectl(&["exec", "db-0", "--", "cat", "/data/log"]);
        (output.code == 0).then_some(output.stdout)
    });
    assert_eq!(log, "started\nstarted\n");
    eventually("nginx after the start", || served("http://localhost:30090").contains("nginx works").then_some(()));
}

/// Makes the logs that kminik writes longer than each may be; these lengths.
fn long_logs(cluster: &Cluster) -> Vec<(PathBuf, u64)> {
    let home = cluster.home().join("home");
    let (profile, machine) =
        (home.join("profiles").join(&cluster.profile), home.join("machines").join(&cluster.profile));
    let logs = [
        (machine.join("data/log/kminik/node.log"), 17_u64 << 20),
        (machine.join("console.log"), 5 << 20),
        (profile.join("agent.log"), 5 << 20),
        (home.join("logs/audit.json"), 2 << 20),
    ];
    for (log, length) in &logs {
        std::fs::File::options().write(true).open(log).unwrap().set_len(*length).unwrap();
    }
    logs.into()
}

fn kill_node() {
    let cluster = Cluster::start("killnode", &[]);
    cluster.load(&busybox());
    cluster.load(&nginx());
    cluster.apply(&WEB.replace("nodePort: 30090", "nodePort: 30091"));
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: count}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: 'busybox:latest', \
         imagePullPolicy: IfNotPresent, command: [sh, -c, 'i=0; while true; do echo $i; i=$((i+1)); sleep 0.05; done']}]}}",
    );
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: ends}, spec: {restartPolicy: Never, containers: [{name: c, image: 'busybox:latest', \
         imagePullPolicy: IfNotPresent, command: [sh, -c, 'sleep 3; exit 42']}]}}",
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/count", "pod/ends", "--timeout=60s"]).ok();
    let container = |pod: &str| cluster.json(&["get", "pod", pod])["status"]["containerStatuses"][0].clone();
    let before = container("count")["containerID"].clone();
    let url = format!("http://{}:30091", cluster.kminik(&["ip"]).ok().trim());
    eventually("nginx", || served(&url).contains("nginx works").then_some(()));
    kill(host_pid(&cluster.profile, "node"));
    // Nobody who asks meanwhile notices.
    for i in 0..40 {
        assert!(served(&url).contains("nginx works"), "request {i} after the kill");
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    eventually("the API to be back", || (cluster.kubectl(&["get", "--raw", "/readyz"]).code == 0).then_some(()));
    eventually("the exit code", || (container("ends")["state"]["terminated"]["exitCode"] == 42).then_some(()));
    let after = container("count");
    assert_eq!((&after["containerID"], &after["restartCount"]), (&before, &Value::from(0)));
    std::thread::sleep(std::time::Duration::from_secs(1));
    let text = cluster.kubectl(&["logs", "count"]).ok();
    let numbers: Vec<u64> = text.lines().map(|l| l.parse().unwrap()).collect();
    assert!(
        numbers.len() > 20 && numbers.iter().enumerate().all(|(i, n)| i as u64 == *n),
        "no line is lost or doubled"
    );
}

fn kill_init() {
    let cluster = Cluster::start("killinit", &[]);
    cluster.load(&busybox());
    cluster.kubectl(&["create", "deployment", "d", "--image=busybox:latest", "--", "sleep", "3600"]).ok();
    cluster
        .kubectl(&[
            "patch",
            "deployment",
            "d",
            "-p",
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"busybox","imagePullPolicy":"IfNotPresent"}]}}}}"#,
        ])
        .ok();
    cluster.kubectl(&["rollout", "status", "deployment/d", "--timeout=60s"]).ok();
    cluster.apply(&STATEFUL.replace("NS", "default"));
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).ok();
    for i in 0..20 {
        cluster.kubectl(&["create", "configmap", &format!("kept-{i}")]).ok();
    }
    kill(host_pid(&cluster.profile, "init"));
    cluster.start_again(&[]).ok();
    for i in 0..20 {
        cluster.kubectl(&["get", "configmap", &format!("kept-{i}")]).ok();
    }
    eventually("one pod that runs", || {
        let pods = cluster.json(&["get", "pods", "-l", "app=d"]);
        let pods = pods["items"].as_array()?;
        (pods.len() == 1
            && pods[0]["status"]["phase"] == "Running"
            && pods[0]["status"]["containerStatuses"][0]["ready"] == true)
            .then_some(())
    });
    eventually("the stateful pod with its data", || {
        let output = cluster.kubectl(&["exec", "db-0", "--", "cat", "/data/log"]);
        (output.stdout == "started\nstarted\n").then_some(())
    });
}

fn side_by_side() {
    let (one, two) = (Cluster::start("one", &["--wait=node_ready"]), Cluster::start("two", &["--wait=node_ready"]));
    assert_ne!(one.kminik(&["ip"]).ok(), two.kminik(&["ip"]).ok());
    one.kubectl(&["create", "configmap", "of-one"]).ok();
    two.kubectl(&["get", "configmap", "of-one"]).fails(1);
}

fn idempotent() {
    let cluster = Cluster::start("twice", &["--wait=node_ready"]);
    let before = uids(&cluster);
    let told = cluster.start_again(&["--wait=node_ready"]);
    assert!(told.stderr.contains("Updating the running"), "{}", told.stderr);
    told.ok();
    assert_eq!(cluster.kminik(&["start", "--driver=docker"]).code, 81, "another driver is refused");
    assert!(before.is_subset(&uids(&cluster)));
    let status = cluster.kminik(&["status", "-o", "json"]).json();
    assert_eq!(status["Host"], "Running");
    assert_eq!(cluster.kminik(&["status", "--format", "{{.Host}}/{{.APIServer}}"]).ok().trim(), "Running/Running");
}

fn api_dead() {
    let cluster = Cluster::start("dead", &["--wait=node_ready"]);
    let node = host_pid(&cluster.profile, "node");
    run(&mut command("kill", &["-STOP", &node.to_string()]), None).ok();
    let told = cluster.kminik(&["status"]);
    assert_eq!(told.code, 2, "{} {}", told.stdout, told.stderr);
    assert!(told.stdout.contains("host: Running") && told.stdout.contains("apiserver: Stopped"), "{}", told.stdout);
    assert!(cluster.kminik(&["ssh", "echo", "alive"]).ok().contains("alive"));
    assert_eq!(cluster.kminik(&["ssh", "cat /dev/zero | no-such-program"]).fails(127), "no-such-program: not found\n");
    assert_eq!(cluster.kminik(&["ssh", "grep nothing /etc/os-release"]).fails(1), "");
    assert!(cluster.kminik(&["logs", "--length", "5"]).ok().contains("==> node <=="));
    let file = cluster.home().join("logs.txt");
    cluster.kminik(&["logs", "--file", file.to_str().unwrap()]).ok();
    assert!(std::fs::metadata(&file).unwrap().len() > 0);
    cluster.kminik(&["logs", "--component", "nothing"]).fails(14);
    cluster.delete().ok();
    assert!(!Path::new("/run/kminik/nodes").join(&cluster.profile).exists());
}

fn daemon_data() {
    let cluster = Cluster::start("daemon", &[]);
    cluster.load(&busybox());
    cluster.apply(
        "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: d}, spec: {selector: {matchLabels: {a: d}}, template: {metadata: {labels: {a: d}}, \
         spec: {terminationGracePeriodSeconds: 1, volumes: [{name: data, hostPath: {path: /var/lib/mine, type: DirectoryOrCreate}}], \
         containers: [{name: c, image: 'busybox:latest', imagePullPolicy: IfNotPresent, volumeMounts: [{name: data, mountPath: /data}], \
         command: [sh, -c, 'echo started >> /data/log; exec sleep 3600']}]}}}}",
    );
    let log = |times: usize, when: &str| {
        eventually(when, || {
            let log = cluster.kubectl(&["exec", "ds/d", "--", "cat", "/data/log"]);
            (log.code == 0 && log.stdout == "started\n".repeat(times)).then_some(())
        });
    };
    log(1, "its first pod");
    cluster.kubectl(&["delete", "pod", "-l", "a=d"]).ok();
    log(2, "its second pod");
    cluster.kminik(&["stop"]).ok();
    cluster.start_again(&[]).ok();
    log(3, "its pod after stop and start");
    kill(host_pid(&cluster.profile, "init"));
    cluster.start_again(&[]).ok();
    log(4, "its pod after a kill");
}

fn keep_context() {
    let cluster = Cluster::prepare("context");
    let foreign = "apiVersion: v1\nkind: Config\ncurrent-context: theirs\nclusters: [{name: c, cluster: {server: 'https://x'}}]\n\
                   contexts: [{name: theirs, context: {cluster: c, user: ''}}]\n";
    std::fs::write(cluster.kubeconfig(), foreign).unwrap();
    let current = || cluster.kubectl(&["config", "current-context"]).ok();
    let told = cluster.start_again(&["--wait=none", "--keep-context"]);
    assert!(told.stderr.contains(&format!("--context={}", cluster.profile)), "{}", told.stderr);
    told.ok();
    assert_eq!(current(), "theirs\n");
    cluster.kubectl(&["--context", &cluster.profile, "get", "--raw", "/readyz"]).ok();
    cluster.start_again(&["--wait=none"]).ok();
    assert_eq!(current(), format!("{}\n", cluster.profile));
}

/// Runs what a unit says, as systemd would: in the environment of its file and no other.
fn run_unit(text: &str, key: &str) -> i32 {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_start_matches('=').to_owned()
    };
    let script = format!("set -a; . {}; exec {}", value("EnvironmentFile"), value(key));
    run(&mut command("env", &["-i", "sh", "-c", &script]), None).code
}

/// systemd itself finds no fault with the unit and has it enabled; its commands bring the cluster back and stop it.
fn autostart() {
    let cluster = Cluster::start("autostart", &["--autostart", "--wait=apiserver"]);
    let name = format!("kminik-{}.service", cluster.profile);
    let unit = Path::new("/etc/systemd/system").join(&name);
    let is_enabled = || run(&mut command("systemctl", &["is-enabled", &name]), None);
    assert_eq!(is_enabled().ok().trim(), "enabled");
    let verified = run(&mut command("systemd-analyze", &["verify", unit.to_str().unwrap()]), None);
    assert!(verified.code == 0 && !verified.stderr.contains(&cluster.profile), "{}", verified.stderr);
    cluster.kminik(&["stop"]).ok();
    let text = std::fs::read_to_string(&unit).unwrap();
    assert_eq!(run_unit(&text, "ExecStart"), 0);
    cluster.kubectl(&["get", "node", &cluster.profile]).ok();
    assert_eq!(run_unit(&text, "ExecStop"), 0);
    assert!(cluster.kminik(&["profile", "list"]).ok().contains("Stopped"));
    assert_eq!(std::fs::read_to_string(&unit).unwrap(), text, "a start without a word on it leaves it");
    cluster.start_again(&["--autostart=false", "--wait=apiserver"]).ok();
    assert!(!unit.exists() && is_enabled().code != 0);
    cluster.start_again(&["--autostart", "--wait=apiserver"]).ok();
    assert!(unit.exists());
    cluster.delete().ok();
    assert!(!unit.exists() && is_enabled().code != 0);
}
