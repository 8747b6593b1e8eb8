//! Workers: what runs on them is of one cluster with the rest, and what becomes of it when they go.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Test;
use crate::lifecycle::{host_pid, kill};
use crate::streams::Forward;
use crate::support::{Cluster, Host, busybox, curl, eventually, nginx, run};

pub const TESTS: &[Test] = &[
    ("two_nodes_are_one_cluster", one_cluster),
    ("a_worker_ends_and_comes_back", ends_and_comes_back),
    ("nodes_that_die_are_started_again", die_and_come_back),
    ("pause_is_for_every_node", paused),
    ("a_worker_that_cannot_join_or_has_lost_its_data_is_mended_by_start", mended),
    ("a_worker_that_dies_while_it_comes_up_is_told_at_once", dies_at_first),
    ("limits_are_every_nodes_or_nobodys", limits),
];

/// On every node: a server that says which pod it is.
const WEB: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: nginx
        image: nginx:latest
        imagePullPolicy: IfNotPresent
        command: [sh, -c, 'echo $NAME > /www/index.html; exec nginx']
        env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: 30095}]}
"#;

const LATE: &str = r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: late}
provisioner: k8s.io/minikube-hostpath
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {storageClassName: late, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"#;

const KEEPER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: keeper}
spec:
  SELECTOR
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo started >> /data/log; exec sleep 3600']
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"#;

/// Leaves a node that is lost after five seconds.
const MOVER: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: mover}
spec:
  replicas: 2
  selector: {matchLabels: {app: mover}}
  template:
    metadata: {labels: {app: mover}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: mover}}}
      tolerations:
      - {key: node.kubernetes.io/unreachable, effect: NoExecute, tolerationSeconds: 5, operator: Exists}
      containers: [{name: main, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sleep, '3600']}]
"#;

const SLEEPER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: 'busybox:latest', imagePullPolicy: Never, command: [sh, -c, 'while true; do date +%s; sleep 0.2; done']}]
"#;

struct Two {
    cluster: Cluster,
    /// Names of the nodes.
    first: String,
    second: String,
}

impl Two {
    fn start(name: &str) -> Self {
        let cluster = Cluster::start(name, &["--nodes=2"]);
        cluster.load(&busybox());
        cluster.load(&nginx());
        let (first, second) = (cluster.profile.clone(), format!("{}-m02", cluster.profile));
        let two = Self { cluster, first, second };
        eventually("both nodes to be ready", || two.ready(&two.first).then_some(()));
        eventually("both nodes to be ready", || two.ready(&two.second).then_some(()));
        two
    }

