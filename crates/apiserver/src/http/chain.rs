//! The chain every request passes: identify, authenticate, audit, impersonate, wait for its turn, authorise, route.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use kminik_meta::StatusError;
use parking_lot::Mutex;

use super::accept::{self, Accepted};
use super::body::{RequestBody, ResponseBody};
use super::info::{Query, RequestInfo};
use super::socket::Socket;
use super::{compress, plain, respond};
use crate::Server;
use crate::aggregation;
use crate::audit::{Audit, Completion, Stage};
use crate::auth::{self, Attributes, Decision, Note, PeerCertificates, UserInfo};
use crate::bootstrap;
use crate::flowcontrol::{self, Flow};
use crate::metrics::Filter;
use crate::metrics::requests::{self, AGGREGATOR, Served, Unreached, Way};
use crate::verbs;
use crate::verbs::call::Call;

/// Names a request in logs; a client may give its own.
const AUDIT_ID: &str = "audit-id";
/// A longer one is the client's own affair.
const AUDIT_ID_LIMIT: usize = 64;
const FLOW_SCHEMA_UID: &str = "x-kubernetes-pf-flowschema-uid";
const PRIORITY_LEVEL_UID: &str = "x-kubernetes-pf-prioritylevel-uid";

/// What a client is told besides the answer, or besides the error.
pub(crate) type Warnings = Arc<Mutex<Vec<String>>>;

/// How the peer of a request is known.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// By what it sends; the handshake gave these certificates.
    Remote(PeerCertificates, std::net::IpAddr),
    /// A part of this process.
    Known(UserInfo),
}

impl Peer {
    /// Whether it is a node of the cluster, by its certificate.
    pub(crate) fn is_node(&self) -> bool {
        matches!(self, Peer::Remote(certificates, _) if certificates.is_node())
    }
}

/// What becomes known of a request on its way, for those who write about it and for the answer's headers.
struct Exchange {
    /// By which the client and the audit log know the request.
    id: String,
    received: Timestamp,
    /// Dropped, and by that written, when the request has ended.
    completion: Completion,
    flow: Flow,
    warnings: Warnings,
    way: Way,
    /// Where a watch's events go, if not into the answer's body.
    socket: Option<Socket>,
}

impl Exchange {
    fn of(request: &Request<RequestBody>) -> Self {
        // A client may name its request, so that several servers write of it under one name.
        let given = request.headers().get(AUDIT_ID).and_then(|id| id.to_str().ok());
        let given = given.filter(|id| !id.is_empty() && id.len() <= AUDIT_ID_LIMIT);
        Exchange {
            id: given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned),
            received: Timestamp::now(),
            completion: Completion::default(),
            flow: Flow::default(),
            warnings: Warnings::default(),
            way: Way::default(),
            socket: None,
        }
    }

    fn audit(&self) -> &Audit {
        &self.completion.0
    }

    /// Tells the client by which names its request is known.
    fn set_headers(&self, headers: &mut HeaderMap) {
        let Flow { schema_uid, level_uid } = &self.flow;
        let id = HeaderValue::from_str(&self.id).ok();
        for (name, value) in [(AUDIT_ID, &id), (FLOW_SCHEMA_UID, schema_uid), (PRIORITY_LEVEL_UID, level_uid)] {
            if let Some(value) = value {
                headers.insert(HeaderName::from_static(name), value.clone());
            }
        }
    }
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
    let measured = {
        let content_type = accept::content_type(request.headers());
        let facts =
            requests::Request { method: request.method(), query: &query, content_type: content_type.as_deref() };
        server.metrics().begin(&info, &facts, served(&server, &info))
    };
    let mut exchange = Exchange::of(&request);
    let long_running = info.long_running();
    let mut response = match limited(&server, peer, info, query, request, &mut exchange).await {
        Ok(response) => {
            exchange.audit().responded(response.status().as_u16(), None);
            response
        }
        Err(error) => {
            exchange.audit().responded(error.code(), Some(&error));
            respond::error(&error, error_form)
        }
    };
    respond::add_warnings(&mut response, &exchange.warnings.lock());
    let mut response = measured.end(response, std::mem::take(&mut exchange.way));
    if !response.headers().contains_key(CACHE_CONTROL) {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    exchange.set_headers(response.headers_mut());
    if long_running {
        exchange.audit().reached(Stage::ResponseStarted);
    }
    let socket = exchange.socket.take().filter(|_| response.status() == StatusCode::OK);
    if let (true, ResponseBody::Stream(stream)) = (exchange.audit().is_on(), response.body_mut()) {
        // The request ends with its last byte.
        let stream = std::mem::replace(stream, futures::stream::empty().boxed());
        let completion = exchange.completion;
        *response.body_mut() = ResponseBody::stream(stream.map(move |piece| {
            let _ = &completion;
            piece
        }));
    }
    if head {
        *response.body_mut() = ResponseBody::empty();
    }
    match socket {
        Some(socket) => socket.carry(response),
        None => response,
    }
}

