//! Remote command, each protocol by a client of its own kind over an in-memory connection.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use kminik_streaming::remotecommand::{self, Options, Outcome, TerminalSize, client};
use kminik_streaming::spdy::{Headers, Role, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, protocol};

const ALL: Options = Options { stdin: true, stdout: true, stderr: true, tty: false };

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, HeaderValue::from_static(value));
    }
    map
}

fn spdy(protocols: &'static str) -> HeaderMap {
    headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", protocols)])
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

/// A command that copies stdin to stdout, tells on stderr how much it was, and ends with `outcome`.
fn serve(headers: HeaderMap, options: Options, outcome: Outcome) -> DuplexStream {
    let (client, server) = tokio::io::duplex(16 * 1024);
    tokio::spawn(async move {
        let mut command = remotecommand::negotiate(&headers).unwrap().accept(server, options).await.unwrap();
        let mut copied = 0;
        if let (Some(stdin), Some(stdout)) = (&mut command.stdin, &mut command.stdout) {
            copied = tokio::io::copy(stdin, stdout).await.unwrap();
        }
        if let Some(stderr) = &mut command.stderr {
            stderr.write_all(format!("copied {copied}").as_bytes()).await.unwrap();
        }
        if let Some(resize) = &mut command.resize {
            let size = resize.recv().await.unwrap();
            let text = format!("{}x{}", size.width, size.height);
            command.stdout.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
        }
        drop((command.stdin, command.stdout, command.stderr));
        command.exit.finish(outcome).await;
    });
    client
}

fn stream_type(name: &str) -> Headers {
    Headers::new(&[("streamType", name)])
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("hangs")
}

#[tokio::test]
async fn spdy_v4_half_close_large_data_and_exit_code() {
    let io = serve(spdy("v4.channel.k8s.io,v3.channel.k8s.io"), ALL, Outcome::ExitCode(7));
    within(async {
        let session = Session::start(io, Role::Client).unwrap();
        let mut error = session.open(stream_type("error")).unwrap();
        let mut stdin = session.open(stream_type("stdin")).unwrap();
        let mut stdout = session.open(stream_type("stdout")).unwrap();
        let mut stderr = session.open(stream_type("stderr")).unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 + n / 251) as u8).collect();
        let copy = sent.clone();
        // Clients of this protocol stop sending when the server closes its side of stdin.
        let mut byte = [0];
        let closed = tokio::time::timeout(Duration::from_millis(300), stdin.reader.read(&mut byte)).await;
        assert!(closed.is_err(), "the server closed stdin while the command ran");
        tokio::spawn(async move {
            stdin.writer.write_all(&copy).await.unwrap();
            stdin.writer.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        stdout.reader.read_to_end(&mut received).await.unwrap();
        assert!(received == sent, "stdout differs from stdin ({} of {})", received.len(), sent.len());
        let mut text = String::new();
        stderr.reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "copied 3000000");
        text.clear();
        error.reader.read_to_string(&mut text).await.unwrap();
        assert!(text.contains(r#""reason":"ExitCode","message":"7""#), "{text}");
    })
    .await;
}

#[tokio::test]
async fn spdy_without_a_version_gets_text_errors_and_silence_on_success() {
    for (outcome, wanted) in [(Outcome::Success, ""), (Outcome::ExitCode(2), "command terminated with exit code 2")] {
        let mut plain = spdy("x");
        plain.remove("x-stream-protocol-version");
        let options = Options { stdout: true, ..Options::default() };
        let io = serve(plain, options, outcome);
        within(async {
            let session = Session::start(io, Role::Client).unwrap();
            let mut error = session.open(stream_type("error")).unwrap();
            let _stdout = session.open(stream_type("stdout")).unwrap();
            let mut text = String::new();
            error.reader.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, wanted);
        })
        .await;
    }
}

#[tokio::test]
async fn spdy_terminal_size_arrives() {
    let options = Options { stdout: true, tty: true, ..Options::default() };
    let io = serve(spdy("v4.channel.k8s.io"), options, Outcome::Success);
    within(async {
        let session = Session::start(io, Role::Client).unwrap();
        let _error = session.open(stream_type("error")).unwrap();
        let mut stdout = session.open(stream_type("stdout")).unwrap();
        let mut resize = session.open(stream_type("resize")).unwrap();
        resize.writer.write_all(b"{\"Width\":132,\"Height\":43}\n").await.unwrap();
        let mut text = String::new();
        stdout.reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "132x43");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_command_not_memory() {
    let (client, server) = tokio::io::duplex(4096);
    let options = Options { stdout: true, ..Options::default() };
    let session = Session::start(client, Role::Client).unwrap();
    let _error = session.open(stream_type("error")).unwrap();
    let mut stdout = session.open(stream_type("stdout")).unwrap();
    let command = remotecommand::negotiate(&spdy("v4.channel.k8s.io")).unwrap().accept(server, options).await.unwrap();
    let mut out = command.stdout.unwrap();
    let piece = vec![0; 64 * 1024];
    let mut written = 0;
    while tokio::time::timeout(Duration::from_millis(200), out.write_all(&piece)).await.is_ok() {
        written += piece.len();
        assert!(written < 4 << 20, "nothing holds the writer back");
    }
    // Reading again lets it go on.
    let mut sink = vec![0; written];
    within(stdout.reader.read_exact(&mut sink)).await.unwrap();
    within(out.write_all(&piece)).await.unwrap();
}

#[tokio::test]
async fn websocket_v5_by_our_client_over_http() {
    let (client, server) = tokio::io::duplex(16 * 1024);
    tokio::spawn(async move {
        let service = hyper::service::service_fn(|mut request: Request<hyper::body::Incoming>| async move {
            let (response, streams) = remotecommand::upgrade(&mut request, ALL).unwrap();
            tokio::spawn(async move {
                let mut command = streams.await.unwrap();
                let (mut stdin, mut stdout) = (command.stdin.take().unwrap(), command.stdout.take().unwrap());
                let copied = tokio::io::copy(&mut stdin, &mut stdout).await.unwrap();
                command.stderr.take().unwrap().write_all(format!("{copied}").as_bytes()).await.unwrap();
                command.exit.finish(Outcome::ExitCode(42)).await;
            });
            Ok::<_, Infallible>(response.map(|()| Full::<Bytes>::default()))
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
        let _: Result<(), hyper::Error> = connection.with_upgrades().await;
    });
    let (stdout, mut read_stdout) = tokio::io::duplex(1 << 22);
    let (stderr, mut read_stderr) = tokio::io::duplex(1024);
    let data: Vec<u8> = (0..1_500_000u32).map(|n| (n % 241) as u8).collect();
    let local = client::Local {
        stdin: Some(Box::new(std::io::Cursor::new(data.clone()))),
        stdout: Some(Box::new(stdout)),
        stderr: Some(Box::new(stderr)),
        resize: None,
    };
    let request = Request::get("/exec").header("host", "node").body(()).unwrap();
    let outcome = within(client::run(client, request, local)).await.unwrap();
    assert_eq!(outcome, Outcome::ExitCode(42));
    let mut received = Vec::new();
    read_stdout.read_to_end(&mut received).await.unwrap();
    assert!(received == data);
    let mut text = String::new();
    read_stderr.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "1500000");
}

/// Some clients look for a readable socket only, and TLS has read the Close frame for them already.
#[tokio::test]
async fn websocket_ends_after_its_close_frame_without_waiting_for_an_answer() {
    let options = Options { stderr: true, ..Options::default() };
    let mut io = serve(websocket("v4.channel.k8s.io"), options, Outcome::Success);
    let mut received = Vec::new();
    // Less than it goes on listening for the answer.
    tokio::time::timeout(Duration::from_secs(3), io.read_to_end(&mut received)).await.expect("no end").unwrap();
    let close = [0x88, 2, 0x03, 0xe8];
    assert!(received.ends_with(&close), "{received:?}");
    assert!(String::from_utf8_lossy(&received).contains(r#""status":"Success""#));
}

#[tokio::test]
async fn websocket_client_sends_terminal_sizes() {
    let options = Options { stdout: true, tty: true, ..Options::default() };
    let io = serve(websocket("v5.channel.k8s.io"), options, Outcome::Success);
    let socket = WebSocketStream::from_raw_socket(io, protocol::Role::Client, None).await;
    let (sizes, resize) = mpsc::channel(1);
    sizes.send(TerminalSize { width: 80, height: 24 }).await.unwrap();
    let (stdout, mut text) = tokio::io::duplex(1024);
    let local = client::Local { stdout: Some(Box::new(stdout)), resize: Some(resize), ..client::Local::default() };
    assert_eq!(within(client::drive(socket, local)).await.unwrap(), Outcome::Success);
    let mut printed = String::new();
    text.read_to_string(&mut printed).await.unwrap();
    assert_eq!(printed, "80x24");
}

#[tokio::test]
async fn websocket_base64_begins_with_an_empty_message_and_ends_with_the_status() {
    let io =
        serve(websocket("v4.base64.channel.k8s.io"), Options { stderr: true, ..Options::default() }, Outcome::Success);
    let mut socket = WebSocketStream::from_raw_socket(io, protocol::Role::Client, None).await;
    let mut texts = Vec::new();
    within(async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Text(text) = message {
                let (channel, data) = text.split_at(1);
                texts.push((channel.to_owned(), String::from_utf8(BASE64_STANDARD.decode(data).unwrap()).unwrap()));
            }
        }
    })
    .await;
    let wanted = [("2", ""), ("2", "copied 0"), ("3", r#"{"metadata":{},"status":"Success"}"#)];
    assert_eq!(texts, wanted.map(|(channel, data)| (channel.to_owned(), data.to_owned())));
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed() {
    let (client, server) = tokio::io::duplex(1024);
    let negotiated = remotecommand::negotiate(&websocket("v5.channel.k8s.io")).unwrap();
    let mut command = negotiated.accept(server, ALL).await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(client, protocol::Role::Client, None).await;
    socket.send(Message::Binary(Bytes::from_static(b"\x00hello"))).await.unwrap();
    drop(socket);
    let mut text = String::new();
    within(command.stdin.as_mut().unwrap().read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "hello");
    within(command.gone.cancelled()).await;
    let mut out = command.stdout.take().unwrap();
    within(async { while out.write_all(&[0; 1024]).await.is_ok() {} }).await;
}
