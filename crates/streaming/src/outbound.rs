//! The way out of a connection: one ordered queue of frames whose data is limited in bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::PollSemaphore;

use crate::spdy::window::Window;
use crate::{CHUNK_BYTES, OUTBOUND_BUFFER_BYTES};

/// A frame and the room it holds until it is written.
pub(crate) type Queued<F> = (F, Option<OwnedSemaphorePermit>);

/// Sending side of the queue. Frames without data never wait; data waits until the connection has taken earlier data.
pub(crate) struct Outbound<F> {
    frames: mpsc::UnboundedSender<Queued<F>>,
    room: Arc<Semaphore>,
}

impl<F> Clone for Outbound<F> {
    fn clone(&self) -> Self {
        Outbound { frames: self.frames.clone(), room: self.room.clone() }
    }
}

impl<F: Send + 'static> Outbound<F> {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Queued<F>>) {
        let (frames, receiver) = mpsc::unbounded_channel();
        (Outbound { frames, room: Arc::new(Semaphore::new(OUTBOUND_BUFFER_BYTES)) }, receiver)
    }

    /// Queues a small frame; false when the connection is gone.
    pub(crate) fn send(&self, frame: F) -> bool {
        self.frames.send((frame, None)).is_ok()
    }

    /// Makes every writer fail: the connection is gone.
    pub(crate) fn close(&self) {
        self.room.close();
    }

    /// A byte stream whose pieces become frames by `data`; `end` is sent when it is shut down or dropped.
    pub(crate) fn writer(
        &self,
        data: impl Fn(Bytes) -> F + Send + 'static,
        end: Option<F>,
        window: Option<Arc<Window>>,
    ) -> StreamWriter<F> {
        StreamWriter {
            outbound: self.clone(),
            room: PollSemaphore::new(self.room.clone()),
            data: Box::new(data),
            end,
            shut: false,
            window,
            reserved: 0,
        }
    }
}

/// The writing half of one stream of a connection.
pub(crate) struct StreamWriter<F: Send + 'static> {
    outbound: Outbound<F>,
    room: PollSemaphore,
    data: Box<dyn Fn(Bytes) -> F + Send>,
    end: Option<F>,
    shut: bool,
    window: Option<Arc<Window>>,
    /// Bytes taken from the window while waiting for room.
    reserved: usize,
}

impl<F: Send + 'static> StreamWriter<F> {
    fn finish(&mut self) {
        self.shut = true;
        if let Some(end) = self.end.take() {
            self.outbound.send(end);
        }
    }
}

impl<F: Send + Unpin + 'static> AsyncWrite for StreamWriter<F> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut length = buf.len().min(CHUNK_BYTES);
        if let Some(window) = &this.window {
            if this.reserved == 0 {
                match window.poll_take(cx, length) {
                    Poll::Ready(Some(taken)) => this.reserved = taken,
                    Poll::Ready(None) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                    Poll::Pending => return Poll::Pending,
                }
            }
            length = length.min(this.reserved);
        }
        let permit = match this.room.poll_acquire_many(cx, length as u32) {
            Poll::Ready(Some(permit)) => permit,
            Poll::Ready(None) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Poll::Pending => return Poll::Pending,
        };
        this.reserved = this.reserved.saturating_sub(length);
        let piece = Bytes::copy_from_slice(buf.get(..length).unwrap_or(buf));
        match this.outbound.frames.send(((this.data)(piece), Some(permit))) {
            Ok(()) => Poll::Ready(Ok(length)),
            Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().finish();
        Poll::Ready(Ok(()))
    }
}

impl<F: Send + 'static> Drop for StreamWriter<F> {
    fn drop(&mut self) {
        self.finish();
    }
}
