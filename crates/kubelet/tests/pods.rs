//! Pods from creation to deletion, against an API server and a runtime in memory.

mod support;

use std::time::Duration;

use serde_json::json;
use support::{World, condition, phase, state, waiting_reason};

const POD: &str = "/api/v1/namespaces/default/pods";

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_is_reported_and_goes() {
    let world = World::new().await;
    world.create_pod("p", json!({"containers": [{"name": "c", "image": "busybox", "command": ["sleep", "1d"]}]}));
    let pod = world.wait_pod("p", |pod| condition(pod, "Ready") == "True").await;
    assert_eq!(phase(&pod), "Running");
    assert_eq!(pod["status"]["podIP"], "10.244.0.1");
    assert_eq!(pod["status"]["hostIP"], "192.168.7.2");
    assert_eq!(pod["status"]["qosClass"], "BestEffort");
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(
        (status["ready"].as_bool(), status["started"].as_bool(), status["restartCount"].as_i64()),
        (Some(true), Some(true), Some(0))
    );
    assert!(status["containerID"].as_str().unwrap().starts_with("kminik://"));
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let dir = world.dir.path().join("kubelet/pods").join(uid);
    assert!(std::fs::read_to_string(dir.join("etc-hosts")).unwrap().contains("10.244.0.1\tp\n"));
    assert!(std::fs::read_to_string(dir.join("resolv.conf")).unwrap().starts_with("search default.svc.cluster.local"));

    world.api.delete(&format!("{POD}/p"), 7);
    world.wait_gone("p").await;
    assert!(world.runtime.is_empty());
    assert!(!dir.exists());
    assert!(world.runtime.calls().contains(&"stop c 7".to_string()), "{:?}", world.runtime.calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_restarts_at_once_then_backs_off() {
    let world = World::new().await;
    world.create_pod("p", json!({"containers": [{"name": "c", "image": "busybox"}]}));
    world.wait_pod("p", |pod| condition(pod, "Ready") == "True").await;
    world.runtime.exit("c", 3);
    let pod = world
        .wait_pod("p", |pod| {
            pod["status"]["containerStatuses"][0]["restartCount"] == 1 && condition(pod, "Ready") == "True"
        })
        .await;
    assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3);
    world.runtime.exit("c", 4);
    let pod = world.wait_pod("p", |pod| waiting_reason(pod, 0) == "CrashLoopBackOff").await;
    assert_eq!(phase(&pod), "Running");
    assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 4);
    assert!(
        state(&pod, 0)["waiting"]["message"]
            .as_str()
            .unwrap()
            .starts_with("back-off 10s restarting failed container=c pod=p_default(")
    );
}

