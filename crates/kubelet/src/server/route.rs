//! From a request to its answer.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kminik_base::component::BoxError;

use super::Shared;
use super::access::{Denied, Wanted};
use super::query::Query;
use super::{images, node_logs, streams};
use crate::access::AccessError;
use crate::logs::{LogOptions, Stream};

pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Why a request is answered with an error; the text is the body.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Failure {
        Failure { status, text: text.into() }
    }

    pub(super) fn bad_request(text: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, text)
    }

    pub(super) fn not_found() -> Failure {
        Failure::new(StatusCode::NOT_FOUND, "404 page not found")
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Failure {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Failure::new(status, kminik_base::component::chain(&error))
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Failure {
        let status = match denied {
            Denied::Unauthenticated => StatusCode::UNAUTHORIZED,
            Denied::Forbidden { .. } => StatusCode::FORBIDDEN,
            Denied::Review(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Failure::new(status, denied.to_string())
    }
}

impl From<kminik_streaming::UpgradeError> for Failure {
    fn from(error: kminik_streaming::UpgradeError) -> Failure {
        Failure::new(error.status(), error.to_string())
    }
}

/// Answers every request; what fails is an answer too.
pub(super) async fn answer(
    shared: Arc<Shared>,
    leaf: Option<Arc<[u8]>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let wanted = Wanted::of(request.method(), request.uri().path());
    let checked = shared.access.check(leaf.as_deref(), request.headers(), wanted).await;
    let answered = match checked {
        Ok(()) => serve(&shared, request).await,
        Err(denied) => Err(denied.into()),
    };
    Ok(answered.unwrap_or_else(|failure| {
        let mut response = text(format!("{}\n", failure.text.trim_end()));
        *response.status_mut() = failure.status;
        response
    }))
}

async fn serve(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let path = percent_decoded(request.uri().path());
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let query = Query::of(request.uri());
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["healthz"] | ["healthz", "ping" | "syncloop" | "log"]) => Ok(text("ok")),
        (&Method::GET, ["pods"] | ["runningpods"]) => pods(shared),
        (&Method::GET, ["metrics"]) => metrics(shared).await,
        (&Method::GET, ["logs", rest @ ..]) => node_logs::serve(&shared.config.log_dir, rest).await,
        (&Method::GET, ["containerLogs", namespace, pod, container]) => {
            let options = log_options(&query)?;
            let logs = shared.kubelet.logs(namespace, pod, Some(container), options).await?;
            let frames = logs.map_ok(Frame::data).map_err(BoxError::from);
            Ok(plain(BodyExt::boxed_unsync(StreamBody::new(frames))))
        }
        (&Method::GET | &Method::POST, ["exec", namespace, pod, rest @ ..]) => {
            let (uid, container) = uid_and_container(rest)?;
            streams::exec(shared, request, &query, namespace, pod, uid, container).await
        }
        (&Method::GET | &Method::POST, ["attach", namespace, pod, rest @ ..]) => {
            let (uid, container) = uid_and_container(rest)?;
            streams::attach(shared, request, &query, namespace, pod, uid, container).await
        }
        (&Method::GET | &Method::POST, ["portForward", namespace, pod, rest @ ..]) => match rest {
            [] => streams::port_forward(shared, request, &query, namespace, pod, None).await,
            [uid] => streams::port_forward(shared, request, &query, namespace, pod, Some(uid)).await,
            _ => Err(Failure::not_found()),
        },
        (&Method::POST, ["run", namespace, pod, rest @ ..]) => {
            let (uid, container) = uid_and_container(rest)?;
            streams::run(shared, &query, namespace, pod, uid, container).await
        }
        (_, ["kminik", "v1", "images", rest @ ..]) => images::serve(shared, rest, request).await,
        _ => Err(Failure::not_found()),
    }
}

/// The forms `<container>` and `<uid>/<container>`.
fn uid_and_container<'a>(rest: &[&'a str]) -> Result<(Option<&'a str>, &'a str), Failure> {
    match rest {
        [container] => Ok((None, container)),
        [uid, container] => Ok((Some(uid), container)),
        _ => Err(Failure::not_found()),
    }
}

fn pods(shared: &Shared) -> Result<Response<Body>, Failure> {
    let items = shared.kubelet.pods();
    let list = serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items });
    Ok(json(&list))
}

