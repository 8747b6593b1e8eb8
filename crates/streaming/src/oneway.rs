//! A body of bytes to a client that asked for it over a WebSocket: a log, as `kubectl logs` would have got it in an answer.
//!
//! | protocol | a piece of the body is |
//! |---|---|
//! | none, `binary.k8s.io` | a binary message |
//! | `base64.binary.k8s.io` | a text message in base64 |
//!
//! A body of messages ([`upgrade_messages`]: the events of a watch) goes as it is, in text or binary messages, whatever protocol
//! the client names.

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
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::upgrade::{Wanted, choose, websocket_response};
use crate::websocket::{Ending, Goodbye};
use crate::{LINGER, StreamingError, UpgradeError};

/// How pieces of a body are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Binary,
    Base64,
    /// As text; a piece that is not UTF-8 is sent as binary.
    Text,
}

const PROTOCOLS: &[(&str, Form)] = &[("binary.k8s.io", Form::Binary), ("base64.binary.k8s.io", Form::Base64)];

type Socket = WebSocketStream<Ending<TokioIo<Upgraded>>>;

/// A client that is connected and waits for the body.
pub struct Receiver {
    sink: SplitSink<Socket, Message>,
    source: SplitStream<Socket>,
    goodbye: Goodbye,
    form: Form,
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
    let (accept, offered) = asked(request)?;
    let (name, form) = match offered.is_empty() {
        true => (None, Form::Binary),
        false => choose(offered, PROTOCOLS).map(|(name, form)| (Some(name), form))?,
    };
    switch(request, &accept, name, form)
}

/// As [`upgrade`] for a body whose pieces are messages. As upstream does, the only protocol that a client offers is agreed to,
/// and means nothing.
///
/// # Errors
/// When the request is no WebSocket's, or offers several protocols.
pub fn upgrade_messages<B>(
    request: &mut Request<B>,
) -> Result<(Response<()>, impl Future<Output = Result<Receiver, StreamingError>> + Send + use<B>), UpgradeError> {
    let (accept, offered) = asked(request)?;
    let name = match offered.as_slice() {
        [] => None,
        [one] => Some(one.as_str()),
        _ => return Err(UpgradeError::NoCommonProtocol { offered, accepted: Vec::new() }),
    };
    switch(request, &accept, name, Form::Text)
}

/// What answers the client's key, and the protocols it offers.
fn asked<B>(request: &Request<B>) -> Result<(String, Vec<String>), UpgradeError> {
    match Wanted::of(request.headers())? {
        Wanted::WebSocket { accept, offered } => Ok((accept, offered)),
        Wanted::Spdy { .. } => Err(UpgradeError::NotAnUpgrade),
    }
}

fn switch<B>(
    request: &mut Request<B>,
    accept: &str,
    protocol: Option<&str>,
    form: Form,
) -> Result<(Response<()>, impl Future<Output = Result<Receiver, StreamingError>> + Send + use<B>), UpgradeError> {
    if request.extensions().get::<OnUpgrade>().is_none() {
        return Err(UpgradeError::NotUpgradable);
    }
    let upgraded = hyper::upgrade::on(request);
    Ok((websocket_response(accept, protocol), async move {
        let io = upgraded.await.map_err(StreamingError::Upgrade)?;
        let (socket, goodbye) = crate::websocket::serve(TokioIo::new(io)).await;
        let (sink, source) = socket.split();
        Ok(Receiver { sink, source, goodbye, form })
    }))
}

impl Receiver {
    /// Sends in another form than was agreed on.
    #[must_use]
    pub fn in_form(self, form: Form) -> Self {
        Receiver { form, ..self }
    }

    /// Sends the body to its end and closes. What the client sends meanwhile is not looked at; it may close at any time.
    ///
    /// # Errors
    /// When the connection broke before the end.
    pub async fn send<E>(self, body: impl Stream<Item = Result<Bytes, E>>) -> Result<(), StreamingError> {
        let Receiver { mut sink, mut source, goodbye, form } = self;
        let gone = async { while matches!(source.next().await, Some(Ok(_))) {} };
        let all = async {
            let mut body = std::pin::pin!(body);
            // A body that breaks ends here as it would end an answer: what came so far has been sent.
            while let Some(Ok(piece)) = body.next().await {
                let message = match form {
                    Form::Base64 => Message::Text(BASE64_STANDARD.encode(&piece).into()),
                    Form::Binary => Message::Binary(piece),
                    Form::Text => match Utf8Bytes::try_from(piece.clone()) {
                        Ok(text) => Message::Text(text),
                        Err(_) => Message::Binary(piece),
                    },
                };
                sink.send(message).await?;
            }
            goodbye.say(&mut sink).await
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
