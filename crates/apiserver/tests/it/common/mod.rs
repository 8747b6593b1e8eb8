//! A server on a free port with a store in a temporary directory, and an HTTPS client for it.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "a module of every test, of which none uses all")]

pub mod https;
pub mod webhook;
pub mod written;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kminik_apiserver::{ApiServer, CertificateAndKey, Config, FrontProxy};
use kminik_base::pki::{Authority, Identity, Subject, Usage};
use kminik_store::{EmbeddedStore, Options, Store};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

pub struct TestServer {
    pub address: SocketAddr,
    pub authority: Authority,
    /// Signs the front proxy's certificate.
    pub front_proxies: Authority,
    pub admin: Identity,
    pub api: Arc<ApiServer>,
    pub directory: tempfile::TempDir,
    serving: JoinHandle<()>,
    stop: DropGuard,
}

const DAY: Duration = Duration::from_secs(86_400);

pub fn pair(identity: Identity) -> CertificateAndKey {
    CertificateAndKey { certificate_pem: identity.cert_pem, key_pem: identity.key_pem }
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    /// Over the store that an earlier server left in this directory.
    pub async fn start_in(directory: tempfile::TempDir) -> Self {
        Self::start_with(directory, |_| {}).await
    }

    /// With a configuration that differs.
    pub async fn start_with(directory: tempfile::TempDir, adjust: impl FnOnce(&mut Config) + Send) -> Self {
        let store = EmbeddedStore::open(&directory.path().join("store.redb"), Options::default()).unwrap();
        Self::start_on(Arc::new(store), directory, adjust).await
    }

    /// Over any store, with a configuration that differs.
    pub async fn start_on(
        store: Arc<dyn Store>,
        directory: tempfile::TempDir,
        adjust: impl FnOnce(&mut Config) + Send,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let authority = Authority::generate("kminik-ca", DAY).unwrap();
        let usage = Usage::Server { names: vec!["localhost".into()], addresses: vec![address.ip()] };
        let serving = authority.issue(&Subject::new("kube-apiserver", None), &usage, DAY).unwrap();
        let client =
            |name: &str, group: &str| authority.issue(&Subject::new(name, Some(group)), &Usage::Client, DAY).unwrap();
        let admin = client("kubernetes-admin", "system:masters");
        let kubelet_client = client("kube-apiserver-kubelet-client", "kubeadm:cluster-admins");
        let (sa_key, _) = kminik_base::pki::generate_key().unwrap();
        let front_proxies = Authority::generate("front-proxy-ca", DAY).unwrap();
        let proxy_client = front_proxies.issue(&Subject::new("front-proxy-client", None), &Usage::Client, DAY).unwrap();
        let mut config = Config::new(
            store,
            pair(serving),
            authority.cert_pem().to_owned(),
            sa_key,
            pair(kubelet_client),
            // What is announced to clients in the cluster cannot be loopback.
            std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
        );
        config.front_proxy =
            Some(FrontProxy { ca_pem: front_proxies.cert_pem().to_owned(), client: pair(proxy_client) });
        adjust(&mut config);
        let api = Arc::new(ApiServer::new(config).await.unwrap());
        let stop = CancellationToken::new();
        let serving = tokio::spawn({
            let (api, stop) = (api.clone(), stop.clone());
            async move { api.serve(vec![listener], stop).await }
        });
        TestServer { address, authority, front_proxies, admin, api, directory, serving, stop: stop.drop_guard() }
    }

    /// Stops the server, closes its store and gives the directory back.
    pub async fn close(self) -> tempfile::TempDir {
        drop(self.stop);
        self.serving.await.unwrap();
        self.api.server().registry().store().close().await.unwrap();
        self.directory
    }

    /// Tells the server to stop; the handle ends when it has.
    pub fn stop(self) -> JoinHandle<()> {
        drop(self.stop);
        self.serving
    }

    /// Writes a kubeconfig of the administrator and returns its path.
    pub fn kubeconfig(&self) -> std::path::PathBuf {
        use base64::Engine as _;
        let base64 = |text: &str| base64::prelude::BASE64_STANDARD.encode(text);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: t\nclusters:\n- name: t\n  cluster:\n    server: https://{}\n    \
             certificate-authority-data: {}\nusers:\n- name: t\n  user:\n    client-certificate-data: {}\n    \
             client-key-data: {}\ncontexts:\n- name: t\n  context: {{cluster: t, user: t}}\n",
            self.address,
            base64(self.authority.cert_pem()),
            base64(&self.admin.cert_pem),
            base64(&self.admin.key_pem)
        );
        let path = self.directory.path().join("kubeconfig");
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// A connection to the server over TLS and HTTP/1.1.
pub struct Client {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl TestServer {
    /// Connects as the administrator.
    pub async fn client(&self) -> Client {
        self.client_as(Some(&self.admin)).await
    }

    /// Connects with another certificate, or none.
    pub async fn client_as(&self, identity: Option<&Identity>) -> Client {
        let stream = self.connect(identity).await;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Client { sender }
    }

    /// A bare connection over TLS.
    pub async fn connect(&self, identity: Option<&Identity>) -> TlsStream<TcpStream> {
        self.connect_for(identity, &[]).await
    }

    /// A bare connection over TLS for one of these protocols.
    pub async fn connect_for(&self, identity: Option<&Identity>, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.cert_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::IpAddress(self.address.ip().into());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }
}

impl Client {
    /// Sends a request and returns the answer with its body still to come.
    pub async fn open(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sender.ready().await.unwrap();
        self.sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }

    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let (parts, body) = self.open(method, path, headers, body).await.into_parts();
        Answer { code: parts.status.as_u16(), headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn put(&mut self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, &[("content-type", "application/json")], body.to_string()).await
    }

    /// `kind` is `merge`, `json` or `strategic-merge`.
    pub async fn patch(&mut self, path: &str, kind: &str, body: &Value) -> Answer {
        let media_type = format!("application/{kind}-patch+json");
        self.send("PATCH", path, &[("content-type", &media_type)], body.to_string()).await
    }

    pub async fn delete(&mut self, path: &str) -> Answer {
        self.send("DELETE", path, &[], "").await
    }
}

/// The events of a watch, one by one.
pub struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    pub async fn open(mut client: Client, path: &str) -> Self {
        let response = client.open("GET", path, &[], "").await;
        assert_eq!(response.status(), 200, "{path}");
        // The connection must outlive the request.
        std::mem::forget(client);
        Events { body: response.into_body(), buffer: Vec::new() }
    }

    /// The next event; `None` when the watch has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let wait = tokio::time::timeout(Duration::from_secs(10), self.body.frame());
            match wait.await.expect("an event within ten seconds")? {
                Ok(frame) => self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(error) => panic!("watch broke: {error}"),
            }
        }
    }

    /// The next event as type, name, resourceVersion.
    pub async fn brief(&mut self) -> (String, String, String) {
        let event = self.next().await.expect("another event");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &event["object"]["metadata"];
        (text(&event["type"]), text(&metadata["name"]), text(&metadata["resourceVersion"]))
    }
}