/// Its next due attempt is a minute away, but nobody waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_up_late_is_ready_at_once() {
    let world = World::new().await;
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let probe = json!({"tcpSocket": {"host": "127.0.0.1", "port": address.port()}, "periodSeconds": 60});
    world.create_pod("p", json!({"containers": [{"name": "c", "image": "busybox", "readinessProbe": probe}]}));
    world.wait_pod("p", |pod| pod["status"]["containerStatuses"][0]["started"] == true).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let listening = tokio::net::TcpListener::bind(address).await.unwrap();
    world.wait_pod("p", |pod| condition(pod, "Ready") == "True").await;
    drop(listening);
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_run_in_order_and_a_job_pod_completes() {
    let world = World::new().await;
    let container = |name: &str| json!({"name": name, "image": "busybox"});
    world.create_pod("p", json!({"restartPolicy": "Never", "initContainers": [container("i1"), container("i2")], "containers": [container("c")]}));
    for name in ["i1", "i2"] {
        world
            .wait_pod("p", |pod| {
                let list = pod["status"]["initContainerStatuses"].as_array().cloned().unwrap_or_default();
                list.iter().any(|s| s["name"] == name && s["state"]["running"].is_object())
            })
            .await;
        assert_eq!(world.runtime.running(), [name]);
        world.runtime.exit(name, 0);
    }
    let pod = world.wait_pod("p", |pod| condition(pod, "Ready") == "True").await;
    assert_eq!(condition(&pod, "Initialized"), "True");
    assert_eq!(pod["status"]["initContainerStatuses"][0]["ready"], true);
    world.runtime.exit("c", 0);
    let pod = world.wait_pod("p", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(state(&pod, 0)["terminated"]["reason"], "Completed");
    assert_eq!(condition(&pod, "Ready"), "False");
    assert_eq!(pod["status"]["podIP"], "10.244.0.1", "an ended pod keeps its address");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_init_container_fails_the_pod() {
    let world = World::new().await;
    let container = |name: &str| json!({"name": name, "image": "busybox"});
    world.create_pod(
        "p",
        json!({"restartPolicy": "Never", "initContainers": [container("i")], "containers": [container("c")]}),
    );
    world.wait_pod("p", |pod| pod["status"]["initContainerStatuses"][0]["state"]["running"].is_object()).await;
    world.runtime.exit("i", 1);
    let pod = world.wait_pod("p", |pod| phase(pod) == "Failed").await;
    assert_eq!(condition(&pod, "Initialized"), "False");
    assert!(!world.runtime.calls().contains(&"create c".to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn image_errors_are_told_and_backed_off() {
    let world = World::new().await;
    world.create_pod("p", json!({"containers": [{"name": "c", "image": "nothing"}]}));
    world.wait_pod("p", |pod| waiting_reason(pod, 0) == "ErrImagePull").await;
    let pod = world.wait_pod("p", |pod| waiting_reason(pod, 0) == "ImagePullBackOff").await;
    assert_eq!(phase(&pod), "Pending");
    world.create_pod("q", json!({"containers": [{"name": "c", "image": "nothing", "imagePullPolicy": "Never"}]}));
    world.wait_pod("q", |pod| waiting_reason(pod, 0) == "ErrImageNeverPull").await;
    world.create_pod("r", json!({"containers": [{"name": "c", "image": "no name"}]}));
    world.wait_pod("r", |pod| waiting_reason(pod, 0) == "InvalidImageName").await;
    for reason in ["Pulling", "Failed", "BackOff", "ErrImageNeverPull", "InspectFailed"] {
        world.api.wait_event(reason).await;
    }
    // A pod that waits for its image goes at once.
    world.api.delete(&format!("{POD}/p"), 30);
    world.wait_gone("p").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_follow_their_objects() {
    let world = World::new().await;
    world.create_pod(
        "p",
        json!({"containers": [{"name": "c", "image": "busybox", "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "e", "mountPath": "/e"}]}],
            "volumes": [{"name": "v", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "m", "items": [{"key": "k", "path": "dir/k"}]}}]}},
                {"name": "e", "emptyDir": {}}]}),
    );
    world.wait_pod("p", |pod| waiting_reason(pod, 0) == "ContainerCreating").await;
    world.api.put("/api/v1/namespaces/default/configmaps/m", json!({"data": {"k": "one"}}));
    let pod = world.wait_pod("p", |pod| condition(pod, "Ready") == "True").await;
    let mounts = world.runtime.config("c").mounts;
    let volume = mounts.iter().find(|m| m.target.ends_with("v")).unwrap();
    assert!(volume.read_only);
    let volume = volume.source.clone();
    assert_eq!(std::fs::read_to_string(volume.join("dir/k")).unwrap(), "one");
    assert!(std::fs::read_to_string(volume.join("token")).unwrap().starts_with("token-of"));
    world.api.put("/api/v1/namespaces/default/configmaps/m", json!({"data": {"k": "two"}}));
    let changed = async {
        while std::fs::read_to_string(volume.join("dir/k")).unwrap() != "two" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(support::BOUND, changed).await.unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    assert!(world.dir.path().join("kubelet/pods").join(uid).join("volumes/kubernetes.io~empty-dir/e").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_kubelet_adopts_what_runs() {
    let world = World::new().await;
    world.create_pod("p", json!({"containers": [{"name": "c", "image": "busybox"}]}));
    world.create_pod("forgotten", json!({"containers": [{"name": "f", "image": "busybox"}]}));
    let mut ip = json!(null);
    for name in ["forgotten", "p"] {
        ip = world.wait_pod(name, |pod| condition(pod, "Ready") == "True").await["status"]["podIP"].clone();
    }
    let before = world.runtime.calls();
    // Between stop and start, one pod is deleted by force.
    let world = world.restart(|api| drop(api.remove(&format!("{POD}/forgotten")))).await;
    let gone = async {
        while world.runtime.running() != ["c"] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(support::BOUND, gone).await.unwrap();
    world.runtime.exit("c", 1);
    let pod = world.wait_pod("p", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(pod["status"]["podIP"], ip);
    let calls = world.runtime.calls();
    let sandboxes = calls[before.len()..].iter().filter(|c| *c == "run_sandbox").count();
    assert_eq!(sandboxes, 0, "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_rejected() {
    let world = World::new().await;
    world.create_pod(
        "p",
        json!({"containers": [{"name": "c", "image": "busybox", "resources": {"requests": {"cpu": "5"}}}]}),
    );
    let pod = world.wait_pod("p", |pod| phase(pod) == "Failed").await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    assert!(pod["status"]["message"].as_str().unwrap().ends_with("requested: 5000, used: 0, capacity: 2000"));
    world.api.delete(&format!("{POD}/p"), 30);
    world.wait_gone("p").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_and_exec_probes() {
    let world = World::new().await;
    world.runtime.set_exec("live", 0);
    world.runtime.set_exec("ready", 1);
    world.create_pod(
        "p",
        json!({"containers": [{"name": "c", "image": "busybox",
            "lifecycle": {"postStart": {"exec": {"command": ["hello"]}}, "preStop": {"exec": {"command": ["bye"]}}},
            "livenessProbe": {"exec": {"command": ["live"]}, "periodSeconds": 1, "failureThreshold": 1},
            "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 1}}]}),
    );
    world
        .wait_pod("p", |pod| {
            state(pod, 0)["running"].is_object() && pod["status"]["containerStatuses"][0]["started"] == true
        })
        .await;
    assert_eq!(condition(&world.api.get(&format!("{POD}/p")).unwrap(), "Ready"), "False");
    world.runtime.set_exec("ready", 0);
    world.wait_pod("p", |pod| condition(pod, "Ready") == "True").await;
    world.runtime.set_exec("live", 1);
    world.wait_pod("p", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    let calls = world.runtime.calls();
    let bye = calls.iter().position(|c| c == "exec c bye").unwrap();
    let stop = calls.iter().position(|c| c.starts_with("stop c")).unwrap();
    assert!(bye < stop, "{calls:?}");
    assert!(calls.contains(&"exec c hello".to_string()));
    world.api.wait_event("Unhealthy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_registers_and_keeps_foreign_fields() {
    let world = World::new().await;
    let ready = |node: Option<&serde_json::Value>| node.is_some_and(|n| condition(n, "Ready") == "True");
    let mut node =
        world.api.wait("/api/v1/nodes/node-1", |n| n.is_some_and(|n| condition(n, "Ready") == "False")).await.unwrap();
    node["spec"]["podCIDR"] = json!("10.244.0.0/24");
    world.api.put("/api/v1/nodes/node-1", node);
    let mut range = world.kubelet().pod_range();
    tokio::time::timeout(support::BOUND, range.wait_for(|r| r.as_deref() == Some("10.244.0.0/24")))
        .await
        .unwrap()
        .unwrap();
    world.api.wait("/api/v1/nodes/node-1", ready).await;
    let mut node = world.api.get("/api/v1/nodes/node-1").unwrap();
    assert_eq!(node["status"]["capacity"]["cpu"], "2");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "node-1");
    assert_eq!(node["status"]["nodeInfo"]["containerRuntimeVersion"], "kminik://0.1.0");
    node["status"]["capacity"]["example.com/dongle"] = json!("5");
    node["status"]["conditions"][3]["status"] = json!("Unknown");
    world.api.put("/api/v1/nodes/node-1", node);
    let node = world.api.wait("/api/v1/nodes/node-1", ready).await.unwrap();
    assert_eq!(node["status"]["capacity"]["example.com/dongle"], "5");
    world
        .api
        .wait("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1", |lease| lease.is_some())
        .await;
}
