//! The caller's side: starts a helper and talks to it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::MemfdFlags;
use tokio::io::unix::AsyncFd;

use super::{ARGUMENT, Reply, Request, program};
use crate::sys::watched::watched;
use crate::sys::{pipe, socket};

/// How long one step of a helper may take before it is killed.
const STEP_LIMIT: Duration = Duration::from_secs(120);
/// What is kept of the errors the container library logs.
const TRACE_LIMIT_BYTES: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    #[error("cannot {step}")]
    Io {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    /// The operation failed; the text says why.
    #[error("{0}")]
    Failed(String),
    #[error("the runtime helper ended without an answer: {0}")]
    Died(String),
    #[error("the runtime helper did not answer within {0:?}")]
    Stuck(Duration),
    #[error("the runtime helper answered something else")]
    Protocol,
}

impl HelperError {
    fn io(step: &'static str) -> impl FnOnce(io::Error) -> HelperError {
        move |source| HelperError::Io { step, source }
    }

    /// The whole text, sources included.
    pub(crate) fn detail(&self) -> String {
        match self {
            HelperError::Io { step, source } => format!("cannot {step}: {source}"),
            other => other.to_string(),
        }
    }
}

/// A message to a helper.
pub(crate) struct Call<'a> {
    pub request: &'a Request,
    pub fds: &'a [BorrowedFd<'a>],
}

/// A running helper. Dropping it leaves the helper to end by itself.
#[derive(Debug)]
pub(crate) struct Session {
    child: tokio::process::Child,
    channel: AsyncFd<OwnedFd>,
    trace: OwnedFd,
}

impl Session {
    pub(crate) fn start(call: Call<'_>) -> Result<Session, HelperError> {
        let program = program::sealed().map_err(HelperError::io("seal the program"))?;
        let (ours, theirs) = socket::pair().map_err(HelperError::io("make a socket for the runtime helper"))?;
        let (trace, trace_write) = pipe::pipe().map_err(HelperError::io("make a pipe for the runtime helper"))?;
        pipe::set_nonblocking(&trace).map_err(HelperError::io("prepare the runtime helper's pipe"))?;
        let body = request_memfd(call.request).map_err(HelperError::io("write the runtime helper's request"))?;
        let mut fds = vec![body.as_fd()];
        fds.extend_from_slice(call.fds);
        socket::send(&ours, b"request", &fds).map_err(HelperError::io("send the runtime helper's request"))?;
        let child = tokio::process::Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg0("kminik-runtime")
            .arg(ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::from(trace_write))
            .spawn()
            .map_err(HelperError::io("start the runtime helper"))?;
        pipe::set_nonblocking(&ours).map_err(HelperError::io("prepare the runtime helper's socket"))?;
        let channel = watched(ours).map_err(HelperError::io("watch the runtime helper's socket"))?;
        Ok(Session { child, channel, trace })
    }

    /// One question, one answer.
    pub(crate) async fn ask(call: Call<'_>) -> Result<(Reply, Vec<OwnedFd>), HelperError> {
        let mut session = Session::start(call)?;
        let answer = session.step().await?;
        session.reap().await;
        Ok(answer)
    }

    /// The next reply, within the limit of one step.
    pub(crate) async fn step(&mut self) -> Result<(Reply, Vec<OwnedFd>), HelperError> {
        match tokio::time::timeout(STEP_LIMIT, self.next()).await {
            Ok(reply) => reply,
            Err(_) => {
                // The helper may be dead already.
                let _ = self.child.start_kill();
                Err(HelperError::Stuck(STEP_LIMIT))
            }
        }
    }

    /// The next reply, however long it takes.
    pub(crate) async fn next(&mut self) -> Result<(Reply, Vec<OwnedFd>), HelperError> {
        let message = loop {
            let mut ready = self.channel.readable().await.map_err(HelperError::io("wait for the runtime helper"))?;
            match ready.try_io(|channel| socket::receive(channel.get_ref())) {
                Ok(result) => break result.map_err(HelperError::io("read the runtime helper's answer"))?,
                Err(_would_block) => continue,
            }
        };
        let Some((bytes, fds)) = message else {
            return Err(HelperError::Died(self.trace()));
        };
        match serde_json::from_slice(&bytes).map_err(|_| HelperError::Protocol)? {
            Reply::Failed(detail) => Err(HelperError::Failed(detail)),
            reply => Ok((reply, fds)),
        }
    }

    /// Waits for the helper's own end, so that no zombie stays.
    pub(crate) async fn reap(&mut self) {
        // An error means that somebody else reaped it.
        let _ = tokio::time::timeout(STEP_LIMIT, self.child.wait()).await;
    }

    /// The pipe into which the container library logs; its end is closed when the container's process has executed its program.
    pub(crate) fn into_trace(self) -> OwnedFd {
        self.trace
    }

    fn trace(&self) -> String {
        read_trace(&self.trace)
    }
}

/// What is in a trace pipe now.
pub(crate) fn read_trace(trace: &OwnedFd) -> String {
    let mut text = vec![0; TRACE_LIMIT_BYTES];
    match rustix::io::read(trace, &mut text[..]) {
        Ok(length) => text.truncate(length),
        Err(_empty) => text.clear(),
    }
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

fn request_memfd(request: &Request) -> io::Result<OwnedFd> {
    let memfd = rustix::fs::memfd_create("request", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memfd);
    serde_json::to_writer(io::BufWriter::new(&mut file), request)?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}
