//! Addons: the binary's own and the user's, through everything that happens to a cluster.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::Test;
use crate::docker::{Engine, docker};
use crate::lifecycle::{host_pid, kill};
use crate::support::{Cluster, busybox, command, curl, eventually, nginx, run};

pub const TESTS: &[Test] = &[
    ("addons_are_applied_pruned_and_kept", whole_life),
    ("a_bundle_brings_manifests_where_there_is_no_network", bundled),
    ("docker_pushes_to_localhost_and_a_deployment_runs_it", registry),
];

const DEFINITION: &str = r#"
title = "A page"
maintainer = "me"
docs = "https://mine.example"
images = { Page = "busybox:latest" }
[settings.greeting]
title = "What it says"
default = "hello"
[settings.port]
title = "Its port"
default = "30555"
kind = "port"
[open]
namespace = "mine"
service = "page"
"#;

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: page, namespace: mine}
spec: {type: NodePort, selector: {app: page}, ports: [{port: 80, nodePort: {{setting.port}}}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: page, namespace: mine}
spec:
  selector: {matchLabels: {app: page}}
  template:
    metadata: {labels: {app: page}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sh, -c, 'sleep 3600']}
---
apiVersion: mine.example/v1
kind: Greeting
metadata: {name: first}
text: "{{setting.greeting}} {{.left}}"
---
apiVersion: v1
kind: Namespace
metadata: {name: mine}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: greetings.mine.example}
spec:
  group: mine.example
  names: {plural: greetings, singular: greeting, kind: Greeting}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
"#;

const OLD: &str = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: old, namespace: mine}}\n";
const THEIRS: &str = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: theirs, namespace: mine}}\n";

/// An addon of the user's that names what it needs, without manifests; its folder.
fn bare_folder(cluster: &Cluster, name: &str, definition: &str) -> PathBuf {
    let folder = cluster.home().join("home/addons").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("addon.toml"), definition).unwrap();
    folder
}

fn folder(cluster: &Cluster, name: &str, definition: &str, manifests: &str) {
    std::fs::write(bare_folder(cluster, name, definition).join("manifests.yaml"), manifests).unwrap();
}

fn list(cluster: &Cluster) -> Value {
    cluster.kminik(&["addons", "list", "-o", "json"]).json()
}

fn names(cluster: &Cluster, kind: &str) -> String {
    cluster.kubectl(&["get", kind, "-A", "-o", "jsonpath={.items[*].metadata.name}"]).ok()
}

