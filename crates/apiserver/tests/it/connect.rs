//! Exec, attach, port-forward, logs and proxies, by real kubectls, to a stand-in kubelet that runs commands here.
//!
//! `KMINIK_TEST_KUBECTL` names the kubectls, separated by colons; without it the one of the PATH is used. Before
//! version 1.30 they speak SPDY, since then WebSocket, so one of each side shows both.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::common::{Client, TestServer, https};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kminik_base::pki::{Subject, Usage};
use kminik_streaming::{portforward, remotecommand};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

fn kubectls() -> Vec<PathBuf> {
    let named = std::env::var("KMINIK_TEST_KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
    named.split(':').map(PathBuf::from).collect()
}

fn query(request: &Request<Incoming>) -> Vec<(String, String)> {
    url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect()
}

type Body = Full<Bytes>;

async fn kubelet(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let query = query(&request);
    let flag = |name: &str| query.iter().any(|(key, value)| key == name && value == "1");
    let options = remotecommand::Options {
        stdin: flag("input"),
        stdout: flag("output"),
        stderr: flag("error") && !flag("tty"),
        tty: flag("tty"),
    };
    let path = request.uri().path().to_owned();
    let what = path.split('/').nth(1).unwrap_or_default();
    Ok(match what {
        "exec" | "attach" => {
            let mut args: Vec<String> =
                query.iter().filter(|(key, _)| key == "command").map(|(_, value)| value.clone()).collect();
            if what == "attach" {
                args = ["sh", "-c", "echo attached; cat"].map(str::to_owned).into();
            }
            if args[0] == "absent" {
                let mut response = Response::new(Full::from("container not found (\"c\")"));
                *response.status_mut() = StatusCode::NOT_FOUND;
                return Ok(response);
            }
            let (response, streams) = remotecommand::upgrade(&mut request, options).unwrap();
            tokio::spawn(async move { run(args, streams.await.unwrap()).await });
            response.map(|()| Body::default())
        }
        "portForward" => {
            let (response, forwards) = portforward::upgrade(&mut request, Vec::new()).unwrap();
            tokio::spawn(async move {
                let mut forwards = forwards.await.unwrap();
                while let Some(mut forward) = forwards.next().await {
                    tokio::spawn(async move {
                        match TcpStream::connect(("127.0.0.1", forward.port)).await {
                            Ok(mut to) => drop(tokio::io::copy_bidirectional(&mut forward.data, &mut to).await),
                            Err(error) => forward.error.fail(&error.to_string()).await,
                        }
                    });
                }
            });
            response.map(|()| Body::default())
        }
        "containerLogs" => {
            Response::new(Full::from(format!("log of {path} {}\n", request.uri().query().unwrap_or(""))))
        }
        "echo" => {
            let method = request.method().clone();
            let authorization = request.headers().get("authorization").is_some();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let text = format!("{method} {path} {query:?} {authorization} {}", String::from_utf8_lossy(&body));
            let mut response = Response::new(Full::from(text));
            response.headers_mut().insert("location", "/elsewhere".parse().unwrap());
            response
        }
        "page" => {
            let mut response = Response::new(Full::from("<a href=\"/rewriteme\">test</a>"));
            response.headers_mut().insert("content-type", "text/html".parse().unwrap());
            response
        }
        _ => {
            let mut response = Response::new(Body::default());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

async fn run(args: Vec<String>, mut command: remotecommand::RemoteCommand) {
    if let Some(sizes) = &mut command.resize {
        let size = sizes.recv().await.unwrap();
        let text = format!("terminal {}\r\n", size.width > 0);
        command.stdout.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    }
    let stdin = if command.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new(&args[0])
        .args(&args[1..])
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if let (Some(mut from), Some(mut to)) = (command.stdin.take(), child.stdin.take()) {
        tokio::spawn(async move { drop(tokio::io::copy(&mut from, &mut to).await) });
    }
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let copy_out = async {
        if let Some(mut to) = command.stdout.take() {
            drop(tokio::io::copy(&mut out, &mut to).await);
        }
    };
    let copy_err = async {
        if let Some(mut to) = command.stderr.take() {
            drop(tokio::io::copy(&mut err, &mut to).await);
        }
    };
    tokio::join!(copy_out, copy_err);
    let code = child.wait().await.unwrap().code().unwrap_or(1);
    let outcome = if code == 0 { remotecommand::Outcome::Success } else { remotecommand::Outcome::ExitCode(code) };
    command.exit.finish(outcome).await;
}

/// A kubelet that demands the API server's certificate; returns its port.
async fn start_kubelet(server: &TestServer) -> u16 {
    let day = Duration::from_secs(86_400);
    let usage = Usage::Server { names: vec!["n1".into()], addresses: vec!["127.0.0.1".parse().unwrap()] };
    let identity = server.authority.issue(&Subject::new("system:node:n1", Some("system:nodes")), &usage, day).unwrap();
    let acceptor = https::mutual(&identity, &server.authority);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(kubelet);
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service);
                drop(connection.with_upgrades().await);
            });
        }
    });
    port
}

