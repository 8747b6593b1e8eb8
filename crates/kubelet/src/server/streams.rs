//! Streams into a pod: exec, attach, port-forward, and run without a stream.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use kminik_runtime::{ExecRequest, Runtime, RuntimeError, Streams, TerminalSize};
use kminik_streaming::portforward::{self, Forward};
use kminik_streaming::remotecommand::{self, Options, Outcome, RemoteCommand};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::Shared;
use super::query::Query;
use super::route::{Body, Failure, body, text};

/// A command run without streams may take so long.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);

/// Which streams the query asks for, by the kubelet's names or the API's.
fn options(query: &Query) -> Result<Options, Failure> {
    let tty = query.flag(&["tty"]);
    let options = Options {
        stdin: query.flag(&["input", "stdin"]),
        stdout: query.flag(&["output", "stdout"]),
        // A terminal has one output.
        stderr: query.flag(&["error", "stderr"]) && !tty,
        tty,
    };
    if !options.stdin && !options.stdout && !options.stderr {
        return Err(Failure::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(options)
}

pub(super) async fn exec(
    shared: &Arc<Shared>,
    mut request: Request<Incoming>,
    query: &Query,
    namespace: &str,
    pod: &str,
    uid: Option<&str>,
    container: &str,
) -> Result<Response<Body>, Failure> {
    let args: Vec<String> = query.all("command").map(str::to_owned).collect();
    if args.is_empty() {
        return Err(Failure::bad_request("you must specify a command"));
    }
    let options = options(query)?;
    let target = shared.kubelet.container(namespace, pod, uid, Some(container)).await?;
    let (response, streams) = remotecommand::upgrade(&mut request, options)?;
    let runtime = shared.kubelet.runtime().clone();
    tokio::spawn(async move {
        let Some(command) = connected(streams, &target.id).await else { return };
        let (streams, exit) = split(command);
        let request = ExecRequest { args, env: Vec::new(), tty: options.tty };
        let outcome = match runtime.exec(&target.id, request, streams).await {
            Ok(0) => Outcome::Success,
            Ok(code) => Outcome::ExitCode(code),
            Err(error) => Outcome::Failed(kminik_base::component::chain(&error)),
        };
        exit.finish(outcome).await;
    });
    Ok(response.map(|()| body("")))
}

pub(super) async fn attach(
    shared: &Arc<Shared>,
    mut request: Request<Incoming>,
    query: &Query,
    namespace: &str,
    pod: &str,
    uid: Option<&str>,
    container: &str,
) -> Result<Response<Body>, Failure> {
    let mut options = options(query)?;
    let target = shared.kubelet.container(namespace, pod, uid, Some(container)).await?;
    if options.stdin && !target.stdin {
        let name = target.name;
        return Err(Failure::bad_request(format!(
            "container {name} does not have stdin open, it cannot be attached to"
        )));
    }
    // The container's own terminal decides, whatever the client thinks.
    options.tty = target.tty;
    options.stderr &= !target.tty;
    let (response, streams) = remotecommand::upgrade(&mut request, options)?;
    let runtime = shared.kubelet.runtime().clone();
    tokio::spawn(async move {
        let Some(command) = connected(streams, &target.id).await else { return };
        let gone = command.gone.clone();
        let (streams, exit) = split(command);
        let outcome = tokio::select! {
            attached = runtime.attach(&target.id, streams) => match attached {
                Ok(()) => Outcome::Success,
                Err(error) => Outcome::Failed(kminik_base::component::chain(&error)),
            },
            () = gone.cancelled() => return,
        };
        exit.finish(outcome).await;
    });
    Ok(response.map(|()| body("")))
}

/// The client, once it is there; `None` if it went before its streams came.
async fn connected<E: std::fmt::Display>(
    streams: impl Future<Output = Result<RemoteCommand, E>>,
    container: &str,
) -> Option<RemoteCommand> {
    streams.await.inspect_err(|error| tracing::debug!(%error, container, "the client is gone before its streams")).ok()
}

/// The runtime's view of a client's streams.
fn split(command: RemoteCommand) -> (Streams, remotecommand::Exit) {
    let RemoteCommand { stdin, stdout, stderr, resize, exit, .. } = command;
    let resize = resize.map(|mut sizes| {
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Some(size) = sizes.recv().await {
                let size = TerminalSize { width: size.width, height: size.height };
                if sender.send(size).await.is_err() {
                    return;
                }
            }
        });
        receiver
    });
    (Streams { stdin, stdout, stderr, resize }, exit)
}

