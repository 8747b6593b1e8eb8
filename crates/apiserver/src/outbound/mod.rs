//! The one way in which this server calls others: admission and conversion webhooks, aggregated API servers, kubelets,
//! and what the proxies lead to.
//!
//! A [`Peer`] says where a server is and how it is known. [`Outbound::call`] sends one bounded request over a pool of
//! connections; [`Outbound::dial`] gives a fresh connection to those that stream or upgrade.
//!
//! A Service is reached at one of its ready endpoints, as the cache knows them at the time of the connection: this server
//! stands in the node's network namespace, from which pods can be reached. Errors are in the words of Go's HTTP client,
//! which clients of the Kubernetes API know and match.
//!
//! **Invariant:** nothing here outlives its bound: every connection and call has a deadline, every answer a size.

mod client;
mod dial;
mod error;
mod peer;
mod resolve;
pub(crate) mod review;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Request, Response, StatusCode};

use self::client::Clients;
use self::dial::Dialer;
pub use self::dial::Io;
pub use self::error::{AskError, CallError, DialError, refusal};
pub use self::peer::{Peer, Place, Security, Target, TargetError, Trust, Verify};
use crate::metrics::Metrics;
use crate::storage::cache::Cache;

/// What a call may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From the dialling to the last byte of the answer.
    pub timeout: Duration,
    /// Longest body of an answer, bytes.
    pub body: usize,
}

/// Connections to other servers, shared by all requests.
pub struct Outbound {
    dialer: Arc<Dialer>,
    clients: Clients,
}

impl Outbound {
    pub fn new(cache: Arc<Cache>) -> Self {
        Outbound { dialer: Arc::new(Dialer::new(cache)), clients: Clients::default() }
    }

    /// Where what others answer is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        self.dialer.cache().metrics()
    }

    /// A new connection, for as long as the caller wants it.
    ///
    /// # Errors
    /// When the peer cannot be found, reached or verified within half a minute.
    pub async fn dial(&self, peer: &Peer) -> Result<Box<dyn Io>, DialError> {
        self.dialer.dial(peer).await
    }

    /// Sends a request and reads the whole answer, whatever its status. The request's URI is absolute and begins with
    /// the URL of the peer's [`Target`].
    ///
    /// # Errors
    /// When there is no answer in time, or one that is too long.
    pub async fn call(
        &self,
        peer: &Peer,
        request: Request<Bytes>,
        bounds: Bounds,
    ) -> Result<Response<Bytes>, CallError> {
        self.clients.call(&self.dialer, peer, request, bounds).await
    }

    /// Puts a question to a webhook, as JSON, and gives the body of its answer.
    ///
    /// # Errors
    /// When there is no answer in time, one that is too long, or a refusal.
    pub async fn ask(&self, target: &Target, question: Vec<u8>, bounds: Bounds) -> Result<Bytes, AskError> {
        let request = Request::post(format!("{}?timeout={}s", target.url, bounds.timeout.as_secs()))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .header(USER_AGENT, concat!("kube-apiserver-admission/", env!("CARGO_PKG_VERSION")))
            .body(Bytes::from(question))?;
        let response = self.call(&target.peer, request, bounds).await?;
        match response.status() {
            StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => Ok(response.into_body()),
            status => Err(AskError::Refused(status, refusal(status, response.body()))),
        }
    }

    /// An endpoint of a service that is ready, some one if there are several: its address and the number of the port of
    /// this name.
    ///
    /// # Errors
    /// When none is ready.
    pub fn ready_endpoint(&self, namespace: &str, service: &str, port: &str) -> Result<(String, u16), DialError> {
        resolve::ready_endpoint(self.dialer.cache(), namespace, service, port)
    }
}
