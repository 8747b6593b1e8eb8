//! Tokens that controllers make, sign with and remove.

use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::civil::Date;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::support::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_secret_is_filled_and_ends_with_its_account() {
    let cluster = Cluster::start(&[]).await;
    cluster.create::<ServiceAccount>("default", json!({"metadata": {"name": "robot"}})).await;
    let annotations = json!({"kubernetes.io/service-account.name": "robot"});
    let secret =
        json!({"metadata": {"name": "t", "annotations": annotations}, "type": "kubernetes.io/service-account-token"});
    cluster.create::<Secret>("default", secret).await;
    let secrets = cluster.api::<Secret>("default");
    let filled = eventually("a token", || async {
        secrets.get("t").await.unwrap().data.filter(|data| data.contains_key("token"))
    })
    .await;
    assert_eq!(filled["namespace"].0, b"default");
    assert!(filled["ca.crt"].0.starts_with(b"-----BEGIN CERTIFICATE-----"));
    assert_eq!(filled["token"].0.split(|byte| *byte == b'.').count(), 3, "a JSON web token");
    let accounts = cluster.api::<ServiceAccount>("default");
    accounts.delete("robot", &DeleteParams::default()).await.unwrap();
    eventually("the secret's end", || async { secrets.get_opt("t").await.unwrap().is_none().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_tokens_sign_and_expire() {
    let cluster = Cluster::start(&[]).await;
    let token = |id: &str, expiration: &str| {
        json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token",
            "stringData": {"token-id": id, "token-secret": "0123456789abcdef", "expiration": expiration,
                "usage-bootstrap-signing": "true"}})
    };
    cluster.create::<Secret>("kube-system", token("abcdef", "2100-01-01T00:00:00Z")).await;
    let maps = cluster.api::<ConfigMap>("kube-public");
    let signed =
        || async { maps.get("cluster-info").await.unwrap().data.unwrap_or_default().remove("jws-kubeconfig-abcdef") };
    let signature = eventually("a signature", signed).await;
    assert!(signature.contains(".."), "{signature}");
    let secrets = cluster.api::<Secret>("kube-system");
    secrets.delete("bootstrap-token-abcdef", &DeleteParams::default()).await.unwrap();
    eventually("no signature", || async { signed().await.is_none().then_some(()) }).await;

    cluster.create::<Secret>("kube-system", token("expire", "2020-01-01T00:00:00Z")).await;
    let expired = || async { secrets.get_opt("bootstrap-token-expire").await.unwrap().is_none().then_some(()) };
    eventually("the expired token's end", expired).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_nobody_has_used_for_years_are_taken_out_of_use_and_removed() {
    let uid = "11111111-2222-3333-4444-555555555555";
    let invalid_since = "kubernetes.io/legacy-token-invalid-since";
    let meta = |name: &str, more: Value| {
        let mut meta =
            json!({"name": name, "namespace": "default", "uid": uid, "creationTimestamp": "2020-01-01T00:00:00Z"});
        meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        meta
    };
    let token = |name: &str, labels: Value| {
        let annotations =
            json!({"kubernetes.io/service-account.name": "robot", "kubernetes.io/service-account.uid": uid});
        let metadata = meta(name, json!({"labels": labels, "annotations": annotations}));
        let data = json!({"token": "eA==", "ca.crt": "eA==", "namespace": "ZGVmYXVsdA=="});
        (
            "secrets",
            json!({"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": data,
            "type": "kubernetes.io/service-account-token"}),
        )
    };
    let named = ["unused", "used", "doomed", "mounted"].map(|name| json!({"name": name}));
    let tracked = json!({"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"});
    let volumes = json!([{"name": "v", "secret": {"secretName": "mounted"}}]);
    let pod = json!({"containers": [{"name": "c", "image": "i"}], "volumes": volumes, "serviceAccountName": "robot"});
    let cluster = Cluster::start_with(
        &[],
        &[
            (
                "serviceaccounts",
                json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": meta("robot", json!({})),
            "secrets": named}),
            ),
            (
                "configmaps",
                json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": tracked, "data": {"since": "2020-01-01"}}),
            ),
            ("pods", json!({"kind": "Pod", "apiVersion": "v1", "metadata": meta("p", json!({})), "spec": pod})),
            token("unused", json!({})),
            token("used", json!({"kubernetes.io/legacy-token-last-used": Timestamp::now().to_string()[..10]})),
            token("doomed", json!({invalid_since: "2022-01-01"})),
            token("mounted", json!({invalid_since: "2022-01-01"})),
            token("users", json!({invalid_since: "2022-01-01"})),
        ],
    )
    .await;
    let secrets = cluster.api::<Secret>("default");
    let marked = || async { secrets.get("unused").await.unwrap().metadata.labels?.remove(invalid_since) };
    let day = eventually("the unused token to be marked", marked).await;
    assert_eq!(day.parse::<Date>().map(|day| day.to_string()).ok(), Some(day), "a date");
    eventually("the end of the token marked long ago", || async {
        secrets.get_opt("doomed").await.unwrap().is_none().then_some(())
    })
    .await;
    // Used, mounted, or made by a user: they stay as they were.
    for (name, marked) in [("used", false), ("mounted", true), ("users", true)] {
        let labels = secrets.get(name).await.unwrap().metadata.labels.unwrap();
        assert_eq!(labels.contains_key(invalid_since), marked, "{name}");
    }
}
