//! Workers: what runs on them is of one cluster with the rest, and what becomes of it when they go.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::Test;
use crate::lifecycle::{host_pid, kill};
use crate::streams::Forward;
use crate::support::{Cluster, busybox, curl, eventually, nginx};

pub const TESTS: &[Test] =
    &[("two_nodes_are_one_cluster", one_cluster), ("a_worker_ends_and_comes_back", ends_and_comes_back)];

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

    // Stopped: it is missed, its pods are replaced; started, it takes its share again.
    two.cluster.kminik(&["node", "stop", "m02"]).ok();
    eventually("the node to be missed", || (!two.ready(&two.second)).then_some(()));
    eventually("its pods to be replaced", || all_on_first().then_some(()));
    two.cluster.kminik(&["node", "start", "m02"]).ok();
    eventually("the node to be back", || two.ready(&two.second).then_some(()));
    two.both_serve();
}