struct Cluster {
    server: TestServer,
    client: Client,
    config: PathBuf,
}

async fn cluster() -> Cluster {
    let server = TestServer::start().await;
    let port = start_kubelet(&server).await;
    let mut client = server.client().await;
    let mut make = async |path: &str, body: serde_json::Value| {
        let answer = client.post(path, &body).await;
        assert_eq!(answer.code, 201, "{}", String::from_utf8_lossy(&answer.body));
    };
    make("/api/v1/nodes", json!({ "metadata": { "name": "n1" } })).await;
    make("/api/v1/namespaces/default/serviceaccounts", json!({ "metadata": { "name": "default" } })).await;
    let pod = json!({ "metadata": { "name": "p" },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "i", "stdin": true, "tty": false }] } });
    make("/api/v1/namespaces/default/pods", pod).await;
    let status = json!({ "status": {
        "addresses": [{ "type": "Hostname", "address": "n1" }, { "type": "InternalIP", "address": "127.0.0.1" }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": port } } } });
    assert_eq!(client.patch("/api/v1/nodes/n1/status", "merge", &status).await.code, 200);
    let status = json!({ "status": { "phase": "Running", "podIP": "127.0.0.1" } });
    assert_eq!(client.patch("/api/v1/namespaces/default/pods/p/status", "merge", &status).await.code, 200);
    let config = server.kubeconfig();
    Cluster { server, client, config }
}

struct Ran {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

async fn kubectl(kubectl: &Path, config: &Path, args: &[&str], stdin: Option<&[u8]>) -> Ran {
    let mut command = Command::new(kubectl);
    command.arg("--kubeconfig").arg(config).args(args);
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", kubectl.display()));
    if let (Some(bytes), Some(mut input)) = (stdin, child.stdin.take()) {
        let bytes = bytes.to_vec();
        tokio::spawn(async move { drop(input.write_all(&bytes).await) });
    }
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("{} {args:?} hangs", kubectl.display())).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), stdout: output.stdout, stderr }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_by_every_kubectl() {
    let cluster = cluster().await;
    for binary in kubectls() {
        let run = async |args: &[&str], stdin: Option<&[u8]>| kubectl(&binary, &cluster.config, args, stdin).await;
        let script = "echo out; echo err >&2; exit 7";
        let ran = run(&["exec", "p", "--", "sh", "-c", script], None).await;
        assert_eq!((ran.code, ran.stdout.as_slice()), (7, &b"out\n"[..]), "{binary:?}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("err\n"), "{binary:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("command terminated with exit code 7"), "{binary:?}: {}", ran.stderr);

        // The command ends because its stdin ends, and has got every byte.
        let data: Vec<u8> = (0..2_000_000u32).map(|number| (number % 251) as u8).collect();
        let ran = run(&["exec", "-i", "p", "--", "cat"], Some(&data)).await;
        assert_eq!(ran.code, 0, "{binary:?}: {}", ran.stderr);
        assert!(ran.stdout == data, "{binary:?}: {} bytes came back", ran.stdout.len());

        let ran = run(&["exec", "p", "--", "absent"], None).await;
        assert_ne!(ran.code, 0);
        assert!(ran.stderr.contains("container not found (\"c\")"), "{binary:?}: {}", ran.stderr);

        let ran = run(&["attach", "-i", "p"], Some(b"hello\n")).await;
        assert!(ran.stdout.ends_with(b"attached\nhello\n"), "{binary:?}: {:?} {}", ran.stdout, ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_by_every_kubectl() {
    let cluster = cluster().await;
    let dir = tempfile::tempdir().unwrap();
    for (number, binary) in kubectls().into_iter().enumerate() {
        let (from, there, back) = (
            dir.path().join("from"),
            dir.path().join(format!("there{number}")),
            dir.path().join(format!("back{number}")),
        );
        let data: Vec<u8> = (0..700_000u32).map(|n| (n % 13) as u8).collect();
        std::fs::write(&from, &data).unwrap();
        let pod = |path: &Path| format!("default/p:{}", path.display());
        let ran = kubectl(&binary, &cluster.config, &["cp", from.to_str().unwrap(), &pod(&there)], None).await;
        assert_eq!(ran.code, 0, "{binary:?}: {}", ran.stderr);
        let ran = kubectl(&binary, &cluster.config, &["cp", &pod(&there), back.to_str().unwrap()], None).await;
        assert_eq!(ran.code, 0, "{binary:?}: {}", ran.stderr);
        assert!(std::fs::read(&back).unwrap() == data, "{binary:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn port_forward_by_every_kubectl() {
    let cluster = cluster().await;
    // Tells who it is, then echoes.
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = echo.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                stream.write_all(b"hello\n").await.unwrap();
                let (mut read, mut write) = stream.split();
                drop(tokio::io::copy(&mut read, &mut write).await);
            });
        }
    });
    for binary in kubectls() {
        let mut child = Command::new(&binary)
            .arg("--kubeconfig")
            .arg(&cluster.config)
            .args(["port-forward", "p", &format!(":{port}")])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await.unwrap().unwrap().unwrap();
        let local: u16 = line.split("127.0.0.1:").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        for _ in 0..3 {
            let mut connection = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
            let data = vec![b'x'; 300_000];
            let (mut read, mut write) = connection.split();
            let talk = async {
                let mut received = Vec::new();
                let send = async {
                    write.write_all(&data).await.unwrap();
                    write.shutdown().await.unwrap();
                };
                let receive = async {
                    let mut expected = vec![0; 6 + data.len()];
                    read.read_exact(&mut expected).await.unwrap();
                    received = expected;
                };
                tokio::join!(send, receive);
                received
            };
            let received = tokio::time::timeout(Duration::from_secs(30), talk).await.expect("port-forward hangs");
            assert!(received.starts_with(b"hello\n") && received.ends_with(&data), "{binary:?}");
        }
        child.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_proxies() {
    let mut cluster = cluster().await;
    let client = &mut cluster.client;
    let pods = "/api/v1/namespaces/default/pods";
    let log = client.get(&format!("{pods}/p/log?tailLines=3&follow=true&pretty=1")).await;
    assert_eq!(String::from_utf8_lossy(&log.body), "log of /containerLogs/default/p/c follow=true&tailLines=3\n");
    let wrong = client.get(&format!("{pods}/p/log?container=z")).await;
    assert_eq!((wrong.code, &wrong.json()["message"]), (400, &json!("container z is not valid for pod p")));
    assert_eq!(client.get(&format!("{pods}/none/log")).await.code, 404);
    for (options, refusal) in [
        ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
        ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
        (
            "sinceSeconds=1&sinceTime=2024-01-01T00:00:00Z",
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
    ] {
        let wrong = client.get(&format!("{pods}/p/log?{options}")).await;
        let message = wrong.json()["message"].as_str().unwrap().to_owned();
        assert!(wrong.code == 422 && message.starts_with("PodLogOptions \"p\" is invalid: "), "{message}");
        assert!(message.ends_with(refusal), "{message}");
    }

    let bearer = [("authorization", "Bearer secret"), ("content-type", "text/plain")];
    let node = "/api/v1/nodes/n1/proxy";
    let echoed = client.send("PUT", &format!("{node}/echo/a%2Fb?x=1&x=2"), &bearer, "the body").await;
    // A bearer token beside a client certificate is not looked at, and not passed on.
    let text = String::from_utf8_lossy(&echoed.body).into_owned();
    assert_eq!(text, r#"PUT /echo/a%2Fb [("x", "1"), ("x", "2")] false the body"#, "{}", echoed.code);
    assert_eq!(echoed.headers["location"], format!("{node}/elsewhere"));
    let page = client.get(&format!("{node}/page")).await;
    assert_eq!(String::from_utf8_lossy(&page.body), format!("<a href=\"{node}/rewriteme\">test</a>"));
    let slash = client.get(&format!("{node}?q=1")).await;
    assert_eq!((slash.code, slash.headers["location"].to_str().unwrap()), (301, &*format!("{node}/?q=1")));
    assert_eq!(client.get("/api/v1/nodes/none/proxy/").await.code, 404);

    let refused = client.get(&format!("{pods}/p/proxy/")).await;
    assert_eq!((refused.code, &refused.json()["message"]), (400, &json!("address not allowed")));
}

/// Opens a WebSocket with a subprotocol and reads its binary messages to the end, their borders forgotten.
async fn websocket(client: &mut Client, path: &str, protocol: &str) -> Vec<u8> {
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", protocol),
    ];
    let response = client.open("GET", path, &headers, "").await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "{path}");
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    let io = hyper::upgrade::on(response).await.unwrap();
    let mut tunnel = kminik_streaming::websocket::ByteTunnel::client(TokioIo::new(io)).await;
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), tunnel.read_to_end(&mut all));
    // Ends with the server's close, which need not be a clean end of the stream.
    drop(read.await.expect("the socket is closed"));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_websockets_run_commands_and_read_logs() {
    let cluster = cluster().await;
    let pod = "/api/v1/namespaces/default/pods/p";
    let mut client = cluster.server.client().await;
    let log = websocket(&mut client, &format!("{pod}/log?container=c&tailLines=2"), "binary.k8s.io").await;
    assert_eq!(String::from_utf8_lossy(&log), "log of /containerLogs/default/p/c tailLines=2\n");
    let mut client = cluster.server.client().await;
    let exec = format!("{pod}/exec?stdout=1&command=echo&command=remote");
    let out = websocket(&mut client, &exec, "channel.k8s.io").await;
    assert!(out.windows(8).any(|window| window == b"\x01remote\n"), "{out:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_passes_a_proxy() {
    let mut cluster = cluster().await;
    for method in ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"] {
        let answer = cluster.client.send(method, "/api/v1/nodes/n1/proxy/echo/x", &[], "").await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.code == 200 && text.starts_with(method), "{method}: {} {text}", answer.code);
    }
    let head = cluster.client.send("HEAD", "/api/v1/nodes/n1/proxy/echo/x", &[], "").await;
    assert_eq!((head.code, head.body.len()), (200, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_that_opens_a_stream_needs_the_right_to_create() {
    let mut cluster = cluster().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({ "metadata": { "name": "reader" },
        "rules": [{ "apiGroups": [""], "resources": ["pods", "pods/exec"], "verbs": ["get"] }] });
    assert_eq!(cluster.client.post(&format!("{rbac}/roles"), &role).await.code, 201);
    let binding = json!({ "metadata": { "name": "reader" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
        "subjects": [{ "kind": "User", "name": "alice" }] });
    assert_eq!(cluster.client.post(&format!("{rbac}/rolebindings"), &binding).await.code, 201);
    let day = Duration::from_secs(86_400);
    let alice = cluster.server.authority.issue(&Subject::new("alice", None), &Usage::Client, day).unwrap();
    let mut alice = cluster.server.client_as(Some(&alice)).await;
    let path = "/api/v1/namespaces/default/pods/p";
    for _ in 0..100 {
        if alice.get(path).await.code == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = alice.get(&format!("{path}/exec?command=true&stdout=true")).await;
    assert_eq!(refused.code, 403);
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("cannot create resource \"pods/exec\""), "{message}");
}
