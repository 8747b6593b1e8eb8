//! Certificate signing requests: approved where the right is there, signed when approved.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Cluster, eventually, object};

fn requests(cluster: &Cluster) -> Api<CertificateSigningRequest> {
    Api::all(cluster.client.clone())
}

async fn ask(cluster: &Cluster, name: &str, subject: &[(rcgen::DnType, &str)], signer: &str, usages: Value) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let spec = json!({"request": ByteString(pem.into_bytes()), "signerName": signer, "usages": usages,
        "expirationSeconds": 3600});
    let request = object(json!({"metadata": {"name": name}, "spec": spec}));
    requests(cluster).create(&PostParams::default(), &request).await.unwrap();
}

fn conditions(request: &CertificateSigningRequest) -> Vec<String> {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.into_iter().map(|condition| condition.type_).collect()
}

async fn approve(cluster: &Cluster, name: &str) {
    let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "test"}]}});
    let (params, patch) = (PatchParams::default(), Patch::Merge(approved));
    requests(cluster).patch_subresource("approval", name, &params, &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_gets_what_was_approved() {
    let cluster = Cluster::start(&[]).await;
    let subject = [(rcgen::DnType::CommonName, "jane"), (rcgen::DnType::OrganizationName, "developers")];
    let signer = "kubernetes.io/kube-apiserver-client";
    ask(&cluster, "jane", &subject, signer, json!(["client auth"])).await;
    ask(&cluster, "server", &subject, signer, json!(["server auth"])).await;
    assert!(conditions(&requests(&cluster).get("jane").await.unwrap()).is_empty());
    approve(&cluster, "jane").await;
    approve(&cluster, "server").await;
    let signed = eventually("the certificate is there", || async {
        requests(&cluster).get("jane").await.unwrap().status.and_then(|status| status.certificate)
    })
    .await;
    let pem = String::from_utf8(signed.0).unwrap();
    let ends = kminik_base::pki::Validity::of(&pem).unwrap().not_after;
    let left = ends - jiff::Timestamp::now().as_second();
    assert!((3500..=3600).contains(&left), "{left}");
    eventually("the other one fails", || async {
        let failed = conditions(&requests(&cluster).get("server").await.unwrap());
        (failed == ["Approved", "Failed"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_is_approved_by_right() {
    let cluster = Cluster::start(&[]).await;
    let subject = [(rcgen::DnType::CommonName, "system:node:n"), (rcgen::DnType::OrganizationName, "system:nodes")];
    let signer = "kubernetes.io/kube-apiserver-client-kubelet";
    // The administrator may create anything, `nodeclient` too.
    ask(&cluster, "n", &subject, signer, json!(["digital signature", "client auth"])).await;
    eventually("it is approved and signed", || async {
        let request = requests(&cluster).get("n").await.unwrap();
        let issued = request.status.as_ref().is_some_and(|status| status.certificate.is_some());
        (issued && conditions(&request) == ["Approved"]).then_some(())
    })
    .await;
}
