//! Stops one container: preStop hook, its turn, stop signal, grace, kill.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kminik_client::EventType;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::events::about;
use super::plan::SHORTEST_GRACE;
use super::view::{ContainerView, PodView};
use crate::hooks;
use crate::node_context::NodeContext;

/// One stop.
pub(crate) struct Stop {
    pub view: Arc<PodView>,
    /// As it is in the spec; one that is no longer there has no hook.
    pub container: Option<ContainerView>,
    pub id: String,
    pub message: String,
    /// Moves nearer when the pod gets less time.
    pub deadline: watch::Receiver<Instant>,
    /// Containers that have to end before this one gets its signal.
    pub after: Vec<String>,
    /// Names of the pod's containers that run.
    pub running: watch::Receiver<BTreeSet<String>>,
    pub pod_ip: Option<std::net::IpAddr>,
}

/// Returns when the container has ended; a failure is logged, and the next look at the runtime asks again.
pub(crate) async fn stop(node: &NodeContext, mut stop: Stop) {
    let about = about(&stop.view, stop.container.as_ref());
    node.recorder.event(about.clone(), EventType::Normal, "Killing", stop.message.clone());
    let hook = stop.container.as_ref().and_then(|c| c.spec.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
    if let (Some(hook), Some(container)) = (hook, stop.container.as_ref()) {
        let run = hooks::run(node, hook, container, &stop.id, stop.pod_ip);
        let run = until_deadline(&mut stop.deadline, run).await;
        if let Some(Err(error)) = run {
            node.recorder.event(about, EventType::Warning, "FailedPreStopHook", error.to_string());
        }
    }
    if !stop.after.is_empty() {
        let (after, mut running) = (stop.after.clone(), stop.running.clone());
        let turn =
            async move { running.wait_for(|names| after.iter().all(|name| !names.contains(name))).await.map(drop) };
        until_deadline(&mut stop.deadline, turn).await;
    }
    loop {
        let deadline = *stop.deadline.borrow_and_update();
        let grace = deadline.saturating_duration_since(Instant::now()).max(SHORTEST_GRACE);
        tokio::select! {
            result = node.runtime.stop_container(&stop.id, grace) => {
                if let Err(error) = result {
                    tracing::error!(container = stop.id, %error, "container not stopped");
                    // Asked again by the next look, which this operation's end brings about.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                return;
            }
            Ok(()) = stop.deadline.changed() => {}
        }
    }
}

/// Runs something no longer than to the deadline, wherever that moves; `None` if it passed.
async fn until_deadline<T>(deadline: &mut watch::Receiver<Instant>, run: impl Future<Output = T>) -> Option<T> {
    let mut run = std::pin::pin!(run);
    loop {
        let at = *deadline.borrow_and_update();
        tokio::select! {
            done = timeout_at(at, &mut run) => return done.ok(),
            Ok(()) = deadline.changed() => {}
        }
    }
}
