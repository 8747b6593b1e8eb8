//! The helper's side: one request, its replies, the end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{Reply, Request, bind, create, exec, pause, sandbox};
use crate::sys::socket;

/// The longest text of a failure that is sent.
const DETAIL_LIMIT_BYTES: usize = 32 * 1024;

/// What the operations use to answer.
pub(super) struct Channel {
    socket: OwnedFd,
}

impl Channel {
    pub(super) fn send(&self, reply: &Reply, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        socket::send(&self.socket, &serde_json::to_vec(reply)?, fds)
    }

    /// In a forked child: what is said there would be taken for the helper's word.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(super) fn run() -> i32 {
    match serve() {
        Ok(()) => 0,
        Err(_nobody_listens) => 1,
    }
}

fn serve() -> io::Result<()> {
    rustix::thread::set_name(c"kminik-runtime")?;
    let (channel, trace) = take_descriptors()?;
    let channel = Channel { socket: channel };
    subscribe(trace);
    let Some((_, mut fds)) = socket::receive(channel.as_fd())? else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    if fds.is_empty() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let request = serde_json::from_reader(std::fs::File::from(fds.remove(0)))?;
    let outcome = match request {
        Request::Create(request) => create::run(request, fds, &channel),
        Request::Exec(request) => exec::run(request, fds, &channel),
        Request::PinNamespaces(request) => sandbox::pin(&request).and_then(|()| answer(&channel, &Reply::Done, &[])),
        Request::Pause(request) => pause::run(&request, &channel),
        Request::Bind(request) => match fds.first() {
            Some(source) => bind::run(&request, source).and_then(|()| answer(&channel, &Reply::Done, &[])),
            None => Err("the source is missing".to_owned()),
        },
        Request::Sockets { netns } => {
            sandbox::sockets(&netns).and_then(|(v4, v6)| answer(&channel, &Reply::Sockets, &[v4.as_fd(), v6.as_fd()]))
        }
    };
    if let Err(mut detail) = outcome {
        let mut end = detail.len().min(DETAIL_LIMIT_BYTES);
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        detail.truncate(end);
        channel.send(&Reply::Failed(detail), &[])?;
    }
    Ok(())
}

pub(super) fn answer(channel: &Channel, reply: &Reply, fds: &[BorrowedFd<'_>]) -> Result<(), String> {
    channel.send(reply, fds).map_err(|error| format!("cannot answer: {error}"))
}

/// Moves descriptors 0 and 2 to higher numbers, closed on exec, and leaves /dev/null in their place: a container inherits
/// the standard descriptors.
fn take_descriptors() -> io::Result<(OwnedFd, OwnedFd)> {
    let (stdin, stderr) = (rustix::stdio::stdin(), rustix::stdio::stderr());
    let channel = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
    let trace = rustix::io::fcntl_dupfd_cloexec(stderr, 3)?;
    let null = crate::sys::stdio::null()?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    debug_assert!(channel.as_raw_fd() > 2 && trace.as_raw_fd() > 2);
    Ok((channel, trace))
}

/// Errors that the container library logs go into the trace pipe: its error values are terse, and after the start of the container
/// they are all there is.
fn subscribe(trace: OwnedFd) {
    let writer = std::sync::Mutex::new(std::fs::File::from(trace));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::ERROR)
        .with_ansi(false)
        .with_target(false)
        .with_level(false)
        .without_time()
        .with_writer(writer)
        .finish();
    // The only subscriber of this process.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
