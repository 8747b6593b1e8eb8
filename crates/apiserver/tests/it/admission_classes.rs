//! Admission by the classes that objects name, or do not name: of ingresses, of runtimes, of storage.

use serde_json::{Value, json};

use crate::common::{Answer, Client, TestServer};

fn expect(answer: &Answer, code: u16) -> Value {
    assert_eq!(answer.code, code, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn message(answer: &Answer, code: u16) -> String {
    expect(answer, code)["message"].as_str().unwrap().to_owned()
}

async fn start() -> (TestServer, Client) {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    (server, client)
}

/// Creates an object that admission looks for in its cache, and waits until it is there.
async fn settled(server: &TestServer, client: &mut Client, path: &str, object: &Value) {
    let revision = expect(&client.post(path, object).await, 201)["metadata"]["resourceVersion"].clone();
    let revision = revision.as_str().unwrap().parse().unwrap();
    server.api.server().registry().cache().reach(revision).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_gets_the_default_class() {
    let (server, mut client) = start().await;
    let ingresses = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
    let ingress = |name: &str, more: Value| {
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let mut object = json!({"metadata": {"name": name}, "spec": {"defaultBackend": backend}});
        for (key, value) in more.as_object().unwrap() {
            object[key].as_object_mut().unwrap().extend(value.as_object().cloned().unwrap());
        }
        object
    };
    let without = expect(&client.post(ingresses, &ingress("a", json!({}))).await, 201);
    assert_eq!(without["spec"].get("ingressClassName"), None, "there is no default");
    for (name, default) in [("plain", "false"), ("usual", "true")] {
        let class = json!({"metadata": {"name": name, "annotations": {"ingressclass.kubernetes.io/is-default-class": default}},
            "spec": {"controller": "example.com/c"}});
        settled(&server, &mut client, "/apis/networking.k8s.io/v1/ingressclasses", &class).await;
    }
    let with = expect(&client.post(ingresses, &ingress("b", json!({}))).await, 201);
    assert_eq!(with["spec"]["ingressClassName"], "usual");
    let own = ingress("c", json!({"spec": {"ingressClassName": "plain"}}));
    assert_eq!(expect(&client.post(ingresses, &own).await, 201)["spec"]["ingressClassName"], "plain");
    let old = ingress("d", json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}}));
    assert_eq!(expect(&client.post(ingresses, &old).await, 201)["spec"].get("ingressClassName"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_held_to_its_runtime_class() {
    let (server, mut client) = start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let class = json!({"metadata": {"name": "boxed"}, "handler": "box", "overhead": {"podFixed": {"cpu": "100m"}},
        "scheduling": {"nodeSelector": {"boxes": "yes"}, "tolerations": [{"key": "boxes", "operator": "Exists"}]}});
    settled(&server, &mut client, "/apis/node.k8s.io/v1/runtimeclasses", &class).await;
    let pod = |name: &str, more: Value| {
        let mut spec = json!({"runtimeClassName": "boxed", "containers": [{"name": "c", "image": "i"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let made = expect(&client.post(pods, &pod("a", json!({"nodeSelector": {"disk": "ssd"}}))).await, 201);
    assert_eq!(made["spec"]["overhead"], json!({"cpu": "100m"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"boxes": "yes", "disk": "ssd"}));
    assert!(made["spec"]["tolerations"].as_array().unwrap().iter().any(|toleration| toleration["key"] == "boxes"));
    expect(&client.post(pods, &pod("same", json!({"overhead": {"cpu": "0.1"}}))).await, 201);
    for (more, refusal) in [
        (json!({"runtimeClassName": "none"}), "pod rejected: RuntimeClass \"none\" not found"),
        (
            json!({"overhead": {"cpu": "200m"}}),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            json!({"runtimeClassName": null, "overhead": {"cpu": "100m"}}),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            json!({"nodeSelector": {"boxes": "no"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[boxes] = yes; pod.spec.nodeSelector[boxes] = no",
        ),
    ] {
        let found = message(&client.post(pods, &pod("b", more)).await, 403);
        assert!(found.ends_with(refusal), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_grows_where_its_class_allows_it() {
    let (server, mut client) = start().await;
    for (name, grows) in [("fixed", false), ("elastic", true)] {
        let class = json!({"metadata": {"name": name}, "provisioner": "p", "allowVolumeExpansion": grows});
        settled(&server, &mut client, "/apis/storage.k8s.io/v1/storageclasses", &class).await;
    }
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = |class: &str| {
        json!({"metadata": {"name": class}, "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}})
    };
    let size = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
    for class in ["fixed", "elastic"] {
        expect(&client.post(claims, &claim(class)).await, 201);
        let path = format!("{claims}/{class}");
        let early = message(&client.patch(&path, "merge", &size("2Gi")).await, 422);
        assert!(early.contains("spec is immutable after creation except resources.requests"), "{early}");
        expect(&client.patch(&path, "merge", &json!({"spec": {"volumeName": "v"}})).await, 200);
        let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        expect(&client.patch(&format!("{path}/status"), "merge", &bound).await, 200);
    }
    let fixed = message(&client.patch(&format!("{claims}/fixed"), "merge", &size("2Gi")).await, 403);
    assert!(fixed.contains("only dynamically provisioned pvc can be resized"), "{fixed}");
    expect(&client.patch(&format!("{claims}/elastic"), "merge", &size("2Gi")).await, 200);
    let less = message(&client.patch(&format!("{claims}/elastic"), "merge", &size("512Mi")).await, 422);
    assert!(less.contains("spec.resources.requests.storage: Forbidden: field can not be less than"), "{less}");
}
