//! An HTTPS server of a test, which answers by a function of path and body.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kminik_base::pki::{Authority, Identity, Subject, Usage};
use parking_lot::Mutex;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// From path (with query) and body to status and body; status 0 never answers.
pub type Answers = Arc<dyn Fn(&str, &[u8]) -> (u16, Vec<u8>) + Send + Sync>;

pub struct HttpsServer {
    pub port: u16,
    /// Connections accepted so far.
    pub connections: Arc<AtomicUsize>,
    /// Paths asked for, in order.
    pub paths: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HttpsServer {
    /// With a certificate for these names and 127.0.0.1.
    pub async fn start(authority: &Authority, names: &[&str], answers: Answers) -> HttpsServer {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let usage = Usage::Server { names, addresses: vec!["127.0.0.1".parse().unwrap()] };
        let identity = authority.issue(&Subject::new("server", None), &usage, Duration::from_secs(3600)).unwrap();
        Self::start_as(&identity, answers).await
    }

    pub async fn start_as(identity: &Identity, answers: Answers) -> HttpsServer {
        let acceptor = acceptor(identity, WebPkiClientVerifier::no_client_auth());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let paths = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let (connections, paths) = (connections.clone(), paths.clone());
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    connections.fetch_add(1, Ordering::SeqCst);
                    let (acceptor, answers, paths) = (acceptor.clone(), answers.clone(), paths.clone());
                    tokio::spawn(async move {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        let service = service_fn(|request| serve(request, answers.clone(), paths.clone()));
                        // A client that goes away is none of the test's concern.
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            }
        });
        HttpsServer { port, connections, paths, task }
    }
}

/// Accepts only clients with a certificate of this authority.
pub fn mutual(identity: &Identity, clients: &Authority) -> TlsAcceptor {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(clients.cert_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    acceptor(identity, WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap())
}

fn acceptor(identity: &Identity, clients: Arc<dyn ClientCertVerifier>) -> TlsAcceptor {
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(
    request: Request<Incoming>,
    answers: Answers,
    paths: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().to_string();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    paths.lock().push(path.clone());
    let (status, answer) = answers(&path, &body);
    if status == 0 {
        std::future::pending::<()>().await;
    }
    let mut response = Response::new(Full::from(answer));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    Ok(response)
}