fn served(server: &Server, info: &RequestInfo) -> Served {
    let table = server.registry().table();
    let here = table.row(&info.group, &info.resource).is_some_and(|row| {
        row.version(&info.version).is_some()
            && (info.subresource.is_empty() || row.in_version(&info.version).subresource(&info.subresource).is_some())
    });
    match here {
        true => Served::Here,
        false if table.remote_of(&info.path).is_some() => Served::Elsewhere,
        false => Served::Nowhere,
    }
}

async fn limited(
    server: &Arc<Server>,
    peer: Peer,
    info: RequestInfo,
    query: Query,
    request: Request<RequestBody>,
    exchange: &mut Exchange,
) -> Result<Response<ResponseBody>, StatusError> {
    if info.long_running() || matches!(peer, Peer::Known(_)) {
        return authorised(server, peer, info, query, request, exchange).await;
    }
    // The client may want it sooner, never later.
    let most = server.config().request_timeout;
    let asked = query
        .duration("timeout")
        .map_err(|error| StatusError::bad_request(format!("invalid timeout specified in the request URL - {error}")))?;
    let timeout = asked.filter(|asked| !asked.is_zero()).map_or(most, |asked| asked.min(most));
    let answered = authorised(server, peer, info, query, request, exchange);
    match tokio::time::timeout(timeout, answered).await {
        Ok(answer) => answer,
        Err(_) => {
            exchange.way.terminate();
            Err(StatusError::timeout("request did not complete within the allotted timeout", 0))
        }
    }
}

