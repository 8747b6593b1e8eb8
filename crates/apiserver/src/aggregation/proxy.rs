//! Requests of an extension server's resources: passed on as they are, with the user in headers.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};

use super::Remote;
use crate::Server;
use crate::auth::{UserInfo, request_header};
use crate::connect::forward::{self, ForwardError, Target};
use crate::http::body::{RequestBody, ResponseBody};
use crate::http::respond;
use crate::metrics::requests::Unreached;

/// Discovery documents are small, and clients ask all servers for theirs.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Passes the request on. Where that fails the answer is text, as upstream's.
pub(crate) async fn serve(
    server: &Arc<Server>,
    remote: &Remote,
    user: &UserInfo,
    request: Request<RequestBody>,
) -> Response<ResponseBody> {
    if !remote.available {
        return unavailable("service unavailable");
    }
    let mut claims = HeaderMap::new();
    request_header::set(&mut claims, user);
    let uri = request.uri();
    let discovery = uri.path().split('/').filter(|part| !part.is_empty()).count() == 3;
    let path = uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string);
    let target = Target { peer: remote.peer.clone(), path, claims };
    let sent = forward::send(server.outbound(), &target, request);
    let answer = match discovery {
        true => tokio::time::timeout(DISCOVERY_TIMEOUT, sent).await,
        false => Ok(sent.await),
    };
    match answer {
        Ok(Ok(response)) => response,
        Ok(Err(ForwardError::Dial(error))) if error.nowhere() => unavailable("service unavailable"),
        Ok(Err(error)) => unavailable(&format!("error trying to reach service: {error}")),
        Err(_) => unavailable("error trying to reach service: context deadline exceeded"),
    }
}

fn unavailable(why: &str) -> Response<ResponseBody> {
    let mut response = respond::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    response.extensions_mut().insert(Unreached);
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}
