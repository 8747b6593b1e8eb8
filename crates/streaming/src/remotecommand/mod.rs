//! The server's end of running a command for a remote client, and (in [`client`]) the client's.
//!
//! | transport | protocols, newest first | exit status |
//! |---|---|---|
//! | WebSocket | `v5.channel.k8s.io` (half-close), `v4.channel.k8s.io`, `v4.base64.channel.k8s.io`, `channel.k8s.io`, `base64.channel.k8s.io`, none | JSON from v4 on, else text |
//! | SPDY/3.1 | `v4.channel.k8s.io`, `v3…` (resize), `v2…`, `channel.k8s.io`, none | JSON in v4, else text |

pub mod client;
mod outcome;
mod spdy;
mod websocket;

use std::future::Future;

use http::{HeaderMap, Request, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use outcome::Outcome;
pub(crate) use websocket::{message as channel_message, parse as parse_channel};

use crate::upgrade::{Wanted, choose, spdy_response, websocket_response};
use crate::{Input, Output, StreamingError, UpgradeError};

/// Which streams the request asked for. With a terminal there is no stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// In character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// A client that is connected and has opened its streams. A stream is `None` when it was not asked for.
pub struct RemoteCommand {
    /// Ends at the client's half-close, or with the connection.
    pub stdin: Option<Input>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    /// With a terminal: its size, now and at each change.
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
    /// Cancelled when the client is gone.
    pub gone: CancellationToken,
    pub exit: Exit,
}

/// The last word to the client. Dropping it ends the connection without an exit status.
pub struct Exit(Transport);

enum Transport {
    WebSocket(websocket::Closer),
    Spdy(spdy::Closer),
}

impl Exit {
    /// Sends how the command ended, after all output already written, and closes; waits (5 s at most) until the
    /// client has read it.
    pub async fn finish(self, outcome: Outcome) {
        match self.0 {
            Transport::WebSocket(closer) => closer.finish(outcome).await,
            Transport::Spdy(closer) => closer.finish(outcome).await,
        }
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
    WebSocket(Option<&'static str>, websocket::Protocol),
    Spdy(Option<&'static str>, spdy::Protocol),
}

/// Chooses transport and protocol by the request's headers.
pub fn negotiate(headers: &HeaderMap) -> Result<Negotiated, UpgradeError> {
    match Wanted::of(headers)? {
        Wanted::WebSocket { accept, offered } if offered.is_empty() => {
            Ok(Negotiated { agreed: Agreed::WebSocket(None, websocket::Protocol::UNNAMED), accept })
        }
        Wanted::WebSocket { accept, offered } => {
            let (name, protocol) = choose(offered, websocket::PROTOCOLS)?;
            Ok(Negotiated { agreed: Agreed::WebSocket(Some(name), protocol), accept })
        }
        Wanted::Spdy { offered } if offered.is_empty() => {
            Ok(Negotiated { agreed: Agreed::Spdy(None, spdy::Protocol::UNNAMED), accept: String::new() })
        }
        Wanted::Spdy { offered } => {
            let (name, protocol) = choose(offered, spdy::PROTOCOLS)?;
            Ok(Negotiated { agreed: Agreed::Spdy(Some(name), protocol), accept: String::new() })
        }
    }
}

impl Negotiated {
    /// The `101` that tells the client.
    pub fn response(&self) -> Response<()> {
        match self.agreed {
            Agreed::WebSocket(name, _) => websocket_response(&self.accept, name),
            Agreed::Spdy(name, _) => spdy_response(name),
        }
    }

    /// Takes over the connection once the response is sent; ends when the client has opened its streams (30 s at most).
    pub async fn accept<Io>(self, io: Io, options: Options) -> Result<RemoteCommand, StreamingError>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match self.agreed {
            Agreed::WebSocket(_, protocol) => Ok(websocket::accept(io, protocol, options).await),
            Agreed::Spdy(_, protocol) => spdy::accept(io, protocol, options).await,
        }
    }
}

/// For a hyper server: the response to return, and the future to spawn that ends with the client's streams.
pub fn upgrade<B>(
    request: &mut Request<B>,
    options: Options,
) -> Result<(Response<()>, impl Future<Output = Result<RemoteCommand, StreamingError>> + Send + use<B>), UpgradeError> {
    let negotiated = negotiate(request.headers())?;
    if request.extensions().get::<OnUpgrade>().is_none() {
        return Err(UpgradeError::NotUpgradable);
    }
    let upgraded = hyper::upgrade::on(request);
    let response = negotiated.response();
    Ok((response, async move {
        let io = upgraded.await.map_err(StreamingError::Upgrade)?;
        negotiated.accept(TokioIo::new(io), options).await
    }))
}

/// Reads concatenated JSON terminal sizes and sends them on; a client that floods waits, a slow command gets the last.
async fn pump_sizes(mut input: impl AsyncRead + Unpin, sizes: mpsc::Sender<TerminalSize>) {
    use tokio::io::AsyncReadExt;
    let mut text = Vec::new();
    loop {
        let mut consumed = 0;
        let mut parsed = serde_json::Deserializer::from_slice(&text).into_iter::<TerminalSize>();
        while let Some(Ok(size)) = parsed.next() {
            consumed = parsed.byte_offset();
            if sizes.send(size).await.is_err() {
                return;
            }
        }
        text.drain(..consumed);
        // A size is some forty bytes; more without a complete one is no size.
        if text.len() > 1024 || !matches!(input.read_buf(&mut text).await, Ok(1..)) {
            return;
        }
    }
}