/// One cluster sees all of it: made without the default addons and with one of the user's.
fn whole_life() {
    let cluster = Cluster::prepare("addons");
    for verb in ["enable", "disable"] {
        let told = cluster.kminik(&["addons", verb, "storage-provisioner"]).fails(85);
        assert!(told.contains("To start a cluster, run"), "{told}");
    }
    let listed = cluster.kminik(&["addons", "list"]).ok();
    assert!(listed.contains("│ storage-provisioner ") && !listed.contains("STATUS"), "{listed}");

    let small = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: small}, data: {a: b}}\n";
    folder(&cluster, "small", "title = 'Small'", small);
    folder(&cluster, "broken", "titel = 'x'", small);
    let told = cluster.start_again(&["--addons=smal"]).fails(14);
    assert!(told.contains("'smal' is not a valid kminik addon"), "{told}");
    cluster.start_again(&["--addons", "small", "--install-addons=false"]).ok();
    let of = list(&cluster);
    assert_eq!((&of["small"]["Status"], &of["small"]["Health"]), (&"enabled".into(), &"healthy".into()), "{of}");
    assert_eq!(of["coredns"]["Status"], "enabled", "{of}");
    assert_eq!((&of["default-storageclass"]["Status"], names(&cluster, "sc")), (&"disabled".into(), String::new()));
    assert_eq!(of["small"]["Profile"], cluster.profile.as_str());
    assert!(cluster.kminik(&["addons", "list"]).stderr.contains("broken"));

    // The whole of one: a kind of its own, a workload that is waited for, a page.
    cluster.load(&busybox());
    folder(&cluster, "mine", DEFINITION, &format!("{MANIFESTS}{OLD}{THEIRS}"));
    cluster.kminik(&["addons", "enable", "mine"]).ok();
    let greeting = || cluster.kubectl(&["get", "greeting", "first", "-o", "jsonpath={.text}"]).ok();
    assert_eq!(greeting(), "hello {{.left}}");
    let table = cluster.kminik(&["addons", "list", "-d"]).ok();
    assert!(table.contains("enabled ✅") && table.contains("https://mine.example"), "{table}");
    let url = cluster.kminik(&["addons", "open", "mine", "--url"]).ok();
    assert_eq!(url, "http://127.0.0.1:30555\n");
    cluster.kminik(&["addons", "open", "small", "--url"]).fails(115);

    // What is no longer in the manifests goes, but for what somebody else has put in its place.
    cluster.kubectl(&["-n", "mine", "delete", "configmap", "theirs"]).ok();
    cluster.kubectl(&["-n", "mine", "create", "configmap", "theirs"]).ok();
    folder(&cluster, "mine", DEFINITION, MANIFESTS);
    cluster.kminik(&["addons", "enable", "mine"]).ok();
    let maps = names(&cluster, "cm");
    assert!(!maps.split(' ').any(|name| name == "old") && maps.contains("theirs"), "{maps}");

    // Settings, images.
    cluster.kminik(&["addons", "configure", "mine", "port=99999"]).fails(14);
    cluster.kminik(&["addons", "configure", "mine", "no=1"]).fails(14);
    cluster.kminik(&["addons", "configure", "mine"]).fails(14);
    let file = cluster.home().join("settings.yaml");
    std::fs::write(&file, "greeting: good day\nport: 30556\n").unwrap();
    cluster.kminik(&["addons", "configure", "mine", "-f", file.to_str().unwrap()]).ok();
    assert_eq!(greeting(), "good day {{.left}}");
    assert!(cluster.kminik(&["addons", "open", "mine", "--url", "--https"]).ok().ends_with(":30556\n"));
    cluster.kminik(&["image", "tag", "busybox:latest", "mine.example/bb:2"]).ok();
    let told = cluster.kminik(&["addons", "enable", "mine", "--images=Page=mine.example/bb:2,None=x"]);
    assert!(told.stderr.contains("None is ignored") && told.stderr.contains("Using image mine.example/bb:2"));
    told.ok();
    let images = cluster.kminik(&["addons", "images", "mine", "-o", "json"]).ok();
    assert_eq!(images, "[\"mine.example/bb:2\"]\n");
    let running = cluster.kubectl(&["-n", "mine", "get", "deploy/page", "-o", "jsonpath={..containers[0].image}"]).ok();
    assert_eq!(running, "mine.example/bb:2");

    // While it is stopped they are changed for the next start; it keeps the rest.
    cluster.kminik(&["stop"]).ok();
    cluster.kminik(&["addons", "disable", "small"]).ok();
    cluster.kminik(&["addons", "enable", "default-storageclass"]).ok();
    assert_eq!(list(&cluster)["mine"]["Health"], Value::Null);
    cluster.start_again(&[]).ok();
    let maps = names(&cluster, "cm");
    assert!(!maps.split(' ').any(|name| name == "small"), "{maps}");
    assert_eq!(names(&cluster, "sc"), "standard");
    eventually("it to be healthy", || (list(&cluster)["mine"]["Health"] == "healthy").then_some(()));

    // What is disabled stays so when the node's process comes back with what it was told at its start.
    cluster.kminik(&["addons", "disable", "default-storageclass"]).ok();
    assert_eq!(names(&cluster, "sc"), "");
    kill(host_pid(&cluster.profile, "node"));
    eventually("the API to be back", || (cluster.kubectl(&["get", "--raw", "/readyz"]).code == 0).then_some(()));
    eventually("cluster DNS to be applied", || {
        let logs = cluster.kminik(&["ssh", "cat /var/log/kminik/node.log"]);
        let logs = if logs.code == 0 { logs.stdout } else { cluster.kminik(&["logs"]).stdout };
        (logs.matches("addon applied").count() >= 2).then_some(())
    });
    assert_eq!(names(&cluster, "sc"), "");

    // Disabled, nothing of it is left.
    cluster.kminik(&["addons", "disable", "mine"]).ok();
    assert!(!names(&cluster, "ns").contains("mine"));
    assert_eq!(cluster.kubectl(&["get", "crd", "-o", "name"]).ok(), "");
    remove(&cluster.home().join("home/addons/mine"));
    assert!(cluster.kminik(&["addons", "enable", "mine"]).fails(14).contains("not a valid"));
    published(&cluster);
}

