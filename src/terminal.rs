//! This process' standard streams: as asynchronous files, and raw mode while another program draws on the terminal.

use std::os::fd::BorrowedFd;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::reason::{MK_INTERNAL, OrFail, Outcome};

/// Raw from `enter` until dropped.
pub struct RawTerminal {
    saved: Option<Termios>,
}

impl RawTerminal {
    /// No effect where stdin is not a terminal.
    pub fn enter() -> Self {
        let stdin = rustix::stdio::stdin();
        let saved = tcgetattr(stdin).ok();
        if let Some(saved) = &saved {
            let mut raw = saved.clone();
            raw.make_raw();
            let _ = tcsetattr(stdin, OptionalActions::Now, &raw);
        }
        Self { saved }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, saved);
        }
    }
}

/// What the user wants this process to end by: Ctrl-C, a terminal that closes, or a plain kill. Once it is listened for none
/// ends the process by itself.
pub struct Interruption {
    interrupt: Signal,
    hangup: Signal,
    terminate: Signal,
}

impl Interruption {
    /// # Errors
    /// `MK_INTERNAL`.
    pub fn listen() -> Outcome<Self> {
        let listen = |kind| signal(kind).or_fail(&MK_INTERNAL, "cannot listen for Ctrl-C");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Returns when one has come.
    pub async fn comes(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Columns and rows.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(rustix::stdio::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Standard input, output or error as an asynchronous file of its own descriptor.
pub fn stream(fd: BorrowedFd<'_>) -> std::io::Result<tokio::fs::File> {
    Ok(tokio::fs::File::from_std(std::fs::File::from(fd.try_clone_to_owned()?)))
}