pub(super) async fn run(
    shared: &Shared,
    query: &Query,
    namespace: &str,
    pod: &str,
    uid: Option<&str>,
    container: &str,
) -> Result<Response<Body>, Failure> {
    let command = query.get("cmd").unwrap_or_default();
    let args: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    if args.is_empty() {
        return Err(Failure::bad_request("you must specify a command"));
    }
    let target = shared.kubelet.container(namespace, pod, uid, Some(container)).await?;
    let output = shared.kubelet.runtime().exec_sync(&target.id, args, RUN_TIMEOUT).await;
    let output = output.map_err(|error| {
        let status = match error {
            RuntimeError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Failure::new(status, kminik_base::component::chain(&error))
    })?;
    let mut all = output.stdout;
    all.extend_from_slice(&output.stderr);
    match output.exit_code {
        0 => Ok(text(all)),
        code => {
            let printed = String::from_utf8_lossy(&all).into_owned();
            let message = format!("command '{command}' exited with {code}: {printed}");
            Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, message))
        }
    }
}

pub(super) async fn port_forward(
    shared: &Arc<Shared>,
    mut request: Request<Incoming>,
    query: &Query,
    namespace: &str,
    pod: &str,
    uid: Option<&str>,
) -> Result<Response<Body>, Failure> {
    let mut ports = Vec::new();
    for text in query.all("port").chain(query.all("ports")).flat_map(|list| list.split(',')) {
        match text.parse() {
            Ok(port @ 1u16..) => ports.push(port),
            _ => return Err(Failure::bad_request(format!("unable to parse {text:?} as a port"))),
        }
    }
    let target = shared.kubelet.sandbox(namespace, pod, uid).await?;
    let (response, forwards) = portforward::upgrade(&mut request, ports)?;
    let runtime = shared.kubelet.runtime().clone();
    let pod = format!("{pod}_{namespace}");
    tokio::spawn(async move {
        let mut forwards = match forwards.await {
            Ok(forwards) => forwards,
            Err(error) => {
                tracing::debug!(error = %error, pod, "port-forward client gone");
                return;
            }
        };
        let gone = forwards.gone();
        while let Some(forward) = forwards.next().await {
            let (runtime, gone) = (runtime.clone(), gone.clone());
            let (sandbox, pod) = (target.id.clone(), pod.clone());
            tokio::spawn(async move {
                gone.run_until_cancelled(connect(runtime, sandbox, pod, forward)).await;
            });
        }
    });
    Ok(response.map(|()| body("")))
}

async fn connect(runtime: Arc<dyn Runtime>, sandbox: String, pod: String, forward: Forward) {
    let Forward { port, data, error } = forward;
    let failed = |why: &dyn std::error::Error| {
        let why = kminik_base::component::chain(why);
        format!(
            "error forwarding port {port} to pod {pod}: failed to connect to localhost:{port} inside its namespace: {why}"
        )
    };
    let connection = match runtime.dial(&sandbox, port).await {
        Ok(connection) => connection,
        Err(refused) => return error.fail(&failed(&refused)).await,
    };
    if let Err(broken) = relay(data, connection).await {
        error.fail(&failed(&broken)).await;
    }
}

/// How long a client may go on sending after the pod has ended the connection.
const LINGER: Duration = Duration::from_secs(1);

/// Copies both ways. A client's half-close goes on to the pod. When the pod ends, this ends soon after: clients close their
/// side only when the error stream has ended, which is when this returns.
async fn relay(client: impl AsyncRead + AsyncWrite, pod: impl AsyncRead + AsyncWrite) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_pod, mut to_pod) = tokio::io::split(pod);
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_pod).await?;
        to_pod.shutdown().await
    };
    let down = async {
        tokio::io::copy(&mut from_pod, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut down => {
            // What the client still sends has no reader.
            let _ = tokio::time::timeout(LINGER, up).await;
            ended
        }
        sent = &mut up => {
            sent?;
            down.await
        }
    }
}
