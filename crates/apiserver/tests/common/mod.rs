//! A server on a free port with a store in a temporary directory, and an HTTPS client for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kminik_apiserver::{ApiServer, CertificateAndKey, Config};
use kminik_base::pki::{Authority, Identity, Subject, Usage};
use kminik_store::{EmbeddedStore, Options};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub struct TestServer {
    pub address: SocketAddr,
    pub authority: Authority,
    pub admin: Identity,
    pub api: Arc<ApiServer>,
    pub directory: tempfile::TempDir,
    _serving: JoinHandle<()>,
    _stop: DropGuard,
}

const DAY: Duration = Duration::from_secs(86_400);

pub fn pair(identity: Identity) -> CertificateAndKey {
    CertificateAndKey { certificate_pem: identity.cert_pem, key_pem: identity.key_pem }
}

impl TestServer {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&directory.path().join("store.redb"), Options::default()).unwrap();
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
        let config = Config::new(
            Arc::new(store),
            pair(serving),
            authority.cert_pem().to_owned(),
            sa_key,
            pair(kubelet_client),
            address.ip(),
        );
        let api = Arc::new(ApiServer::new(config).await.unwrap());
        let stop = CancellationToken::new();
        let serving = tokio::spawn({
            let (api, stop) = (api.clone(), stop.clone());
            async move { api.serve(vec![listener], stop).await }
        });
        TestServer { address, authority, admin, api, directory, _serving: serving, _stop: stop.drop_guard() }
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
