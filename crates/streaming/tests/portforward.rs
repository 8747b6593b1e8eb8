//! Port forwarding: SPDY, SPDY inside WebSocket, WebSocket channels.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue};
use kminik_streaming::portforward;
use kminik_streaming::spdy::{Headers, Role, Session};
use kminik_streaming::websocket::ByteTunnel;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, protocol};

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, HeaderValue::from_static(value));
    }
    map
}

fn websocket(protocols: &'static str) -> HeaderMap {
    headers(&[
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", protocols),
    ])
}

/// Echoes on every port but 1, which fails.
fn serve(headers: HeaderMap, ports: &'static [u16]) -> DuplexStream {
    let (client, server) = tokio::io::duplex(16 * 1024);
    tokio::spawn(async move {
        let mut forwards = portforward::negotiate(&headers).unwrap().accept(server, ports).await.unwrap();
        while let Some(mut forward) = forwards.next().await {
            tokio::spawn(async move {
                if forward.port == 1 {
                    forward.error.fail("connection refused").await;
                    return;
                }
                let (mut read, mut write) = tokio::io::split(&mut forward.data);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
    client
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("hangs")
}

async fn forwards_by_spdy<Io: AsyncRead + AsyncWrite + Send + 'static>(io: Io) {
    let session = Session::start(io, Role::Client).unwrap();
    for (request, port) in [("0", "8080"), ("1", "1"), ("2", "9090")] {
        let of = |kind| Headers::new(&[("streamType", kind), ("port", port), ("requestID", request)]);
        let mut error = session.open(of("error")).unwrap();
        let mut data = session.open(of("data")).unwrap();
        error.writer.shutdown().await.unwrap();
        let sent = vec![request.as_bytes()[0]; 700_000];
        let copy = sent.clone();
        tokio::spawn(async move {
            let _ = data.writer.write_all(&copy).await;
            let _ = data.writer.shutdown().await;
        });
        let mut received = Vec::new();
        within(data.reader.read_to_end(&mut received)).await.unwrap();
        let mut text = String::new();
        within(error.reader.read_to_string(&mut text)).await.unwrap();
        if port == "1" {
            assert_eq!((received.len(), text.as_str()), (0, "connection refused"));
        } else {
            assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
            assert_eq!(text, "");
        }
    }
}

#[tokio::test]
async fn spdy() {
    let asked = headers(&[
        ("connection", "Upgrade"),
        ("upgrade", "SPDY/3.1"),
        ("x-stream-protocol-version", "portforward.k8s.io"),
    ]);
    forwards_by_spdy(serve(asked, &[])).await;
}

#[tokio::test]
async fn spdy_in_websocket() {
    let io = serve(websocket("SPDY/3.1+portforward.k8s.io"), &[]);
    forwards_by_spdy(ByteTunnel::client(io).await).await;
}

#[tokio::test]
async fn websocket_channels_begin_with_their_ports() {
    let io = serve(websocket("v4.channel.k8s.io"), &[8080, 1]);
    let mut socket = WebSocketStream::from_raw_socket(io, protocol::Role::Client, None).await;
    socket.send(Message::Binary(Bytes::from_static(b"\x00ping"))).await.unwrap();
    let mut seen = std::collections::BTreeMap::<u8, Vec<u8>>::new();
    within(async {
        while seen.values().map(Vec::len).sum::<usize>() < 8 + "ping".len() + "connection refused".len() {
            let Some(Ok(Message::Binary(data))) = socket.next().await else { panic!("closed: {seen:?}") };
            seen.entry(data[0]).or_default().extend_from_slice(&data[1..]);
        }
    })
    .await;
    assert_eq!(seen[&0], [&8080u16.to_le_bytes()[..], b"ping"].concat());
    assert_eq!(seen[&1], 8080u16.to_le_bytes());
    assert_eq!(seen[&2], 1u16.to_le_bytes());
    assert_eq!(seen[&3], [&1u16.to_le_bytes()[..], b"connection refused"].concat());
}

#[tokio::test]
async fn websocket_channels_close_when_all_have_ended() {
    let io = serve(websocket("v4.channel.k8s.io"), &[1, 1]);
    let mut socket = WebSocketStream::from_raw_socket(io, protocol::Role::Client, None).await;
    let closed = async {
        let mut told = 0;
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Close(_) => return told,
                data => told += data.len(),
            }
        }
        panic!("cut off without a goodbye");
    };
    // Four channels with their ports, two of them with an error.
    assert_eq!(within(closed).await, 4 * 3 + 2 * (1 + "connection refused".len()));
    within(async { while socket.next().await.is_some() {} }).await;
}

#[tokio::test]
async fn the_end_of_the_connection_follows_the_goodbye_before_it_is_answered() {
    let mut io = serve(websocket("v4.channel.k8s.io"), &[1]);
    let mut received = Vec::new();
    // Before the server gives the client up.
    tokio::time::timeout(Duration::from_secs(3), io.read_to_end(&mut received)).await.expect("no end").unwrap();
    assert!(received.ends_with(&[0x88, 2, 3, 0xe8]), "a Close frame that is normal: {received:?}");
}

#[tokio::test]
async fn dropping_the_server_ends_the_connection() {
    let (client, server) = tokio::io::duplex(1024);
    let asked = headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]);
    let forwards = portforward::negotiate(&asked).unwrap().accept(server, &[]).await.unwrap();
    let session = Session::start(client, Role::Client).unwrap();
    drop(forwards);
    within(session.gone().cancelled()).await;
}