    fn ready(&self, node: &str) -> bool {
        let node = self.cluster.json(&["get", "node", node]);
        node["status"]["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    }

    /// Name, node and address of the pods of an app that are not on their way out.
    fn pods(&self, app: &str) -> Vec<[String; 3]> {
        let pods = self.cluster.json(&["get", "pods", "-l", &format!("app={app}")]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pods =
            pods["items"].as_array().unwrap().iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        pods.map(|pod| [text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]), text(&pod["status"]["podIP"])])
            .collect()
    }

    /// A file of the second node's data, seen from the host.
    fn file(&self, name: &str) -> PathBuf {
        self.cluster.home().join("home/machines").join(&self.second).join("data/lib/kminik").join(name)
    }

    /// A pod on the second node that needs an image which no registry has.
    fn second_runs(&self, pod: &str) {
        let name = format!("pod/{pod}");
        self.cluster.apply(&SLEEPER.replace("NAME", pod).replace("NODE", &self.second));
        self.cluster.kubectl(&["wait", "--for=condition=Ready", &name, "--timeout=60s"]).ok();
    }

    fn both_serve(&self) {
        self.cluster.kubectl(&["rollout", "status", "daemonset/web", "--timeout=60s"]).ok();
        eventually("a pod on each node", || (self.pods("web").len() == 2).then_some(()));
    }

    fn fetch(&self, pod: &str, url: &str) -> String {
        self.cluster.kubectl(&["exec", pod, "--", "wget", "-qO-", url]).stdout.trim().to_owned()
    }
}

fn one_cluster() {
    let two = Two::start("two");
    let kubectl = |arguments: &[&str]| two.cluster.kubectl(arguments);
    two.cluster.apply(WEB);
    two.both_serve();
    let pods = two.pods("web");
    let names: BTreeSet<String> = pods.iter().map(|[name, ..]| name.clone()).collect();
    let on: BTreeSet<&str> = pods.iter().map(|[_, node, _]| node.as_str()).collect();
    assert_eq!(on, BTreeSet::from([two.first.as_str(), two.second.as_str()]));

    // Pod to pod, by service and name, from both nodes; the node's port on both.
    for [from, ..] in &pods {
        for [to, _, address] in &pods {
            eventually("a pod to reach a pod", || {
                (two.fetch(from, &format!("http://{address}/")) == *to).then_some(())
            });
        }
        let mut seen = BTreeSet::new();
        eventually("the service to lead to both", || {
            seen.insert(two.fetch(from, "http://web.default.svc.cluster.local/"));
            (seen == names).then_some(())
        });
    }
    let nodes = two.cluster.json(&["get", "nodes"]);
    for node in nodes["items"].as_array().unwrap() {
        let address = node["status"]["addresses"][0]["address"].as_str().unwrap();
        let mut seen = BTreeSet::new();
        eventually("the node's port to lead to both", || {
            seen.extend(curl(&format!("http://{address}:30095/")).map(|text| text.trim().to_owned()));
            (seen == names).then_some(())
        });
    }

    // What the API server opens to the worker's kubelet.
    let [pod, _, address] = pods.iter().find(|[_, node, _]| *node == two.second).unwrap();
    eventually("its log", || kubectl(&["logs", pod]).ok().contains("GET / HTTP").then_some(()));
    let forward = Forward::start(two.cluster.kubectl_command(&["port-forward", &format!("pod/{pod}"), ":80"]));
    assert_eq!(curl(&format!("http://127.0.0.1:{}/", forward.port)).unwrap().trim(), pod);
    drop(forward);
    let file = two.cluster.home().join("file");
    std::fs::write(&file, "copied\n").unwrap();
    kubectl(&["cp", file.to_str().unwrap(), &format!("default/{pod}:/tmp/file")]).ok();
    assert_eq!(kubectl(&["exec", pod, "--", "cat", "/tmp/file"]).ok(), "copied\n");
    let metrics = kubectl(&["get", "--raw", &format!("/api/v1/nodes/{}/proxy/metrics", two.second)]).ok();
    assert!(metrics.contains("kubelet"), "{metrics}");
    let through = kubectl(&["get", "--raw", &format!("/api/v1/namespaces/default/pods/{pod}:80/proxy/")]).ok();
    assert_eq!(through.trim(), pod, "{address}");

    // A directory of the node that the pod is on, and for the pod's life afterwards.
    two.cluster.apply(LATE);
    let keeper = |selector: &str| {
        two.cluster.apply(&KEEPER.replace("SELECTOR", selector));
        kubectl(&["wait", "--for=condition=Ready", "pod/keeper", "--timeout=60s"]).ok();
        assert_eq!(two.cluster.json(&["get", "pod", "keeper"])["spec"]["nodeName"], two.second.as_str());
    };
    keeper(&format!("nodeSelector: {{kubernetes.io/hostname: {}}}", two.second));
    kubectl(&["delete", "pod", "keeper"]).ok();
    keeper("");
    assert_eq!(kubectl(&["exec", "keeper", "--", "cat", "/data/log"]).ok(), "started\nstarted\n");

    // Kubelets of workers have what they need by the node's own certificate, approved by nobody but the control plane.
    let requests = two.cluster.json(&["get", "csr"]);
    let signers: BTreeSet<&str> =
        requests["items"].as_array().unwrap().iter().map(|r| r["spec"]["signerName"].as_str().unwrap()).collect();
    let wanted = ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"];
    assert_eq!(signers, BTreeSet::from(wanted));
    let labels = two.cluster.json(&["get", "node", &two.second])["metadata"]["labels"].clone();
    assert_eq!(labels["minikube.k8s.io/primary"], "false");
    assert!(labels["node-role.kubernetes.io/control-plane"].is_null());
}

fn ends_and_comes_back() {
    let two = Two::start("ends");
    let kubectl = |arguments: &[&str]| two.cluster.kubectl(arguments);
    two.cluster.apply(WEB);
    two.cluster.apply(MOVER);
    two.both_serve();
    kubectl(&["rollout", "status", "deployment/mover", "--timeout=60s"]).ok();
    let spread: BTreeSet<String> = two.pods("mover").into_iter().map(|[_, node, _]| node).collect();
    assert_eq!(spread.len(), 2, "one on each node");

    // Another process takes the node's place; its containers go on.
    let [pod, ..] = two.pods("web").into_iter().find(|[_, node, _]| *node == two.second).unwrap();
    let container = || two.cluster.json(&["get", "pod", &pod])["status"]["containerStatuses"][0].clone();
    let before = container();
    let process = || host_pid(&two.second, "node");
    let killed = process();
    kill(killed);
    eventually("a new node process that answers", || {
        let output = kubectl(&["exec", &pod, "--", "cat", "/www/index.html"]);
        (output.stdout.trim() == pod).then_some(())
    });
    assert_ne!(process(), killed);
    assert_eq!(container()["containerID"], before["containerID"]);
    assert_eq!(container()["restartCount"], 0);

    // Emptied by hand: what is not a DaemonSet's goes to the other node.
    let all_on_first = || two.pods("mover").iter().all(|[_, node, _]| *node == two.first);
    kubectl(&["drain", &two.second, "--ignore-daemonsets", "--timeout=60s"]).ok();
    assert!(all_on_first(), "{:?}", two.pods("mover"));
    kubectl(&["uncordon", &two.second]).ok();
    kubectl(&["rollout", "restart", "deployment/mover"]).ok();
    kubectl(&["rollout", "status", "deployment/mover", "--timeout=60s"]).ok();
    eventually("one on each node", || (!all_on_first()).then_some(()));

    // Stopped: it is missed, its pods are replaced; started, it takes its share again, of what was loaded meanwhile too.
    two.cluster.kminik(&["image", "tag", "busybox:latest", "example.com/before:1"]).ok();
    two.cluster.kminik(&["node", "stop", "m02"]).ok();
    eventually("the node to be missed", || (!two.ready(&two.second)).then_some(()));
    eventually("its pods to be replaced", || all_on_first().then_some(()));
    two.cluster.kminik(&["image", "rm", "example.com/before:1"]).ok();
    two.cluster.kminik(&["image", "tag", "busybox:latest", "example.com/meanwhile:1"]).ok();
    let told = two.cluster.kminik(&["node", "start", "m02"]);
    assert!(told.stderr.contains("Loading example.com/meanwhile:1 into"), "{}", told.stderr);
    told.ok();
    eventually("the node to be back", || two.ready(&two.second).then_some(()));
    two.both_serve();
    // Each node's own images are with its logs.
    let exported = two.cluster.home().join("exported");
    two.cluster.kminik(&["export", "logs", exported.to_str().unwrap()]).ok();
    let images = |node: &str| std::fs::read_to_string(exported.join(node).join("images.log")).unwrap();
    assert!(images(&two.first).contains("meanwhile:1") && !images(&two.first).contains("before:1"));
    assert!(images(&two.second).contains("meanwhile:1") && images(&two.second).contains("before:1"));
}

fn die_and_come_back() {
    let two = Two::start("die");
    two.second_runs("sleeper");
    let last = |node: &str| {
        let lease = two.cluster.json(&["-n", "kube-node-lease", "get", "lease", node]);
        lease["spec"]["renewTime"].as_str().unwrap_or_default().to_owned()
    };
    // The worker alone, then both at once: each comes back by itself, and runs pods.
    for (round, victims) in [vec![&two.second], vec![&two.second, &two.first]].into_iter().enumerate() {
        let before = last(&two.second);
        victims.iter().for_each(|node| kill(host_pid(node, "init")));
        eventually("the nodes to be back", || {
            let listed = two.cluster.kubectl(&["get", "nodes", "--request-timeout=2s"]);
            let is_up = listed.code == 0 && two.ready(&two.first) && two.ready(&two.second);
            (is_up && last(&two.second) > before).then_some(())
        });
        two.second_runs(&format!("after-{round}"));
        eventually("its pod of before to run again", || {
            let pod = two.cluster.json(&["get", "pod", "sleeper"]);
            (pod["status"]["containerStatuses"][0]["restartCount"] == round + 1).then_some(())
        });
    }
    eventually("the cluster to be well", || (two.cluster.kminik(&["status"]).code == 0).then_some(()));
}

fn paused() {
    let two = Two::start("pausetwo");
    two.second_runs("sleeper");
    let said = || two.cluster.kubectl(&["logs", "sleeper"]).ok().lines().count();
    let goes_on = || {
        let before = said();
        std::thread::sleep(Duration::from_secs(1));
        said() > before
    };
    assert!(goes_on());
    let told = two.cluster.kminik(&["pause", "-n", "default"]);
    assert!(told.stderr.contains("Paused 1 containers") && told.stderr.contains(&two.second), "{}", told.stderr);
    told.ok();
    std::thread::sleep(Duration::from_secs(1));
    assert!(!goes_on(), "the worker's containers stand still too");
    two.cluster.kminik(&["unpause", "-n", "default"]).ok();
    eventually("it to go on", || goes_on().then_some(()));

    // The whole cluster, for longer than a node may be silent: the workers' word still counts.
    two.cluster.kminik(&["pause", "-A"]).ok();
    let status = two.cluster.kminik(&["status"]);
    assert_eq!(status.code, 2);
    assert!(status.stdout.contains("apiserver: Paused"), "{}", status.stdout);
    std::thread::sleep(Duration::from_secs(45));
    two.cluster.kminik(&["unpause", "-A"]).ok();
    assert!(two.ready(&two.second), "it was missed");
    eventually("it to go on", || goes_on().then_some(()));
    assert_eq!(two.cluster.json(&["get", "pod", "sleeper"])["status"]["containerStatuses"][0]["restartCount"], 0);

    // A start lets go of what is paused on any node; a stop ends it.
    two.cluster.kminik(&["pause", "-A"]).ok();
    let told = two.cluster.start_again(&[]);
    assert!(told.stderr.contains(&format!("Unpausing node {}", two.second)), "{}", told.stderr);
    told.ok();
    assert!(goes_on());
    two.cluster.kminik(&["pause", "-A"]).ok();
    two.cluster.kminik(&["stop"]).ok();
    two.cluster.start_again(&[]).ok();
    assert_eq!(two.cluster.kminik(&["status"]).code, 0, "nothing is paused after a stop");
}

fn mended() {
    let host = Arc::new(Host::new());
    let before = host.state();
    let cluster = Cluster::on(&host, "mended");
    cluster.start_again(&["--nodes=2", "--memory=1g"]).ok();
    cluster.load(&busybox());
    let (first, second) = (cluster.profile.clone(), format!("{}-m02", cluster.profile));
    let two = Two { cluster, first, second };
    let node_is_there = || two.cluster.kubectl(&["get", "node", &two.second]).code == 0;
    // The tokens are gone with their use.
    let secrets = two.cluster.kubectl(&["-n", "kube-system", "get", "secrets", "-o", "name"]).ok();
    assert!(!secrets.contains("bootstrap-token"), "{secrets}");

    // As one whose token has passed before it joined.
    std::fs::remove_dir_all(two.file("pki")).unwrap();
    let mut config: Value = serde_json::from_slice(&std::fs::read(two.file("node.json")).unwrap()).unwrap();
    config["join"]["token"] = "abcdef.0123456789abcdef".into();
    std::fs::write(two.file("node.json"), config.to_string()).unwrap();
    kill(host_pid(&two.second, "node"));
    two.cluster.kubectl(&["delete", "node", &two.second]).ok();
    std::thread::sleep(Duration::from_secs(2));
    assert!(!node_is_there(), "it has joined without a token");
    let init = host_pid(&two.second, "init");
    two.cluster.start_again(&["--wait-timeout=60s"]).ok();
    assert!(two.ready(&two.second));
    assert_eq!(host_pid(&two.second, "init"), init, "its machine goes on");

    // Its data is removed: what is lost is said, what was loaded comes again.
    two.cluster.apply(LATE);
    two.cluster
        .apply(&KEEPER.replace("SELECTOR", &format!("nodeSelector: {{kubernetes.io/hostname: {}}}", two.second)));
    two.cluster.kubectl(&["wait", "--for=condition=Ready", "pod/keeper", "--timeout=60s"]).ok();
    two.cluster.kminik(&["node", "stop", "m02"]).ok();
    std::fs::remove_dir_all(two.cluster.home().join("home/machines").join(&two.second)).unwrap();
    let told = two.cluster.start_again(&[]);
    let lost = format!("The data of the node \"{}\" was removed by other hands", two.second);
    assert!(told.stderr.contains(&lost) && told.stderr.contains("(default/data)"), "{}", told.stderr);
    assert!(told.stderr.contains("Loading docker.io/library/busybox:latest into"), "{}", told.stderr);
    told.ok();
    two.second_runs("sleeper");
    let told = two.cluster.kminik(&["node", "delete", "m02"]);
    assert!(told.stderr.contains("(default/data)"), "{}", told.stderr);
    told.ok();

    // One whose directory was removed while it runs is deleted with the rest, without a profile too.
    two.cluster.kminik(&["node", "add"]).ok();
    two.second_runs("later");
    std::fs::remove_dir_all(two.cluster.home().join("home/machines").join(&two.second)).ok();
    std::fs::remove_file(two.cluster.home().join("home/profiles").join(&two.first).join("config.json")).unwrap();
    two.cluster.delete().ok();
    assert_eq!(host.state(), before);
}

fn dies_at_first() {
    let cluster = Cluster::start("dies", &["--memory=1g"]);
    // So that it never joins.
    cluster.kubectl(&["delete", "clusterrolebinding", "kubeadm:kubelet-bootstrap"]).ok();
    let second = format!("{}-m02", cluster.profile);
    let log = cluster.home().join("home/machines").join(&second).join("console.log");
    let began = Instant::now();
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| run(&mut cluster.command(&["node", "add"]), None));
        eventually("the machine", || std::fs::read(&log).is_ok_and(|text| !text.is_empty()).then_some(()));
        kill(host_pid(&second, "init"));
        let told = adding.join().unwrap().fails(80);
        assert!(told.contains(&format!("the node {second} has ended")) && told.contains("--last-start-only"), "{told}");
    });
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let kept = cluster.kminik(&["logs", "--last-start-only", "-n", "200"]).ok();
    assert!(kept.contains(&format!("{second}:\n")), "{kept}");
    assert!(!log.exists());
    assert_eq!(cluster.kminik(&["node", "list"]).ok().lines().count(), 1);
}

