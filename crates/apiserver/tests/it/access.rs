//! Identities and rights over HTTPS.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Answer, Client, TestServer};
use kminik_base::pki::{Identity, Subject, Usage};
use serde_json::{Value, json};

impl TestServer {
    fn identity(&self, name: &str, group: Option<&str>) -> Identity {
        self.authority.issue(&Subject::new(name, group), &Usage::Client, Duration::from_secs(3600)).unwrap()
    }
}

fn expect(answer: &Answer, code: u16) -> Value {
    assert_eq!(answer.code, code, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

/// A rule takes effect once the index has seen it, a moment after the write.
async fn eventually(client: &mut Client, method: &str, path: &str, code: u16) -> Answer {
    for _ in 0..100 {
        let answer = client.send(method, path, &[], "").await;
        if answer.code == code {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{method} {path} never answers {code}");
}

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

#[tokio::test(flavor = "multi_thread")]
async fn nobody_in_particular_sees_health_and_version_only() {
    let server = TestServer::start().await;
    let mut nobody = server.client_as(None).await;
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(nobody.get(path).await.code, 200, "{path}");
    }
    for path in ["/api", "/api/v1/namespaces", "/metrics"] {
        assert_eq!(nobody.get(path).await.code, 401, "{path}");
    }
    let bad = nobody.send("GET", "/api/v1/namespaces", &[("authorization", "Bearer nonsense")], "").await;
    assert_eq!(bad.code, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_paused_only_nodes_are_answered() {
    let paused = Arc::new(AtomicBool::new(false));
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::start_with(directory, |config| config.paused = paused.clone()).await;
    let mut admin = server.client().await;
    let mut node = server.client_as(Some(&server.identity("system:node:second", Some("system:nodes")))).await;
    paused.store(true, Ordering::Relaxed);
    let told = expect(&admin.get("/api/v1/services").await, 503);
    assert!(told["message"].as_str().unwrap().contains("paused"), "{told}");
    expect(&node.get("/api/v1/services").await, 200);
    let forged = [("impersonate-user", "system:node:second"), ("impersonate-group", "system:nodes")];
    expect(&admin.send("GET", "/api/v1/services", &forged, "").await, 503);
    paused.store(false, Ordering::Relaxed);
    expect(&admin.get("/api/v1/services").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_come_from_roles_and_bindings() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let mut alice = server.client_as(Some(&server.identity("alice", None))).await;
    let refused = expect(&alice.get("/api/v1/namespaces/default/configmaps").await, 403);
    let message = r#"configmaps is forbidden: User "alice" cannot list resource "configmaps" in API group "" in the namespace "default""#;
    assert_eq!(refused["message"], message);
    assert_eq!(refused["reason"], "Forbidden");
    assert_eq!(alice.get("/api").await.code, 200, "everyone may discover");

    let binding = json!({"metadata": {"name": "alice-views"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "alice"}]});
    let path = format!("{RBAC}/namespaces/default/rolebindings");
    expect(&admin.post(&path, &binding).await, 201);
    eventually(&mut alice, "GET", "/api/v1/namespaces/default/configmaps", 200).await;
    assert_eq!(alice.get("/api/v1/namespaces/kube-system/configmaps").await.code, 403);
    assert_eq!(alice.get("/api/v1/namespaces/default/secrets").await.code, 403, "view shows no secrets");
    assert_eq!(alice.delete("/api/v1/namespaces/default/configmaps/x").await.code, 403);
    expect(&admin.delete(&format!("{path}/alice-views")).await, 200);
    eventually(&mut alice, "GET", "/api/v1/namespaces/default/configmaps", 403).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_roles_aggregate() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let view = expect(&admin.get(&format!("{RBAC}/clusterroles/view")).await, 200);
    assert!(view["rules"].as_array().unwrap().len() > 5, "view has rules from the beginning");
    let role = json!({"metadata": {"name": "more", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]}]});
    expect(&admin.post(&format!("{RBAC}/clusterroles"), &role).await, 201);
    for aggregate in ["view", "edit", "admin"] {
        let mut found = false;
        for _ in 0..100 {
            let role = admin.get(&format!("{RBAC}/clusterroles/{aggregate}")).await.json();
            found = role["rules"].to_string().contains("example.com");
            if found {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(found, "{aggregate}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_away_what_they_do_not_have() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let bind = |name: &str, role: &str, user: &str| {
        json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": user}]})
    };
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let roles = format!("{RBAC}/namespaces/default/roles");
    expect(&admin.post(&bindings, &bind("a", "admin", "alice")).await, 201);
    let mut alice = server.client_as(Some(&server.identity("alice", None))).await;
    eventually(&mut alice, "GET", &roles, 200).await;
    let role = |verbs: Value| json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": verbs}]});
    let refused = expect(&alice.post(&roles, &role(json!(["get"]))).await, 403);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("is attempting to grant RBAC permissions not currently held"), "{message}");
    assert!(message.contains(r#"Resources:["nodes"]"#) && !message.contains("pods\""), "{message}");
    let fine =
        json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    expect(&alice.post(&roles, &fine).await, 201);
    expect(&alice.post(&bindings, &bind("b", "view", "bob")).await, 201);
    expect(&alice.post(&bindings, &bind("c", "cluster-admin", "bob")).await, 403);
    expect(&admin.post(&bindings, &bind("c", "cluster-admin", "bob")).await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_stand_for_their_accounts_while_these_exist() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    expect(&admin.post(accounts, &json!({"metadata": {"name": "robot"}})).await, 201);
    let request = json!({"spec": {"expirationSeconds": 3600}});
    let answer = expect(&admin.post(&format!("{accounts}/robot/token"), &request).await, 201);
    assert_eq!(answer["kind"], "TokenRequest");
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let short = json!({"spec": {"expirationSeconds": 5}});
    assert_eq!(admin.post(&format!("{accounts}/robot/token"), &short).await.code, 422);
    assert_eq!(admin.post(&format!("{accounts}/nobody/token"), &request).await.code, 404);

    let mut robot = server.client_as(None).await;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let who = expect(&robot.send("POST", reviews, &headers, review.to_string()).await, 201);
    let user = &who["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
    assert_eq!(user["groups"], groups);
    assert_eq!(robot.send("GET", "/openid/v1/jwks", &headers, "").await.code, 200);
    assert_eq!(robot.send("GET", "/api/v1/nodes", &headers, "").await.code, 403);

    let review = |audiences: Value| json!({"spec": {"token": token, "audiences": audiences}});
    let tokens = "/apis/authentication.k8s.io/v1/tokenreviews";
    let known = expect(&admin.post(tokens, &review(json!([]))).await, 201);
    assert_eq!(known["status"]["authenticated"], true);
    let foreign = expect(&admin.post(tokens, &review(json!(["vault"]))).await, 201);
    assert_ne!(foreign["status"]["authenticated"], true);

    // An account of the same name is another account.
    expect(&admin.delete(&format!("{accounts}/robot")).await, 200);
    expect(&admin.post(accounts, &json!({"metadata": {"name": "robot"}})).await, 201);
    for _ in 0..100 {
        if robot.send("GET", "/api", &headers, "").await.code == 401 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the token outlives its account");
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_agree_with_real_requests() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let ask = |user: &str, groups: Value, verb: &str, resource: &str| {
        json!({"spec": {"user": user, "groups": groups,
            "resourceAttributes": {"verb": verb, "resource": resource, "namespace": "default"}}})
    };
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let yes = expect(&admin.post(path, &ask("root", json!(["system:masters"]), "delete", "nodes")).await, 201);
    assert_eq!(yes["status"]["allowed"], true);
    let no = expect(&admin.post(path, &ask("eve", json!([]), "get", "secrets")).await, 201);
    assert_eq!(no["status"]["allowed"], false);
    let of_path = json!({"path": "/healthz", "verb": "get"});
    let shown = "{\"Path\":\"/healthz\",\"Verb\":\"get\"}";
    for (review, wanted) in [
        (
            json!({"spec": {}}),
            "[spec.resourceAttributes: Invalid value: \"null\": exactly one of nonResourceAttributes or resourceAttributes must be specified, spec.user: Invalid value: \"\": at least one of user or group must be specified]".to_owned(),
        ),
        (
            json!({"spec": {"user": "eve", "resourceAttributes": {"verb": "get"}, "nonResourceAttributes": of_path}}),
            format!("spec.nonResourceAttributes: Invalid value: {shown}: cannot be specified in combination with resourceAttributes"),
        ),
        (
            json!({"metadata": {"name": "a"}, "spec": {"user": "eve", "nonResourceAttributes": of_path}}),
            "metadata: Invalid value: {\"name\":\"a\"}: must be empty".to_owned(),
        ),
    ] {
        let refused = expect(&admin.post(path, &review).await, 422);
        let message = refused["message"].as_str().unwrap();
        assert!(message.ends_with(&format!(" is invalid: {wanted}")), "{message}");
    }
    let neither = expect(&admin.post(path, &json!({"spec": {"user": "eve"}})).await, 422);
    let why = "spec.resourceAttributes: Invalid value: \"null\": exactly one of nonResourceAttributes or resourceAttributes must be specified";
    assert!(neither["message"].as_str().unwrap().ends_with(why), "{neither}");
    // A review has no name nor labels; what namespace it is in is told by its path.
    let named = |mut review: Value, metadata: Value| {
        review["metadata"] = metadata;
        review
    };
    let mut own = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}});
    let of_self = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let of_namespace = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
    let asked = ask("eve", json!([]), "get", "pods");
    for (path, review, why) in [
        (path, &asked, "must be empty"),
        (of_self, &own, "must be empty"),
        (of_namespace, &asked, "must be empty except for namespace"),
    ] {
        for metadata in [json!({"name": "n"}), json!({"labels": {"a": "b"}})] {
            let refused = expect(&admin.post(path, &named(review.clone(), metadata)).await, 422);
            let message = refused["message"].as_str().unwrap();
            assert!(message.contains("metadata: Invalid value: ") && message.ends_with(why), "{path}: {message}");
        }
        expect(&admin.post(path, &named(review.clone(), json!({"creationTimestamp": null}))).await, 201);
    }
    own["metadata"] = json!({"managedFields": [{"manager": "m", "operation": "Update", "apiVersion": "v1"}]});
    expect(&admin.post(of_self, &own).await, 201);
    let local = "/apis/authorization.k8s.io/v1/namespaces/kube-system/localsubjectaccessreviews";
    assert_eq!(admin.post(local, &ask("eve", json!([]), "get", "pods")).await.code, 422);
    let review = json!({"spec": {"user": "eve", "nonResourceAttributes": of_path}});
    let refused = expect(&admin.post(local, &review).await, 422);
    let wanted = format!("spec.nonResourceAttributes: Invalid value: {shown}: disallowed on this kind of request");
    assert!(refused["message"].as_str().unwrap().ends_with(&wanted), "{refused}");
    let rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let mut eve = server.client_as(Some(&server.identity("eve", None))).await;
    let mine = expect(&eve.post(rules, &json!({"spec": {"namespace": "default"}})).await, 201);
    assert!(mine["status"]["resourceRules"].to_string().contains("selfsubjectreviews"), "{mine}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_acts_as_another() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let headers = [("impersonate-user", "bob"), ("impersonate-group", "team"), ("content-type", "application/json")];
    let who = expect(&admin.send("POST", reviews, &headers, "{}").await, 201);
    assert_eq!(who["status"]["userInfo"]["username"], "bob");
    assert_eq!(admin.send("GET", "/api/v1/nodes", &headers, "").await.code, 403);
    let mut eve = server.client_as(Some(&server.identity("eve", None))).await;
    let refused = expect(&eve.send("POST", reviews, &headers, "{}").await, 403);
    assert!(refused["message"].as_str().unwrap().contains("cannot impersonate resource \"users\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_sees_what_its_pods_need() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for name in ["used", "unused"] {
        expect(&admin.post(secrets, &json!({"metadata": {"name": name}})).await, 201);
    }
    expect(
        &admin.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await,
        201,
    );
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1",
        "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "used"}}]}]}});
    expect(&admin.post("/api/v1/namespaces/default/pods", &pod).await, 201);

    let mut kubelet = server.client_as(Some(&server.identity("system:node:n1", Some("system:nodes")))).await;
    let mut other = server.client_as(Some(&server.identity("system:node:n2", Some("system:nodes")))).await;
    expect(&kubelet.get(&format!("{secrets}/used")).await, 200);
    expect(&kubelet.get(&format!("{secrets}/unused")).await, 403);
    expect(&kubelet.get(secrets).await, 403);
    expect(&other.get(&format!("{secrets}/used")).await, 403);
    expect(&kubelet.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await, 200);
    expect(&kubelet.get("/api/v1/pods").await, 403);
    expect(&other.get("/api/v1/namespaces/default/pods/p").await, 403);

    let node = |name: &str| json!({"metadata": {"name": name}});
    let made = expect(&kubelet.post("/api/v1/nodes", &node("n1")).await, 201);
    assert_eq!(made["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
    expect(&kubelet.post("/api/v1/nodes", &node("n2")).await, 403);
    let patch = json!({"spec": {"taints": null}});
    expect(&kubelet.patch("/api/v1/nodes/n1", "merge", &patch).await, 403);
    expect(&kubelet.patch("/api/v1/nodes/n1/status", "merge", &json!({"status": {"phase": "x"}})).await, 200);
    let ready = json!({"status": {"phase": "Running"}});
    expect(&other.patch("/api/v1/namespaces/default/pods/p/status", "merge", &ready).await, 403);
    expect(&kubelet.patch("/api/v1/namespaces/default/pods/p/status", "merge", &ready).await, 200);
    let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    expect(&kubelet.post(leases, &lease("n1")).await, 201);
    expect(&kubelet.post(leases, &lease("n2")).await, 403);

    let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let pod = expect(&admin.get("/api/v1/namespaces/default/pods/p").await, 200);
    let bound =
        |uid: &Value| json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}}});
    expect(&kubelet.post(tokens, &json!({"spec": {}})).await, 403);
    expect(&other.post(tokens, &bound(&pod["metadata"]["uid"])).await, 403);
    expect(&kubelet.post(tokens, &bound(&json!("another"))).await, 403);
    expect(&kubelet.post(tokens, &bound(&pod["metadata"]["uid"])).await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_gets_tokens_for_the_audiences_of_its_pods() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let mut kubelet = server.client_as(Some(&server.identity("system:node:n1", Some("system:nodes")))).await;
    let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
    expect(
        &admin.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await,
        201,
    );
    let driver = json!({"metadata": {"name": "d.example.com"}, "spec": {"tokenRequests": [{"audience": "of-driver"}]}});
    expect(&admin.post("/apis/storage.k8s.io/v1/csidrivers", &driver).await, 201);
    let volume = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none",
        "capacity": {"storage": "1Gi"}, "csi": {"driver": "d.example.com", "volumeHandle": "h"}}});
    expect(&admin.post("/api/v1/persistentvolumes", &volume).await, 201);
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none",
        "volumeName": "v", "resources": {"requests": {"storage": "1Gi"}}}});
    expect(&admin.post("/api/v1/namespaces/default/persistentvolumeclaims", &claim).await, 201);
    let mut ask = async |admin: &mut Client, name: &str, volumes: Value, audiences: Value| {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": "n1",
            "containers": [{"name": "c", "image": "i"}], "volumes": volumes}});
        let pod = expect(&admin.post("/api/v1/namespaces/default/pods", &pod).await, 201);
        let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod["metadata"]["uid"]});
        let answer = kubelet.post(tokens, &json!({"spec": {"audiences": audiences, "boundObjectRef": bound}})).await;
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        (answer.code, message)
    };
    let projected =
        json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"audience": "vault", "path": "p"}}]}}]);
    let claimed = json!([{"name": "t", "persistentVolumeClaim": {"claimName": "c"}}]);
    let inline = |driver: &str| json!([{"name": "t", "csi": {"driver": driver}}]);
    assert_eq!(ask(&mut admin, "a", projected.clone(), json!(["vault"])).await.0, 201);
    assert_eq!(ask(&mut admin, "b", claimed.clone(), json!(["of-driver"])).await.0, 201);
    assert_eq!(ask(&mut admin, "c", inline("d.example.com"), json!(["of-driver"])).await.0, 201);
    let (code, why) = ask(&mut admin, "d", projected.clone(), json!(["vault", "other"])).await;
    assert!(code == 403 && why.ends_with("node may only request 0 or 1 audiences"), "{why}");
    let (code, why) = ask(&mut admin, "e", inline("e.example.com"), json!(["of-driver"])).await;
    let unknown = "error validating audience \"of-driver\": csidriver.storage.k8s.io \"e.example.com\" not found";
    assert!(code == 403 && why.ends_with(unknown), "{why}");
    let (code, why) = ask(&mut admin, "f", claimed.clone(), json!(["other"])).await;
    let foreign = "serviceaccounts \"default\" is forbidden: audience \"other\" not found in pod spec volume, \
        system:node:n1 is not authorized to request tokens for this audience";
    assert_eq!((code, why.as_str()), (403, foreign));

    let role = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["other"],
        "verbs": ["request-serviceaccounts-token-audience"], "resourceNames": ["default"]}]});
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    expect(&admin.post(&format!("{roles}/roles"), &role).await, 201);
    let binding = json!({"metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "system:node:n1", "apiGroup": "rbac.authorization.k8s.io"}]});
    expect(&admin.post(&format!("{roles}/rolebindings"), &binding).await, 201);
    for attempt in 0.. {
        let (code, why) = ask(&mut admin, &format!("g{attempt}"), claimed.clone(), json!(["other"])).await;
        if code == 201 {
            break;
        }
        assert!(attempt < 100, "{why}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// User (or `group:` and a group), verb, group/resource, namespace, whether it is allowed in a new cluster.
const MATRIX: &[(&str, &str, &str, &str, bool)] = &[
    ("group:system:masters", "delete", "/nodes", "", true),
    ("group:kubeadm:cluster-admins", "delete", "/secrets", "kube-system", true),
    ("alice", "list", "/pods", "default", false),
    ("alice", "create", "authorization.k8s.io/selfsubjectaccessreviews", "", true),
    ("system:kube-scheduler", "create", "/pods/binding", "default", true),
    ("system:kube-scheduler", "patch", "/pods/status", "default", true),
    ("system:kube-scheduler", "patch", "/persistentvolumeclaims", "default", true),
    ("system:kube-scheduler", "get", "/secrets", "default", false),
    ("system:kube-controller-manager", "watch", "apps/deployments", "", true),
    ("system:kube-controller-manager", "update", "apps/deployments", "default", false),
    ("system:kube-proxy", "watch", "discovery.k8s.io/endpointslices", "", true),
    ("system:kube-proxy", "watch", "/secrets", "", false),
    ("system:serviceaccount:kube-system:deployment-controller", "patch", "apps/deployments/status", "default", true),
    ("system:serviceaccount:kube-system:deployment-controller", "create", "apps/replicasets", "default", true),
    ("system:serviceaccount:kube-system:deployment-controller", "create", "/pods", "default", false),
    ("system:serviceaccount:kube-system:replicaset-controller", "create", "/pods", "default", true),
    (
        "system:serviceaccount:kube-system:endpointslice-controller",
        "patch",
        "discovery.k8s.io/endpointslices",
        "a",
        true,
    ),
    ("system:serviceaccount:kube-system:namespace-controller", "deletecollection", "/secrets", "a", true),
    ("system:serviceaccount:kube-system:generic-garbage-collector", "patch", "apps/replicasets", "a", true),
    ("system:serviceaccount:kube-system:persistent-volume-binder", "patch", "/persistentvolumes/status", "", true),
    ("system:serviceaccount:kube-system:node-controller", "patch", "/nodes", "", true),
    ("system:serviceaccount:kube-system:root-ca-cert-publisher", "create", "/configmaps", "a", true),
    ("system:serviceaccount:kube-system:root-ca-cert-publisher", "create", "/secrets", "a", false),
    ("system:serviceaccount:default:default", "get", "/pods", "default", false),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_has_upstreams_rights() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    for (subject, verb, what, namespace, expected) in MATRIX {
        let (group, resource) = what.split_once('/').unwrap();
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes = json!({"verb": verb, "group": group, "resource": resource, "subresource": subresource,
            "namespace": namespace});
        let mut spec = match subject.strip_prefix("group:") {
            Some(group) => json!({"groups": [group]}),
            None => json!({"user": subject, "groups": ["system:authenticated"]}),
        };
        spec["resourceAttributes"] = attributes;
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = expect(&admin.post(path, &json!({ "spec": spec })).await, 201);
        assert_eq!(answer["status"]["allowed"], *expected, "{subject} {verb} {what} in {namespace:?}");
    }
}
