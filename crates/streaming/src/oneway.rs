//! A body of bytes to a client that asked for it over a WebSocket: a log, as `kubectl logs` would have got it in an answer.
//!
//! | protocol | a piece of the body is |
//! |---|---|
//! | none, `binary.k8s.io` | a binary message |
//! | `base64.binary.k8s.io` | a text message in base64 |

use std::future::Future;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, Stream, StreamExt};
use http::{Request, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::upgrade::{Wanted, choose, websocket_response};
use crate::{LINGER, StreamingError, UpgradeError};

/// The protocols, and whether each is base64.
const PROTOCOLS: &[(&str, bool)] = &[("binary.k8s.io", false), ("base64.binary.k8s.io", true)];

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A client that is connected and waits for the body.
pub struct Receiver {
    sink: SplitSink<Socket, Message>,
    source: SplitStream<Socket>,
    base64: bool,
}

/// Whether the request asks for a WebSocket at all.
pub fn wanted(headers: &http::HeaderMap) -> bool {
    matches!(Wanted::of(headers), Ok(Wanted::WebSocket { .. }))
}

/// For a hyper server: the response to return, and the future to spawn that ends with the connected client.
///
/// # Errors
/// When the request is no WebSocket's, or offers other protocols only.
pub fn upgrade<B>(
    request: &mut Request<B>,
) -> Result<(Response<()>, impl Future<Output = Result<Receiver, StreamingError>> + Send + use<B>), UpgradeError> {
    let Wanted::WebSocket { accept, offered } = Wanted::of(request.headers())? else {
        return Err(UpgradeError::NotAnUpgrade);
    };
    let (name, base64) = match offered.is_empty() {
        true => (None, false),
        false => choose(offered, PROTOCOLS).map(|(name, base64)| (Some(name), base64))?,
    };
    if request.extensions().get::<OnUpgrade>().is_none() {
        return Err(UpgradeError::NotUpgradable);
    }
    let upgraded = hyper::upgrade::on(request);
    Ok((websocket_response(&accept, name), async move {
        let io = upgraded.await.map_err(StreamingError::Upgrade)?;
        let (sink, source) = crate::websocket::over(TokioIo::new(io), Role::Server).await.split();
        Ok(Receiver { sink, source, base64 })
    }))
}

impl Receiver {
    /// Sends the body to its end and closes. What the client sends meanwhile is not looked at; it may close at any time.
    ///
    /// # Errors
    /// When the connection broke before the end.
    pub async fn send<E>(self, body: impl Stream<Item = Result<Bytes, E>>) -> Result<(), StreamingError> {
        let Receiver { mut sink, mut source, base64 } = self;
        let gone = async { while matches!(source.next().await, Some(Ok(_))) {} };
        let all = async {
            let mut body = std::pin::pin!(body);
            // A body that breaks ends here as it would end an answer: what came so far has been sent.
            while let Some(Ok(piece)) = body.next().await {
                let message = match base64 {
                    true => Message::Text(BASE64_STANDARD.encode(&piece).into()),
                    false => Message::Binary(piece),
                };
                sink.send(message).await?;
            }
            sink.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await
        };
        let mut gone = std::pin::pin!(gone);
        let sent = tokio::select! {
            sent = all => sent,
            () = gone.as_mut() => return Err(StreamingError::Closed),
        };
        match sent {
            // The client answers the close when it has read everything.
            Ok(()) => drop(tokio::time::timeout(LINGER, gone).await),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Err(StreamingError::Closed),
            Err(error) => return Err(StreamingError::WebSocket(Box::new(error))),
        }
        Ok(())
    }
}
