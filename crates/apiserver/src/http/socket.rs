//! A watch over a WebSocket: every event is a message, text for JSON, binary for protobuf.

use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body_util::BodyStream;
use kminik_meta::StatusError;
use kminik_streaming::StreamingError;
use kminik_streaming::oneway::{self, Form, Receiver};

use super::body::{RequestBody, ResponseBody};

/// The connection that a client wants to have a watch's events on.
pub(crate) struct Socket {
    switching: Response<()>,
    receiver: BoxFuture<'static, Result<Receiver, StreamingError>>,
}

impl Socket {
    /// `None` for a request that asks for no WebSocket.
    ///
    /// # Errors
    /// 400 if what it asks for cannot be had.
    pub(crate) fn of(request: &mut Request<RequestBody>) -> Result<Option<Self>, StatusError> {
        if !oneway::wanted(request.headers()) {
            return Ok(None);
        }
        let upgrade = oneway::upgrade_messages(request);
        let (switching, receiver) = upgrade.map_err(|error| StatusError::bad_request(error.to_string()))?;
        Ok(Some(Socket { switching, receiver: Box::pin(receiver) }))
    }

    /// The answer in the place of a watch's; the events go over the connection once it is the client's.
    pub(crate) fn carry(self, watch: Response<ResponseBody>) -> Response<ResponseBody> {
        let (parts, body) = watch.into_parts();
        let media_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let form = if media_type.starts_with("application/json") { Form::Text } else { Form::Binary };
        let frames = BodyStream::new(body).flat_map(move |frame| {
            let events = match frame {
                Ok(frame) => frame.into_data().map_or_else(|_| Vec::new(), |slice| events(form, slice)),
                Err(error) => return futures::stream::iter(vec![Err(error)]),
            };
            futures::stream::iter(events.into_iter().map(Ok).collect::<Vec<_>>())
        });
        tokio::spawn(async move {
            let sent = async { self.receiver.await?.in_form(form).send(frames).await };
            if let Err(error) = sent.await {
                tracing::debug!(error = &error as &dyn std::error::Error, "a watch's client is gone");
            }
        });
        let mut response = self.switching.map(|()| ResponseBody::empty());
        for (name, value) in &parts.headers {
            response.headers_mut().append(name.clone(), value.clone());
        }
        response
    }
}

/// The events of a slice of a watch: lines, or what length prefixes stand before.
fn events(form: Form, mut slice: Bytes) -> Vec<Bytes> {
    let mut events = Vec::new();
    while !slice.is_empty() {
        let length = match form {
            Form::Text => slice.iter().position(|byte| *byte == b'\n').map_or(slice.len(), |end| end + 1),
            Form::Binary | Form::Base64 => match slice.try_get_u32() {
                Ok(length) => usize::try_from(length).unwrap_or(usize::MAX).min(slice.len()),
                Err(_) => break,
            },
        };
        events.push(slice.split_to(length));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_taken_apart() {
        assert_eq!(events(Form::Text, Bytes::from_static(b"a\nbc\n")), ["a\n", "bc\n"]);
        assert_eq!(events(Form::Binary, Bytes::from_static(b"\0\0\0\x01a\0\0\0\x02bc")), ["a", "bc"]);
    }
}
