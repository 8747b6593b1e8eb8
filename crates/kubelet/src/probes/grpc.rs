//! gRPC health checks (grpc.health.v1) over one HTTP/2 connection.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

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

const SERVING: i32 = 1;
const ANSWER_BYTES: usize = 4096;

/// What a check found when it is not SERVING.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrpcError {
    #[error("timeout: failed to connect service \"{0}\" within {1:?}: context deadline exceeded")]
    Timeout(String, Duration),
    #[error("failed to connect service \"{target}\": {}", super::http::cause(source))]
    Connect { target: String, source: std::io::Error },
    #[error("health rpc failed: {0}")]
    Protocol(#[from] hyper::Error),
    #[error("health rpc failed: grpc status {0}")]
    Status(String),
    #[error("health rpc failed: {0}")]
    Answer(String),
    #[error("service unhealthy (responded with \"{0}\")")]
    Unhealthy(i32),
}

/// Checks a service within the time.
pub(crate) async fn check(ip: IpAddr, port: u16, service: &str, timeout: Duration) -> Result<(), GrpcError> {
    let target = std::net::SocketAddr::new(ip, port).to_string();
    let run = ask(ip, port, service, &target);
    tokio::time::timeout(timeout, run).await.map_err(|_| GrpcError::Timeout(target.clone(), timeout))?
}

async fn ask(ip: IpAddr, port: u16, service: &str, target: &str) -> Result<(), GrpcError> {
    let stream = TcpStream::connect((ip, port)).await;
    let stream = stream.map_err(|source| GrpcError::Connect { target: target.to_string(), source })?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
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
    let outcome = async {
        let answer = sender.send_request(request).await?;
        let head = answer.headers().clone();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| GrpcError::Answer(error.to_string()))?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = trailers
            .get("grpc-status")
            .or(head.get("grpc-status"))
            .and_then(|s| s.to_str().ok())
            .map(ToString::to_string);
        match status.as_deref() {
            Some("0") => decode(body.to_bytes()),
            Some(status) => Err(GrpcError::Status(status.to_string())),
            None => Err(GrpcError::Answer("no grpc-status".into())),
        }
    }
    .await;
    driver.abort();
    outcome
}

fn decode(body: Bytes) -> Result<(), GrpcError> {
    let message = body.get(5..).ok_or_else(|| GrpcError::Answer("short message".into()))?;
    let answer = HealthCheckResponse::decode(message).map_err(|error| GrpcError::Answer(error.to_string()))?;
    if answer.status == SERVING { Ok(()) } else { Err(GrpcError::Unhealthy(answer.status)) }
}
