//! Calls to whichever endpoint answers: one lazy connection an endpoint, the next one's turn when one fails.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use kminik_base::backoff::Backoff;
use kminik_base::component::chain;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, ConnectError, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::EtcdOptions;
use crate::api::StoreError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// One attempt of a call may take so long.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is asked so often whether it lives, and given up after so long without an answer.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest message taken: a page of a range, or the changes of one revision.
const MESSAGE_BYTES: usize = 256 << 20;
/// Tries of a call that may be repeated, over all endpoints.
const ATTEMPTS: usize = 6;

/// Whether a call may be sent again although an earlier one may have had its effect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Reads, and writes whose repetition changes nothing.
    Always,
    /// Only when the earlier one certainly was not sent.
    IfUnsent,
}

/// The endpoints of one etcd cluster.
#[derive(Debug)]
pub(super) struct Transport {
    channels: Vec<Channel>,
    current: AtomicUsize,
}

impl Transport {
    /// Opens no connection yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Endpoint`] for what is no address, or certificates that cannot be used.
    pub(super) fn new(options: &EtcdOptions) -> Result<Self, StoreError> {
        let mut channels = Vec::new();
        for endpoint in &options.endpoints {
            let bad = |detail: String| StoreError::Endpoint { endpoint: endpoint.clone(), detail };
            let mut channel = Endpoint::from_shared(endpoint.clone())
                .map_err(|error| bad(error.to_string()))?
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .keep_alive_while_idle(true);
            if channel.uri().scheme_str() == Some("https") {
                let tls = tls(options);
                channel = channel.tls_config(tls).map_err(|error| bad(chain(&error)))?;
            }
            channels.push(channel.connect_lazy());
        }
        if channels.is_empty() {
            return Err(StoreError::Endpoint { endpoint: String::new(), detail: "no endpoint is given".into() });
        }
        Ok(Transport { channels, current: AtomicUsize::new(0) })
    }

    fn client(&self) -> (usize, Grpc<Channel>) {
        let turn = self.current.load(Ordering::Relaxed);
        let channel = self.channels[turn % self.channels.len()].clone();
        (turn, Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES))
    }

    /// The endpoint of this turn failed; unless somebody else has said so already, it is the next one's turn.
    pub(super) fn failed(&self, turn: usize) {
        let next = turn.wrapping_add(1);
        // Whoever lost the race was overtaken by one that says the same.
        let _ = self.current.compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// One call and its answer. Failures to reach an endpoint are tried again at the others, with back-off.
    ///
    /// # Errors
    /// The server's own refusal, or the last failure to reach it.
    pub(super) async fn unary<Q, A>(&self, path: &'static str, message: &Q, repeat: Repeat) -> Result<A, Status>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let mut attempt = 1;
        loop {
            let (turn, mut client) = self.client();
            let call = async {
                client.ready().await.map_err(|error| Status::from_error(error.into()))?;
                let codec = ProstCodec::<Q, A>::default();
                client.unary(Request::new(message.clone()), PathAndQuery::from_static(path), codec).await
            };
            let status = match tokio::time::timeout(CALL_TIMEOUT, call).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("the datastore did not answer in time"),
            };
            if !matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown) {
                return Err(status);
            }
            self.failed(turn);
            let again = repeat == Repeat::Always || unsent(&status);
            if !again || attempt == ATTEMPTS || status.code() == Code::DeadlineExceeded {
                return Err(status);
            }
            attempt += 1;
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Opens a stream both ways; gives the turn of its endpoint too, for [`Transport::failed`].
    ///
    /// # Errors
    /// As [`Transport::unary`], without a second try.
    pub(super) async fn stream<Q, A>(
        &self,
        path: &'static str,
        messages: impl futures::Stream<Item = Q> + Send + 'static,
    ) -> Result<(usize, Streaming<A>), Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let (turn, mut client) = self.client();
        let mut request = Request::new(messages);
        // A member that has lost its cluster ends the stream instead of leaving it silent.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let call = async {
            client.ready().await.map_err(|error| Status::from_error(error.into()))?;
            client.streaming(request, PathAndQuery::from_static(path), ProstCodec::<Q, A>::default()).await
        };
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(answer)) => Ok((turn, answer.into_inner())),
            Ok(Err(status)) => {
                self.failed(turn);
                Err(status)
            }
            Err(_) => {
                self.failed(turn);
                Err(Status::deadline_exceeded("the datastore did not answer in time"))
            }
        }
    }
}

fn tls(options: &EtcdOptions) -> ClientTlsConfig {
    let mut tls = ClientTlsConfig::new();
    if let Some(ca) = &options.ca_pem {
        tls = tls.ca_certificate(Certificate::from_pem(ca));
    }
    if let Some((certificate, key)) = &options.client_pem {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    tls
}

/// Whether the call failed before anything of it was sent.
fn unsent(status: &Status) -> bool {
    let mut cause: Option<&dyn Error> = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What went wrong, with its causes.
pub(super) fn describe(status: &Status) -> String {
    match status.source() {
        Some(source) => format!("{}: {}", status.message(), chain(source)),
        None => status.message().to_owned(),
    }
}
