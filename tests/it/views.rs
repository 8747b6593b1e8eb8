//! What a running cluster is shown as: status in its layouts, profiles, kubeconfig, addresses of Services.

use serde_json::Value;

use crate::Test;
use crate::support::{Cluster, Output, curl, eventually, namespace, run, shared};

pub const TESTS: &[Test] = &[
    ("status_has_minikubes_shapes", || status_shapes(shared())),
    ("status_is_told_again_and_again", status_watch),
    ("profile_list_has_minikubes_shapes", profile_list),
    ("update_context_mends_the_kubeconfig", || update_context(shared())),
    ("services_have_urls_on_localhost", || services(shared())),
    ("a_service_that_cannot_be_reached_says_why", unreachable),
];

pub fn status_shapes(cluster: &Cluster) {
    let name = &cluster.profile;
    let text = cluster.kminik(&["status"]).ok();
    let expected = format!(
        "{name}\ntype: Control Plane\nhost: Running\nkubelet: Running\napiserver: Running\nkubeconfig: Configured\n\n"
    );
    assert_eq!(text, expected);
    let nodes = cluster.kminik(&["status", "-o", "json"]).json();
    for (key, value) in [
        ("Name", name.as_str()),
        ("Host", "Running"),
        ("Kubelet", "Running"),
        ("APIServer", "Running"),
        ("Kubeconfig", "Configured"),
    ] {
        assert_eq!(nodes[key], value);
    }
    assert_eq!(nodes["Worker"], false);
    let whole = cluster.kminik(&["status", "-o", "json", "--layout=cluster"]).json();
    assert_eq!(
        (&whole["Name"], &whole["StatusCode"], &whole["StatusName"]),
        (&Value::from(name.as_str()), &Value::from(200), &Value::from("OK"))
    );
    assert_eq!(whole["Components"]["kubeconfig"]["StatusCode"], 200);
    assert_eq!(whole["Nodes"][0]["Components"]["apiserver"]["StatusName"], "OK");
    assert_eq!(whole["Nodes"][0]["Components"]["kubelet"]["Name"], "kubelet");
    assert!(whole["BinaryVersion"].as_str().unwrap().starts_with('v'));
    cluster.kminik(&["status", "-n", "no-such-node"]).fails(85);
    assert_eq!(cluster.kminik(&["status", "-n", name, "-f", "{{.Host}}"]).ok(), "Running\n");
    for wrong in [
        &["status", "-o", "json", "-f", "x"][..],
        &["status", "-l", "cluster", "-o", "text"],
        &["status", "-f", "{{.X}}"],
    ] {
        cluster.kminik(wrong).fails(14);
    }
}

fn status_watch() {
    use std::io::{BufRead, BufReader};
    let cluster = shared();
    let mut command = cluster.command(&["status", "--watch=100ms", "-f", "{{.Host}}"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> = BufReader::new(child.stdout.take().unwrap()).lines().take(3).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(lines, ["Running"; 3]);
}

fn profile_list() {
    let cluster = shared();
    let listed = cluster.kminik(&["profile", "list", "-o", "json"]).json();
    let ours = &listed["valid"][0];
    assert_eq!((&ours["Name"], &ours["Status"]), (&Value::from(cluster.profile.as_str()), &Value::from("OK")));
    assert_eq!((&ours["Active"], &ours["ActiveKubeContext"]), (&Value::from(true), &Value::from(true)));
    assert_eq!(ours["Config"]["driver"], "native");
    assert_eq!(listed["invalid"], serde_json::json!([]));
    let table = cluster.kminik(&["profile", "list", "--light", "--detailed"]).ok();
    let cells = |line: &str| line.split('│').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let lines: Vec<&str> = table.lines().collect();
    let headers = cells(lines[1]);
    assert_eq!(headers[1..6], ["PROFILE", "DRIVER", "RUNTIME", "IP", "PORT"]);
    let row = cells(lines[3]);
    assert_eq!((row[1].as_str(), row[5].as_str(), row[7].as_str()), (cluster.profile.as_str(), "8443", "Skipped"));
}

pub fn update_context(cluster: &Cluster) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    let update = || run(cluster.command(&["update-context"]).env("KUBECONFIG", &path), None);
    let told = |output: Output| {
        assert_eq!(output.code, 0, "{}", output.stderr);
        assert!(output.stderr.contains(&format!("Current context is \"{}\"", cluster.profile)), "{}", output.stderr);
        output.stderr
    };
    for before in ["", "apiVersion: v1\nkind: Config\nclusters:\n- name: foreign\n  cluster: {server: https://x}\n"] {
        std::fs::write(&path, before).unwrap();
        assert_eq!(run(cluster.command(&["status"]).env("KUBECONFIG", &path), None).code, 4);
        let mended = told(update());
        assert!(mended.contains(&format!("\"{}\" context has been updated", cluster.profile)), "{mended}");
        assert!(told(update()).contains("No changes required"));
        assert_eq!(run(cluster.command(&["status"]).env("KUBECONFIG", &path), None).code, 0);
        if !before.is_empty() {
            assert!(std::fs::read_to_string(&path).unwrap().contains("foreign"));
        }
    }
}

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: nginx, image: 'nginx:latest', imagePullPolicy: IfNotPresent, ports: [{containerPort: 80}]}]
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: NS}, spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80}, {name: again, port: 81, targetPort: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: inner, namespace: NS}, spec: {selector: {app: web}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: empty, namespace: NS}, spec: {type: NodePort, selector: {app: none}, ports: [{port: 80}]}}
"#;

