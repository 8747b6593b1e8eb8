//! gRPC health checks (grpc.health.v1) over one HTTP/2 connection.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    /// 1 is SERVING.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The states of a service, by number.
const STATES: &[&str] = &["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: i32 = 1;
/// What calls end with, by grpc-status.
const CODES: &[&str] = &[
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const ANSWER_BYTES: usize = 4096;

/// What a check found when it is not SERVING, in upstream's words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrpcError {
    #[error("timeout: failed to connect service \"{0}\" within {1:?}: context deadline exceeded")]
    ConnectTimeout(String, Duration),
    #[error("timeout: health rpc did not complete within {0:?}")]
    Timeout(Duration),
    #[error("error: failed to connect service at \"{target}\": {}", super::http::cause(source))]
    Connect { target: String, source: std::io::Error },
    #[error("error: health rpc probe failed: {0}")]
    Protocol(#[from] hyper::Error),
    #[error("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {0}")]
    Unimplemented(String),
    #[error("error: health rpc probe failed: rpc error: code = {code} desc = {message}")]
    Status { code: String, message: String },
    #[error("error: health rpc probe failed: {0}")]
    Answer(String),
    #[error("service unhealthy (responded with \"{0}\")")]
    Unhealthy(String),
}

/// Checks a service within the time.
pub(crate) async fn check(ip: IpAddr, port: u16, service: &str, timeout: Duration) -> Result<(), GrpcError> {
    let target = std::net::SocketAddr::new(ip, port);
    let deadline = Instant::now() + timeout;
    let stream = tokio::time::timeout_at(deadline, TcpStream::connect(target)).await;
    let stream = stream.map_err(|_| GrpcError::ConnectTimeout(target.to_string(), timeout))?;
    let stream = stream.map_err(|source| GrpcError::Connect { target: target.to_string(), source })?;
    let answer = tokio::time::timeout_at(deadline, ask(stream, &target.to_string(), service)).await;
    answer.map_err(|_| GrpcError::Timeout(timeout))?
}

async fn ask(stream: TcpStream, target: &str, service: &str) -> Result<(), GrpcError> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let message = HealthCheckRequest { service: service.to_string() }.encode_to_vec();
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(&message);
    let request = http::Request::post(format!("http://{target}/grpc.health.v1.Health/Check"))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .header(http::header::USER_AGENT, "kube-probe/1.35")
        .body(Full::new(frame.freeze()))
        .map_err(|error| GrpcError::Answer(error.to_string()))?;
    let answer = sender.send_request(request).await?;
    let head = answer.headers().clone();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
    let body = body.map_err(|error| GrpcError::Answer(error.to_string()))?;
    // A call that fails at once says so in the head.
    let trailers = body.trailers().cloned().unwrap_or(head);
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let status = text("grpc-status");
    let code = status.parse().ok().and_then(|number: usize| CODES.get(number)).copied();
    match code {
        Some("OK") => decode(body.to_bytes()),
        Some("Unimplemented") => Err(GrpcError::Unimplemented(text("grpc-message"))),
        _ if status.is_empty() => Err(GrpcError::Answer("no grpc-status".into())),
        _ => {
            let code = code.map_or_else(|| format!("Code({status})"), ToOwned::to_owned);
            Err(GrpcError::Status { code, message: text("grpc-message") })
        }
    }
}

fn decode(body: Bytes) -> Result<(), GrpcError> {
    let message = body.get(5..).ok_or_else(|| GrpcError::Answer("short message".into()))?;
    let answer = HealthCheckResponse::decode(message).map_err(|error| GrpcError::Answer(error.to_string()))?;
    if answer.status == SERVING {
        return Ok(());
    }
    let named = usize::try_from(answer.status).ok().and_then(|number| STATES.get(number));
    Err(GrpcError::Unhealthy(named.map_or_else(|| answer.status.to_string(), |name| (*name).to_owned())))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::{HeaderMap, HeaderValue, Response};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    use super::*;

    /// Answers as a gRPC server does: by the service's name, a state or a grpc-status; `hangs` never.
    async fn server() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    assert_eq!(request.headers()["te"], "trailers");
                    let asked = request.into_body().collect().await?.to_bytes();
                    let asked = HealthCheckRequest::decode(&asked[5..]).unwrap().service;
                    let (state, status) = match asked.as_str() {
                        "" => (Some(1), "0"),
                        "hangs" => std::future::pending().await,
                        "strange" => (None, "12"),
                        "away" => (None, "14"),
                        number => (number.parse().ok(), "0"),
                    };
                    let message = HealthCheckResponse { status: state.unwrap_or_default() }.encode_to_vec();
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static(status));
                    trailers.insert("grpc-message", HeaderValue::from_static("why"));
                    let mut data = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
                    data.extend(message);
                    let data = state.map(|_| Frame::data(Bytes::from(data)));
                    let frames = data.into_iter().chain([Frame::trailers(trailers)]).map(Ok::<_, hyper::Error>);
                    Ok::<_, hyper::Error>(Response::new(StreamBody::new(futures::stream::iter(frames))))
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        port
    }

    #[tokio::test]
    async fn services_serve_or_say_why_not() {
        let port = server().await;
        let ask = |service: &'static str| async move {
            let found = check(Ipv4Addr::LOCALHOST.into(), port, service, Duration::from_millis(500)).await;
            found.map_err(|error| error.to_string())
        };
        assert_eq!(ask("").await, Ok(()));
        for (service, why) in [
            ("2", "service unhealthy (responded with \"NOT_SERVING\")"),
            ("0", "service unhealthy (responded with \"UNKNOWN\")"),
            ("77", "service unhealthy (responded with \"77\")"),
            ("strange", "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): why"),
            ("away", "error: health rpc probe failed: rpc error: code = Unavailable desc = why"),
            ("hangs", "timeout: health rpc did not complete within 500ms"),
        ] {
            assert_eq!(ask(service).await.unwrap_err(), why);
        }
        let nobody = check(Ipv4Addr::LOCALHOST.into(), 1, "", Duration::from_secs(5)).await;
        assert!(matches!(nobody, Err(GrpcError::Connect { .. })), "{nobody:?}");
    }
}
