//! Probes of each kind, as they gate what reaches a container and end it.

use std::time::Duration;

use kminik_base::pki::{Authority, Subject, Usage};
use serde_json::Value;

use crate::Test;
use crate::support::{Cluster, eventually, namespace, shared};

pub const TESTS: &[Test] = &[
    ("readiness_over_http_and_tcp_decides_who_serves", readiness),
    ("https_is_asked_whatever_its_certificate", https),
    ("a_slow_start_is_waited_for_and_a_hung_container_restarted", slow_start),
    ("grpc_health_is_asked_for", grpc),
];

/// A pod of one container, whose further members `spec` are.
fn pod(cluster: &Cluster, ns: &str, name: &str, spec: &str) {
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {ns}, labels: {{app: {name}}}}}, \
         spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: main, imagePullPolicy: IfNotPresent, {spec}}}]}}}}"
    ));
}

fn container(cluster: &Cluster, ns: &str, name: &str) -> Value {
    cluster.json(&["-n", ns, "get", "pod", name])["status"]["containerStatuses"][0].clone()
}

fn ready(cluster: &Cluster, ns: &str, name: &str, wanted: bool) {
    eventually(&format!("{name} to be ready: {wanted}"), || {
        (container(cluster, ns, name)["ready"] == wanted).then_some(())
    });
}

/// Its warnings, as `kubectl describe` shows them.
fn told(cluster: &Cluster, ns: &str, name: &str, words: &str) {
    eventually(words, || cluster.kubectl(&["-n", ns, "describe", "pod", name]).stdout.contains(words).then_some(()));
}

fn readiness() {
    let cluster = shared();
    let ns = namespace(cluster, "readiness");
    let serve = "command: [sh, -c, 'mkdir /w; touch /w/ready; exec httpd -f -p 8080 -h /w'], ports: [{name: web, containerPort: 8080}]";
    pod(
        cluster,
        &ns,
        "http",
        &format!(
            "image: 'busybox:latest', {serve}, readinessProbe: {{httpGet: {{port: web, path: /ready}}, periodSeconds: 1, failureThreshold: 1}}"
        ),
    );
    cluster.kubectl(&["-n", &ns, "expose", "pod", "http", "--port=80", "--target-port=web"]).ok();
    let serving = |wanted: &str| {
        let path = "jsonpath={.items[0].endpoints[0].conditions.ready}";
        eventually("the endpoint", || {
            let slices = ["-n", &ns, "get", "endpointslices", "-l", "kubernetes.io/service-name=http", "-o", path];
            (cluster.kubectl(&slices).stdout == wanted).then_some(())
        });
    };
    ready(cluster, &ns, "http", true);
    serving("true");
    cluster.kubectl(&["-n", &ns, "exec", "http", "--", "rm", "/w/ready"]).ok();
    ready(cluster, &ns, "http", false);
    serving("false");
    told(cluster, &ns, "http", "Readiness probe failed: HTTP probe failed with statuscode: 404");
    cluster.kubectl(&["-n", &ns, "exec", "http", "--", "touch", "/w/ready"]).ok();
    ready(cluster, &ns, "http", true);
    serving("true");
    assert_eq!(container(cluster, &ns, "http")["restartCount"], 0);

    // Nobody listens until it is told to.
    let late = "command: [sh, -c, 'until [ -e /go ]; do sleep 0.1; done; exec httpd -f -p 8080']";
    pod(
        cluster,
        &ns,
        "tcp",
        &format!("image: 'busybox:latest', {late}, readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}"),
    );
    told(cluster, &ns, "tcp", "connect: connection refused");
    ready(cluster, &ns, "tcp", false);
    cluster.kubectl(&["-n", &ns, "exec", "tcp", "--", "touch", "/go"]).ok();
    ready(cluster, &ns, "tcp", true);
}

