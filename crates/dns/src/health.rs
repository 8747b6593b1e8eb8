//! HTTP answers to the kubelet's probes: `200 OK` or `503`, whatever is asked.
//!
//! What is not ready yet is waited for a moment before the answer is 503: who starts is ready at its first probe, not its second.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

const MAX_CONNECTIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer waits for good news; a probe gives up after 1 s by default.
const HOLD: Duration = Duration::from_millis(700);

/// Serves until dropped.
pub(crate) async fn serve(listener: TcpListener, healthy: watch::Receiver<bool>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, mostly: give others time to close theirs.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let healthy = healthy.clone();
        tokio::spawn(async move {
            let _permit = permit;
            // A client that goes away early has no use for an error.
            let _ = tokio::time::timeout(PATIENCE, answer(stream, healthy)).await;
        });
    }
}

async fn answer(mut stream: TcpStream, mut healthy: watch::Receiver<bool>) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(1024);
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") && request.len() < 8192 {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let good = tokio::time::timeout(HOLD, healthy.wait_for(|good| *good)).await.is_ok_and(|told| told.is_ok());
    let (status, body) = if good { ("200 OK", "OK") } else { ("503 Service Unavailable", "not ready") };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
