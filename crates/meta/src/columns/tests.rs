use super::*;

fn now() -> Timestamp {
    "2024-01-01T01:00:00Z".parse().unwrap()
}

fn row(group: &str, kind: &str, object: Value) -> Vec<String> {
    let object = Object::try_from(object).unwrap();
    let table = table(&Gvk::new(group, "v1", kind), [&object], now());
    assert_eq!(table.definitions.len(), table.rows[0]["cells"].as_array().unwrap().len());
    let cells = table.rows[0]["cells"].as_array().unwrap();
    cells.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect()
}

fn pod(status: Value) -> Vec<String> {
    row(
        "",
        "Pod",
        json!({"metadata": {"name": "p", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}], "nodeName": "n"},
            "status": status}),
    )
}

#[test]
fn pods_show_their_state() {
    let running = json!({"ready": true, "restartCount": 2, "state": {"running": {}},
        "lastState": {"terminated": {"finishedAt": "2024-01-01T00:55:00Z"}}});
    let done = json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
    assert_eq!(
        pod(json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "containerStatuses": [running, running], "initContainerStatuses": [done]})),
        ["p", "2/2", "Running", "4 (5m ago)", "60m", "10.0.0.1", "n", "<none>", "<none>"]
    );
    assert_eq!(&pod(json!({"phase": "Pending"}))[1..4], ["0/2", "Pending", "0"]);
    let waiting = json!({"state": {"waiting": {"reason": "ImagePullBackOff"}}});
    assert_eq!(&pod(json!({"phase": "Pending", "containerStatuses": [waiting]}))[2], "ImagePullBackOff");
    assert_eq!(&pod(json!({"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}))[2], "Init:0/1");
    let failed = json!({"state": {"terminated": {"exitCode": 3}}});
    assert_eq!(&pod(json!({"phase": "Pending", "initContainerStatuses": [failed]}))[2], "Init:ExitCode:3");
    assert_eq!(&pod(json!({"phase": "Running", "containerStatuses": [done, running]}))[2], "NotReady");
    assert_eq!(&pod(json!({"phase": "Failed", "reason": "Evicted"}))[2], "Evicted");
    let deleting =
        json!({"metadata": {"name": "p", "deletionTimestamp": "2024-01-01T00:00:00Z"}, "status": {"phase": "Running"}});
    assert_eq!(&row("", "Pod", deleting)[2], "Terminating");
}

#[test]
fn finished_pods_are_marked() {
    let object = Object::try_from(json!({"status": {"phase": "Succeeded"}})).unwrap();
    let rows = table(&Gvk::new("", "v1", "Pod"), [&object], now()).rows;
    assert_eq!(rows[0]["conditions"][0]["reason"], "Succeeded");
}

#[test]
fn workloads_and_services() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}});
    assert_eq!(
        row(
            "apps",
            "Deployment",
            json!({"metadata": {"name": "d"}, "spec": {"replicas": 3, "template": template,
            "selector": {"matchLabels": {"a": "b"}}}, "status": {"readyReplicas": 2, "updatedReplicas": 3}})
        ),
        ["d", "2/3", "3", "0", "<unknown>", "a,b", "x,y", "a=b"]
    );
    assert_eq!(
        row(
            "",
            "Service",
            json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIPs": ["10.96.0.1"],
            "clusterIP": "10.96.0.1", "selector": {"a": "b"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}})
        ),
        ["s", "NodePort", "10.96.0.1", "<none>", "80:30080/TCP,53/UDP", "<unknown>", "a=b"]
    );
    assert_eq!(&row("", "Service", json!({"spec": {"type": "LoadBalancer"}}))[3], "<pending>");
    assert_eq!(
        row(
            "batch",
            "Job",
            json!({"spec": {"completions": 2}, "status": {"succeeded": 1, "startTime": "2024-01-01T00:59:00Z"}})
        )[1..4],
        ["Running", "1/2", "60s"]
    );
    assert_eq!(
        row(
            "",
            "Endpoints",
            json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}], "ports": [{"port": 1}, {"port": 2}]}]})
        )[1],
        "1.1.1.1:1,1.1.1.2:1,1.1.1.1:2 + 1 more..."
    );
    assert_eq!(
        row(
            "autoscaling",
            "HorizontalPodAutoscaler",
            json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}]}})
        )[1..3],
        ["Deployment/d", "cpu: <unknown>/80%"]
    );
}

#[test]
fn nodes_storage_and_events() {
    let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "x"}},
        "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}], "nodeInfo": {"kubeletVersion": "v1", "osImage": "Linux"}}});
    assert_eq!(
        row("", "Node", node),
        [
            "n",
            "Ready,SchedulingDisabled",
            "control-plane,x",
            "<unknown>",
            "v1",
            "1.2.3.4",
            "<none>",
            "Linux",
            "<unknown>",
            "<unknown>"
        ]
    );
    assert_eq!(
        row(
            "",
            "PersistentVolume",
            json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {"namespace": "d", "name": "c"}, "storageClassName": "standard"}, "status": {"phase": "Bound"}})
        ),
        ["v", "1Gi", "RWO,RWX", "Delete", "Bound", "d/c", "standard", "<unset>", "", "<unknown>", "<unset>"]
    );
    let class = json!({"metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"});
    assert_eq!(row("storage.k8s.io", "StorageClass", class)[..2], ["standard (default)", "p"]);
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"}, "reason": "Started",
        "type": "Normal", "message": "ok\n", "source": {"component": "kubelet", "host": "n"}, "lastTimestamp": "2024-01-01T00:59:30Z"});
    assert_eq!(
        row("", "Event", event),
        ["30s", "Normal", "Started", "pod/p", "", "kubelet, n", "ok", "<unknown>", "1", "e"]
    );
    assert_eq!(
        row("", "LimitRange", json!({"metadata": {"name": "l", "creationTimestamp": "2024-01-01T00:00:00Z"}})),
        ["l", "2024-01-01T00:00:00Z"]
    );
}

#[test]
fn every_kind_takes_an_empty_object() {
    for (gvk, _) in crate::schema::kinds() {
        let object = Object::default();
        assert_eq!(cells(columns(&gvk), &object, now()).len(), columns(&gvk).len());
    }
    for (group, kind, columns) in [core::KINDS, workloads::KINDS, storage::KINDS, others::KINDS].concat() {
        assert!(crate::schema::kinds().any(|(gvk, _)| gvk.group == group && gvk.kind == kind), "{group} {kind}");
        assert_eq!(columns.iter().filter(|c| c.format == "name").count(), 1, "{kind}");
    }
}
