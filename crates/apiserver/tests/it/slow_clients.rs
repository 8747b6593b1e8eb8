//! Clients that keep the server waiting, over HTTPS: those that send byte by byte, and those that never read.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kminik_apiserver::Patience;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::TestServer;

const JSON: &str = "application/json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PATIENCE: Patience =
    Patience { beginning: Duration::from_secs(1), head: Duration::from_secs(3), write: Duration::from_secs(1) };
/// Far more than the server's patience, for a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// More than the kernel keeps for a connection.
const LARGE_MAPS: usize = 40;
const LARGE: usize = 700 << 10;

async fn start() -> TestServer {
    TestServer::start_with(tempfile::tempdir().unwrap(), |config| config.patience = PATIENCE).await
}

fn map(name: &str, size: usize) -> Value {
    let data = json!({"a": "x".repeat(size)});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

async fn fill(server: &TestServer) {
    let mut client = server.client().await;
    for index in 0..LARGE_MAPS {
        assert_eq!(client.post(MAPS, &map(&format!("large-{index}"), LARGE)).await.code, 201);
    }
}

/// Writes without end until the server hangs up.
async fn drip(server: &TestServer, protocol: &[u8], beginning: &str) {
    let mut stream = server.connect_for(Some(&server.admin), &[protocol]).await;
    let dripping = async {
        let endless = beginning.bytes().chain(std::iter::repeat(b'x'));
        for byte in endless {
            if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            // An end, or a word of farewell, is the end.
            if let Ok(read) = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut [0; 1024])).await {
                match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        }
    };
    tokio::time::timeout(SOON, dripping).await.unwrap_or_else(|_| panic!("{beginning}: nobody hung up"));
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_come_byte_by_byte_are_cut_off() {
    let server = start().await;
    tokio::join!(
        drip(&server, b"http/1.1", "GET /livez HTTP/1.1\r\nhost: x\r\nx-endless: "),
        drip(&server, b"http/1.1", ""),
        drip(&server, b"h2", "PRI * HTTP/2.0\r\n\r\n"),
    );
    // Who has been served may be silent for longer.
    let mut client = server.client().await;
    assert_eq!(client.get("/livez").await.code, 200);
    tokio::time::sleep(PATIENCE.head / 2).await;
    assert_eq!(client.get("/livez").await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_is_given_up() {
    let server = start().await;
    fill(&server).await;
    let mut stream = server.connect(Some(&server.admin)).await;
    stream.write_all(format!("GET {MAPS} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    tokio::time::sleep(4 * PATIENCE.write).await;
    let mut taken = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut taken)).await.expect("an end");
    assert!(taken.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(taken.len() < LARGE_MAPS * LARGE, "{} bytes and {read:?}: all was sent", taken.len());
}

/// Over HTTP/2 the connection lives, for others read on it; what an answer holds is let go, whatever form it has.
async fn unread_is_let_go(server: &TestServer, form: &str, unread: &str, other: &str, begins: &[u8]) {
    let stream = server.connect_for(Some(&server.admin), &[b"h2"]).await;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let (sender, connection) =
        builder.initial_stream_window_size(64 << 10).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let ask = |query: &str, form: &str| {
        let (mut sender, uri) = (sender.clone(), format!("https://localhost{MAPS}{query}"));
        let request = Request::get(uri).header("accept", form);
        async move {
            let request = request.body(Full::<Bytes>::default()).unwrap();
            sender.send_request(request).await.unwrap()
        }
    };
    let unread = ask(unread, form).await;
    assert_eq!(unread.status(), 200);
    let media = form.split(';').next().unwrap();
    assert!(unread.headers()["content-type"].to_str().unwrap().starts_with(media), "{:?}", unread.headers());
    tokio::time::sleep(2 * PATIENCE.write).await;
    // Beginning one is what makes the server look at the others.
    let other = ask(other, JSON).await;
    let ended = tokio::time::timeout(SOON, unread.into_body().collect()).await.expect("an end");
    assert!(ended.is_err(), "{} bytes of {form} were sent", ended.unwrap().to_bytes().len());
    let first = tokio::time::timeout(SOON, other.into_body().frame()).await.unwrap().unwrap().unwrap();
    assert!(first.into_data().unwrap().starts_with(begins), "others go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_nobody_reads_is_let_go() {
    let server = start().await;
    fill(&server).await;
    let other = "?watch=1&resourceVersion=0&fieldSelector=metadata.name%3Dlarge-0";
    unread_is_let_go(&server, JSON, "?watch=1&resourceVersion=0", other, b"{\"type\":\"ADDED\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_nobody_reads_is_let_go() {
    let server = start().await;
    fill(&server).await;
    let list =
        |form: &'static str, query: &'static str| unread_is_let_go(&server, form, query, "?limit=1", b"{\"kind\":");
    tokio::join!(
        list(JSON, ""),
        list("application/yaml", ""),
        list("application/vnd.kubernetes.protobuf", ""),
        list("application/json;as=Table;v=v1;g=meta.k8s.io", "?includeObject=Object"),
    );
}
