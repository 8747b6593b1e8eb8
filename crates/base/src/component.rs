//! Long-running parts of a process and the supervisor that keeps them alive.
//!
//! ```text
//!            run()                 set_ready()
//!  waiting ─────────► starting ───────────────► ready
//!     ▲                   │                       │
//!     └── back-off ◄──────┴── error or panic ◄────┘        stop cancelled ──► stopped
//! ```

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;

/// Any error a component ends with; it is logged with its chain, then the component is restarted.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A part that runs until told to stop.
pub trait Component: Send + Sync + 'static {
    /// Stable, lowercase, used in logs and readiness: `scheduler`.
    fn name(&self) -> &'static str;

    /// Runs until `stop` is cancelled, then returns `Ok`. Called again, on the same value, after an error or a panic,
    /// so state kept outside the future must be valid at every await.
    fn run(self: Arc<Self>, stop: CancellationToken, ready: Ready) -> BoxFuture<'static, Result<(), BoxError>>;
}

/// By which a component says that it does its job.
#[derive(Clone, Debug)]
pub struct Ready {
    name: &'static str,
    board: Arc<watch::Sender<BTreeMap<&'static str, bool>>>,
}

impl Ready {
    /// One that nobody listens to, for tests and stand-alone runs.
    pub fn detached() -> Self {
        Self { name: "detached", board: Arc::new(watch::Sender::new(BTreeMap::new())) }
    }

    pub fn set_ready(&self) {
        self.set(true);
    }

    fn set(&self, value: bool) {
        self.board.send_if_modified(|board| board.insert(self.name, value) != Some(value));
    }
}

/// Runs components, restarts those that fail (1 s to 30 s apart), stops them in reverse order.
pub struct Supervisor {
    board: Arc<watch::Sender<BTreeMap<&'static str, bool>>>,
    running: Mutex<Vec<Running>>,
    /// Bound on the stop of each component.
    stop_timeout: Duration,
}

struct Running {
    name: &'static str,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Supervisor {
    pub fn new(stop_timeout: Duration) -> Self {
        Self { board: Arc::new(watch::Sender::new(BTreeMap::new())), running: Mutex::default(), stop_timeout }
    }

    /// Starts a component on the current runtime; returns at once.
    pub fn start(&self, component: Arc<dyn Component>) {
        self.start_on(&tokio::runtime::Handle::current(), component);
    }

    /// Starts a component on a runtime of the caller's choice.
    pub fn start_on(&self, runtime: &tokio::runtime::Handle, component: Arc<dyn Component>) {
        let name = component.name();
        let ready = Ready { name, board: self.board.clone() };
        ready.set(false);
        let stop = CancellationToken::new();
        let task = runtime.spawn(keep_running(component, stop.clone(), ready));
        self.running.lock().push(Running { name, stop, task });
    }

    /// Waits until every component started so far is ready; `false` when the bound passes first.
    pub async fn wait_ready(&self, bound: Duration) -> bool {
        let mut board = self.board.subscribe();
        tokio::time::timeout(bound, board.wait_for(|board| board.values().all(|ready| *ready)))
            .await
            .is_ok_and(|r| r.is_ok())
    }

    /// Which components are ready now.
    pub fn readiness(&self) -> BTreeMap<&'static str, bool> {
        self.board.borrow().clone()
    }

    /// Stops all, last started first, each within the bound.
    pub async fn stop(&self) {
        let mut running = std::mem::take(&mut *self.running.lock());
        while let Some(Running { name, stop, mut task }) = running.pop() {
            stop.cancel();
            if tokio::time::timeout(self.stop_timeout, &mut task).await.is_err() {
                tracing::warn!(component = name, "component did not stop in time");
                task.abort();
            }
        }
    }
}

async fn keep_running(component: Arc<dyn Component>, stop: CancellationToken, ready: Ready) {
    let name = component.name();
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    loop {
        let started = tokio::time::Instant::now();
        let outcome = AssertUnwindSafe(component.clone().run(stop.clone(), ready.clone())).catch_unwind().await;
        ready.set(false);
        if stop.is_cancelled() {
            return;
        }
        match outcome {
            Ok(Ok(())) => tracing::warn!(component = name, "component ended by itself"),
            Ok(Err(error)) => tracing::error!(component = name, error = %chain(error.as_ref()), "component failed"),
            Err(_) => tracing::error!(component = name, "component panicked"),
        }
        if started.elapsed() > Duration::from_secs(60) {
            backoff.reset();
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_delay()) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// An error and its sources, `: ` between them.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Flaky(AtomicUsize);

    impl Component for Flaky {
        fn name(&self) -> &'static str {
            "flaky"
        }

        fn run(self: Arc<Self>, stop: CancellationToken, ready: Ready) -> BoxFuture<'static, Result<(), BoxError>> {
            Box::pin(async move {
                match self.0.fetch_add(1, Ordering::SeqCst) {
                    0 => panic!("first run"),
                    1 => Err("second run".into()),
                    _ => {
                        ready.set_ready();
                        stop.cancelled().await;
                        Ok(())
                    }
                }
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn restarts_after_panic_and_error_then_stops() {
        let supervisor = Supervisor::new(Duration::from_secs(1));
        let flaky = Arc::new(Flaky(AtomicUsize::new(0)));
        supervisor.start(flaky.clone());
        assert!(supervisor.wait_ready(Duration::from_secs(30)).await);
        assert_eq!(flaky.0.load(Ordering::SeqCst), 3);
        supervisor.stop().await;
        assert_eq!(supervisor.readiness().get("flaky"), Some(&false));
    }
}
