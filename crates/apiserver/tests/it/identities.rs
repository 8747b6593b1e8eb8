//! Who somebody is, by what they show: tokens of machines that join, tokens bound to objects, a front proxy's headers.

use std::time::Duration;

use crate::common::{Answer, Client, TestServer};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use kminik_base::pki::{Identity, Subject, Usage};
use serde_json::{Value, json};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const DEFAULT: &str = "/api/v1/namespaces/default";

fn expect(answer: &Answer, code: u16) -> Value {
    assert_eq!(answer.code, code, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

async fn status_of(admin: &mut Client, token: &str, audiences: &[&str]) -> Value {
    let review = json!({"spec": {"token": token, "audiences": audiences}});
    expect(&admin.post(REVIEWS, &review).await, 201)["status"].clone()
}

/// A token is refused a moment after what it is bound to is gone.
async fn refused(admin: &mut Client, token: &str) {
    for _ in 0..100 {
        if status_of(admin, token, &[]).await["authenticated"] != true {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the token outlives what it is bound to");
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_tokens_are_secrets_of_kube_system() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let token = "abcdef.0123456789abcdef";
    let data = |expiration: &str| {
        json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
            "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef", "expiration": expiration,
                "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
                "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token"}})
    };
    assert_ne!(status_of(&mut admin, token, &[]).await["authenticated"], true);
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    expect(&admin.post(secrets, &data("2100-01-01T00:00:00Z")).await, 201);
    let status = status_of(&mut admin, token, &[]).await;
    assert_eq!(status["user"]["username"], "system:bootstrap:abcdef", "{status}");
    let groups =
        json!(["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token", "system:authenticated"]);
    assert_eq!(status["user"]["groups"], groups);
    assert_ne!(status_of(&mut admin, token, &["elsewhere"]).await["authenticated"], true, "it is for this API only");

    let mut machine = server.client_as(None).await;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(machine.send("GET", "/api", &headers, "").await.code, 200);
    assert_eq!(machine.send("GET", "/api/v1/nodes/n1", &headers, "").await.code, 404, "it may look for its node");
    assert_eq!(machine.send("GET", "/api/v1/nodes", &headers, "").await.code, 403);

    // In the subprotocol that browsers can send; the upgrade itself is no matter here.
    let protocol = format!("base64url.bearer.authorization.k8s.io.{}, x", BASE64_URL_SAFE_NO_PAD.encode(token));
    let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-protocol", protocol.as_str())];
    assert_eq!(machine.send("GET", "/api", &upgrade, "").await.code, 200);

    expect(&admin.put(&format!("{secrets}/bootstrap-token-abcdef"), &data("2020-01-01T00:00:00Z")).await, 200);
    assert_eq!(machine.send("GET", "/api", &headers, "").await.code, 401, "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joining_machine_learns_of_the_cluster_without_credentials() {
    let server = TestServer::start().await;
    let mut nobody = server.client_as(None).await;
    let info = expect(&nobody.get("/api/v1/namespaces/kube-public/configmaps/cluster-info").await, 200);
    let kubeconfig = info["data"]["kubeconfig"].as_str().unwrap();
    assert!(kubeconfig.contains(&BASE64_STANDARD.encode(server.authority.cert_pem())), "{kubeconfig}");
    for path in ["/api/v1/namespaces/kube-public/configmaps", "/api/v1/namespaces/kube-public/configmaps/other"] {
        assert_eq!(nobody.get(path).await.code, 401, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_end_with_what_they_are_bound_to() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let node = expect(&admin.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await, 201);
    expect(&admin.post(&format!("{DEFAULT}/serviceaccounts"), &json!({"metadata": {"name": "default"}})).await, 201);
    let secret = expect(&admin.post(&format!("{DEFAULT}/secrets"), &json!({"metadata": {"name": "s"}})).await, 201);
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    let pod = expect(&admin.post(&format!("{DEFAULT}/pods"), &pod).await, 201);

    let tokens = format!("{DEFAULT}/serviceaccounts/default/token");
    let bound = |kind: &str, name: &str, uid: &Value| json!({"spec": {"expirationSeconds": 3607, "boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}}});
    let mut issue = async |kind: &str, name: &str, uid: &Value| {
        let answer = expect(&admin.post(&tokens, &bound(kind, name, uid)).await, 201);
        answer["status"]["token"].as_str().unwrap().to_owned()
    };
    let of_pod = issue("Pod", "p", &pod["metadata"]["uid"]).await;
    let of_secret = issue("Secret", "s", &secret["metadata"]["uid"]).await;
    let of_node = issue("Node", "n1", &node["metadata"]["uid"]).await;

    let status = status_of(&mut admin, &of_pod, &[]).await;
    let extra = |key: &str| status["user"]["extra"][format!("authentication.kubernetes.io/{key}")][0].clone();
    assert_eq!((extra("pod-name"), extra("pod-uid")), (json!("p"), pod["metadata"]["uid"].clone()));
    assert_eq!((extra("node-name"), extra("node-uid")), (json!("n1"), node["metadata"]["uid"].clone()));
    let id = claims(&of_pod)["jti"].as_str().unwrap().to_owned();
    assert_eq!(extra("credential-id"), json!(format!("JTI={id}")));
    // What admission asks for lasts a year, told when it should have been replaced.
    let seconds = |token: &str, claim: &str| claims(token)[claim].as_i64().unwrap();
    assert_eq!(seconds(&of_pod, "exp") - seconds(&of_pod, "iat"), 365 * 86_400);
    assert_eq!(claims(&of_pod)["kubernetes.io"]["warnafter"], json!(seconds(&of_pod, "iat") + 3607));
    assert_eq!(seconds(&of_secret, "exp") - seconds(&of_secret, "iat"), 3607);

    let wrong = expect(&admin.post(&tokens, &bound("Pod", "p", &json!("another"))).await, 409);
    assert!(wrong["message"].as_str().unwrap().contains("does not match the UID in record"), "{wrong}");
    expect(&admin.post(&tokens, &bound("ConfigMap", "p", &json!(""))).await, 400);
    expect(&admin.post(&tokens, &bound("Pod", "none", &json!(""))).await, 404);

    expect(&admin.delete(&format!("{DEFAULT}/secrets/s")).await, 200);
    refused(&mut admin, &of_secret).await;
    expect(&admin.delete("/api/v1/nodes/n1").await, 200);
    refused(&mut admin, &of_node).await;
    assert_eq!(status_of(&mut admin, &of_pod, &[]).await["authenticated"], true, "a pod's token is not its node's");
    expect(&admin.delete(&format!("{DEFAULT}/pods/p?gracePeriodSeconds=0")).await, 200);
    refused(&mut admin, &of_pod).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audiences_are_kept_apart() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    expect(&admin.post(&format!("{DEFAULT}/serviceaccounts"), &json!({"metadata": {"name": "robot"}})).await, 201);
    let tokens = format!("{DEFAULT}/serviceaccounts/robot/token");
    let answer = expect(&admin.post(&tokens, &json!({"spec": {"audiences": ["vault", "ci"]}})).await, 201);
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let status = status_of(&mut admin, &token, &["ci", "other"]).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["ci"])));
    assert_ne!(status_of(&mut admin, &token, &[]).await["authenticated"], true);
    let mut robot = server.client_as(None).await;
    let bearer = format!("Bearer {token}");
    assert_eq!(robot.send("GET", "/api", &[("authorization", &bearer)], "").await.code, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_believed_from_the_front_proxy_only() {
    let server = TestServer::start().await;
    let issue = |name: &str| -> Identity {
        server.front_proxies.issue(&Subject::new(name, None), &Usage::Client, Duration::from_secs(3600)).unwrap()
    };
    let headers = [
        ("x-remote-user", "alice"),
        ("x-remote-group", "team"),
        ("x-remote-extra-example.com%2fscope", "a"),
        ("content-type", "application/json"),
    ];
    let mut proxy = server.client_as(Some(&issue("front-proxy-client"))).await;
    let who = expect(&proxy.send("POST", SELF, &headers, "{}").await, 201);
    let user = &who["status"]["userInfo"];
    assert_eq!(user["username"], "alice");
    assert_eq!(user["groups"], json!(["team", "system:authenticated"]));
    assert_eq!(user["extra"]["example.com/scope"], json!(["a"]));
    // The certificate itself is nobody's.
    assert_eq!(proxy.get("/api").await.code, 401);
    let mut other = server.client_as(Some(&issue("somebody-else"))).await;
    assert_eq!(other.send("POST", SELF, &headers, "{}").await.code, 401);
    let mut admin = server.client().await;
    let who = expect(&admin.send("POST", SELF, &headers, "{}").await, 201);
    assert_eq!(who["status"]["userInfo"]["username"], "kubernetes-admin");

    let map = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let data = expect(&admin.get(map).await, 200)["data"].clone();
    assert_eq!(data["client-ca-file"], server.authority.cert_pem());
    assert_eq!(data["requestheader-client-ca-file"], server.front_proxies.cert_pem());
    assert_eq!(data["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
    assert_eq!(data["requestheader-username-headers"], r#"["X-Remote-User"]"#);
    assert_eq!(data["requestheader-extra-headers-prefix"], r#"["X-Remote-Extra-"]"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_is_described() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let answer = admin.get("/.well-known/openid-configuration").await;
    assert_eq!(answer.headers["cache-control"], "public, max-age=3600");
    let issuer = answer.json()["issuer"].clone();
    let keys = admin.get("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    assert_eq!(keys.json()["keys"][0]["alg"], "ES256");
    expect(&admin.post(&format!("{DEFAULT}/serviceaccounts"), &json!({"metadata": {"name": "robot"}})).await, 201);
    let token = expect(&admin.post(&format!("{DEFAULT}/serviceaccounts/robot/token"), &json!({})).await, 201);
    assert_eq!(claims(token["status"]["token"].as_str().unwrap())["iss"], issuer);
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_ask_about_selectors_too() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let mut ask = async |selector: Value| {
        let spec = json!({"user": "system:node:n1", "groups": ["system:nodes"],
            "resourceAttributes": {"verb": "list", "resource": "pods", "fieldSelector": selector}});
        admin.post(path, &json!({ "spec": spec })).await
    };
    let requirement =
        |node: &str| json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": [node]}]});
    assert_eq!(expect(&ask(requirement("n1")).await, 201)["status"]["allowed"], true);
    assert_eq!(expect(&ask(requirement("n2")).await, 201)["status"]["allowed"], false);
    assert_eq!(expect(&ask(json!({"rawSelector": "spec.nodeName=n1"})).await, 201)["status"]["allowed"], true);
    let mut both = requirement("n1");
    both["rawSelector"] = "spec.nodeName=n1".into();
    expect(&ask(both).await, 422);
    expect(&ask(json!({})).await, 422);
}
