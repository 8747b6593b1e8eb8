//! The HTTPS server: who gets in, and the node's own endpoints. Streams into pods are tested with a whole cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use kminik_base::component::{Component, Ready};
use kminik_base::pki::{Authority, Identity, Subject, Usage};
use kminik_kubelet::server::{KubeletServer, ServerConfig};
use kminik_kubelet::{Kubelet, KubeletConfig};
use kminik_oci::{Digest, ImageStore, ResolverConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

const DAY: Duration = Duration::from_secs(86_400);

/// Knows the token `good` as `bob`, and allows `admin` and `bob` everything.
async fn reviews(count: Arc<AtomicUsize>, request: Request<kube::client::Body>) -> Response<Full<Bytes>> {
    count.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path().to_owned();
    let mut review: Value = serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
    review["status"] = if path.ends_with("/tokenreviews") {
        let known = review["spec"]["token"] == "good";
        json!({ "authenticated": known, "user": { "username": "bob" } })
    } else {
        assert_eq!(review["spec"]["resourceAttributes"]["name"], "node-1");
        let allowed = ["admin", "bob"].contains(&review["spec"]["user"].as_str().unwrap());
        json!({ "allowed": allowed })
    };
    let mut response = Response::new(Full::from(review.to_string()));
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

struct Server {
    port: u16,
    authority: Authority,
    reviews: Arc<AtomicUsize>,
    dir: tempfile::TempDir,
    _stop: DropGuard,
}

impl Server {
    async fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::generate("ca", DAY).unwrap();
        let usage = Usage::Server { names: vec![], addresses: vec!["127.0.0.1".parse().unwrap()] };
        let identity = authority.issue(&Subject::new("node-1", None), &usage, DAY).unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let service = tower::service_fn(move |request| {
            let count = counted.clone();
            async move { Ok::<_, Infallible>(reviews(count, request).await) }
        });
        let config = KubeletConfig {
            node_name: "node-1".into(),
            node_ips: vec![],
            cluster_dns: vec![],
            cluster_domain: "cluster.local".into(),
            root_dir: dir.path().join("kubelet"),
            log_dir: dir.path().join("pods"),
            resolv_conf: dir.path().join("resolv.conf"),
            client: kube::Client::new(service, "default"),
            port: 10250,
            node_labels: BTreeMap::new(),
            node_taints: vec![],
            capacity: None,
            max_pods: 110,
            provider_id: String::new(),
            version: "v1.35.0+kminik".into(),
            runtime_version: "0.1.0".into(),
        };
        let kubelet =
            Kubelet::new(config, Arc::new(support::runtime::FakeRuntime::new()), Arc::new(support::FakeImages));
        let log_dir = dir.path().join("log");
        std::fs::create_dir(&log_dir).unwrap();
        std::fs::write(log_dir.join("node.log"), "a line\n").unwrap();
        // Free now, and bound at once by the server.
        let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = ServerConfig {
            listen,
            certificate_pem: identity.cert_pem,
            key_pem: identity.key_pem,
            client_ca_pem: authority.cert_pem().to_owned(),
            log_dir,
            keep_image_config: None,
        };
        let images = ImageStore::open(&dir.path().join("images"), ResolverConfig::default()).unwrap();
        let server = KubeletServer::new(config, kubelet, images);
        let stop = CancellationToken::new();
        tokio::spawn(server.run(stop.clone(), Ready::detached()));
        for _ in 0..100 {
            if TcpStream::connect(listen).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Server { port: listen.port(), authority, reviews: count, dir, _stop: stop.drop_guard() }
    }

    fn client(&self, name: &str) -> Identity {
        self.authority.issue(&Subject::new(name, None), &Usage::Client, DAY).unwrap()
    }

    async fn send(
        &self,
        who: Option<&Identity>,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Vec<u8>,
    ) -> (u16, Bytes) {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.cert_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match who {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = vec![CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "node");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = sender.send_request(request.body(Full::<Bytes>::from(body)).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        (code, response.into_body().collect().await.unwrap().to_bytes())
    }

    async fn as_admin(&self, method: &str, path: &str, body: Vec<u8>) -> (u16, Bytes) {
        self.send(Some(&self.client("admin")), method, path, None, body).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_gets_in_and_the_api_is_asked_once() {
    let server = Server::start().await;
    for (path, code) in [("/pods", 401), ("/healthz", 401), ("/nowhere", 401)] {
        assert_eq!(server.send(None, "GET", path, None, vec![]).await.0, code, "{path}");
    }
    assert_eq!(server.send(None, "GET", "/pods", Some("bad"), vec![]).await.0, 401);
    let (code, text) = server.send(Some(&server.client("eve")), "GET", "/pods", None, vec![]).await;
    assert_eq!(
        (code, &text[..]),
        (403, &b"Forbidden (user=eve, verb=get, resource=nodes, subresource(s)=[proxy])\n"[..])
    );
    assert_eq!(server.send(None, "GET", "/healthz", Some("good"), vec![]).await, (200, Bytes::from("ok")));
    let asked = server.reviews.load(Ordering::SeqCst);
    assert_eq!(server.send(None, "GET", "/healthz", Some("good"), vec![]).await.0, 200);
    assert_eq!(server.reviews.load(Ordering::SeqCst), asked, "the answers were not kept");
    // A stream is another right than a look.
    assert_eq!(server.send(None, "GET", "/exec/a/b/c?command=x&output=1", Some("good"), vec![]).await.0, 404);
    assert_eq!(server.reviews.load(Ordering::SeqCst), asked + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_pods_and_what_is_not_there() {
    let server = Server::start().await;
    assert_eq!(server.as_admin("GET", "/logs/", vec![]).await, (200, Bytes::from("node.log\n")));
    assert_eq!(server.as_admin("GET", "/logs/node.log", vec![]).await, (200, Bytes::from("a line\n")));
    assert_eq!(server.as_admin("GET", "/logs/..%2Fimages%2Findex.json", vec![]).await.0, 404);
    let (code, pods) = server.as_admin("GET", "/pods", vec![]).await;
    let pods: Value = serde_json::from_slice(&pods).unwrap();
    assert_eq!((code, &pods["kind"], &pods["items"]), (200, &json!("PodList"), &json!([])));
    let (code, text) = server.as_admin("GET", "/containerLogs/default/p/c", vec![]).await;
    assert_eq!((code, &text[..]), (404, &b"pod \"p\" in namespace \"default\" not found on this node\n"[..]));
    assert_eq!(server.as_admin("GET", "/containerLogs/default/p/c?tailLines=x", vec![]).await.0, 400);
    assert_eq!(server.as_admin("PUT", "/pods", vec![]).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_come_are_named_leave_and_go() {
    let server = Server::start().await;
    let config = json!({ "os": "linux", "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "config": { "Cmd": ["x"] }, "rootfs": { "type": "layers", "diff_ids": [Digest::of(b"layer")] } });
    let table = json!([{ "Config": "c.json", "RepoTags": ["app:1"], "Layers": ["l.tar"] }]);
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in
        [("c.json", config.to_string()), ("l.tar", "layer".into()), ("manifest.json", table.to_string())]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let images = "/kminik/v1/images";
    let loaded = server.as_admin("POST", &format!("{images}/load"), tar.into_inner().unwrap()).await;
    assert_eq!(loaded, (200, Bytes::from(r#"{"images":["docker.io/library/app:1"]}"#)));
    assert_eq!(server.as_admin("POST", &format!("{images}/load"), b"no archive".to_vec()).await.0, 422);
    assert_eq!(server.as_admin("POST", &format!("{images}/tag?source=app:1&target=other:2"), vec![]).await.0, 200);
    let (_, list) = server.as_admin("GET", images, vec![]).await;
    let list: Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(list[0]["repoTags"], json!(["docker.io/library/app:1", "docker.io/library/other:2"]));
    assert_eq!(list[0]["id"], json!(Digest::of(config.to_string().as_bytes())));
    assert!(list[0]["size"].is_string());

    let (code, saved) = server.as_admin("GET", &format!("{images}/save?image=app:1"), vec![]).await;
    assert_eq!(code, 200);
    let store = ImageStore::open(&server.dir.path().join("second"), ResolverConfig::default()).unwrap();
    assert_eq!(store.import(&saved[..]).await.unwrap()[0].repo_tags, ["docker.io/library/app:1"]);
    assert_eq!(server.as_admin("GET", &format!("{images}/save?image=none"), vec![]).await.0, 404);

    for name in ["app:1", "other:2"] {
        assert_eq!(server.as_admin("DELETE", &format!("{images}?image={name}"), vec![]).await.0, 200);
    }
    assert_eq!(server.as_admin("DELETE", &format!("{images}?image=app:1"), vec![]).await.0, 404);
    assert_eq!(server.as_admin("GET", images, vec![]).await.1, "[]");
}
