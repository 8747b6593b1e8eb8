//! HTTP and HTTPS requests of probes and hooks: one connection a request, any certificate accepted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kminik_base::tls;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::pods::view::ContainerView;

/// Most of an answer that is read.
const BODY_BYTES: usize = 10 * 1024;
const REDIRECTS: usize = 10;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

/// An answer, or what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: String,
    /// It led to another host, which is not followed.
    pub elsewhere: bool,
}

/// What does not begin as an answer by TLS does.
const NO_TLS: rustls::Error = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);

/// Why there is no answer; upstream's words where it has some.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")]
    Timeout,
    #[error("dial tcp {target}: connect: {}", cause(source))]
    Connect { target: String, source: std::io::Error },
    #[error("tls handshake with {target}: {}", cause(source))]
    Tls { target: String, source: std::io::Error },
    #[error("http: server gave HTTP response to HTTPS client")]
    Plain,
    #[error("http request: {0}")]
    Protocol(#[from] hyper::Error),
    #[error("invalid request: {0}")]
    Request(#[from] http::Error),
    #[error("invalid host {0}")]
    Host(String),
    #[error("stopped after {REDIRECTS} redirects")]
    Redirects,
}

/// What went wrong, in the words that upstream's users know: `connection refused`, without the number.
pub(crate) fn cause(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_lowercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// A port by number, or by the name of one of the container's ports.
pub(crate) fn port(port: &IntOrString, container: &ContainerView) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let named = container.spec.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.map_or_else(|| name.parse().ok(), |p| u16::try_from(p.container_port).ok())
        }
    }
}

impl Target {
    /// The target of an action; `None` if its port has no number or there is no address.
    pub(crate) fn of(action: &HTTPGetAction, container: &ContainerView, pod_ip: Option<IpAddr>) -> Option<Self> {
        let host = action.host.clone().filter(|h| !h.is_empty()).or(pod_ip.map(|ip| ip.to_string()))?;
        let path = action.path.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "/".into());
        Some(Self {
            tls: action.scheme.as_deref() == Some("HTTPS"),
            host,
            port: port(&action.port, container)?,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers: action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
        })
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Asks within the time; redirects on the same host are followed.
pub(crate) async fn get(target: &Target, timeout: Duration) -> Result<Answer, HttpError> {
    tokio::time::timeout(timeout, follow(target.clone())).await.map_err(|_| HttpError::Timeout)?
}

async fn follow(mut target: Target) -> Result<Answer, HttpError> {
    for _ in 0..=REDIRECTS {
        let (answer, location) = once(&target).await?;
        let Some(location) = location.filter(|_| (300..400).contains(&answer.status)) else { return Ok(answer) };
        let scheme = if target.tls { "https" } else { "http" };
        let base = url::Url::parse(&format!("{scheme}://{}{}", target.authority(), target.path));
        let Some(next) = base.ok().and_then(|base| base.join(&location).ok()) else { return Ok(answer) };
        let host = next.host_str().unwrap_or_default().trim_matches(['[', ']']).to_string();
        if host != target.host {
            return Ok(Answer { elsewhere: true, ..answer });
        }
        target.tls = next.scheme() == "https";
        target.port = next.port_or_known_default().unwrap_or(target.port);
        target.path = match next.query() {
            Some(query) => format!("{}?{query}", next.path()),
            None => next.path().to_string(),
        };
    }
    Err(HttpError::Redirects)
}

async fn once(target: &Target) -> Result<(Answer, Option<String>), HttpError> {
    let authority = target.authority();
    let host = target.host.clone();
    // Names are left to the caller's resolver-free world: a probe's host is an address, or a name for the system's hosts file.
    let stream = match host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect((ip, target.port)).await,
        Err(_) if host == "localhost" => TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, target.port)).await,
        Err(_) => return Err(HttpError::Host(host)),
    };
    let stream = stream.map_err(|source| HttpError::Connect { target: authority.clone(), source })?;
    let mut request = http::Request::get(&target.path);
    let named = |name: &str| target.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    if !named("host") {
        request = request.header(http::header::HOST, &authority);
    }
    if !named("user-agent") {
        request = request.header(http::header::USER_AGENT, "kube-probe/1.35");
    }
    if !named("accept") {
        request = request.header(http::header::ACCEPT, "*/*");
    }
    for (name, value) in &target.headers {
        // An empty value takes a default header away.
        if !value.is_empty() {
            request = request.header(name, value);
        }
    }
    let request = request.header(http::header::CONNECTION, "close").body(Empty::<Bytes>::new())?;
    if target.tls {
        let name = ServerName::try_from(host.clone()).map_err(|_| HttpError::Host(host))?;
        let connector = tokio_rustls::TlsConnector::from(tls_config());
        let stream = connector.connect(name, stream).await.map_err(|source| match source.get_ref() {
            Some(told) if told.downcast_ref() == Some(&NO_TLS) => HttpError::Plain,
            _ => HttpError::Tls { target: authority, source },
        })?;
        exchange(TokioIo::new(stream), request).await
    } else {
        exchange(TokioIo::new(stream), request).await
    }
}

async fn exchange<S>(stream: S, request: http::Request<Empty<Bytes>>) -> Result<(Answer, Option<String>), HttpError>
where
    S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let ask = async {
        let answer = sender.send_request(request).await?;
        let location = answer.headers().get(http::header::LOCATION).and_then(|l| l.to_str().ok()).map(Into::into);
        let status = answer.status().as_u16();
        // A body that is too long or breaks off does not change what the status says.
        let body =
            Limited::new(answer.into_body(), BODY_BYTES).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        Ok((Answer { status, body: String::from_utf8_lossy(&body).into_owned(), elsewhere: false }, location))
    };
    let mut ask = std::pin::pin!(ask);
    tokio::select! {
        answer = &mut ask => answer,
        ended = connection => match ended {
            Ok(()) => ask.await,
            Err(error) => Err(error.into()),
        },
    }
}

/// Probes say whether a server works, not whom it is.
fn tls_config() -> Arc<ClientConfig> {
    static CONFIG: std::sync::LazyLock<Arc<ClientConfig>> = std::sync::LazyLock::new(|| {
        let provider = tls::provider();
        let verifier = Arc::new(tls::AnyCertificate::new(provider.clone()));
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        // The provider's own versions always are among those it supports.
        let builder = builder.unwrap_or_else(|error| unreachable!("{error}"));
        Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    });
    CONFIG.clone()
}
