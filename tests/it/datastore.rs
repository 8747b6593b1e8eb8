//! Where the objects are kept: snapshots of the node's own store, and an etcd instead of it; the audit log beside them.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::Test;
use crate::support::{Cluster, eventually};

pub const TESTS: &[Test] = &[
    ("a_snapshot_comes_back_in_the_same_and_in_a_new_cluster", snapshot),
    ("what_is_no_snapshot_is_refused", bad_snapshot),
    ("objects_are_kept_in_an_etcd", etcd),
    ("what_cannot_be_an_etcd_is_refused", bad_datastore),
    ("the_audit_log_is_written_in_the_node", audit),
];

const QUICK: &str = "--wait=node_ready,default_sa";

fn revision(cluster: &Cluster) -> u64 {
    let list = cluster.kubectl(&["get", "--raw", "/api/v1/namespaces"]).json();
    list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn snapshot() {
    let cluster = Cluster::start("snap", &[QUICK]);
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    let file = cluster.home().join("cluster.snapshot");
    let path = file.to_str().unwrap();
    let told = cluster.kminik(&["snapshot", "save", path]);
    assert!(told.stderr.contains("objects at revision"), "{}", told.stderr);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "secrets are in it");
    let info = cluster.kminik(&["snapshot", "info", path, "-o", "json"]).json();
    assert!(info["objects"].as_u64().unwrap() > 50, "{info}");
    assert!(cluster.kminik(&["snapshot", "info", path]).ok().contains("REVISION"));

    cluster.kubectl(&["delete", "configmap", "kept"]).ok();
    cluster.kubectl(&["create", "configmap", "later"]).ok();
    let newest = revision(&cluster);
    let refused = cluster.kminik(&["snapshot", "restore", path]);
    assert!(refused.code == 84 && refused.stderr.contains("is running"), "{}", refused.stderr);
    cluster.kminik(&["stop"]).ok();
    let stopped = cluster.kminik(&["snapshot", "save", path]);
    assert!(stopped.code == 83 && stopped.stderr.contains("is not running"), "{}", stopped.stderr);
    cluster.kminik(&["snapshot", "restore", path]).ok();
    cluster.start_again(&[QUICK]).ok();
    assert_eq!(cluster.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).ok(), "b");
    cluster.kubectl(&["get", "configmap", "later"]).fails(1);
    assert!(revision(&cluster) > newest, "no revision comes twice");
    let old = format!("/api/v1/namespaces?watch=1&timeoutSeconds=5&resourceVersion={newest}");
    let watch = cluster.kubectl(&["get", "--raw", &old]);
    let answer = format!("{}{}", watch.stdout, watch.stderr);
    assert!(answer.contains("410") || answer.contains("too old"), "{answer}");
    // Once is enough: what is written now stays.
    cluster.kubectl(&["create", "configmap", "after"]).ok();
    cluster.kminik(&["stop"]).ok();
    cluster.start_again(&[QUICK]).ok();
    cluster.kubectl(&["get", "configmap", "after"]).ok();

    let other = Cluster::prepare("snapnew");
    other.kminik(&["snapshot", "restore", path]).ok();
    other.start_again(&[QUICK]).ok();
    assert_eq!(other.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).ok(), "b");
}

fn bad_snapshot() {
    let cluster = Cluster::prepare("snapbad");
    let file = cluster.home().join("notes.txt");
    std::fs::write(&file, "not a snapshot\n".repeat(100)).unwrap();
    let path = file.to_str().unwrap();
    for arguments in [["snapshot", "restore", path], ["snapshot", "info", path]] {
        let output = cluster.kminik(&arguments);
        assert!(output.code == 14 && output.stderr.contains("not a snapshot made by kminik"), "{}", output.stderr);
    }
    let absent = cluster.kminik(&["snapshot", "info", "/no/such/file"]);
    assert!(absent.code == 35 && absent.stderr.contains("/no/such/file"), "{}", absent.stderr);
    let missing = cluster.kminik(&["snapshot", "save", path]);
    assert_eq!(missing.code, 85, "{}", missing.stderr);
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("not a snapshot"), "the file was left alone");
}

