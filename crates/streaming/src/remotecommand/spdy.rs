//! Remote command over SPDY: the client opens a stream for each `streamtype`.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{Exit, Options, Outcome, RemoteCommand, Transport, pump_sizes};
use crate::spdy::{Role, Session, Stream};
use crate::{Output, STREAM_CREATION_TIMEOUT, StreamingError};

/// What differs between the protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    json_status: bool,
    resize: bool,
}

impl Protocol {
    pub(super) const UNNAMED: Protocol = Protocol { json_status: false, resize: false };
}

pub(super) const PROTOCOLS: &[(&str, Protocol)] = &[
    ("v4.channel.k8s.io", Protocol { json_status: true, resize: true }),
    ("v3.channel.k8s.io", Protocol { json_status: false, resize: true }),
    ("v2.channel.k8s.io", Protocol { json_status: false, resize: false }),
    ("channel.k8s.io", Protocol { json_status: false, resize: false }),
];

pub(super) struct Closer {
    session: Session,
    protocol: Protocol,
    error: Output,
    /// Our side of the streams that only the client writes to. A client takes its end for the command's: it stops
    /// sending stdin when the server closes it.
    kept_open: Vec<Output>,
}

impl Closer {
    pub(super) async fn finish(mut self, outcome: Outcome) {
        let status = if self.protocol.json_status { outcome.to_json() } else { outcome.to_text() };
        // A client that is gone needs no status.
        let _ = self.error.write_all(&status).await;
        let _ = self.error.shutdown().await;
        self.kept_open.clear();
        self.session.close().await;
    }
}

#[derive(Default)]
struct Opened {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

pub(super) async fn accept<Io>(io: Io, protocol: Protocol, options: Options) -> Result<RemoteCommand, StreamingError>
where
    Io: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut session = Session::start(io, Role::Server)?;
    let wanted_stderr = options.stderr && !options.tty;
    let wanted_resize = options.tty && protocol.resize;
    let mut opened = Opened::default();
    let all = async {
        while opened.error.is_none()
            || (options.stdin && opened.stdin.is_none())
            || (options.stdout && opened.stdout.is_none())
            || (wanted_stderr && opened.stderr.is_none())
            || (wanted_resize && opened.resize.is_none())
        {
            let stream = session.accept().await.ok_or(StreamingError::Closed)?;
            match stream.headers.get("streamtype") {
                Some("error") => opened.error = Some(stream),
                Some("stdin") => opened.stdin = Some(stream),
                Some("stdout") => opened.stdout = Some(stream),
                Some("stderr") => opened.stderr = Some(stream),
                Some("resize") => opened.resize = Some(stream),
                _ => return Err(StreamingError::Spdy("stream of an unknown type")),
            }
        }
        Ok(())
    };
    match tokio::time::timeout(STREAM_CREATION_TIMEOUT, all).await {
        Ok(done) => done?,
        Err(_) => return Err(StreamingError::StreamTimeout(STREAM_CREATION_TIMEOUT)),
    }

    let error = opened.error.ok_or(StreamingError::Closed)?.writer;
    let mut kept_open = Vec::new();
    let stdin = opened.stdin.filter(|_| options.stdin).map(|stream| {
        kept_open.push(stream.writer);
        stream.reader
    });
    let stdout = opened.stdout.filter(|_| options.stdout).map(|stream| stream.writer);
    let stderr = opened.stderr.filter(|_| wanted_stderr).map(|stream| stream.writer);
    let resize = opened.resize.filter(|_| wanted_resize).map(|stream| {
        let (sender, receiver) = mpsc::channel(4);
        kept_open.push(stream.writer);
        tokio::spawn(pump_sizes(stream.reader, sender));
        receiver
    });
    let gone = session.gone();
    let exit = Exit(Transport::Spdy(Closer { session, protocol, error, kept_open }));
    Ok(RemoteCommand { stdin, stdout, stderr, resize, gone, exit })
}
