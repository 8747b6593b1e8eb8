//! What only some resources do, over HTTPS: pods, services, namespaces, volumes, and the admission around them.

use crate::common::{Answer, Client, TestServer};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn expect(answer: &Answer, code: u16) -> Value {
    assert_eq!(answer.code, code, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn message(answer: &Answer, code: u16) -> String {
    expect(answer, code)["message"].as_str().unwrap().to_owned()
}

/// A server with a default service account in the default namespace.
async fn server() -> (TestServer, Client) {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let account = json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "pull"}]});
    expect(&client.post("/api/v1/namespaces/default/serviceaccounts", &account).await, 201);
    (server, client)
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

async fn bind(client: &mut Client, name: &str) -> Answer {
    client.post(&format!("{PODS}/{name}/binding"), &json!({"target": {"kind": "Node", "name": "n1"}})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pod_is_complete() {
    let (_server, mut client) = server().await;
    let made = expect(&client.post(PODS, &pod("p")).await, 201);
    assert_eq!((&made["status"]["phase"], &made["status"]["qosClass"]), (&json!("Pending"), &json!("BestEffort")));
    assert_eq!(made["metadata"]["generation"], 1);
    let spec = &made["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["serviceAccount"]), (&json!("default"), &json!("default")));
    assert_eq!(spec["imagePullSecrets"][0]["name"], "pull");
    assert_eq!(spec["priority"], 0);
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-"));
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], volume);

    let critical = json!({"metadata": {"name": "q"},
        "spec": {"priorityClassName": "system-node-critical", "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(expect(&client.post(PODS, &critical).await, 201)["spec"]["priority"], 2_000_001_000);
    let mut wrong = pod("r");
    wrong["spec"]["priorityClassName"] = "absent".into();
    assert!(message(&client.post(PODS, &wrong).await, 403).contains("no PriorityClass with name absent was found"));
    let mut wrong = pod("r");
    wrong["spec"]["serviceAccountName"] = "absent".into();
    let refusal = message(&client.post(PODS, &wrong).await, 403);
    assert!(refusal.contains("error looking up service account default/absent"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_bound_once_and_keeps_its_spec() {
    let (_server, mut client) = server().await;
    expect(&client.post(PODS, &pod("p")).await, 201);
    let bound = expect(&bind(&mut client, "p").await, 201);
    assert_eq!((&bound["kind"], &bound["status"]), (&json!("Status"), &json!("Success")));
    assert!(message(&bind(&mut client, "p").await, 409).contains("is already assigned to node"));
    let path = format!("{PODS}/p");
    let pod = expect(&client.get(&path).await, 200);
    assert_eq!(pod["spec"]["nodeName"], "n1");
    assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
    let refusal = message(&client.patch(&path, "merge", &json!({"spec": {"hostname": "h"}})).await, 422);
    assert!(refusal.contains("pod updates may not change fields other than"), "{refusal}");
    let image = json!({"spec": {"containers": [{"name": "c", "image": "j"}]}});
    let changed = expect(&client.patch(&path, "strategic-merge", &image).await, 200);
    assert_eq!(
        (&changed["spec"]["containers"][0]["image"], &changed["metadata"]["generation"]),
        (&json!("j"), &json!(2))
    );
    let status = json!({"status": {"phase": "Running"}, "spec": {"hostname": "h"}});
    let changed = expect(&client.patch(&format!("{path}/status"), "merge", &status).await, 200);
    assert_eq!((&changed["status"]["phase"], &changed["spec"]["hostname"]), (&json!("Running"), &Value::Null));
    assert_eq!(changed["metadata"]["generation"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_go_at_once_or_after_their_grace() {
    let (_server, mut client) = server().await;
    for name in ["free", "bound", "done", "evicted"] {
        expect(&client.post(PODS, &pod(name)).await, 201);
    }
    expect(&client.delete(&format!("{PODS}/free")).await, 200);
    expect(&client.get(&format!("{PODS}/free")).await, 404);
    for name in ["bound", "done", "evicted"] {
        expect(&bind(&mut client, name).await, 201);
    }
    let going = expect(&client.delete(&format!("{PODS}/bound")).await, 200);
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(expect(&client.get(&format!("{PODS}/bound")).await, 200)["metadata"]["generation"], 2);
    let now = json!({"gracePeriodSeconds": 0});
    let path = format!("{PODS}/bound");
    expect(&client.send("DELETE", &path, &[("content-type", "application/json")], now.to_string()).await, 200);
    expect(&client.get(&path).await, 404);
    let ended = json!({"status": {"phase": "Succeeded"}});
    expect(&client.patch(&format!("{PODS}/done/status"), "merge", &ended).await, 200);
    expect(&client.delete(&format!("{PODS}/done")).await, 200);
    expect(&client.get(&format!("{PODS}/done")).await, 404);

    let running = json!({"status": {"phase": "Running"}});
    expect(&client.patch(&format!("{PODS}/evicted/status"), "merge", &running).await, 200);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted"}});
    expect(&client.post(&format!("{PODS}/evicted/eviction"), &eviction).await, 201);
    let evicted = expect(&client.get(&format!("{PODS}/evicted")).await, 200);
    assert!(evicted["metadata"]["deletionTimestamp"].is_string());
    assert!(evicted["status"]["conditions"].to_string().contains("EvictionByEvictionAPI"));
}

#[tokio::test(flavor = "multi_thread")]
async fn services_get_and_keep_addresses_and_ports() {
    let (_server, mut client) = server().await;
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let port = json!([{"port": 80}]);
    let made = expect(&client.post(SERVICES, &service("a", json!({"ports": port}))).await, 201);
    let address = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10."), "{address}");
    assert_eq!(made["spec"]["clusterIPs"], json!([address]));
    assert_eq!((&made["spec"]["type"], &made["spec"]["ipFamilies"]), (&json!("ClusterIP"), &json!(["IPv4"])));
    let taken = service("b", json!({"ports": port, "clusterIP": address}));
    assert!(message(&client.post(SERVICES, &taken).await, 422).contains("provided IP is already allocated"));
    let foreign = service("b", json!({"ports": port, "clusterIP": "192.168.0.1"}));
    assert!(message(&client.post(SERVICES, &foreign).await, 422).contains("is not in the valid range"));
    let headless =
        expect(&client.post(SERVICES, &service("h", json!({"clusterIP": "None", "selector": {"a": "b"}}))).await, 201);
    assert_eq!(headless["spec"]["clusterIP"], "None");

    // A dry run takes nothing.
    let wanted = service("n", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}));
    expect(&client.post(&format!("{SERVICES}?dryRun=All"), &wanted).await, 201);
    expect(&client.post(SERVICES, &wanted).await, 201);
    let again = service("m", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}));
    assert!(message(&client.post(SERVICES, &again).await, 422).contains("provided port is already allocated"));
    let low = service("m", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}));
    assert!(message(&client.post(SERVICES, &low).await, 422).contains("The range of valid ports is 30000-32767"));

    // Both ways between the types; the address stays until there is none to have.
    let path = format!("{SERVICES}/a");
    let opened = expect(&client.patch(&path, "merge", &json!({"spec": {"type": "NodePort"}})).await, 200);
    assert_eq!(opened["spec"]["clusterIP"], address.as_str());
    assert!(opened["spec"]["ports"][0]["nodePort"].as_u64().unwrap() >= 30000);
    let closed = expect(&client.patch(&path, "merge", &json!({"spec": {"type": "ClusterIP"}})).await, 200);
    assert_eq!(closed["spec"]["ports"][0]["nodePort"], Value::Null);
    let named = json!({"spec": {"type": "ExternalName", "externalName": "example.org"}});
    let named = expect(&client.patch(&path, "merge", &named).await, 200);
    assert_eq!(named["spec"]["clusterIP"], Value::Null);
    let back =
        expect(&client.patch(&path, "merge", &json!({"spec": {"type": "ClusterIP", "externalName": null}})).await, 200);
    assert!(back["spec"]["clusterIP"].as_str().unwrap().starts_with("10."), "{back}");
    let moved = json!({"spec": {"clusterIP": "10.96.0.77", "clusterIPs": ["10.96.0.77"]}});
    assert!(message(&client.patch(&path, "merge", &moved).await, 422).contains("may not change once set"));
    let repeated = service("a", json!({"ports": port}));
    let kept = expect(&client.put(&path, &repeated).await, 200);
    assert_eq!(kept["spec"]["clusterIP"], back["spec"]["clusterIP"], "an update that is silent keeps it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_only_families_of_the_cluster() {
    let (_server, mut client) = server().await;
    let service = |name: &str, more: Value| {
        let mut spec = json!({"ports": [{"port": 1}], "selector": {"a": "b"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": name}, "spec": spec})
    };
    for (more, wanted) in [
        (
            json!({"ipFamilies": ["IPv6"]}),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        ),
        (
            json!({"clusterIP": "fd00::1"}),
            "spec.clusterIPs[0]: Invalid value: \"fd00::1\": IPv6 is not configured on this cluster",
        ),
        (
            json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]}),
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
        ),
    ] {
        let refusal = message(&client.post(SERVICES, &service("s", more)).await, 422);
        assert!(refusal.contains(wanted), "{refusal}");
    }
    // What was asked for is kept by a client that does not repeat it.
    let made = expect(&client.post(SERVICES, &service("s", json!({"ipFamilyPolicy": "PreferDualStack"}))).await, 201);
    let mut again = service("s", json!({}));
    again["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    let kept = expect(&client.put(&format!("{SERVICES}/s"), &again).await, 200);
    assert_eq!(kept["spec"]["ipFamilyPolicy"], "PreferDualStack");
    assert_eq!(kept["spec"]["clusterIPs"], made["spec"]["clusterIPs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_new_members_say_the_same() {
    let (_server, mut client) = server().await;
    const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = |name: &str, member: &str, source: Value| {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        spec[member] = source;
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let other = json!({"kind": "PersistentVolumeClaim", "name": "other"});
    for (name, member) in [("old", "dataSource"), ("new", "dataSourceRef")] {
        let spec = &expect(&client.post(CLAIMS, &claim(name, member, other.clone())).await, 201)["spec"];
        assert_eq!((&spec["dataSource"], &spec["dataSourceRef"]), (&other, &other), "{name}");
    }
    let unknown = json!({"apiGroup": "x.io", "kind": "K", "name": "n"});
    let spec = &expect(&client.post(CLAIMS, &claim("unknown", "dataSource", unknown)).await, 201)["spec"];
    assert!(spec["dataSource"].is_null() && spec["dataSourceRef"].is_null(), "{spec}");

    const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
    let secrets = json!([{"name": "s", "namespace": "other", "kind": "Secret"}]);
    let account = json!({"metadata": {"name": "robot"}, "secrets": secrets});
    assert_eq!(expect(&client.post(ACCOUNTS, &account).await, 201)["secrets"], json!([{"name": "s"}]));

    let mut armoured = pod("p");
    armoured["metadata"]["annotations"] = json!({"container.apparmor.security.beta.kubernetes.io/c": "unconfined"});
    let made = expect(&client.post(PODS, &armoured).await, 201);
    let context = &made["spec"]["containers"][0]["securityContext"];
    assert_eq!(context["appArmorProfile"], json!({"type": "Unconfined"}));

    let stale = json!({"metadata": {"resourceVersion": "1"}, "target": {"kind": "Node", "name": "n1"}});
    expect(&client.post(&format!("{PODS}/p/binding"), &stale).await, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_services_never_share_an_address() {
    let (server, _client) = server().await;
    let mut tasks = Vec::new();
    for i in 0..8 {
        let mut client = server.client().await;
        tasks.push(tokio::spawn(async move {
            let mut addresses = Vec::new();
            for j in 0..10 {
                let service = json!({"metadata": {"name": format!("s{i}-{j}")},
                    "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
                let made = expect(&client.post(SERVICES, &service).await, 201);
                addresses.push(made["spec"]["clusterIP"].to_string());
                addresses.push(made["spec"]["ports"][0]["nodePort"].to_string());
            }
            addresses
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all.sort();
    let count = all.len();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_ends_when_its_finalizer_is_gone() {
    let (_server, mut client) = server().await;
    let made = expect(&client.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await, 201);
    assert_eq!((&made["status"]["phase"], &made["spec"]["finalizers"]), (&json!("Active"), &json!(["kubernetes"])));
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
    let going = expect(&client.delete("/api/v1/namespaces/n").await, 200);
    assert_eq!(going["status"]["phase"], "Terminating");
    let map = json!({"metadata": {"name": "m"}});
    let refused = expect(&client.post("/api/v1/namespaces/n/configmaps", &map).await, 403);
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    expect(&client.post("/api/v1/namespaces/absent/configmaps", &map).await, 404);
    let mut last = expect(&client.get("/api/v1/namespaces/n").await, 200);
    last["spec"] = json!({"finalizers": ["example.com/last"]});
    last = expect(&client.put("/api/v1/namespaces/n/finalize?fieldManager=emptier", &last).await, 200);
    let managers = last["metadata"]["managedFields"].as_array().unwrap();
    let emptier = managers.iter().find(|entry| entry["manager"] == "emptier").unwrap();
    assert_eq!((&emptier["subresource"], &emptier["operation"]), (&json!("finalize"), &json!("Update")));
    assert!(emptier["fieldsV1"]["f:spec"]["f:finalizers"].is_object(), "{emptier}");
    last["spec"] = json!({});
    expect(&client.put("/api/v1/namespaces/n/finalize", &last).await, 200);
    expect(&client.get("/api/v1/namespaces/n").await, 404);
    assert!(message(&client.delete("/api/v1/namespaces/default").await, 403).contains("may not be deleted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_get_the_default_class_and_are_protected() {
    let (_server, mut client) = server().await;
    let class = json!({"metadata": {"name": "standard",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"});
    expect(&client.post("/apis/storage.k8s.io/v1/storageclasses", &class).await, 201);
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let made = expect(&client.post(claims, &claim).await, 201);
    assert_eq!(made["spec"]["storageClassName"], "standard");
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let attributes = json!({"metadata": {"name": "fast"}, "driverName": "d.example.com", "parameters": {"iops": "1"}});
    let class = expect(&client.post("/apis/storage.k8s.io/v1/volumeattributesclasses", &attributes).await, 201);
    assert_eq!(class["metadata"]["finalizers"], json!(["kubernetes.io/vac-protection"]));
    assert_eq!(made["status"]["phase"], "Pending");
    let changed = json!({"spec": {"accessModes": ["ReadOnlyMany"]}});
    let refusal = message(&client.patch(&format!("{claims}/c"), "merge", &changed).await, 422);
    assert!(refusal.contains("spec is immutable after creation"), "{refusal}");
    let bound = json!({"spec": {"volumeName": "v"}});
    expect(&client.patch(&format!("{claims}/c"), "merge", &bound).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_features_that_are_off_are_dropped() {
    let (_server, mut client) = server().await;
    let mut signalled = pod("p");
    signalled["spec"]["os"] = json!({"name": "linux"});
    signalled["spec"]["workloadRef"] = json!({"name": "w", "podGroup": "g"});
    signalled["spec"]["containers"][0]["lifecycle"] = json!({"stopSignal": "SIGINT"});
    let made = expect(&client.post(PODS, &signalled).await, 201);
    assert_eq!(
        (&made["spec"]["workloadRef"], &made["spec"]["containers"][0]["lifecycle"]),
        (&Value::Null, &Value::Null)
    );
    let status = json!({"status": {"resources": {"requests": {"cpu": "1"}}, "message": "m"}});
    let made = expect(&client.patch(&format!("{PODS}/p/status"), "merge", &status).await, 200);
    assert_eq!((&made["status"]["resources"], &made["status"]["message"]), (&Value::Null, &json!("m")));

    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let mut template = pod("t")["spec"].take();
    template["volumes"] = json!([{"name": "v", "projected": {"sources": [
        {"clusterTrustBundle": {"name": "b", "path": "p"}, "secret": {"name": "s"}}]}}]);
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": template}}});
    let made = expect(&client.post(deployments, &deployment).await, 201);
    let source = &made["spec"]["template"]["spec"]["volumes"][0]["projected"]["sources"][0];
    assert_eq!((&source["clusterTrustBundle"], &source["secret"]["name"]), (&Value::Null, &json!("s")));

    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease =
        json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "strategy": "OldestEmulationVersion"}});
    assert_eq!(expect(&client.post(leases, &lease).await, 201)["spec"], json!({"holderIdentity": "a"}));
    let changed = json!({"spec": {"preferredHolder": "b", "holderIdentity": "c"}});
    let made = expect(&client.patch(&format!("{leases}/l"), "merge", &changed).await, 200);
    assert_eq!(made["spec"], json!({"holderIdentity": "c"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_frozen_stays() {
    let (_server, mut client) = server().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    expect(&client.post(maps, &json!({"metadata": {"name": "m"}, "immutable": true, "data": {"a": "1"}})).await, 201);
    let refusal = message(&client.patch(&format!("{maps}/m"), "merge", &json!({"data": {"a": "2"}})).await, 422);
    assert!(refusal.contains("field is immutable when `immutable` is set"), "{refusal}");
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}, "immutable": true});
    let secret = expect(&client.post(secrets, &secret).await, 201);
    assert_eq!((&secret["data"], &secret["stringData"]), (&json!({"a": "Yg=="}), &Value::Null));
    let changed = json!({"stringData": {"a": "c"}});
    assert_eq!(client.patch(&format!("{secrets}/s"), "merge", &changed).await.code, 422);
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let set = |label: &str| {
        json!({"metadata": {"name": "r"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": label}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    };
    assert!(message(&client.post(sets, &set("c")).await, 422).contains("`selector` does not match template `labels`"));
    expect(&client.post(sets, &set("b")).await, 201);
    let moved = json!({"spec": {"selector": {"matchLabels": {"x": "y"}}}});
    assert!(message(&client.patch(&format!("{sets}/r"), "merge", &moved).await, 422).contains("field is immutable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn running_pods_are_resized_and_debugged() {
    let (_server, mut client) = server().await;
    let mut wanted = pod("p");
    let amounts = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "10Mi"}});
    wanted["spec"]["containers"][0]["resources"] = amounts("100m");
    let made = expect(&client.post(PODS, &wanted).await, 201);
    assert_eq!(made["status"]["qosClass"], "Burstable");
    let path = format!("{PODS}/p");
    let change = |resources: Value| json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
    let main_door = client.patch(&path, "strategic-merge", &change(amounts("200m"))).await;
    assert!(message(&main_door, 422).contains("pod updates may not change fields other than"));
    let resize = format!("{path}/resize");
    let resized = expect(&client.patch(&resize, "strategic-merge", &change(amounts("200m"))).await, 200);
    assert_eq!(resized["spec"]["containers"][0]["resources"]["requests"]["cpu"], "200m");
    assert_eq!(resized["metadata"]["generation"], 2);
    let pinned = json!({"limits": {"cpu": "200m", "memory": "10Mi"}});
    let refused = client.patch(&resize, "strategic-merge", &change(pinned)).await;
    assert!(message(&refused, 422).contains("Pod QOS Class may not change"));

    let debug = format!("{path}/ephemeralcontainers");
    let containers = |list: Value| json!({"spec": {"ephemeralContainers": list, "hostname": "ignored"}});
    let one = json!([{"name": "d", "image": "i"}]);
    let added = expect(&client.patch(&debug, "strategic-merge", &containers(one)).await, 200);
    assert_eq!(added["spec"]["ephemeralContainers"][0]["name"], "d");
    assert_eq!((&added["spec"]["hostname"], &added["metadata"]["generation"]), (&Value::Null, &json!(3)));
    let refused = client.patch(&debug, "merge", &containers(json!([{"name": "e", "image": "i"}]))).await;
    assert!(message(&refused, 422).contains("may not be removed"));
}

#[tokio::test]
async fn an_account_may_bound_the_secrets_of_its_pods() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let account = json!({
        "metadata": {"name": "bound", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
        "secrets": [{"name": "own"}], "imagePullSecrets": [{"name": "pull"}],
    });
    expect(&client.post("/api/v1/namespaces/default/serviceaccounts", &account).await, 201);
    let reference = |name: &str| json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]);
    let own = json!({
        "serviceAccountName": "bound", "imagePullSecrets": [{"name": "pull"}],
        "volumes": [{"name": "v", "secret": {"secretName": "own"}}],
        "initContainers": [{"name": "i", "image": "i", "env": reference("own")}],
        "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "own"}}]}],
    });
    let pod = |spec: &Value| json!({"metadata": {"name": "p"}, "spec": spec});
    expect(&client.post(&format!("{PODS}?dryRun=All"), &pod(&own)).await, 201);
    let rest = "is not allowed because service account bound does not reference that";
    let secret = "referencing secret.secretName=\"other\"";
    for (pointer, value, why) in [
        (
            "/volumes/0/secret/secretName",
            json!("other"),
            format!("volume with secret.secretName=\"other\" {rest} secret"),
        ),
        ("/initContainers/0/env", reference("other"), format!("init container i with envVar E {secret} {rest} secret")),
        (
            "/containers/0/envFrom/0/secretRef/name",
            json!("other"),
            format!("container c with envFrom {secret} {rest} secret"),
        ),
        ("/imagePullSecrets/0/name", json!("own"), format!("imagePullSecrets[0].name=\"own\" {rest} imagePullSecret")),
    ] {
        let mut spec = own.clone();
        *spec.pointer_mut(pointer).unwrap() = value;
        let refused = message(&client.post(PODS, &pod(&spec)).await, 403);
        assert_eq!(refused, format!("pods \"p\" is forbidden: {why}"));
    }
    expect(&client.post(PODS, &pod(&own)).await, 201);
    let debugger = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i", "env": reference("other")}]}});
    let answer = client.patch(&format!("{PODS}/p/ephemeralcontainers"), "strategic-merge", &debugger).await;
    let why = format!("ephemeral container d with envVar E {secret} {rest} secret");
    assert!(message(&answer, 403).ends_with(&why), "{}", answer.json());
}
