//! Exits, as PID 1 tells them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::LibcontainerRuntime;
use super::record::{Ended, Phase};
use crate::ContainerEvent;
use crate::fdstore::{Exit, ExitStatus, FdStoreError};

/// PID 1 does not restart; if it does not answer, it is about to end.
const RETRY: Duration = Duration::from_millis(500);
/// After the exit, for the last output to be logged. Longer if a process that has left the container holds its streams open.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Starts to follow exits, as long as the runtime exists.
pub(super) fn follow(runtime: &Arc<LibcontainerRuntime>) {
    let fds = runtime.fds.clone();
    let runtime = Arc::downgrade(runtime);
    tokio::spawn(async move {
        while runtime.strong_count() > 0 {
            let result = match fds.subscribe() {
                Ok(mut exits) => hear(&runtime, &mut exits).await,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                tracing::warn!(%error, "exits of containers are not heard of for a moment");
            }
            tokio::time::sleep(RETRY).await;
        }
    });
}

async fn hear(runtime: &Weak<LibcontainerRuntime>, exits: &mut crate::fdstore::Exits) -> Result<(), FdStoreError> {
    loop {
        let exit = exits.next().await?;
        let Some(runtime) = runtime.upgrade() else { return Ok(()) };
        tokio::spawn(async move { runtime.container_exited(exit).await });
    }
}

impl LibcontainerRuntime {
    /// Brings a container's end into its record; heard twice it changes nothing.
    pub(super) async fn container_exited(&self, exit: Exit) {
        let Ok(container) = self.container(&exit.key) else { return };
        // A start in progress tells by itself whether the program was executed.
        let _alone = container.control.lock().await;
        if container.process() != Some(exit.process) {
            return;
        }
        if let Err(error) = self.kill_rest(&container).await {
            tracing::warn!(container = container.id, %error, "processes of an exited container are left");
        }
        let io = container.io.lock().clone();
        if let Some(io) = io
            && tokio::time::timeout(DRAIN_LIMIT, io.drained()).await.is_err()
        {
            tracing::debug!(container = container.id, "output still open after the exit");
        }
        let out_of_memory = self.was_out_of_memory(&container);
        let started_at = match container.phase() {
            Phase::Running { started_at, .. } => Some(started_at),
            _ => None,
        };
        let ended = ended(exit.status, started_at, out_of_memory);
        if let Err(error) = container.set_phase(Phase::Exited(ended)) {
            tracing::error!(container = container.id, %error, "an exit is not recorded");
            return;
        }
        container.io.lock().take();
        if let Err(error) = self.fds.remove(&container.id) {
            tracing::warn!(container = container.id, %error, "descriptors of an exited container are left");
        }
        self.emit(ContainerEvent::Exited { sandbox: container.sandbox.clone(), id: container.id.clone() });
    }
}

fn ended(status: ExitStatus, started_at: Option<std::time::SystemTime>, out_of_memory: bool) -> Ended {
    let reason = if out_of_memory {
        "OOMKilled"
    } else if status.code == 0 {
        "Completed"
    } else {
        "Error"
    };
    Ended {
        // Started and ended between two looks.
        started_at: started_at.or(Some(status.at)),
        finished_at: status.at,
        code: status.code,
        reason: reason.to_owned(),
        message: None,
    }
}
