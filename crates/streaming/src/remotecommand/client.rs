//! The client's end: runs a command on a server that speaks `v5.channel.k8s.io` over WebSocket.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::websocket::{CLOSE, ERROR, RESIZE, STDERR, STDIN, STDOUT, V5, message, parse};
use super::{Outcome, TerminalSize};
use crate::{CHUNK_BYTES, Input, Output, StreamingError};

/// Longest refusal body that is read.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// What is connected to the remote command's streams.
#[derive(Default)]
pub struct Local {
    /// Its end is passed on as a half-close.
    pub stdin: Option<Input>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
}

/// Sends the request on a fresh HTTP/1.1 connection, upgrades it, and runs the command to its end. The request needs
/// method, path with query, `Host` and whatever authenticates it.
///
/// # Errors
/// [`StreamingError::Refused`] with the server's text when it does not upgrade; [`StreamingError::NoStatus`] when the
/// connection ended before the command did.
pub async fn run<Io>(io: Io, mut request: Request<()>, local: Local) -> Result<Outcome, StreamingError>
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(V5));
    if let Ok(key) = HeaderValue::from_str(&generate_key()) {
        headers.insert(SEC_WEBSOCKET_KEY, key);
    }
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(StreamingError::Request)?;
    tokio::spawn(connection.with_upgrades());
    let response =
        sender.send_request(request.map(|()| Empty::<Bytes>::new())).await.map_err(StreamingError::Request)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_REFUSAL_BYTES).collect().await;
        let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        return Err(StreamingError::Refused { status, body });
    }
    let protocol = response.headers().get(SEC_WEBSOCKET_PROTOCOL).cloned();
    if protocol.as_ref().is_none_or(|name| name.as_bytes() != V5.as_bytes()) {
        let name = protocol.map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned()).unwrap_or_default();
        return Err(StreamingError::UnknownProtocol(name));
    }
    let io = hyper::upgrade::on(response).await.map_err(StreamingError::Upgrade)?;
    drive(crate::websocket::over(TokioIo::new(io), Role::Client).await, local).await
}

/// Runs the command to its end over a connection whose handshake has chosen `v5.channel.k8s.io`.
pub async fn drive<Io>(socket: WebSocketStream<Io>, local: Local) -> Result<Outcome, StreamingError>
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sink, mut source) = socket.split();
    let Local { mut stdin, mut stdout, mut stderr, mut resize } = local;
    let send = async {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            tokio::select! {
                read = read_some(&mut stdin, &mut buffer) => match read {
                    Some(data) => sink.send(message(false, STDIN, data)).await?,
                    None => {
                        stdin = None;
                        sink.send(Message::Binary(Bytes::from_static(&[CLOSE, STDIN]))).await?;
                    }
                },
                size = next_size(&mut resize) => match size {
                    Some(size) => {
                        let json = serde_json::to_vec(&size).unwrap_or_default();
                        sink.send(message(false, RESIZE, &json)).await?;
                    }
                    None => resize = None,
                },
            }
        }
    };
    let receive = async {
        let mut outcome = None;
        while let Some(message) = source.next().await {
            let Some((channel, data)) = parse(false, message.map_err(|e| StreamingError::WebSocket(Box::new(e)))?)
            else {
                continue;
            };
            match channel {
                STDOUT => put(&mut stdout, &data).await?,
                STDERR => put(&mut stderr, &data).await?,
                ERROR => outcome = Outcome::from_json(&data),
                _ => {}
            }
            if outcome.is_some() {
                break;
            }
        }
        outcome.ok_or(StreamingError::NoStatus)
    };
    tokio::pin!(receive);
    let sent: Result<std::convert::Infallible, Error> = tokio::select! {
        outcome = &mut receive => return outcome,
        sent = send => sent,
    };
    // A server that closes first may have sent the status already.
    match sent {
        Ok(never) => match never {},
        Err(_) => receive.await,
    }
}

async fn read_some<'a>(stdin: &mut Option<Input>, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    match stdin {
        // Without stdin there is nothing to wait for.
        None => std::future::pending().await,
        Some(input) => match input.read(buffer).await {
            Ok(read @ 1..) => buffer.get(..read),
            _ => None,
        },
    }
}

async fn next_size(resize: &mut Option<mpsc::Receiver<TerminalSize>>) -> Option<TerminalSize> {
    match resize {
        None => std::future::pending().await,
        Some(sizes) => sizes.recv().await,
    }
}

async fn put(output: &mut Option<Output>, data: &[u8]) -> Result<(), StreamingError> {
    if let Some(output) = output {
        output.write_all(data).await?;
        output.flush().await?;
    }
    Ok(())
}
