//! Joining a control plane that runs in this process.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Secret, Service};
use kminik_apiserver::auth::UserInfo;
use kminik_apiserver::{ApiServer, CertificateAndKey, Config};
use kminik_base::component::Supervisor;
use kminik_base::pki::{Authority, Usage, generate_key};
use kminik_client::{Informers, typed};
use kminik_controllers::ControllersConfig;
use kminik_store::{EmbeddedStore, Options};
use kube::api::ListParams;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::clock::now;

const DAY: Duration = Duration::from_secs(86_400);
const TOKEN: &str = "abcdef.0123456789abcdef";

struct Plane {
    admin: Client,
    join: Join,
    _supervisor: Supervisor,
    _directory: tempfile::TempDir,
    _stop: DropGuard,
}

/// API server on loopback, and all controllers.
async fn plane() -> Plane {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&directory.path().join("store.redb"), Options::default()).unwrap();
    let authority = Authority::generate("ca", DAY).unwrap();
    let pair = |identity: Identity| CertificateAndKey { certificate_pem: identity.cert_pem, key_pem: identity.key_pem };
    let usage = Usage::Server { names: Vec::new(), addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)] };
    let serving = authority.issue(&Subject::new("kube-apiserver", None), &usage, DAY).unwrap();
    let knocks = authority.issue(&Subject::new("kubelet-client", None), &Usage::Client, DAY).unwrap();
    let ca_pem = authority.cert_pem().to_owned();
    // What is announced to clients in the cluster cannot be loopback.
    let announced = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let (account_key, _) = generate_key().unwrap();
    let config = Config::new(Arc::new(store), pair(serving), ca_pem.clone(), account_key, pair(knocks), announced);
    let api = Arc::new(ApiServer::new(config).await.unwrap());
    let stop = CancellationToken::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    let (serves, ends) = (api.clone(), stop.clone());
    tokio::spawn(async move { serves.serve(vec![listener], ends).await });
    let admin = Client::new(api.service(UserInfo::new("admin", &["system:masters"])), "default");
    let client_for = move |user: &str| Client::new(api.service(UserInfo::new(user, &[])), "default");
    let informers = Informers::new(client_for("system:kube-controller-manager"), stop.clone());
    let mut controllers = ControllersConfig::new(Arc::new(client_for), informers, ca_pem.clone());
    controllers.authority = Some(Arc::new(authority));
    controllers.node_network = Some("192.0.2.0/24".parse().unwrap());
    let supervisor = Supervisor::new(Duration::from_secs(5));
    kminik_controllers::components(controllers).into_iter().for_each(|component| supervisor.start(component));
    let secret: Secret = typed(&json!({
        "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true", "auth-extra-groups": kminik_controllers::bootstrap_groups("second").join(",")},
    }))
    .unwrap();
    Api::namespaced(admin.clone(), "kube-system").create(&PostParams::default(), &secret).await.unwrap();
    let join = Join { server, ca_pem, token: TOKEN.into() };
    Plane { admin, join, _supervisor: supervisor, _directory: directory, _stop: stop.drop_guard() }
}

fn config(address: Ipv4Addr) -> NodeConfig {
    serde_json::from_value(json!({
        "profile": "p", "nodeName": "second", "nodeAddress": address, "hostResolver": null, "serviceCidr": "10.96.0.0/12",
        "clusterCidr": "10.244.0.0/16", "clusterDns": "10.96.0.10", "clusterDomain": "cluster.local", "apiPort": 8443,
        "certExpirationSeconds": 3600, "cpus": 0, "memoryBytes": 0, "images": {}, "addons": [],
    }))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_joins_by_its_token_and_renews_by_its_certificate() {
    let plane = plane().await;
    let keys = tempfile::tempdir().unwrap();
    let config = config(Ipv4Addr::new(192, 0, 2, 3));
    // By its token it can become no other node.
    let third = NodeConfig { node_name: "third".into(), ..config.clone() };
    let by_token = remote::client(&plane.join, Credential::Token(TOKEN)).unwrap();
    let refused = tokio::spawn(async move { ask(&by_token, &Wanted::client(&third)).await.map(drop) });
    let asked = |requests: &[Arc<CertificateSigningRequest>]| requests.len() == 1;
    until::<CertificateSigningRequest>(&plane.admin, &(), &Selection::default(), asked).await;
    let joined = ensure(keys.path(), &config, &plane.join, now()).await.unwrap();
    assert!((2300..=2500).contains(&(joined.renew_at - now())), "{}", joined.renew_at - now());
    for entry in std::fs::read_dir(keys.path()).unwrap() {
        let mode = std::os::unix::fs::PermissionsExt::mode(&entry.unwrap().metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(!refused.is_finished(), "{refused:?}");
    refused.abort();
    let node = remote::client(&plane.join, Credential::Certificate(&joined.client)).unwrap();
    let list = ListParams::default();
    let proxy = remote::client(&plane.join, Credential::As("system:kube-proxy", &joined.client)).unwrap();
    // What its kubelet reads, and what its service proxy and routes do; and no more.
    Api::<Service>::all(node.clone()).list(&list).await.unwrap();
    assert!(Api::<Node>::all(node.clone()).list(&list).await.is_err());
    Api::<Node>::all(proxy.clone()).list(&list).await.unwrap();
    assert!(Api::<Secret>::all(node).list(&list).await.is_err());
    assert!(Api::<Secret>::all(proxy).list(&list).await.is_err());
    let another = remote::client(&plane.join, Credential::As("admin", &joined.client)).unwrap();
    assert!(Api::<Service>::all(another).list(&list).await.is_err(), "as nobody else");

    // Without the token, and without the control plane as long as the certificates are fresh.
    let bare = Join { token: "abcdef.fedcba9876543210".into(), ..plane.join.clone() };
    let nowhere = Join { server: "https://127.0.0.1:1".into(), ..bare.clone() };
    let again = ensure(keys.path(), &config, &nowhere, now()).await.unwrap();
    assert_eq!(again.client.cert_pem, joined.client.cert_pem);
    let late = now() + 3000;
    let kept = ensure(keys.path(), &config, &nowhere, late).await.unwrap();
    assert_eq!((kept.client.cert_pem, kept.renew_at), (joined.client.cert_pem.clone(), late + AGAIN));
    let renewed = ensure(keys.path(), &config, &bare, late).await.unwrap();
    assert_ne!(renewed.client.cert_pem, joined.client.cert_pem);
    assert_ne!(renewed.serving.cert_pem, joined.serving.cert_pem);

    // A machine that moved.
    let moved = super::tests::config(Ipv4Addr::new(192, 0, 2, 4));
    let elsewhere = ensure(keys.path(), &moved, &bare, now()).await.unwrap();
    assert_eq!(elsewhere.client.cert_pem, renewed.client.cert_pem);
    assert_ne!(elsewhere.serving.cert_pem, renewed.serving.cert_pem);
    drop(plane.admin);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_joins_without_a_token() {
    let plane = plane().await;
    let keys = tempfile::tempdir().unwrap();
    let join = Join { token: "abcdef.fedcba9876543210".into(), ..plane.join.clone() };
    let refused = ensure(keys.path(), &config(Ipv4Addr::new(192, 0, 2, 3)), &join, now()).await.unwrap_err();
    assert!(matches!(refused, JoinError::Ask { .. }), "{refused:?}");
    assert_eq!(std::fs::read_dir(keys.path()).unwrap().count(), 0);
}
