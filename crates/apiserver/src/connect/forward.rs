//! One request through one fresh connection: bodies stream both ways, an upgrade becomes two pipes.

use futures::StreamExt;
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, BodyStream};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kminik_meta::StatusError;

use crate::http::body::{RequestBody, ResponseBody};
use crate::outbound::{DialError, Outbound, Peer};

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) peer: Peer,
    /// Path and query there, escaped.
    pub(crate) path: String,
    /// Headers that are set once the client's own claims are out.
    pub(crate) claims: HeaderMap,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("the path cannot be forwarded")]
    Path,
    #[error(transparent)]
    Dial(DialError),
    #[error("{0}")]
    Broken(String),
    #[error("the backend upgraded a request that did not ask for it")]
    Unasked,
}

impl From<ForwardError> for StatusError {
    /// In the words of streams to kubelets.
    fn from(error: ForwardError) -> Self {
        match error {
            ForwardError::Path => StatusError::bad_request(error.to_string()),
            ForwardError::Dial(error) => StatusError::internal(format!("error dialing backend: {error}")),
            ForwardError::Broken(_) => StatusError::internal(format!("error trying to reach the backend: {error}")),
            ForwardError::Unasked => StatusError::internal(error),
        }
    }
}

impl ForwardError {
    /// In the words of proxies to pods, services and nodes.
    pub(super) fn of_proxy(self) -> StatusError {
        match self {
            ForwardError::Path => self.into(),
            other => StatusError::service_unavailable(format!("error trying to reach service: {other}")),
        }
    }
}

/// Headers that concern one connection only.
const HOP_BY_HOP: [HeaderName; 7] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Sends the request on and gives the answer back as it comes. A client that asks to upgrade is connected through when
/// the backend agrees; the pipes end with either side.
///
/// # Errors
/// When there is no answer.
pub(crate) async fn send(
    outbound: &Outbound,
    target: &Target,
    mut request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, ForwardError> {
    let uri: Uri = target.path.parse().map_err(|_| ForwardError::Path)?;
    let io = outbound.dial(&target.peer).await.map_err(ForwardError::Dial)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(|e| broken(&e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "backend connection ended");
        }
    });

    let upgrade = wants_upgrade(request.headers());
    let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    clean(request.headers_mut());
    request.headers_mut().extend(target.claims.clone());
    let host = host_header(target);
    request.headers_mut().insert(HOST, host);
    if let Some(protocol) = upgrade {
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(UPGRADE, protocol);
    }
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    // What the client's connection left here means nothing to the next one.
    request.extensions_mut().clear();
    let mut response = sender.send_request(request).await.map_err(|e| broken(&e))?;

    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return Err(ForwardError::Unasked);
        };
        let server = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            match tokio::try_join!(client, server) {
                Ok((client, server)) => {
                    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
                        tracing::debug!(error = &error as &dyn std::error::Error, "upgraded connection broke");
                    }
                }
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "connection not upgraded");
                }
            }
        });
        return Ok(response.map(|_| ResponseBody::empty()));
    }
    clean_response(response.headers_mut());
    // The sender lives as long as the body: dropping it ends the connection.
    Ok(response.map(|body| {
        ResponseBody::stream(BodyStream::new(Held { body, _sender: sender }).filter_map(async |frame| match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(error.into())),
        }))
    }))
}

/// A body that keeps its connection's sender.
struct Held {
    body: Incoming,
    _sender: hyper::client::conn::http1::SendRequest<RequestBody>,
}

impl http_body::Body for Held {
    type Data = bytes::Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        std::pin::Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Reads an error answer's text.
pub(super) async fn text(body: ResponseBody, limit: usize) -> String {
    let limited = http_body_util::Limited::new(body, limit).collect().await;
    let bytes = limited.map(|collected| collected.to_bytes()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

fn broken(error: &hyper::Error) -> ForwardError {
    ForwardError::Broken(kminik_base::component::chain(error))
}

fn wants_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asks = asks.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| asks).cloned()
}

/// Takes out what is between the client and this server: credentials, impersonation, the connection's own headers.
fn clean(headers: &mut HeaderMap) {
    remove_connection_headers(headers);
    headers.remove(AUTHORIZATION);
    headers.remove(PROXY_AUTHORIZATION);
    let secret: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-") || name.as_str().starts_with("x-remote-"))
        .cloned()
        .collect();
    for name in secret {
        headers.remove(name);
    }
    // Bearer tokens may come as WebSocket subprotocols, for browsers.
    let protocols = http::header::SEC_WEBSOCKET_PROTOCOL;
    if let Some(offered) = headers.get(&protocols).and_then(|value| value.to_str().ok()) {
        let kept: Vec<&str> = offered
            .split(',')
            .map(str::trim)
            .filter(|protocol| !protocol.starts_with("base64url.bearer.authorization.k8s.io."))
            .collect();
        match HeaderValue::from_str(&kept.join(", ")) {
            Ok(kept) if !kept.is_empty() => headers.insert(protocols, kept),
            _ => headers.remove(protocols),
        };
    }
}

fn clean_response(headers: &mut HeaderMap) {
    remove_connection_headers(headers);
}

fn remove_connection_headers(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
}

fn host_header(target: &Target) -> HeaderValue {
    HeaderValue::from_str(&target.peer.place.authority()).unwrap_or(HeaderValue::from_static("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_connection_headers_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("impersonate-user", "root"),
            ("connection", "Upgrade, x-private"),
            ("upgrade", "websocket"),
            ("x-private", "1"),
            ("accept", "*/*"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.abc, v5.channel.k8s.io"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(wants_upgrade(&headers).unwrap(), "websocket");
        clean(&mut headers);
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(left, ["accept: */*", "sec-websocket-protocol: v5.channel.k8s.io"]);
    }
}
