//! The send window of a stream or session.
//!
//! A peer that has never spoken of windows does not count them (the common client library ignores them), so a window
//! holds nothing back before the peer's first word about it; what was sent until then is counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The size a stream and the session start with.
pub(crate) const INITIAL_WINDOW: i64 = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Window {
    state: Mutex<State>,
    /// The session's, for a stream's.
    parent: Option<Arc<Window>>,
}

#[derive(Debug)]
struct State {
    /// May become negative: by a smaller initial window, or by what was sent before it was enforced.
    left: i64,
    enforced: bool,
    closed: bool,
    waiting: Vec<Waker>,
}

impl Window {
    pub(crate) fn new(initial: i64, enforced: bool, parent: Option<Arc<Window>>) -> Window {
        Window { state: Mutex::new(State { left: initial, enforced, closed: false, waiting: Vec::new() }), parent }
    }

    /// Takes up to `wanted` bytes; waits while the window is used up. `None` once closed.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<Option<usize>> {
        let mut state = self.lock();
        if state.closed {
            return Poll::Ready(None);
        }
        let taken = match state.enforced {
            true if state.left <= 0 => {
                state.waiting.push(cx.waker().clone());
                return Poll::Pending;
            }
            true => wanted.min(usize::try_from(state.left).unwrap_or(usize::MAX)),
            false => wanted,
        };
        let taken = match &self.parent {
            Some(parent) => match parent.poll_take(cx, taken) {
                Poll::Ready(Some(taken)) => taken,
                other => return other,
            },
            None => taken,
        };
        state.left -= taken as i64;
        Poll::Ready(Some(taken))
    }

    /// The peer granted `delta` more (or fewer). From now on the window is enforced. False if it overflows.
    pub(crate) fn grant(&self, delta: i64) -> bool {
        let mut state = self.lock();
        state.left += delta;
        state.enforced = true;
        state.waiting.drain(..).for_each(Waker::wake);
        state.left <= i64::from(i32::MAX)
    }

    /// Ends all waiting: the stream or session is over.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
