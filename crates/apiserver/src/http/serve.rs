//! Listeners and connections: TLS, HTTP/1.1 and HTTP/2, a bounded drain at the end.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use kminik_meta::StatusError;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::Accepted;
use super::body::{ResponseBody, request_body};
use super::chain::{self, Peer};
use super::respond;
use super::stall::Stalling;
use crate::auth::PeerCertificates;
use crate::auth::x509::Named;
use crate::config::Config;
use crate::{Server, StartError};

/// A handshake may take so long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests under way are given so long when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Streams of one HTTP/2 connection, watches included.
const MAX_STREAMS: u32 = 1000;
/// Bytes of a request's headers over HTTP/2 (HTTP/1.1 takes hyper's limit, which is larger).
const MAX_HEADERS: u32 = 256 << 10;
/// Bytes that may wait in one HTTP/2 stream for its client to take them.
const STREAM_BUFFER: usize = 128 << 10;
/// Idle HTTP/2 connections are asked whether they live.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Told to whoever comes while the cluster is paused.
const PAUSED: &str = "the cluster is paused; 'kminik unpause' lets it go on";

/// ALPN's names.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
/// What a connection of HTTP/2 begins with: the preface and the head of a SETTINGS frame. After it, keep-alives bound all waits.
const HTTP2_BEGINNING: usize = 24 + 9;

/// The TLS side of the configuration: our certificate, and whose client certificates are believed.
#[derive(Clone)]
pub(crate) struct Acceptor {
    tls: TlsAcceptor,
    clients: Arc<dyn ClientCertVerifier>,
    front_proxies: Option<Arc<dyn ClientCertVerifier>>,
}

impl Acceptor {
    /// Client certificates are asked for but not demanded.
    ///
    /// # Errors
    /// When a PEM text is wrong.
    pub(crate) fn new(config: &Config) -> Result<Self, StartError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let front_proxy_ca = config.front_proxy.as_ref().map(|proxy| proxy.ca_pem.as_str());
        let verifier = |authorities: &[&str]| -> Result<Arc<dyn ClientCertVerifier>, StartError> {
            let mut roots = RootCertStore::empty();
            for pem in authorities {
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    roots.add(certificate.map_err(StartError::ClientCaPem)?).map_err(StartError::Tls)?;
                }
            }
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(StartError::ClientVerifier)
        };
        let client_ca = config.client_ca_pem.as_str();
        // The handshake accepts either authority; which of them it was is asked afterwards.
        let either: Vec<&str> = [client_ca].into_iter().chain(front_proxy_ca).collect();
        let chain = CertificateDer::pem_slice_iter(config.serving.certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(StartError::ServingPem)?;
        let key = PrivateKeyDer::from_pem_slice(config.serving.key_pem.as_bytes()).map_err(StartError::ServingPem)?;
        let mut tls = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(StartError::Tls)?
            .with_client_cert_verifier(verifier(&either)?)
            .with_single_cert(chain, key)
            .map_err(StartError::Tls)?;
        tls.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Ok(Acceptor {
            tls: TlsAcceptor::from(Arc::new(tls)),
            clients: verifier(&[client_ca])?,
            front_proxies: front_proxy_ca.map(|pem| verifier(&[pem])).transpose()?,
        })
    }

    /// Whom the certificates of a finished handshake show the peer to be.
    fn peer(&self, certificates: &[CertificateDer<'static>]) -> PeerCertificates {
        let signed_by = |verifier: &Arc<dyn ClientCertVerifier>| {
            certificates
                .split_first()
                .is_some_and(|(leaf, rest)| verifier.verify_client_cert(leaf, rest, UnixTime::now()).is_ok())
        };
        PeerCertificates {
            named: certificates.first().and_then(|leaf| Named::of(leaf)).map(Arc::new),
            client: signed_by(&self.clients),
            front_proxy: self.front_proxies.as_ref().is_some_and(signed_by),
        }
    }
}

/// Accepts connections until `stop`, then drains them.
pub(crate) async fn run(server: Arc<Server>, tls: Acceptor, listeners: Vec<TcpListener>, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    for listener in listeners {
        tasks.spawn(accept(server.clone(), tls.clone(), listener, tasks.clone(), stop.clone()));
    }
    tasks.close();
    tasks.wait().await;
}

async fn accept(
    server: Arc<Server>,
    tls: Acceptor,
    listener: TcpListener,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                tasks.spawn(connection(server.clone(), tls.clone(), stream, address.ip(), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(server: Arc<Server>, tls: Acceptor, stream: TcpStream, address: IpAddr, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = &error as &dyn std::error::Error, "no delay cannot be set");
    }
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "handshake failed");
            server.metrics().table.requests.handshake_errors.with([]).inc();
            return;
        }
        Err(_) => {
            server.metrics().table.requests.handshake_errors.with([]).inc();
            return;
        }
    };
    let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
    let certificates = tls.peer(stream.get_ref().1.peer_certificates().unwrap_or_default());
    let peer = Peer::Remote(certificates, address.to_canonical());
    let patience = server.config().patience;
    let stream = Stalling::new(stream, patience, if speaks_http2 { HTTP2_BEGINNING } else { 1 });
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        async move {
            if server.config().paused.load(Ordering::Relaxed) && !peer.is_node() {
                let error = StatusError::service_unavailable(PAUSED);
                return Ok(respond::error(&error, Accepted::JSON));
            }
            let request = request.map(request_body);
            Ok::<Response<ResponseBody>, Infallible>(chain::handle(server, peer, request).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buf_size(STREAM_BUFFER)
        .keep_alive_interval(KEEP_ALIVE);
    // The handshake has settled it, so nobody is waited for to begin in one or the other.
    let builder = if speaks_http2 { builder.http2_only() } else { builder.http1_only() };
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = error.as_ref(), "connection ended abnormally");
    }
}
