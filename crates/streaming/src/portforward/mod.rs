//! The server's end of port forwarding: over SPDY, over SPDY inside WebSocket, and over WebSocket channels.
//!
//! | transport | protocol | a forwarded connection is |
//! |---|---|---|
//! | SPDY/3.1 | `portforward.k8s.io` | two streams, `error` and `data`, of one `requestID` |
//! | WebSocket | `SPDY/3.1+portforward.k8s.io` | the same, SPDY in binary messages |
//! | WebSocket | `v4.channel.k8s.io`, `v4.base64.channel.k8s.io`, none | two channels for each port of the query |

mod spdy;
mod websocket;

use std::future::Future;

use http::{HeaderMap, Request, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::upgrade::{Wanted, choose, spdy_response, websocket_response};
use crate::websocket::ByteTunnel;
use crate::{Duplex, Output, StreamingError, UpgradeError};

/// A connected client that may ask for any number of connections. Dropping it ends them all.
pub struct PortForward {
    requests: mpsc::Receiver<Forward>,
    gone: CancellationToken,
    _guard: DropGuard,
}

/// One connection the client wants to a port.
pub struct Forward {
    pub port: u16,
    /// What the client sends and gets. Shutting it down half-closes it.
    pub data: Box<dyn Duplex>,
    pub error: ErrorStream,
}

/// Where the client learns why a connection failed; dropping it says that nothing failed.
pub struct ErrorStream(Output);

impl ErrorStream {
    pub async fn fail(mut self, message: &str) {
        // A client that is gone needs no message.
        let _ = self.0.write_all(message.as_bytes()).await;
        let _ = self.0.shutdown().await;
    }
}

impl PortForward {
    /// The next connection asked for; `None` when the client is gone.
    pub async fn next(&mut self) -> Option<Forward> {
        self.requests.recv().await
    }

    /// Cancelled when the client is gone.
    pub fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }
}

/// What was agreed on with the client.
#[derive(Clone, Debug)]
pub struct Negotiated {
    agreed: Agreed,
    accept: String,
}

#[derive(Clone, Copy, Debug)]
enum Agreed {
    Spdy(Option<&'static str>),
    WebSocket(Option<&'static str>, OverWebSocket),
}

#[derive(Clone, Copy, Debug)]
enum OverWebSocket {
    Tunnel,
    Channels { base64: bool },
}

const SPDY_PROTOCOLS: &[(&str, ())] = &[("portforward.k8s.io", ())];

const WEBSOCKET_PROTOCOLS: &[(&str, OverWebSocket)] = &[
    ("SPDY/3.1+portforward.k8s.io", OverWebSocket::Tunnel),
    ("v4.channel.k8s.io", OverWebSocket::Channels { base64: false }),
    ("v4.base64.channel.k8s.io", OverWebSocket::Channels { base64: true }),
];

/// Chooses transport and protocol by the request's headers.
pub fn negotiate(headers: &HeaderMap) -> Result<Negotiated, UpgradeError> {
    match Wanted::of(headers)? {
        Wanted::Spdy { offered } if offered.is_empty() => {
            Ok(Negotiated { agreed: Agreed::Spdy(None), accept: String::new() })
        }
        Wanted::Spdy { offered } => {
            let (name, ()) = choose(offered, SPDY_PROTOCOLS)?;
            Ok(Negotiated { agreed: Agreed::Spdy(Some(name)), accept: String::new() })
        }
        Wanted::WebSocket { accept, offered } if offered.is_empty() => {
            let channels = OverWebSocket::Channels { base64: false };
            Ok(Negotiated { agreed: Agreed::WebSocket(None, channels), accept })
        }
        Wanted::WebSocket { accept, offered } => {
            let (name, over) = choose(offered, WEBSOCKET_PROTOCOLS)?;
            Ok(Negotiated { agreed: Agreed::WebSocket(Some(name), over), accept })
        }
    }
}

impl Negotiated {
    /// The `101` that tells the client.
    pub fn response(&self) -> Response<()> {
        match self.agreed {
            Agreed::Spdy(name) => spdy_response(name),
            Agreed::WebSocket(name, _) => websocket_response(&self.accept, name),
        }
    }

    /// Takes over the connection once the response is sent. `ports` are those of the query: the channel protocols
    /// connect to each of them, the others name a port with each connection.
    pub async fn accept<Io>(self, io: Io, ports: &[u16]) -> Result<PortForward, StreamingError>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match self.agreed {
            Agreed::Spdy(_) => spdy::accept(io),
            Agreed::WebSocket(_, OverWebSocket::Tunnel) => spdy::accept(ByteTunnel::server(io).await),
            Agreed::WebSocket(_, OverWebSocket::Channels { base64 }) => Ok(websocket::accept(io, base64, ports).await),
        }
    }
}

/// For a hyper server: the response to return, and the future to spawn that ends with the client's requests.
pub fn upgrade<B>(
    request: &mut Request<B>,
    ports: Vec<u16>,
) -> Result<(Response<()>, impl Future<Output = Result<PortForward, StreamingError>> + Send + use<B>), UpgradeError> {
    let negotiated = negotiate(request.headers())?;
    if request.extensions().get::<OnUpgrade>().is_none() {
        return Err(UpgradeError::NotUpgradable);
    }
    let upgraded = hyper::upgrade::on(request);
    let response = negotiated.response();
    Ok((response, async move {
        let io = upgraded.await.map_err(StreamingError::Upgrade)?;
        negotiated.accept(TokioIo::new(io), &ports).await
    }))
}