async fn metrics(shared: &Shared) -> Result<Response<Body>, Failure> {
    let runtime = shared.kubelet.runtime();
    let failed = |error: kminik_runtime::RuntimeError| AccessError::Runtime(error);
    let containers = runtime.list_containers().await.map_err(failed)?;
    let stats = runtime.stats().await.map_err(failed)?;
    let mut out = String::new();
    let mut metric = |name: &str, help: &str, kind: &str, rows: Vec<(String, String)>| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let pods = shared.kubelet.pods().len();
    metric(
        "kubelet_running_pods",
        "Number of pods that have a running pod sandbox",
        "gauge",
        vec![(String::new(), pods.to_string())],
    );
    let mut by_state = std::collections::BTreeMap::new();
    for container in &containers {
        *by_state.entry(format!("{:?}", container.state).to_lowercase()).or_insert(0) += 1;
    }
    let rows =
        by_state.into_iter().map(|(state, count)| (format!("{{container_state=\"{state}\"}}"), count.to_string()));
    metric("kubelet_running_containers", "Number of containers by state", "gauge", rows.collect());
    let label = |id: &str| {
        let name = containers.iter().find(|container| container.id == id).map(|container| container.name.as_str());
        format!("{{id=\"{id}\",container=\"{}\"}}", name.unwrap_or_default())
    };
    let cpu = stats.iter().map(|stat| (label(&stat.id), format!("{}", stat.cpu_usage_ns as f64 / 1e9)));
    metric("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds", "counter", cpu.collect());
    let memory = stats.iter().map(|stat| (label(&stat.id), stat.memory_working_set_bytes.to_string()));
    metric("container_memory_working_set_bytes", "Current working set in bytes", "gauge", memory.collect());
    let mut response = text(out);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    Ok(response)
}

fn log_options(query: &Query) -> Result<LogOptions, Failure> {
    let number = |name: &str| -> Result<Option<u64>, Failure> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Failure::bad_request(format!("{name}: {text:?} is not a number of 0 or more")))
        };
        query.get(name).map(parse).transpose()
    };
    let seconds = number("sinceSeconds")?;
    let time = query.get("sinceTime").map(|text| {
        text.parse::<Timestamp>()
            .map_err(|_| Failure::bad_request(format!("sinceTime: {text:?} is not an RFC 3339 time")))
    });
    let since = match (seconds, time.transpose()?) {
        (Some(_), Some(_)) => {
            return Err(Failure::bad_request("at most one of sinceTime or sinceSeconds may be specified"));
        }
        (Some(seconds), None) => {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).ok()
        }
        (None, time) => time,
    };
    let stream = match query.get("stream") {
        None | Some("All") => Stream::All,
        Some("Stdout") => Stream::Stdout,
        Some("Stderr") => Stream::Stderr,
        Some(other) => return Err(Failure::bad_request(format!("stream: {other:?} is none of All, Stdout, Stderr"))),
    };
    Ok(LogOptions {
        previous: query.flag(&["previous"]),
        follow: query.flag(&["follow"]),
        timestamps: query.flag(&["timestamps"]),
        tail_lines: number("tailLines")?,
        since,
        limit_bytes: number("limitBytes")?,
        stream,
    })
}

fn percent_decoded(path: &str) -> String {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let escaped = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *byte == b'%') {
            Some(value) => {
                out.push(value);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn plain(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

pub(super) fn text(text: impl Into<Bytes>) -> Response<Body> {
    plain(body(text))
}

pub(super) fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(body(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Result<LogOptions, Failure> {
        log_options(&Query::of(&format!("/containerLogs/a/b/c?{query}").parse().unwrap()))
    }

    #[test]
    fn log_options_are_read_and_refused() {
        let read =
            options("follow=true&tailLines=5&limitBytes=10&timestamps=true&previous=false&sinceSeconds=60").unwrap();
        assert!(read.follow && read.timestamps && !read.previous);
        assert_eq!((read.tail_lines, read.limit_bytes), (Some(5), Some(10)));
        let age = Timestamp::now().duration_since(read.since.unwrap()).as_secs();
        assert!((59..=61).contains(&age));
        for bad in ["tailLines=-1", "sinceTime=yesterday", "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", "stream=x"]
        {
            assert_eq!(options(bad).unwrap_err().status, StatusCode::BAD_REQUEST, "{bad}");
        }
    }

    #[test]
    fn paths_are_decoded_once() {
        assert_eq!(percent_decoded("/logs/a%20b%2525"), "/logs/a b%25");
        assert_eq!(percent_decoded("/x%"), "/x%");
    }
}
