//! Commands in the node's container.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bollard::query_parameters::ResizeExecOptionsBuilder;
use futures::{StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::StreamReader;

use crate::drivers::output::Asked;
use crate::drivers::{Input, NodeCommand, NodeOutput};
use crate::engine::Duplex;
use crate::ops::node_image;
use crate::reason::{Failure, GUEST_EXEC, OrFail, Outcome};
use crate::terminal::{self, RawTerminal};

const FAIL: &str = "cannot run the command in the node";

/// On this process' streams.
pub async fn attached(docker: &Docker, container: &str, command: &NodeCommand) -> Outcome<i32> {
    let config = ExecConfig {
        attach_stdin: Some(!matches!(command.stdin, Input::None)),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(command.tty),
        cmd: Some(command.args.clone()),
        ..Default::default()
    };
    let id = docker.create_exec(container, config).await.or_fail(&GUEST_EXEC, FAIL)?.id;
    let options = StartExecOptions { detach: false, tty: command.tty, output_capacity: None };
    let StartExecResults::Attached { mut output, mut input } =
        docker.start_exec(&id, Some(options)).await.or_fail(&GUEST_EXEC, FAIL)?
    else {
        return Err(Failure::new(&GUEST_EXEC, "the engine detached from the command"));
    };
    let _raw = (command.tty && std::io::stdin().is_terminal()).then(RawTerminal::enter);
    if command.tty
        && let Some((width, height)) = terminal::size()
    {
        let size = ResizeExecOptionsBuilder::new().w(width.into()).h(height.into()).build();
        // Cosmetic: a command that has ended cannot be resized.
        let _ = docker.resize_exec(&id, size).await;
    }
    let stdin = match &command.stdin {
        Input::None => None,
        Input::Own => Some(terminal::stream(rustix::stdio::stdin()).or_fail(&GUEST_EXEC, FAIL)?),
        Input::File(file) => Some(terminal::stream(file.as_fd()).or_fail(&GUEST_EXEC, FAIL)?),
    };
    if let Some(mut stdin) = stdin {
        tokio::spawn(async move {
            let mut buffer = vec![0_u8; 32 << 10];
            while let Ok(n) = stdin.read(&mut buffer).await {
                if n == 0 || input.write_all(&buffer[..n]).await.is_err() || input.flush().await.is_err() {
                    break;
                }
            }
            let _ = input.shutdown().await;
        });
    }
    let stdout = match &command.stdout {
        Some(file) => terminal::stream(file.as_fd()),
        None => terminal::stream(rustix::stdio::stdout()),
    };
    let mut stdout = stdout.or_fail(&GUEST_EXEC, FAIL)?;
    let mut stderr = terminal::stream(rustix::stdio::stderr()).or_fail(&GUEST_EXEC, FAIL)?;
    while let Some(chunk) = output.next().await {
        let written = match chunk.or_fail(&GUEST_EXEC, FAIL)? {
            LogOutput::StdErr { message } => stderr.write_all(&message).await,
            LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
                match stdout.write_all(&message).await {
                    Ok(()) => stdout.flush().await,
                    Err(error) => Err(error),
                }
            }
        };
        if written.is_err() {
            break;
        }
    }
    exit_code(docker, &id).await
}

/// Output collected. One that goes too far loses its streams, and ends with its next word.
pub async fn collected(docker: &Docker, container: &str, asked: Asked<'_>) -> Outcome<NodeOutput> {
    let work = async {
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(asked.args.iter().map(|&a| a.to_owned()).collect()),
            ..Default::default()
        };
        let id = docker.create_exec(container, config).await.or_fail(&GUEST_EXEC, FAIL)?.id;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        if let StartExecResults::Attached { mut output, .. } =
            docker.start_exec(&id, None).await.or_fail(&GUEST_EXEC, FAIL)?
        {
            while let Some(chunk) = output.next().await {
                let (into, message) = match chunk.or_fail(&GUEST_EXEC, FAIL)? {
                    LogOutput::StdErr { message } => (&mut stderr, message),
                    LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
                        (&mut stdout, message)
                    }
                };
                if (into.len() + message.len()) as u64 > asked.bounds.bytes {
                    return Err(asked.too_much());
                }
                into.extend_from_slice(&message);
            }
        }
        Ok(NodeOutput { exit_code: exit_code(docker, &id).await?, stdout, stderr })
    };
    tokio::time::timeout(asked.bounds.time, work).await.unwrap_or_else(|_| Err(asked.endless()))
}

