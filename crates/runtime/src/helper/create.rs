//! Makes a container and leaves it waiting for its start.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use rustix::event::{PollFd, PollFlags};

use super::executable::Payload;
use super::serve::{Channel, answer};
use super::{CreateRequest, Reply};
use crate::sys::process::ProcessId;
use crate::sys::socket;

/// The container connects before it is created, so its terminal is there at once.
const TERMINAL_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn run(request: CreateRequest, fds: Vec<OwnedFd>, channel: &Channel) -> Result<(), String> {
    for file in &request.cgroup_procs {
        std::fs::write(file, "0").map_err(|error| format!("cannot join {}: {error}", file.display()))?;
    }
    let console = request.root.join(format!("{}.tty", request.id));
    let listener = if request.terminal {
        let _ = std::fs::remove_file(&console);
        Some(UnixListener::bind(&console).map_err(|error| format!("cannot listen for the terminal: {error}"))?)
    } else {
        None
    };
    let built = build(&request, fds, listener.as_ref().map(|_| console.as_path()));
    let _ = std::fs::remove_file(&console);
    let pid = match built {
        Ok(pid) => pid,
        Err(detail) => {
            reap_all();
            return Err(detail);
        }
    };
    let told = announce(pid, listener, channel);
    if told.is_err() {
        // Nobody knows of it: it must not wait for a start for ever.
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        reap_all();
    }
    told
}

fn announce(pid: i32, listener: Option<UnixListener>, channel: &Channel) -> Result<(), String> {
    let process = ProcessId::of(pid.cast_unsigned())
        .map_err(|error| format!("cannot identify the container's process: {error}"))?;
    let terminal = listener.map(receive_terminal).transpose()?;
    let fds: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
    answer(channel, &Reply::Created(process), &fds)
}

fn build(request: &CreateRequest, fds: Vec<OwnedFd>, console: Option<&std::path::Path>) -> Result<i32, String> {
    let builder = ContainerBuilder::new(request.id.clone(), SyscallType::default())
        .with_root_path(&request.root)
        .map_err(|error| chain(&error))?
        .with_executor(Payload)
        .with_console_socket(console);
    let mut fds = fds.into_iter();
    let builder = match (fds.next(), fds.next(), fds.next()) {
        (Some(stdin), Some(stdout), Some(stderr)) => builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr),
        _ => builder,
    };
    let container = builder
        .as_init(&request.bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|error| chain(&error))?;
    container.pid().map(nix_pid).ok_or_else(|| "the container has no process".to_owned())
}

// The library's pid type is of another version of the same crate than ours.
fn nix_pid(pid: impl Into<i32>) -> i32 {
    pid.into()
}

fn receive_terminal(listener: UnixListener) -> Result<OwnedFd, String> {
    let wait = rustix::event::Timespec { tv_sec: TERMINAL_LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
    let mut poll = [PollFd::new(&listener, PollFlags::IN)];
    match rustix::event::poll(&mut poll, Some(&wait)) {
        Ok(0) => return Err("the container did not send its terminal".to_owned()),
        Ok(_) => {}
        Err(error) => return Err(format!("cannot wait for the terminal: {error}")),
    }
    let (stream, _) = listener.accept().map_err(|error| format!("cannot accept the terminal: {error}"))?;
    let message = socket::receive(&stream).map_err(|error| format!("cannot receive the terminal: {error}"))?;
    message.and_then(|(_, fds)| fds.into_iter().next()).ok_or_else(|| "the container sent no terminal".to_owned())
}

/// An error with its sources, without repeating a text that already contains its source's.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// Waits for every child: an unreaped one inside a container's pid namespace would block the namespace's end.
pub(super) fn reap_all() {
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_no_children) => return,
        }
    }
}
