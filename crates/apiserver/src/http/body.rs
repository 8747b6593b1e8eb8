//! Bodies of requests and responses.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures::stream::{BoxStream, Stream, StreamExt};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

/// Whatever a transport can fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body, whichever transport it came by.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// Makes a [`RequestBody`] of any body.
pub fn request_body<B>(body: B) -> RequestBody
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
        .map_err(Into::into)
        .boxed_unsync()
}

/// A response's body: shared slices that are sent one after the other, or a stream of them.
pub enum ResponseBody {
    /// Known as a whole.
    Chunks { chunks: VecDeque<Bytes>, remaining: u64 },
    /// Made while it is sent; ends the connection where it fails.
    Stream(BoxStream<'static, Result<Bytes, BoxError>>),
}

impl ResponseBody {
    pub fn empty() -> Self {
        ResponseBody::Chunks { chunks: VecDeque::new(), remaining: 0 }
    }

    /// A body of slices that are already there.
    pub fn chunks(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        let chunks: VecDeque<Bytes> = chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect();
        let remaining = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        ResponseBody::Chunks { chunks, remaining }
    }

    /// A body made while it is sent.
    pub fn stream(stream: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        ResponseBody::Stream(stream.boxed())
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        ResponseBody::chunks([bytes])
    }
}

impl From<Vec<u8>> for ResponseBody {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for ResponseBody {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            ResponseBody::Chunks { chunks, remaining } => Poll::Ready(chunks.pop_front().map(|chunk| {
                *remaining -= chunk.len() as u64;
                Ok(Frame::data(chunk))
            })),
            ResponseBody::Stream(stream) => {
                stream.poll_next_unpin(cx).map(|next| next.map(|chunk| chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ResponseBody::Chunks { chunks, .. } if chunks.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Chunks { remaining, .. } => SizeHint::with_exact(*remaining),
            ResponseBody::Stream(_) => SizeHint::default(),
        }
    }
}