fn web(cluster: &Cluster, test: &str) -> String {
    let ns = namespace(cluster, test);
    cluster.apply(&WEB.replace("NS", &ns));
    cluster.kubectl(&["-n", &ns, "rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    ns
}

pub fn services(cluster: &Cluster) {
    let ns = web(cluster, "urls");
    let urls = cluster.kminik(&["service", "web", "-n", &ns, "--url", "--wait=30"]).ok();
    let urls: Vec<&str> = urls.lines().collect();
    assert_eq!(urls.len(), 2);
    eventually("nginx behind its URL", || curl(urls[0])?.contains("nginx works").then_some(()));
    let port = urls[0].strip_prefix("http://127.0.0.1:").expect(urls[0]);
    let secure = cluster.kminik(&["service", "--namespace", &ns, "--https", "--url", "web"]).ok();
    assert!(secure.starts_with(&format!("https://127.0.0.1:{port}\n")), "{secure}");
    let formatted = cluster.kminik(&["service", "web", "-n", &ns, "--url", "--format={{.IP}}/{{.Name}}"]).ok();
    assert_eq!(formatted, "127.0.0.1/http\n127.0.0.1/again\n");
    let listed = cluster.kminik(&["service", "list", "-n", &ns, "-o", "json"]).json();
    let names: Vec<&Value> = listed.as_array().unwrap().iter().map(|service| &service["Name"]).collect();
    assert_eq!(names, ["empty", "inner", "web"]);
    assert_eq!(listed[1]["PortNames"], serde_json::json!(["No node port"]));
    assert_eq!(listed[2]["PortNames"], serde_json::json!(["http/80", "again/81"]));
    assert_eq!(listed[2]["URLs"][0], urls[0]);
    let table = cluster.kminik(&["service", "list"]).ok();
    assert!(table.contains("│ http/80") && table.contains("│ again/81"), "{table}");
    assert!(table.contains("kube-system"), "without a namespace all are listed: {table}");
    let mut opened = cluster.command(&["service", "--all", "-n", &ns]);
    let opened = run(opened.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY"), None);
    assert!(opened.stderr.contains(urls[0]) && opened.stderr.contains("inner has no node port"), "{}", opened.stderr);
    opened.ok();
}

fn unreachable() {
    let cluster = shared();
    let ns = web(cluster, "unreachable");
    let told = cluster.kminik(&["service", "nope", "-n", &ns, "--url"]).fails(115);
    assert!(told.contains("SVC_NOT_FOUND: Service 'nope' was not found in"), "{told}");
    let told = cluster.kminik(&["service", "empty", "-n", &ns, "--url"]).fails(115);
    assert!(told.contains("SVC_UNREACHABLE: service not available: no running pod for service empty found"), "{told}");
    cluster.kminik(&["service", "inner", "-n", &ns, "--url", "--wait=30"]).fails(116);
    cluster.kminik(&["service", "-n", &ns]).fails(14);
}