async fn authorised(
    server: &Arc<Server>,
    peer: Peer,
    mut info: RequestInfo,
    query: Query,
    request: Request<RequestBody>,
    exchange: &mut Exchange,
) -> Result<Response<ResponseBody>, StatusError> {
    let (mut parts, body) = request.into_parts();
    let noted = server.auditor().is_some() || parts.headers.contains_key(AUTHORIZATION);
    let notes = noted.then(auth::Notes::default);
    if let Some(notes) = &notes {
        parts.extensions.insert(notes.clone());
    }
    let (metrics, started) = (server.metrics(), Instant::now());
    let (address, known) = match peer {
        Peer::Known(user) => (Some(std::net::Ipv4Addr::LOCALHOST.into()), Ok(Some(user))),
        Peer::Remote(certificates, address) => {
            let known = server.authenticator().authenticate(&parts, &certificates).await;
            auth::meters::authenticated(metrics, &known, metrics.passed(Filter::Authentication, started));
            (Some(address), known)
        }
    };
    let (user, refusal) = match known {
        Ok(Some(user)) => (user, None),
        Ok(None) => (UserInfo::default(), Some(StatusError::unauthorized())),
        Err(error) => (UserInfo::default(), Some(error)),
    };
    let mut attributes = attributes(&info, &query, user);
    let started = Instant::now();
    if let Some(auditor) = server.auditor() {
        let audit = auditor.begin(&exchange.id, exchange.received, address, &parts, &attributes)?;
        exchange.completion = Completion(audit);
    }
    metrics.passed(Filter::Audit, started);
    for note in notes.iter().flat_map(auth::Notes::take) {
        match note {
            Note::Audit(key, value) => exchange.audit().annotate(key, || value),
            Note::Warning(text) => exchange.warnings.lock().push(text.to_owned()),
        }
    }
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    let started = Instant::now();
    if let Some(impersonated) = auth::impersonate(&parts.headers, &attributes.user, server.authorizer()).await? {
        exchange.audit().impersonated(&impersonated);
        attributes.user = impersonated;
    }
    metrics.passed(Filter::Impersonation, started);
    // What lasts is not counted once it has begun: watches until they have, the others not at all.
    let started = Instant::now();
    let _turn = if info.verb == "watch" || !info.long_running() {
        let estimate = |widest, meters: &_| flowcontrol::work(server.registry(), &info, &query, widest, meters);
        let turn = server.flow().admit(&info, &attributes.user, &mut exchange.flow, estimate).await;
        turn.inspect_err(|_| exchange.way.terminate())?
    } else {
        None
    };
    exchange.way.waited.add(metrics.passed(Filter::Fairness, started));
    let started = Instant::now();
    let decision = server.authorizer().authorize(&attributes).await;
    auth::meters::authorized(metrics, &decision, metrics.passed(Filter::Authorization, started));
    exchange.audit().authorized(&decision);
    match decision {
        Decision::Allow { .. } => {}
        Decision::NoOpinion { reason } | Decision::Deny { reason } => {
            return Err(auth::forbidden(&attributes, &reason));
        }
    }
    exchange.way.reached = true;
    let user = attributes.user;
    exchange.way.own = user.name == bootstrap::USER;
    let table = server.registry().table();
    if let Some(remote) = table.remote_of(&info.path) {
        let response = aggregation::proxy::serve(server, remote, &user, Request::from_parts(parts, body)).await;
        exchange.way.terminated = response.extensions().get::<Unreached>().map(|_| AGGREGATOR);
        return Ok(response);
    }
    if !info.is_resource {
        return plain::serve(server, &info, &parts).await;
    }
    let mut request = Request::from_parts(parts, body);
    let Some((row, version)) = table.resolve(&info.group, &info.version, &info.resource) else {
        return Err(StatusError::resource_not_found());
    };
    if !row.namespaced() {
        // Rights on a namespace are asked for within it; as an object it is in none.
        info.namespace.clear();
    }
    let headers = request.headers().clone();
    let below = row.subresource(&info.subresource).map(|sub| &sub.kind);
    let connects = below.is_some_and(|kind| kind.connects());
    let built_in = version.schema.is_named();
    let served = info.subresource.is_empty() || below.is_some();
    if built_in && served && !connects && request.method() == Method::HEAD {
        return Err(StatusError::method_not_allowed());
    }
    let (protobuf, table_form) = (built_in, row.has_tables(below));
    let accepted = if connects { Accepted::JSON } else { accept::negotiate(&headers, &query, protobuf, table_form)? };
    accept::check_table(accepted, &query)?;
    if let Some(deprecation) = &version.deprecation {
        exchange.warnings.lock().push(deprecation.to_string());
        exchange.audit().annotate("k8s.io/deprecated", || "true".to_owned());
        // Nothing that is served here is to be removed in a release that is known.
        let labels = [&row.group, "", &row.plural, info.subresource.as_str(), &version.name];
        metrics.table.requests.deprecated.with(labels).set(1.0);
    }
    if info.verb == "watch" {
        exchange.socket = Socket::of(&mut request)?;
    }
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
        warnings: exchange.warnings.clone(),
        waited: exchange.way.waited.clone(),
        audit: exchange.audit().clone(),
        row,
    };
    let response = verbs::run(call, request).await?;
    if let (true, ResponseBody::Chunks { chunks, .. }) = (exchange.audit().wants_response(), response.body()) {
        exchange.audit().response_object(chunks.iter().map(|chunk| &chunk[..]));
    }
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