/// A connection to an address as the node reaches it: through a command that joins it with its standard streams.
pub async fn dial(docker: &Docker, container: &str, address: SocketAddr) -> Outcome<Box<dyn Duplex>> {
    let config = ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        cmd: Some(vec![node_image::BINARY.to_owned(), "node-dial".to_owned(), address.to_string()]),
        ..Default::default()
    };
    let id = docker.create_exec(container, config).await.or_fail(&GUEST_EXEC, FAIL)?.id;
    let StartExecResults::Attached { output, input } = docker.start_exec(&id, None).await.or_fail(&GUEST_EXEC, FAIL)?
    else {
        return Err(Failure::new(&GUEST_EXEC, "the engine detached from the command"));
    };
    let output = StreamReader::new(output.map_ok(LogOutput::into_bytes).map_err(io::Error::other));
    Ok(Box::new(tokio::io::join(output, input)))
}

/// The code of a command whose streams have ended. An engine may be late to notice the end, and a program may close its streams
/// before it: asked again for a while.
async fn exit_code(docker: &Docker, id: &str) -> Outcome<i32> {
    const PATIENCE: Duration = Duration::from_secs(10);
    const PAUSE: Duration = Duration::from_millis(50);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let state = docker.inspect_exec(id).await.or_fail(&GUEST_EXEC, FAIL)?;
        let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
        if state.running != Some(true) || tokio::time::Instant::now() >= deadline {
            return Ok(code.filter(|_| state.running != Some(true)).unwrap_or(1));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;
    use crate::drivers::OutputBounds;
    use crate::engine::Engine;
    use crate::profile::Profile;

    /// An engine whose commands say this and go on.
    fn engine(socket: &std::path::Path, said: &'static [u8]) {
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while let Ok(length @ 1..) = stream.read(&mut request).await {
                        if !String::from_utf8_lossy(&request[..length]).contains("/start ") {
                            let made = "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n\
                                        Content-Length: 10\r\n\r\n{\"Id\":\"1\"}";
                            stream.write_all(made.as_bytes()).await.unwrap();
                            continue;
                        }
                        let upgraded = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
                        stream.write_all(upgraded.as_bytes()).await.unwrap();
                        let mut frame = vec![1, 0, 0, 0];
                        frame.extend(u32::try_from(said.len()).unwrap().to_be_bytes());
                        frame.extend(said);
                        stream.write_all(&frame).await.unwrap();
                    }
                });
            }
        });
    }

    #[tokio::test]
    async fn a_command_that_goes_too_far_is_told_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("engine.sock");
        engine(&socket, b"words");
        let endpoint = serde_json::json!({"host": format!("unix://{}", socket.display())});
        let Engine { docker, .. } = Engine::connect(serde_json::from_value(endpoint).ok().as_ref()).await.unwrap();
        let profile: Profile = serde_json::from_str(include_str!("../../../tests/formats/profile-3-a.json")).unwrap();
        let machine = profile.control_plane();
        let ask = async |bytes| {
            let bounds = OutputBounds { time: Duration::from_millis(300), bytes };
            let asked = Asked { machine, args: &["/kminik", "node-logs"], bounds };
            collected(&docker, "c", asked).await.unwrap_err()
        };
        let endless = ask(5).await;
        assert_eq!(endless.reason.id, "GUEST_EXEC_TIMEOUT");
        let name = machine.name();
        assert!(endless.message.contains(&format!("\"/kminik node-logs\" in the node \"{name}\"")), "{endless}");
        assert_eq!(ask(4).await.reason.id, "GUEST_EXEC_OUTPUT");
    }
}
