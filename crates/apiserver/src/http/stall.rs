//! A connection that does not wait for ever: for its first bytes, or for a client that takes nothing.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::config::Patience;

/// A transport that fails with [`io::ErrorKind::TimedOut`] once its peer has used up the server's patience.
#[derive(Debug)]
pub(crate) struct Stalling<T> {
    inner: T,
    patience: Patience,
    /// Bytes that are still to be read of the connection's beginning.
    missing: usize,
    /// Until they are there.
    beginning: Option<Pin<Box<Sleep>>>,
    /// While a write waits.
    write: Option<Pin<Box<Sleep>>>,
}

impl<T> Stalling<T> {
    /// `beginning` bytes must come within the patience for them.
    pub(crate) fn new(inner: T, patience: Patience, beginning: usize) -> Self {
        let timer = Some(Box::pin(tokio::time::sleep(patience.beginning)));
        Stalling { inner, patience, missing: beginning, beginning: timer, write: None }
    }

    /// Lets a write go on, or ends it if it has waited too long.
    fn bounded<R>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            self.write = None;
            return polled;
        }
        let patience = self.patience.write;
        let waiting = self.write.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stalling<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if polled.is_ready() {
            self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
            if self.missing == 0 {
                self.beginning = None;
            }
            return polled;
        }
        match &mut self.beginning {
            Some(waiting) => waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
            None => Poll::Pending,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stalling<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.bounded(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.bounded(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.bounded(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.bounded(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn silence_ends_a_connection() {
        let (_client, server) = tokio::io::duplex(64);
        let mut server = Stalling::new(server, Patience { beginning: SHORT, head: LONG, write: LONG }, 1);
        let error = server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_spoke_once_may_be_silent() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Stalling::new(server, Patience { beginning: SHORT, head: LONG, write: SHORT }, 1);
        client.write_u8(1).await.unwrap();
        server.read_u8().await.unwrap();
        let silent = tokio::time::timeout(5 * SHORT, server.read_u8());
        assert!(silent.await.is_err(), "still waiting");
    }

    #[tokio::test]
    async fn a_beginning_that_comes_byte_by_byte_is_not_waited_for() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Stalling::new(server, Patience { beginning: 5 * SHORT, head: LONG, write: LONG }, 24);
        let dripping = tokio::spawn(async move {
            while client.write_u8(b'P').await.is_ok() {
                tokio::time::sleep(SHORT).await;
            }
        });
        let error = server.read_exact(&mut [0; 24]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(server);
        dripping.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Stalling::new(server, Patience { beginning: LONG, head: LONG, write: SHORT }, 1);
        let error = server.write_all(&[0; 65]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        client.read_exact(&mut [0; 64]).await.unwrap();
    }
}
