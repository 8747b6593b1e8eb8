//! What an upgrade request asks for, and the answer to it.

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Header in which a SPDY client offers its protocols and the server names its choice.
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Header in which a server that refuses lists what it would have accepted.
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// Value of `Upgrade` for SPDY, also in tunnelled subprotocols.
pub(crate) const SPDY_31: &str = "SPDY/3.1";

/// Why a request cannot be upgraded; nothing has been sent yet.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UpgradeError {
    #[error("Upgrade request required")]
    NotAnUpgrade,
    #[error("websocket: version 13 with a Sec-WebSocket-Key is required")]
    BadWebSocket,
    #[error("unable to negotiate protocol: client supports {offered:?}, server accepts {accepted:?}")]
    NoCommonProtocol { offered: Vec<String>, accepted: Vec<&'static str> },
    #[error("the connection cannot be upgraded")]
    NotUpgradable,
}

impl UpgradeError {
    /// The HTTP status upstream servers use for it.
    pub fn status(&self) -> StatusCode {
        match self {
            UpgradeError::NotAnUpgrade | UpgradeError::BadWebSocket => StatusCode::BAD_REQUEST,
            UpgradeError::NoCommonProtocol { .. } => StatusCode::FORBIDDEN,
            UpgradeError::NotUpgradable => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The complete plain-text answer.
    pub fn response(&self) -> Response<String> {
        let mut response = Response::new(self.to_string());
        *response.status_mut() = self.status();
        if let UpgradeError::NoCommonProtocol { accepted, .. } = self {
            for version in accepted {
                response.headers_mut().append(ACCEPTED_VERSIONS, HeaderValue::from_static(version));
            }
        }
        response
    }
}

/// What breaks a connection after its upgrade.
#[derive(Debug, thiserror::Error)]
pub enum StreamingError {
    #[error("the connection was not upgraded")]
    Upgrade(#[source] hyper::Error),
    #[error("the client did not open its streams within {0:?}")]
    StreamTimeout(std::time::Duration),
    #[error("the peer closed the connection")]
    Closed,
    #[error("the peer violated SPDY: {0}")]
    Spdy(&'static str),
    #[error("the peer violated the WebSocket protocol")]
    WebSocket(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
    #[error("the server answered {status}: {body}")]
    Refused { status: StatusCode, body: String },
    #[error("the request failed")]
    Request(#[source] hyper::Error),
    #[error("the server chose the unknown protocol {0:?}")]
    UnknownProtocol(String),
    #[error("the server sent no exit status")]
    NoStatus,
}

/// The transport asked for and the protocols offered on it, in the client's order.
pub(crate) enum Wanted {
    WebSocket { accept: String, offered: Vec<String> },
    Spdy { offered: Vec<String> },
}

impl Wanted {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Wanted, UpgradeError> {
        if !lists(headers, &CONNECTION, "upgrade") {
            return Err(UpgradeError::NotAnUpgrade);
        }
        if lists(headers, &UPGRADE, "websocket") {
            let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(UpgradeError::BadWebSocket)?;
            if headers.get(http::header::SEC_WEBSOCKET_VERSION).is_none_or(|v| v.as_bytes() != b"13") {
                return Err(UpgradeError::BadWebSocket);
            }
            let accept = derive_accept_key(key.as_bytes());
            return Ok(Wanted::WebSocket { accept, offered: list(headers, &SEC_WEBSOCKET_PROTOCOL) });
        }
        if lists(headers, &UPGRADE, SPDY_31) {
            return Ok(Wanted::Spdy { offered: list(headers, &PROTOCOL_VERSION) });
        }
        Err(UpgradeError::NotAnUpgrade)
    }
}

/// The first of the client's protocols that stands in the server's table.
pub(crate) fn choose<P: Copy>(
    offered: Vec<String>,
    table: &[(&'static str, P)],
) -> Result<(&'static str, P), UpgradeError> {
    for wanted in &offered {
        if let Some(row) = table.iter().find(|(name, _)| name == wanted) {
            return Ok(*row);
        }
    }
    Err(UpgradeError::NoCommonProtocol { offered, accepted: table.iter().map(|(name, _)| *name).collect() })
}

/// `101 Switching Protocols` to SPDY; no protocol is named to a client that offered none.
pub(crate) fn spdy_response(protocol: Option<&'static str>) -> Response<()> {
    let mut response = switching(HeaderValue::from_static(SPDY_31));
    if let Some(protocol) = protocol {
        response.headers_mut().insert(PROTOCOL_VERSION, HeaderValue::from_static(protocol));
    }
    response
}

/// `101 Switching Protocols` to WebSocket; no subprotocol is named to a client that offered none.
pub(crate) fn websocket_response(accept: &str, protocol: Option<&str>) -> Response<()> {
    let mut response = switching(HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = protocol.and_then(|name| HeaderValue::from_str(name).ok()) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

fn switching(upgrade: HeaderValue) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, upgrade);
    response
}

/// All values of a comma-separated header, over all its lines.
fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|item| item.trim().to_owned())
        .filter(|item| !item.is_empty())
        .collect()
}

fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    list(headers, name).iter().any(|item| item.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn the_clients_order_decides() {
        let offered = vec!["v9".to_owned(), "b".to_owned(), "a".to_owned()];
        assert_eq!(choose(offered, &[("a", 1), ("b", 2)]), Ok(("b", 2)));
    }

    #[test]
    fn a_plain_request_is_refused() {
        assert!(matches!(Wanted::of(&headers(&[])), Err(UpgradeError::NotAnUpgrade)));
        let h2c = headers(&[("connection", "Upgrade"), ("upgrade", "h2c")]);
        assert!(matches!(Wanted::of(&h2c), Err(UpgradeError::NotAnUpgrade)));
    }

    #[test]
    fn refusal_lists_what_would_be_accepted() {
        let error = choose(vec!["x".into()], &[("a", ()), ("b", ())]).unwrap_err();
        let response = error.response();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.headers().get_all("x-accepted-stream-protocol-versions").iter().count(), 2);
    }

    #[test]
    fn websocket_accept_key_is_rfc_6455s() {
        let map = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io"),
        ]);
        let Ok(Wanted::WebSocket { accept, offered }) = Wanted::of(&map) else { panic!("not a websocket") };
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(offered, ["v5.channel.k8s.io", "v4.channel.k8s.io"]);
    }
}