/// An etcd on an address of this host that nodes can reach.
struct Etcd {
    process: Child,
    endpoint: String,
    _data: tempfile::TempDir,
}

/// Of documentation: routed nowhere, and given to the loopback device for as long as the test runs.
const ETCD_ADDRESS: &str = "198.51.100.53";

impl Etcd {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        ip(&["address", "replace", &format!("{ETCD_ADDRESS}/32"), "dev", "lo"]);
        let port = |address: &str| std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port();
        let (endpoint, peer) = (
            format!("http://{ETCD_ADDRESS}:{}", port(ETCD_ADDRESS)),
            format!("http://127.0.0.1:{}", port("127.0.0.1")),
        );
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--name", "one", "--initial-cluster", &format!("one={peer}"), "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is on PATH (Debian's package etcd-server; dev/test installs it)");
        Etcd { process, endpoint, _data: data }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        ip(&["address", "delete", &format!("{ETCD_ADDRESS}/32"), "dev", "lo"]);
    }
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

fn etcd() {
    let etcd = Etcd::start();
    let endpoint = format!("--datastore-endpoint={}", etcd.endpoint);
    let cluster = Cluster::start("etcd", &[QUICK, &endpoint]);
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    cluster.kminik(&["stop"]).ok();
    // The profile knows where the objects are.
    cluster.start_again(&[QUICK]).ok();
    assert_eq!(cluster.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).ok(), "b");
    let refused = cluster.kminik(&["snapshot", "save", "/tmp/never"]);
    assert!(refused.code == 81 && refused.stderr.contains("etcdctl"), "{}", refused.stderr);
    let plain = Cluster::start("noetcd", &[QUICK]);
    assert_eq!(plain.start_again(&[&endpoint]).code, 81, "objects do not move from one store to another");
}

fn bad_datastore() {
    let cluster = Cluster::prepare("etcdbad");
    for (arguments, expected) in [
        (vec!["--datastore-endpoint=etcd:2379"], "neither http:// nor https://"),
        (vec!["--datastore-endpoint=http://127.0.0.1:2379"], "would be the node itself"),
        (vec!["--datastore-endpoint=https://192.0.2.1:2379", "--datastore-certfile=/no/file"], "belong together"),
        (vec!["--datastore-endpoint=https://192.0.2.1:2379", "--datastore-cafile=/no/file"], "cannot read /no/file"),
        (vec!["--extra-config=apiserver.audit-policy-file=/no/file"], "cannot read the audit policy /no/file"),
        (vec!["--extra-config=apiserver.v=9"], "no setting"),
    ] {
        let output = cluster.start_again(&arguments);
        assert!(output.code == 14 && output.stderr.contains(expected), "{arguments:?}: {}", output.stderr);
    }
}

fn audit() {
    let cluster = Cluster::prepare("audit");
    let policy = cluster.home().join("policy.yaml");
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {level: Request, verbs: [create], resources: [{group: '', resources: [configmaps]}]}\n";
    std::fs::write(&policy, text).unwrap();
    let setting = format!("--extra-config=apiserver.audit-policy-file={}", policy.display());
    cluster.start_again(&[QUICK, &setting, "--extra-config=apiserver.audit-log-path=/var/log/audit.log"]).ok();
    cluster.kubectl(&["create", "configmap", "seen", "--from-literal=a=b"]).ok();
    let line = eventually("the audit event", || {
        let log = cluster.kminik(&["ssh", "--", "cat", "/var/log/audit.log"]).stdout;
        log.lines().find(|line| line.contains("\"ResponseComplete\"") && line.contains("\"seen\"")).map(str::to_owned)
    });
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["requestObject"]["data"]["a"], "b");
    assert_eq!(event["user"]["username"], "kubernetes-admin");
}