fn remove(folder: &Path) {
    std::fs::remove_dir_all(folder).unwrap();
}

fn skopeo(arguments: &[&str]) -> String {
    run(&mut command("skopeo", &[&["--insecure-policy"], arguments].concat()), None).ok()
}

/// What a user does with it: docker push, curl, a Deployment; `skopeo` in and out; a restart; disabled and enabled again.
fn registry_on(name: &str) {
    let driver = &format!("--driver={name}");
    let cluster = Cluster::start(&format!("registry-{name}"), &["--addons=registry", driver]);
    eventually("the registry to be healthy", || (list(&cluster)["registry"]["Health"] == "healthy").then_some(()));
    for image in ["nginx", "busybox"] {
        docker(&["tag", &format!("{image}:latest"), &format!("localhost:5000/{image}")]);
        docker(&["push", &format!("localhost:5000/{image}")]);
        docker(&["rmi", &format!("localhost:5000/{image}")]);
    }
    let tags = || curl("http://localhost:5000/v2/nginx/tags/list").unwrap_or_default();
    assert_eq!(tags(), r#"{"name":"nginx","tags":["latest"]}"#);
    cluster.kubectl(&["create", "deployment", "web", "--image=localhost:5000/nginx"]).ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();

    // By its name in the cluster, of an image that is pulled by the other of the host's names.
    let tool = "{apiVersion: v1, kind: Pod, metadata: {name: tool}, spec: {restartPolicy: Never, containers: [{name: c, \
         image: '127.0.0.1:5000/busybox', command: [wget, -qO-, 'http://registry.kube-system/v2/_catalog']}]}}";
    cluster.apply(tool);
    eventually("the pod's answer", || {
        let logs = cluster.kubectl(&["logs", "tool"]).stdout;
        (logs.contains(r#"{"repositories":["busybox","nginx"]}"#)).then_some(())
    });
    let hosting = cluster.kubectl(&["-n", "kube-public", "get", "cm", "local-registry-hosting", "-o", "yaml"]).ok();
    assert!(hosting.contains(r#"host: "localhost:5000""#), "{hosting}");

    // Another client: in, out, and gone.
    let dir = tempfile::tempdir().unwrap();
    let image = nginx();
    let archive = format!("docker-archive:{}", image.path().display());
    skopeo(&["copy", "--dest-tls-verify=false", &archive, "docker://localhost:5000/team/web:1"]);
    let layout = format!("oci:{}:web", dir.path().display());
    skopeo(&["copy", "--src-tls-verify=false", "docker://localhost:5000/team/web:1", &layout]);
    skopeo(&["delete", "--tls-verify=false", "docker://localhost:5000/team/web:1"]);
    assert!(curl("http://localhost:5000/v2/team/web/manifests/1").unwrap_or_default().contains("MANIFEST_UNKNOWN"));

    // What was pushed stays.
    cluster.kminik(&["stop"]).ok();
    assert_eq!(tags(), "");
    cluster.start_again(&[driver]).ok();
    eventually("the registry after the restart", || tags().contains("latest").then_some(()));
    cluster.kminik(&["addons", "disable", "registry"]).ok();
    eventually("its port to be closed", || tags().is_empty().then_some(()));

    // On another port: clients, nodes and the ConfigMap follow.
    cluster.kminik(&["addons", "configure", "registry", "port=5099"]).ok();
    cluster.kminik(&["addons", "enable", "registry"]).ok();
    let tags = || curl("http://localhost:5099/v2/nginx/tags/list").unwrap_or_default();
    eventually("the registry on another port", || tags().contains("latest").then_some(()));
    cluster.kubectl(&["create", "deployment", "other", "--image=localhost:5099/nginx"]).ok();
    cluster.kubectl(&["rollout", "status", "deployment/other", "--timeout=60s"]).ok();
    let hosting = cluster.kubectl(&["-n", "kube-public", "get", "cm", "local-registry-hosting", "-o", "yaml"]).ok();
    assert!(hosting.contains(r#"host: "localhost:5099""#), "{hosting}");
}

/// Both drivers in turn, for both have the host's port 5000.
fn registry() {
    let _engine = Engine::get();
    for image in [nginx(), busybox()] {
        docker(&["load", "-i", image.path().to_str().unwrap()]);
    }
    registry_on("native");
    registry_on("docker");
    docker(&["rmi", "nginx:latest", "busybox:latest"]);
}

/// Serves what it is given, by path, on a port of loopback.
struct Files {
    port: u16,
    served: Arc<Mutex<HashMap<String, String>>>,
}

impl Files {
    fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let files = served.clone();
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut reader = BufReader::new(&client);
                let mut line = String::new();
                let _ = reader.read_line(&mut line);
                // All of the head: what is not read would break the connection.
                let mut rest = String::new();
                while reader.read_line(&mut rest).is_ok_and(|length| length > 2) {}
                let path = line.split(' ').nth(1).unwrap_or_default();
                let found = files.lock().unwrap().get(path).cloned();
                let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
                let body = found.unwrap_or_default();
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = client.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self { port, served }
    }

    fn put(&self, path: &str, text: &str) -> String {
        self.served.lock().unwrap().insert(path.to_owned(), text.to_owned());
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// In the shape of what others publish: a namespace, a kind, an account with its rights, a workload that says latest.
const THIRD: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: third}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: issuers.third.example}
spec:
  group: third.example
  names: {plural: issuers, singular: issuer, kind: Issuer}
  scope: Cluster
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: third, namespace: third}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: third}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: third, namespace: third}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: third, namespace: third}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: third}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: third, namespace: third}
spec:
  selector: {matchLabels: {app: third}}
  template:
    metadata: {labels: {app: third}}
    spec:
      serviceAccountName: third
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: 'third.example/c:latest', imagePullPolicy: IfNotPresent, command: [sh, -c, 'sleep 3600'], env: [{name: T, value: "{{image}}"}]}
"#;

