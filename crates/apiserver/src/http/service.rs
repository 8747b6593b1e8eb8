//! The server as a tower service, for clients in this process.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;

use super::body::{BoxError, ResponseBody, request_body};
use super::chain::{self, Peer};
use crate::Server;
use crate::auth::UserInfo;

/// Sends requests through the whole chain under one identity, without a connection. Cheap to clone. Responses stream, so
/// watches work; upgrades do not.
#[derive(Clone)]
pub struct LocalService {
    server: Arc<Server>,
    user: UserInfo,
}

impl LocalService {
    pub(crate) fn new(server: Arc<Server>, user: UserInfo) -> Self {
        LocalService { server, user }
    }
}

impl<B> tower::Service<Request<B>> for LocalService
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (server, user) = (self.server.clone(), self.user.clone());
        let request = request.map(request_body);
        Box::pin(async move { Ok(chain::handle(server, Peer::Known(user), request).await) })
    }
}
