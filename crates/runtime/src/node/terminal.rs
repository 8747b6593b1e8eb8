//! A command in a node through this process' own terminal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::termios::{OptionalActions, Termios};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use super::exec::{NodeStdio, resize_terminal, run as spawn};
use super::{NodeError, io_error};
use crate::sys::pipe::set_nonblocking;
use crate::sys::process::ProcessId;
use crate::sys::watched::watched;

/// The terminal as it was, restored when this is dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> io::Result<Raw> {
        let before = rustix::termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing is left to tell if the terminal has gone.
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

pub(super) async fn run(target: ProcessId, group: &Path, args: &[String]) -> Result<i32, NodeError> {
    let failed = |source| io_error("use the terminal of", Path::new("/proc/self/fd/0"))(source);
    let size = rustix::termios::tcgetwinsize(io::stdin()).map_err(|error| failed(error.into()))?;
    let stdio = NodeStdio::Terminal { width: size.ws_col, height: size.ws_row };
    let mut process = spawn(target, group, args, stdio).await?;
    let Some(master) = process.take_terminal() else {
        return Err(NodeError::Exec { detail: "the node gave no terminal".to_owned() });
    };
    let raw = Raw::enter().map_err(failed)?;
    set_nonblocking(&master).map_err(failed)?;
    let master = watched(master).map_err(failed)?;
    let input = input(&master);
    let output = output(&master);
    let sizes = follow_size(&master);
    let mut wait = std::pin::pin!(process.wait());
    tokio::pin!(input, output, sizes);
    let mut finished = false;
    let code = loop {
        tokio::select! {
            code = &mut wait => break code,
            // The other side has closed; the exit code follows.
            _ = &mut output, if !finished => finished = true,
            _ = &mut input, if !finished => finished = true,
            _ = &mut sizes, if !finished => finished = true,
        }
    };
    // What the command wrote last.
    if !finished {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(200), output).await;
    }
    drop(raw);
    code
}

/// Keys go in as they are typed. Standard input is read on a thread of its own: it may be a file, or shared with others, so it stays blocking.
async fn input(master: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let (sender, mut keys) = tokio::sync::mpsc::channel::<Vec<u8>>(4);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read) = rustix::io::read(io::stdin(), &mut buffer[..]) {
            if read == 0 || sender.blocking_send(buffer.iter().take(read).copied().collect()).is_err() {
                return;
            }
        }
    });
    while let Some(keys) = keys.recv().await {
        let mut rest = keys.as_slice();
        while !rest.is_empty() {
            let mut ready = master.writable().await?;
            match ready.try_io(|master| Ok(rustix::io::write(master.get_ref(), rest)?)) {
                Ok(written) => rest = rest.get(written?..).unwrap_or_default(),
                Err(_would_block) => {}
            }
        }
    }
    std::future::pending().await
}

async fn output(master: &AsyncFd<OwnedFd>) -> io::Result<()> {
    use std::io::Write;
    let mut stdout = io::stdout();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let mut ready = master.readable().await?;
        let read = match ready.try_io(|master| Ok(rustix::io::read(master.get_ref(), &mut buffer[..])?)) {
            Ok(read) => read?,
            Err(_would_block) => continue,
        };
        if read == 0 {
            return Ok(());
        }
        // Blocks only as long as the user's terminal does.
        stdout.write_all(buffer.get(..read).unwrap_or_default())?;
        stdout.flush()?;
    }
}

async fn follow_size(master: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut changes = signal(SignalKind::window_change())?;
    while changes.recv().await.is_some() {
        let size = rustix::termios::tcgetwinsize(io::stdin())?;
        resize_terminal(master.get_ref().as_fd(), size.ws_col, size.ws_row)?;
    }
    Ok(())
}
