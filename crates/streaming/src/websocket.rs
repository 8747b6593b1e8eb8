//! WebSocket below the channel protocols: limits, and a connection of binary messages seen as one byte stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::{Sink, SinkExt, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::CHUNK_BYTES;

/// Longest message taken from a peer.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Takes over a server's connection whose handshake is done; also what says goodbye on it.
pub(crate) async fn serve<Io: AsyncRead + AsyncWrite + Unpin>(io: Io) -> (WebSocketStream<Ending<Io>>, Goodbye) {
    let end = Arc::new(AtomicBool::new(false));
    let io = Ending { io, end: end.clone(), ended: false };
    (over(io, Role::Server).await, Goodbye { end })
}

/// What ends a connection of [`serve`].
pub(crate) struct Goodbye {
    end: Arc<AtomicBool>,
}

impl Goodbye {
    /// Sends the Close frame, and after it the end of this half. The peer is to be read on until it has answered.
    pub(crate) async fn say<S>(self, sink: &mut S) -> Result<(), Error>
    where
        S: Sink<Message, Error = Error> + Unpin,
    {
        sink.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await?;
        self.end.store(true, Ordering::Release);
        sink.flush().await
    }
}

/// Takes over a connection whose handshake is done.
pub(crate) async fn over<Io: AsyncRead + AsyncWrite + Unpin>(io: Io, role: Role) -> WebSocketStream<Io> {
    let config = WebSocketConfig::default()
        .read_buffer_size(CHUNK_BYTES)
        .write_buffer_size(CHUNK_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(io, role, Some(config)).await
}

/// A connection whose sending half can be ended while its other half is still read: a client that looks for readable sockets
/// alone finds a Close frame that TLS has already read for it only when the connection's end follows.
pub(crate) struct Ending<Io> {
    io: Io,
    /// Makes the next flush the last.
    end: Arc<AtomicBool>,
    ended: bool,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Ending<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Ending<Io> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        if this.end.load(Ordering::Acquire) {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.ended = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// The bytes of a WebSocket's binary messages, message borders forgotten: what a tunnelled protocol runs over.
pub struct ByteTunnel<Io> {
    socket: WebSocketStream<Io>,
    unread: Bytes,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> ByteTunnel<Io> {
    /// The server's end of a connection whose handshake is done.
    pub async fn server(io: Io) -> ByteTunnel<Io> {
        ByteTunnel { socket: over(io, Role::Server).await, unread: Bytes::new() }
    }

    /// The client's end of a connection whose handshake is done.
    pub async fn client(io: Io) -> ByteTunnel<Io> {
        ByteTunnel { socket: over(io, Role::Client).await, unread: Bytes::new() }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteTunnel<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            match ready!(Pin::new(&mut this.socket).poll_next(cx)) {
                None | Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(())),
                Some(Ok(Message::Binary(data))) => this.unread = data,
                Some(Ok(Message::Text(_))) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let length = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.unread.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteTunnel<Io> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.socket).poll_ready(cx)).map_err(broken)?;
        let mut data = buf;
        let piece = data.copy_to_bytes(buf.len().min(2 * CHUNK_BYTES));
        let length = piece.len();
        Pin::new(&mut this.socket).start_send(Message::Binary(piece)).map_err(broken)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.get_mut().socket).poll_close(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}
