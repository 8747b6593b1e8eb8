//! Services: from the host, from pods, by address and by name.

use crate::Test;
use crate::support::{Cluster, curl, eventually, namespace, shared};

pub const TESTS: &[Test] = &[
    ("a_node_port_answers_on_the_hosts_localhost_and_everywhere_else", node_port),
    ("a_taken_node_port_is_an_event", taken_port),
    ("names_resolve_in_every_form", names),
    ("two_pods_with_one_port_share_the_load_and_affinity_sticks", balance),
    ("a_pod_reaches_itself_through_its_service", hairpin),
    ("udp_and_tcp_share_a_port", udp),
    ("a_service_without_endpoints_refuses", refuses),
    ("ports_and_addresses_have_records", records),
    ("a_pods_host_port_answers_on_the_node", host_port),
];

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: nginx, image: 'nginx:latest', imagePullPolicy: IfNotPresent, ports: [{containerPort: 80}]}
"#;

const CLIENT: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: NS}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  # Debian's static busybox resolves names only beside the libraries that the nginx image has.
  - {name: main, image: 'nginx:latest', imagePullPolicy: IfNotPresent, command: [sleep, '3600']}
"#;

/// What busybox' wget in the client pod gets.
fn wget(cluster: &Cluster, ns: &str, url: &str) -> Option<String> {
    let output = cluster.kubectl(&["-n", ns, "exec", "client", "--", "wget", "-qO-", url]);
    (output.code == 0).then_some(output.stdout)
}

fn setup(cluster: &Cluster, test: &str, more: &[&str]) -> String {
    let ns = namespace(cluster, test);
    for manifest in more {
        cluster.apply(&manifest.replace("NS", &ns));
    }
    cluster.apply(&CLIENT.replace("NS", &ns));
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]).ok();
    ns
}

