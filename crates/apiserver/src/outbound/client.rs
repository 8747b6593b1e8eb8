//! Calls over kept connections: a pool for each peer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Bounds;
use super::dial::{Dialer, Io};
use super::error::{CallError, Cause, DialError};
use super::peer::Peer;

/// Peers whose connections are kept; the one first met loses them first.
const KEPT_PEERS: usize = 64;
const KEPT_CONNECTIONS: usize = 25;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

type PeerClient = Client<Connector, Full<Bytes>>;

/// A client for each peer.
#[derive(Default)]
pub(super) struct Clients {
    made: Mutex<IndexMap<Peer, PeerClient>>,
}

impl Clients {
    pub(super) async fn call(
        &self,
        dialer: &Arc<Dialer>,
        peer: &Peer,
        request: Request<Bytes>,
        bounds: Bounds,
    ) -> Result<Response<Bytes>, CallError> {
        let (method, url) = (request.method().clone(), request.uri().to_string());
        let client = self.client(dialer, peer);
        let exchange = async {
            let response = client.request(request.map(Full::new)).await.map_err(|error| Cause::of(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, bounds.body).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() { Cause::TooLong(bounds.body) } else { Cause::of(error.as_ref()) }
            })?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        let answer = match tokio::time::timeout(bounds.timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Cause::DeadlineExceeded),
        };
        answer.map_err(|cause| CallError { method, url, cause })
    }

    fn client(&self, dialer: &Arc<Dialer>, peer: &Peer) -> PeerClient {
        let mut made = self.made.lock();
        if let Some(client) = made.get(peer) {
            return client.clone();
        }
        if made.len() >= KEPT_PEERS {
            made.shift_remove_index(0);
        }
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(KEPT_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(Connector { dialer: dialer.clone(), peer: peer.clone() });
        made.insert(peer.clone(), client.clone());
        client
    }
}

/// Dials its peer, whatever the URI.
#[derive(Clone)]
struct Connector {
    dialer: Arc<Dialer>,
    peer: Peer,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Pooled>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Connector { dialer, peer } = self.clone();
        Box::pin(async move { Ok(TokioIo::new(Pooled(dialer.dial(&peer).await?))) })
    }
}

/// A connection as the pool keeps it.
struct Pooled(Box<dyn Io>);

impl Connection for Pooled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Pooled {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pooled {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