/// Whose authority nobody knows.
fn https() {
    let cluster = shared();
    let ns = namespace(cluster, "https");
    let day = Duration::from_secs(86_400);
    let authority = Authority::generate("nobody", day).unwrap();
    let usage = Usage::Server { names: vec!["elsewhere.example".into()], addresses: vec![] };
    let identity = authority.issue(&Subject::new("server", None), &usage, day).unwrap();
    let config = "user www-data; daemon off; error_log /dev/stderr; pid /tmp/pid; events {} http { access_log off; \
                  server { listen 443 ssl; ssl_certificate /conf/crt; ssl_certificate_key /conf/key; location / { root /www; } } \
                  server { listen 80; location / { root /www; } } }";
    let files = serde_json::json!({ "nginx.conf": config, "crt": identity.cert_pem, "key": identity.key_pem });
    let map = serde_json::json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "conf", "namespace": ns }, "data": files });
    cluster.apply(&map.to_string());
    let https = |name: &str, path: &str, port: u16| {
        cluster.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {ns}}}, spec: {{terminationGracePeriodSeconds: 0, \
             volumes: [{{name: conf, configMap: {{name: conf}}}}], containers: [{{name: main, image: 'nginx:latest', imagePullPolicy: IfNotPresent, \
             args: [-c, /conf/nginx.conf], volumeMounts: [{{name: conf, mountPath: /conf}}], \
             readinessProbe: {{httpGet: {{scheme: HTTPS, port: {port}, path: {path}}}, periodSeconds: 1}}}}]}}}}"
        ));
    };
    https("good", "/index.html", 443);
    https("absent", "/absent", 443);
    https("plain", "/index.html", 80);
    ready(cluster, &ns, "good", true);
    told(cluster, &ns, "absent", "Readiness probe failed: HTTP probe failed with statuscode: 404");
    told(cluster, &ns, "plain", "http: server gave HTTP response to HTTPS client");
    ready(cluster, &ns, "plain", false);
}

fn slow_start() {
    let cluster = shared();
    let ns = namespace(cluster, "slowstart");
    // Its liveness probe would kill it at once, were it asked before the start is through.
    let probes = "startupProbe: {exec: {command: [cat, /started]}, periodSeconds: 1, failureThreshold: 60}, \
                  livenessProbe: {exec: {command: [sh, -c, 'cat /started && [ ! -e /hung ] || sleep 60']}, periodSeconds: 1, failureThreshold: 1}";
    let script = "command: [sh, -c, 'sleep 3; touch /started; sleep 3600']";
    pod(cluster, &ns, "slow", &format!("image: 'busybox:latest', {script}, {probes}"));
    eventually("the container to run", || {
        container(cluster, &ns, "slow")["state"]["running"].is_object().then_some(())
    });
    assert_eq!(container(cluster, &ns, "slow")["started"], false);
    ready(cluster, &ns, "slow", true);
    let now = container(cluster, &ns, "slow");
    assert_eq!((&now["started"], &now["restartCount"]), (&Value::from(true), &Value::from(0)));
    // A probe that does not come back is one that failed.
    cluster.kubectl(&["-n", &ns, "exec", "slow", "--", "touch", "/hung"]).ok();
    eventually("the restart", || (container(cluster, &ns, "slow")["restartCount"] == 1).then_some(()));
    told(cluster, &ns, "slow", "timed out after 1s");
    told(cluster, &ns, "slow", "failed liveness probe, will be restarted");
}

/// etcd speaks it.
fn grpc() {
    let cluster = shared();
    cluster.load(&crate::support::etcd());
    let ns = namespace(cluster, "grpc");
    let etcd = "image: 'etcd:latest', args: [--data-dir=/tmp/e, '--listen-client-urls=http://0.0.0.0:2379', '--advertise-client-urls=http://127.0.0.1:2379']";
    pod(cluster, &ns, "serves", &format!("{etcd}, readinessProbe: {{grpc: {{port: 2379}}, periodSeconds: 1}}"));
    pod(
        cluster,
        &ns,
        "other",
        &format!("{etcd}, readinessProbe: {{grpc: {{port: 2379, service: none}}, periodSeconds: 1}}"),
    );
    ready(cluster, &ns, "serves", true);
    told(cluster, &ns, "other", "rpc error: code = NotFound desc = unknown service");
    ready(cluster, &ns, "other", false);
}
