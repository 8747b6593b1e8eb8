//! LimitRanger and ResourceQuota at the server's door.

use crate::common::{Answer, Client, TestServer};
use serde_json::{Value, json};

const CORE: &str = "/api/v1/namespaces/default";

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_default().to_owned()
}

fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

/// Posts, and waits until the server's cache has it.
async fn settled(server: &TestServer, client: &mut Client, path: &str, body: &Value) {
    let answer = client.post(path, body).await;
    assert_eq!(answer.code, 201, "{:?}", answer.json());
    let revision = answer.json()["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    server.api.server().registry().cache().reach(revision).await.unwrap();
}

async fn start() -> (TestServer, Client) {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let account = json!({"metadata": {"name": "default"}});
    settled(&server, &mut client, &format!("{CORE}/serviceaccounts"), &account).await;
    (server, client)
}

/// A quota whose usage was counted, as the quota controller leaves it.
async fn quota(server: &TestServer, client: &mut Client, name: &str, spec: Value, used: Value) {
    let hard = spec["hard"].clone();
    let quotas = format!("{CORE}/resourcequotas");
    settled(server, client, &quotas, &json!({"metadata": {"name": name}, "spec": spec})).await;
    let status = json!({"status": {"hard": hard, "used": used}});
    let answer = client.patch(&format!("{quotas}/{name}/status"), "merge", &status).await;
    assert_eq!(answer.code, 200, "{:?}", answer.json());
    let revision = answer.json()["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    server.api.server().registry().cache().reach(revision).await.unwrap();
}

async fn used(client: &mut Client, name: &str) -> Value {
    client.get(&format!("{CORE}/resourcequotas/{name}")).await.json()["status"]["used"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_ranges_give_defaults_and_bounds() {
    let (server, mut client) = start().await;
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [
        {"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "500m"},
         "default": {"cpu": "200m"}, "defaultRequest": {"cpu": "100m"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
    ]}});
    settled(&server, &mut client, &format!("{CORE}/limitranges"), &range).await;
    let answer = client.post(&format!("{CORE}/pods"), &pod("a", json!({}))).await;
    assert_eq!(answer.code, 201, "{:?}", answer.json());
    assert_eq!(
        answer.json()["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}})
    );
    assert_eq!(
        answer.json()["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let answer = client.post(&format!("{CORE}/pods"), &pod("b", json!({"limits": {"cpu": "1"}}))).await;
    assert_eq!(answer.code, 403);
    assert!(
        message(&answer).contains("maximum cpu usage per Container is 500m, but limit is 1"),
        "{}",
        message(&answer)
    );
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}}}});
    let answer = client.post(&format!("{CORE}/persistentvolumeclaims"), &claim).await;
    assert_eq!(
        message(&answer),
        "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but \
         request is 2Gi"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_charged_before_anything_is_stored() {
    let (server, mut client) = start().await;
    let pods = format!("{CORE}/pods");
    let hard = json!({"hard": {"pods": "2", "requests.cpu": "1", "requests.example.com/gpu": "1"}});
    let nothing = json!({"pods": "0", "requests.cpu": "0", "requests.example.com/gpu": "0"});
    quota(&server, &mut client, "q", hard, nothing).await;
    let answer = client.post(&pods, &pod("silent", json!({}))).await;
    assert_eq!(
        (answer.code, message(&answer).as_str()),
        (403, "pods \"silent\" is forbidden: failed quota: q: must specify requests.cpu for: c")
    );
    let small = json!({"requests": {"cpu": "400m", "example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}});
    assert_eq!(client.post(&format!("{pods}?dryRun=All"), &pod("dry", small.clone())).await.code, 201);
    assert_eq!(used(&mut client, "q").await["pods"], "0");
    assert_eq!(client.post(&pods, &pod("a", small)).await.code, 201);
    let charged = json!({"pods": "1", "requests.cpu": "400m", "requests.example.com/gpu": "1"});
    assert_eq!(used(&mut client, "q").await, charged);
    let answer = client.post(&pods, &pod("b", json!({"requests": {"cpu": "700m"}}))).await;
    assert_eq!(
        message(&answer),
        "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=700m, used: requests.cpu=400m, limited: \
         requests.cpu=1"
    );
    assert_eq!(used(&mut client, "q").await, charged);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_count_objects_and_hold_against_many_at_once() {
    let (server, mut client) = start().await;
    let hard = json!({"hard": {"count/configmaps": "5", "services.nodeports": "2"}});
    quota(&server, &mut client, "q", hard, json!({"count/configmaps": "0", "services.nodeports": "0"})).await;
    let mut creates = tokio::task::JoinSet::new();
    for at in 0..20 {
        let mut client = server.client().await;
        creates.spawn(async move {
            let map = json!({"metadata": {"name": format!("m{at}")}});
            client.post(&format!("{CORE}/configmaps"), &map).await.code
        });
    }
    let codes = creates.join_all().await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 5, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, 201 | 403)), "{codes:?}");
    assert_eq!(used(&mut client, "q").await["count/configmaps"], "5");
    let service = |kind: &str, ports: usize| {
        let ports: Vec<Value> = (0..ports).map(|at| json!({"name": format!("p{at}"), "port": 80 + at})).collect();
        json!({"metadata": {"name": "s"}, "spec": {"type": kind, "ports": ports}})
    };
    let services = format!("{CORE}/services");
    assert_eq!(client.post(&services, &service("NodePort", 3)).await.code, 403);
    assert_eq!(client.post(&services, &service("ClusterIP", 3)).await.code, 201);
    // What changes is charged, too.
    let to_node_ports = json!({"spec": {"type": "NodePort"}});
    let answer = client.patch(&format!("{services}/s"), "merge", &to_node_ports).await;
    assert_eq!(
        message(&answer),
        "services \"s\" is forbidden: exceeded quota: q, requested: services.nodeports=3, used: services.nodeports=0, \
         limited: services.nodeports=2"
    );
    // A quota that nobody has counted yet lets nothing through.
    let spec = json!({"metadata": {"name": "new"}, "spec": {"hard": {"secrets": "1"}}});
    settled(&server, &mut client, &format!("{CORE}/resourcequotas"), &spec).await;
    let answer = client
        .patch(&format!("{CORE}/resourcequotas/new/status"), "merge", &json!({"status": {"hard": {"secrets": "1"}}}))
        .await;
    assert_eq!(answer.code, 200);
    let answer = client.post(&format!("{CORE}/secrets"), &json!({"metadata": {"name": "x"}})).await;
    assert_eq!(message(&answer), "secrets \"x\" is forbidden: status unknown for quota: new, resources: secrets");
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_choose_the_pods() {
    let (server, mut client) = start().await;
    let pods = format!("{CORE}/pods");
    let spec = json!({"hard": {"pods": "0"}, "scopes": ["BestEffort"]});
    quota(&server, &mut client, "none", spec, json!({"pods": "0"})).await;
    let answer = client.post(&pods, &pod("a", json!({}))).await;
    assert_eq!(
        message(&answer),
        "pods \"a\" is forbidden: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0"
    );
    assert_eq!(client.post(&pods, &pod("b", json!({"requests": {"cpu": "1m"}}))).await.code, 201);
}