/// Of whichever version of control groups there is.
const MEMORY_LIMIT: &str = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max";

fn limits() {
    let two = Two::start("limits");
    let limit = |node: &str| two.cluster.kminik(&["ssh", "-n", node, MEMORY_LIMIT]).ok();
    let kept = || {
        let path = two.cluster.home().join("home/profiles").join(&two.first).join("config.json");
        let profile: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        profile["memoryMib"].clone()
    };
    two.cluster.start_again(&["--memory=1g"]).ok();
    assert_eq!((limit(&two.first), limit(&two.second)), ("1073741824\n".to_owned(), "1073741824\n".to_owned()));
    // The second node refuses: the first has what it had, and so has the next start.
    let config = std::fs::read(two.file("node.json")).unwrap();
    std::fs::write(two.file("node.json"), "{").unwrap();
    let told = two.cluster.start_again(&["--memory=1200m"]).fails(50);
    assert!(told.contains("does not take the change"), "{told}");
    std::fs::write(two.file("node.json"), config).unwrap();
    assert_eq!((limit(&two.first), limit(&two.second)), ("1073741824\n".to_owned(), "1073741824\n".to_owned()));
    assert_eq!(kept(), 1024);
    two.cluster.start_again(&["--memory=1100m"]).ok();
    assert_eq!(limit(&two.first), limit(&two.second));
    assert_eq!(kept(), 1100);
    // While the control plane is down the workers change all the same.
    kill(host_pid(&two.first, "init"));
    two.cluster.start_again(&["--memory=1g"]).ok();
    assert_eq!((limit(&two.first), limit(&two.second)), ("1073741824\n".to_owned(), "1073741824\n".to_owned()));
}