fn node_port() {
    let cluster = shared();
    let service = r#"
apiVersion: v1
kind: Service
metadata: {name: nginx-service, namespace: NS}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, nodePort: 30080}]
"#;
    let ns = setup(cluster, "nodeport", &[WEB, service]);
    cluster.kubectl(&["-n", &ns, "rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    eventually("nginx on localhost:30080", || curl("http://localhost:30080").filter(|t| t.contains("nginx works")));
    eventually("nginx on 127.0.0.1:30080", || curl("http://127.0.0.1:30080").filter(|t| t.contains("nginx works")));
    let node = cluster.kminik(&["ip"]).ok();
    eventually("nginx on the node's address", || {
        curl(&format!("http://{}:30080", node.trim())).filter(|t| t.contains("nginx works"))
    });
    let address =
        cluster.json(&["-n", &ns, "get", "svc", "nginx-service"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let urls = [
        format!("http://{address}"),
        format!("http://nginx-service.{ns}.svc.cluster.local"),
        format!("http://{}:30080", node.trim()),
    ];
    for url in urls {
        eventually(&url, || wget(cluster, &ns, &url).filter(|t| t.contains("nginx works")));
    }
    cluster.kubectl(&["-n", &ns, "delete", "svc", "nginx-service"]).ok();
    eventually("the port to close", || curl("http://127.0.0.1:30080").is_none().then_some(()));
}

fn taken_port() {
    let cluster = shared();
    let listener = std::net::TcpListener::bind("127.0.0.1:30099").unwrap();
    let service = "{apiVersion: v1, kind: Service, metadata: {name: taken, namespace: NS}, spec: {type: NodePort, selector: {a: b}, ports: [{port: 80, nodePort: 30099}]}}";
    let ns = setup(cluster, "taken", &[service]);
    eventually("the event", || {
        let events = cluster.json(&["-n", &ns, "get", "events"]);
        events["items"]
            .as_array()?
            .iter()
            .any(|e| e["type"] == "Warning" && e["message"].as_str().is_some_and(|m| m.contains("30099")))
            .then_some(())
    });
    eventually("the line in status", || cluster.kminik(&["status"]).stderr.contains("30099").then_some(()));
    drop(listener);
}

fn names() {
    let cluster = shared();
    let headless = "{apiVersion: v1, kind: Service, metadata: {name: headless, namespace: NS}, spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 80}]}}";
    let external = "{apiVersion: v1, kind: Service, metadata: {name: outside, namespace: NS}, spec: {type: ExternalName, externalName: kubernetes.default.svc.cluster.local}}";
    let ns = setup(cluster, "names", &[WEB, headless, external]);
    cluster.kubectl(&["-n", &ns, "rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    let pod = cluster.json(&["-n", &ns, "get", "pods", "-l", "app=web"])["items"][0]["status"]["podIP"]
        .as_str()
        .unwrap()
        .to_owned();
    let lookup = |name: &str| cluster.kubectl(&["-n", &ns, "exec", "client", "--", "nslookup", name]).stdout;
    eventually("the API by name", || {
        lookup("kubernetes.default.svc.cluster.local").contains("10.96.0.1").then_some(())
    });
    eventually("the headless service", || {
        lookup(&format!("headless.{ns}.svc.cluster.local")).contains(&pod).then_some(())
    });
    eventually("the external name", || {
        lookup(&format!("outside.{ns}.svc.cluster.local")).contains("10.96.0.1").then_some(())
    });
    // A short name goes through the search list.
    eventually("a short name", || wget(cluster, &ns, "http://headless").filter(|t| t.contains("nginx works")));
    let config = cluster.kubectl(&["-n", &ns, "exec", "client", "--", "cat", "/etc/resolv.conf"]).ok();
    assert!(
        config.contains("nameserver 10.96.0.10") && config.contains(&format!("{ns}.svc.cluster.local")),
        "{config}"
    );
    assert!(!config.contains("127.0.0."), "{config}");
}

/// Two pods that say their names on port 8080.
const ECHO: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo, namespace: NS}
spec:
  replicas: 2
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sh, -c, 'mkdir /w; hostname > /w/index.html; exec httpd -f -p 8080 -h /w']}
"#;

fn balance() {
    let cluster = shared();
    let service = "{apiVersion: v1, kind: Service, metadata: {name: echo, namespace: NS}, spec: {selector: {app: echo}, ports: [{port: 80, targetPort: 8080}]}}";
    let ns = setup(cluster, "balance", &[ECHO, service]);
    cluster.kubectl(&["-n", &ns, "rollout", "status", "deployment/echo", "--timeout=60s"]).ok();
    let many = "for i in $(seq 40); do wget -qO- http://echo; done";
    let answers = || {
        let text = cluster.kubectl(&["-n", &ns, "exec", "client", "--", "sh", "-c", many]).ok();
        let names: std::collections::BTreeSet<String> = text.lines().map(str::to_owned).collect();
        names.len()
    };
    eventually("both pods to answer", || (answers() == 2).then_some(()));
    cluster.kubectl(&["-n", &ns, "patch", "svc", "echo", "-p", r#"{"spec":{"sessionAffinity":"ClientIP"}}"#]).ok();
    eventually("one pod to answer always", || (answers() == 1).then_some(()));
}

fn hairpin() {
    let cluster = shared();
    let service = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: NS}, spec: {selector: {app: web}, ports: [{port: 80}]}}";
    let ns = setup(cluster, "hairpin", &[WEB, service]);
    cluster.kubectl(&["-n", &ns, "rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    eventually("the pod to reach itself", || {
        let output = cluster.kubectl(&["-n", &ns, "exec", "deploy/web", "--", "wget", "-qO-", "http://web"]);
        output.stdout.contains("nginx works").then_some(())
    });
}

fn udp() {
    let cluster = shared();
    let both = "{apiVersion: v1, kind: Service, metadata: {name: both, namespace: NS}, spec: {selector: {k8s-app: none}, ports: [{name: u, port: 53, protocol: UDP}, {name: t, port: 53, protocol: TCP}]}}";
    let ns = setup(cluster, "udp", &[both]);
    let ports = cluster.json(&["-n", &ns, "get", "svc", "both"])["spec"]["ports"].as_array().unwrap().len();
    assert_eq!(ports, 2);
    // The cluster's own DNS has both: by UDP with nslookup, by TCP with a bare connection.
    eventually("DNS over UDP", || {
        cluster
            .kubectl(&["-n", &ns, "exec", "client", "--", "nslookup", "kubernetes.default", "10.96.0.10"])
            .stdout
            .contains("10.96.0.1")
            .then_some(())
    });
    eventually("DNS over TCP", || {
        (cluster.kubectl(&["-n", &ns, "exec", "client", "--", "sh", "-c", "nc -w 3 10.96.0.10 53 < /dev/null"]).code
            == 0)
            .then_some(())
    });
}

fn refuses() {
    let cluster = shared();
    let service = "{apiVersion: v1, kind: Service, metadata: {name: empty, namespace: NS}, spec: {selector: {none: such}, ports: [{port: 80}]}}";
    let ns = setup(cluster, "refuse", &[service]);
    eventually("a refusal", || {
        let told = cluster.kubectl(&["-n", &ns, "exec", "client", "--", "wget", "-qO-", "http://empty"]);
        told.stderr.contains("refused").then_some(())
    });
}

fn records() {
    let cluster = shared();
    let plain = "{apiVersion: v1, kind: Service, metadata: {name: plain, namespace: NS}, spec: {selector: {app: web}, ports: [{name: http, port: 8081, targetPort: 80}]}}";
    let headless = "{apiVersion: v1, kind: Service, metadata: {name: headless, namespace: NS}, spec: {clusterIP: None, selector: {app: named}, ports: [{name: http, port: 80}]}}";
    let named = "{apiVersion: v1, kind: Pod, metadata: {name: named, namespace: NS, labels: {app: named}}, spec: {hostname: first, subdomain: headless, \
                 containers: [{name: nginx, image: 'nginx:latest', imagePullPolicy: IfNotPresent}]}}";
    let ns = setup(cluster, "records", &[WEB, plain, headless, named]);
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Ready", "pod/named", "--timeout=60s"]).ok();
    let address = cluster.json(&["-n", &ns, "get", "svc", "plain"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let pod = cluster.json(&["-n", &ns, "get", "pod", "named"])["status"]["podIP"].as_str().unwrap().to_owned();
    let ask = |kind: &str, name: &str, wanted: &str| {
        let query = format!("-type={kind}");
        eventually(&format!("{kind} of {name}: {wanted}"), || {
            let told = cluster.kubectl(&["-n", &ns, "exec", "client", "--", "nslookup", &query, name]).stdout;
            told.contains(wanted).then_some(())
        });
    };
    let domain = format!("{ns}.svc.cluster.local");
    ask("srv", &format!("_http._tcp.plain.{domain}"), &format!("8081 plain.{domain}"));
    ask("srv", &format!("_http._tcp.headless.{domain}"), &format!("80 first.headless.{domain}"));
    ask("a", &format!("first.headless.{domain}"), &pod);
    ask("ptr", &reverse(&address), &format!("plain.{domain}"));
    ask("ptr", &reverse(&pod), &format!("first.headless.{domain}"));
}

/// The name under which an address is looked up.
fn reverse(address: &str) -> String {
    let parts: Vec<&str> = address.rsplit('.').collect();
    format!("{}.in-addr.arpa", parts.join("."))
}

fn host_port() {
    let cluster = shared();
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: held, namespace: NS}, spec: {terminationGracePeriodSeconds: 0, containers: \
               [{name: nginx, image: 'nginx:latest', imagePullPolicy: IfNotPresent, ports: [{containerPort: 80, hostPort: 8087}]}]}}";
    let ns = setup(cluster, "hostport", &[pod]);
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Ready", "pod/held", "--timeout=60s"]).ok();
    let url = format!("http://{}:8087", cluster.kminik(&["ip"]).ok().trim());
    eventually("the host port from the host", || curl(&url).filter(|text| text.contains("nginx works")));
    eventually("the host port from a pod", || wget(cluster, &ns, &url).filter(|text| text.contains("nginx works")));
    // One node has it once.
    cluster.apply(&pod.replace("NS", &ns).replace("held", "waits"));
    eventually("the second to be told why it waits", || {
        let told = cluster.kubectl(&["-n", &ns, "describe", "pod", "waits"]).stdout;
        told.contains("didn't have free ports").then_some(())
    });
    cluster.kubectl(&["-n", &ns, "delete", "pod", "held"]).ok();
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Ready", "pod/waits", "--timeout=60s"]).ok();
    eventually("the host port of the second", || curl(&url).filter(|text| text.contains("nginx works")));
    cluster.kubectl(&["-n", &ns, "delete", "pod", "waits"]).ok();
    eventually("the host port to close", || curl(&url).is_none().then_some(()));
}
