//! The chain every request passes: identify, limit, authenticate, impersonate, authorise, route.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use jiff::Timestamp;
use kminik_meta::StatusError;
use parking_lot::Mutex;

use super::accept::{self, Accepted};
use super::body::{RequestBody, ResponseBody};
use super::info::{Query, RequestInfo};
use super::{compress, plain, respond};
use crate::Server;
use crate::auth::{self, Attributes, Decision, PeerCertificates, UserInfo};
use crate::metrics;
use crate::verbs;
use crate::verbs::call::Call;

/// Names a request in logs; a client may give its own.
static AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What a client is told besides the answer, or besides the error.
pub(crate) type Warnings = Arc<Mutex<Vec<String>>>;

/// How the peer of a request is known.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// By what it sends; the handshake gave these certificates.
    Remote(PeerCertificates),
    /// A part of this process.
    Known(UserInfo),
}

/// Answers a request. Never fails: a failure is an answer, too.
pub(crate) fn handle(
    server: Arc<Server>,
    peer: Peer,
    request: Request<RequestBody>,
) -> BoxFuture<'static, Response<ResponseBody>> {
    // Boxed, so that what a connection waits for is one small type.
    Box::pin(answer(server, peer, request))
}

async fn answer(server: Arc<Server>, peer: Peer, request: Request<RequestBody>) -> Response<ResponseBody> {
    let info = RequestInfo::of(request.method(), request.uri());
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let head = request.method() == Method::HEAD;
    let error_form = accept::negotiate_error(request.headers(), &query);
    let audit_id = request.headers().get(&AUDIT_ID).cloned().or_else(new_audit_id);
    let started = std::time::Instant::now();
    let measured = {
        let content_type = accept::content_type(request.headers());
        let facts = metrics::Request { method: request.method(), query: &query, content_type: content_type.as_deref() };
        server.metrics().begin(&info, &facts, known(&server, &info))
    };
    let warnings = Warnings::default();
    let mut response = match limited(&server, peer, info.clone(), query, request, &warnings).await {
        Ok(response) => response,
        Err(error) => respond::error(&error, error_form),
    };
    respond::add_warnings(&mut response, &warnings.lock());
    let mut response = measured.end(response, started.elapsed());
    if !response.headers().contains_key(CACHE_CONTROL) {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    if let Some(id) = audit_id {
        response.headers_mut().entry(&AUDIT_ID).or_insert(id);
    }
    if head {
        *response.body_mut() = ResponseBody::empty();
    }
    response
}

fn new_audit_id() -> Option<HeaderValue> {
    HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok()
}

fn known(server: &Server, info: &RequestInfo) -> bool {
    let table = server.registry().table();
    table.row(&info.group, &info.resource).is_some_and(|row| {
        row.version(&info.version).is_some()
            && (info.subresource.is_empty() || row.subresource(&info.subresource).is_some())
    })
}

async fn limited(
    server: &Arc<Server>,
    peer: Peer,
    info: RequestInfo,
    query: Query,
    request: Request<RequestBody>,
    warnings: &Warnings,
) -> Result<Response<ResponseBody>, StatusError> {
    if info.long_running() || matches!(peer, Peer::Known(_)) {
        return authorised(server, peer, info, query, request, warnings).await;
    }
    // The client may want it sooner, never later.
    let most = server.config().request_timeout;
    let asked = query
        .duration("timeout")
        .map_err(|error| StatusError::bad_request(format!("invalid timeout specified in the request URL - {error}")))?;
    let timeout = asked.filter(|asked| !asked.is_zero()).map_or(most, |asked| asked.min(most));
    let Ok(_slot) = server.in_flight().try_acquire() else {
        return Err(StatusError::too_many_requests("Too many requests, please try again later.", 1));
    };
    let answered = authorised(server, peer, info, query, request, warnings);
    match tokio::time::timeout(timeout, answered).await {
        Ok(answer) => answer,
        Err(_) => Err(StatusError::timeout("request did not complete within the allotted timeout", 0)),
    }
}

async fn authorised(
    server: &Arc<Server>,
    peer: Peer,
    mut info: RequestInfo,
    query: Query,
    request: Request<RequestBody>,
    warnings: &Warnings,
) -> Result<Response<ResponseBody>, StatusError> {
    let (parts, body) = request.into_parts();
    let user = match peer {
        Peer::Known(user) => user,
        Peer::Remote(certificates) => {
            server.authenticator().authenticate(&parts, &certificates).await?.ok_or_else(StatusError::unauthorized)?
        }
    };
    let user = match auth::impersonate(&parts.headers, &user, server.authorizer()).await? {
        Some(impersonated) => impersonated,
        None => user,
    };
    let attributes = attributes(&info, &query, user);
    match server.authorizer().authorize(&attributes).await {
        Decision::Allow { .. } => {}
        Decision::NoOpinion { reason } | Decision::Deny { reason } => {
            return Err(auth::forbidden(&attributes, &reason));
        }
    }
    let user = attributes.user;
    if !info.is_resource {
        return plain::serve(server, &info, &parts).await;
    }
    let request = Request::from_parts(parts, body);
    let table = server.registry().table();
    let Some((row, version)) = table.resolve(&info.group, &info.version, &info.resource) else {
        return Err(StatusError::resource_not_found());
    };
    if !row.namespaced() {
        // Rights on a namespace are asked for within it; as an object it is in none.
        info.namespace.clear();
    }
    let headers = request.headers().clone();
    let connects = row.subresource(&info.subresource).is_some_and(|sub| sub.kind.connects());
    let protobuf = version.schema.is_named();
    let accepted = if connects { Accepted::JSON } else { accept::negotiate(&headers, &query, protobuf)? };
    warnings.lock().extend(version.deprecation.iter().map(ToString::to_string));
    let compressible = matches!(info.verb.as_str(), "get" | "list") && !connects;
    let call = Call {
        server: server.clone(),
        version,
        info,
        query,
        headers: headers.clone(),
        user,
        accepted,
        now: Timestamp::now(),
        warnings: warnings.clone(),
        row,
    };
    let response = verbs::run(call, request).await?;
    Ok(if compressible { compress::gzip(&headers, response) } else { response })
}

fn attributes(info: &RequestInfo, query: &Query, user: UserInfo) -> Attributes {
    Attributes {
        user,
        verb: info.verb.clone(),
        resource_request: info.is_resource,
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
        namespace: info.namespace.clone(),
        name: info.name.clone(),
        path: info.path.clone(),
        field_selector: query.get("fieldSelector").unwrap_or_default().to_owned(),
        label_selector: query.get("labelSelector").unwrap_or_default().to_owned(),
    }
}