/// Manifests that are fetched: held to their digest, wherever they come from, or to that of the first time.
fn published(cluster: &Cluster) {
    let files = Files::serve();
    let hex = |text: &str| hex::encode(Sha256::digest(text));
    let (changed, right) = (files.put("/changed.yaml", "other: bytes"), files.put("/right.yaml", THIRD));
    let definition = |urls: &str, sha256: &str| {
        format!(
            "title = 'Third'\nimages = {{ C = 'third.example/c:latest' }}\npins = {{ C = 'busybox:latest' }}\n\
             [[published]]\nversion = '1'\nurls = [{urls}]\n{sha256}\n"
        )
    };
    let known = format!("sha256 = '{}'", hex(THIRD));
    let absent = format!("http://127.0.0.1:{}/absent.yaml", files.port);

    bare_folder(cluster, "third", &definition(&format!("'{changed}', '{absent}'"), &known));
    let told = cluster.kminik(&["addons", "enable", "third"]).fails(40);
    assert!(told.contains("INET_ADDON") && told.contains(&hex("other: bytes")) && told.contains(&absent), "{told}");
    assert_eq!(list(cluster)["third"]["Status"], "disabled");
    bare_folder(cluster, "third", &definition(&format!("'{changed}', '{right}'"), &known));
    cluster.kminik(&["addons", "enable", "third"]).ok();
    let of =
        |path: &str| cluster.kubectl(&["-n", "third", "get", "deploy/third", "-o", &format!("jsonpath={path}")]).ok();
    assert_eq!(of("{..containers[0].image}{..env[0].value}"), "busybox:latest{{image}}");
    assert_eq!(list(cluster)["third"]["Health"], "healthy");
    // The next time it comes from this machine.
    files.served.lock().unwrap().clear();
    cluster.kminik(&["addons", "disable", "third"]).ok();
    assert!(!names(cluster, "ns").contains("third"));
    cluster.kminik(&["addons", "enable", "third"]).ok();
    cluster.kminik(&["addons", "disable", "third"]).ok();

    // A mirror of its host; the host itself does not exist.
    let cache = cluster.home().join("home/cache/manifests");
    std::fs::remove_dir_all(&cache).unwrap();
    files.put("/m/files.invalid/third.yaml", THIRD);
    let mirror = format!("files.invalid=http://127.0.0.1:{}/m/{{registry}}/{{repository}}", files.port);
    cluster.kminik(&["mirror", "add", &mirror]).ok();
    bare_folder(cluster, "third", &definition("'https://files.invalid/third.yaml'", &known));
    cluster.kminik(&["addons", "enable", "third"]).ok();
    cluster.kminik(&["addons", "disable", "third"]).ok();

    // Without a digest that of the first time holds; only the publisher is asked for it, and not over a network in plain text.
    std::fs::remove_dir_all(&cache).unwrap();
    bare_folder(cluster, "third", &definition("'http://files.invalid/third.yaml'", ""));
    assert!(cluster.kminik(&["addons", "enable", "third"]).fails(18).contains("has to come by https"));
    let first = files.put("/first.yaml", THIRD);
    bare_folder(cluster, "third", &definition(&format!("'{first}'"), ""));
    let told = cluster.kminik(&["addons", "enable", "third"]);
    assert!(told.stderr.contains(&format!("from now on it has to be sha256:{}", hex(THIRD))), "{told:?}");
    told.ok();
    std::fs::remove_dir_all(&cache).unwrap();
    files.put("/first.yaml", &format!("{THIRD}# changed"));
    let told = cluster.kminik(&["addons", "enable", "third"]).fails(40);
    assert!(told.contains("which is not what was published"), "{told}");
    cluster.kminik(&["addons", "disable", "third"]).ok();
    assert_eq!(cluster.kubectl(&["get", "crd", "-o", "name"]).ok(), "");
}

