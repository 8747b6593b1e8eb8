//! Tokens that controllers make, sign with and remove.

use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::api::DeleteParams;
use serde_json::json;

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