/// One addon whose digest is known before, and one of which the first that is served counts.
fn bundled() {
    let files = Files::serve();
    let map = |name: &str| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}}}\n");
    let urls = ["pinned", "first"].map(|name| files.put(&format!("/{name}.yaml"), &map(name)));
    let define = |cluster: &Cluster| {
        let definition = |url: &str| format!("title = 'One'\n[[published]]\nversion = '1'\nurls = ['{url}']\n");
        let sha256 = format!("sha256 = '{}'\n", hex::encode(Sha256::digest(map("pinned"))));
        bare_folder(cluster, "pinned", &format!("{}{sha256}", definition(&urls[0])));
        bare_folder(cluster, "first", &definition(&urls[1]));
    };
    let here = Cluster::prepare("packs");
    define(&here);
    let file = here.home().join("bundle.tar");
    let name = file.to_str().unwrap();
    here.kminik(&["bundle", "create", name, "--addons=nothing"]).fails(14);
    here.kminik(&["bundle", "create", name, "--addons=pinned,first"]).ok();

    // What is not the addon's own manifest, well packed.
    let forged = here.home().join("forged.tar");
    let forger = Cluster::prepare("forges");
    files.put("/pinned.yaml", &map("forged"));
    bare_folder(&forger, "pinned", &format!("title = 'One'\n[[published]]\nversion = '1'\nurls = ['{}']\n", urls[0]));
    forger.kminik(&["bundle", "create", forged.to_str().unwrap(), "--addons=pinned"]).ok();

    files.served.lock().unwrap().clear();
    let there = Cluster::start("unpacks", &["--wait=none"]);
    define(&there);
    assert!(there.kminik(&["addons", "enable", "pinned"]).fails(40).contains("INET_ADDON"));
    let whole = std::fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    let at = whole.windows(9).position(|bytes| bytes == b"ConfigMap").unwrap();
    damaged[at] ^= 1;
    std::fs::write(&file, damaged).unwrap();
    assert!(there.kminik(&["bundle", "load", name]).fails(80).contains("is not what it was"));
    there.kminik(&["addons", "enable", "pinned"]).fails(40);
    let told = there.kminik(&["bundle", "load", forged.to_str().unwrap()]).fails(80);
    assert!(told.contains(&urls[0]) && told.contains("is not the one that is published"), "{told}");
    std::fs::write(&file, whole).unwrap();
    let told = there.kminik(&["bundle", "load", name]);
    for (url, name) in urls.iter().zip(["pinned", "first"]) {
        let line = format!("Loaded {url}, sha256:{}", hex::encode(Sha256::digest(map(name))));
        assert!(told.stderr.contains(&line), "{}", told.stderr);
    }
    for addon in ["pinned", "first"] {
        there.kminik(&["addons", "enable", addon]).ok();
        assert!(names(&there, "cm").contains(addon));
    }
}
