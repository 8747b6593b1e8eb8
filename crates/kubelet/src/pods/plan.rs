//! What to do next for a pod: a pure function of the desired pod, what the runtime has, what the worker remembers and the clock.
//!
//! ```text
//!   volumes ┐
//!           ├─► init and sidecars, in order ─► app containers ─┐ restart, back-off
//!   sandbox ┘                                       ▲──────────┘
//!       │ deleted, deadline, all done
//!       ▼
//!   stop containers (sidecars last) ─► stop sandbox ─► unmount ─► deleted only: remove, delete from the API
//! ```
//!
//! Actions are only asked for when no operation on the same thing is under way, so the function can be called at any time.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kminik_runtime::{ContainerState, SandboxState};

use super::backoff::{between, go_duration, plus};
use super::memory::{Memory, Operation, Volumes};
use super::observed::{Observed, Seen};
use super::view::{ContainerView, Kind, PodView};

/// Shortest time a container gets between its stop signal and the kill.
pub(crate) const SHORTEST_GRACE: Duration = Duration::from_secs(2);

/// One step. Those that take time become operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    MountVolumes,
    UnmountVolumes,
    RunSandbox {
        attempt: u32,
    },
    StopSandbox {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    StartContainer {
        name: String,
        restart_count: u32,
        /// When the run before ended, for the back-off.
        ended: Option<Timestamp>,
    },
    CancelStart {
        name: String,
    },
    StopContainer {
        name: String,
        id: String,
        message: String,
        grace: Duration,
        /// Containers that must have ended before this one gets its stop signal.
        after: Vec<String>,
    },
    /// A stop under way gets less time.
    HastenStop {
        name: String,
        grace: Duration,
    },
    RemoveContainer {
        id: String,
    },
    /// Removes all that is on the node, reports the last status, deletes the pod from the API.
    Finish,
}

/// What to do, until when nothing more is to do, and why containers that do not run wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub actions: Vec<Action>,
    pub wake_at: Option<Timestamp>,
    /// Reason and message by container name.
    pub waiting: BTreeMap<String, (String, String)>,
    /// The pod is over: reason and message for its status, if it did not end by itself.
    pub ended: Option<(String, String)>,
    /// Containers are being stopped for good.
    pub ending: bool,
    /// Nothing of the pod runs and nothing will.
    pub terminal: bool,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// See the module.
pub(crate) fn plan(view: &PodView, seen: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if memory.cleaned {
        plan.terminal = true;
        return plan;
    }
    if ends(view, seen, memory, now, &mut plan) {
        plan.ending = true;
        end(view, seen, memory, now, &mut plan);
    } else {
        run(view, seen, memory, now, &mut plan);
        collect_garbage(view, seen, memory, &mut plan);
    }
    plan
}

fn is_terminal(phase: Option<&str>) -> bool {
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Whether the pod is to end; notes why.
fn ends(view: &PodView, seen: &Observed, memory: &Memory, now: Timestamp, plan: &mut Plan) -> bool {
    if let Some(rejection) = &memory.rejected {
        plan.ended = Some((rejection.reason.clone(), rejection.message.clone()));
        return true;
    }
    let start = memory.reported.start_time.as_ref().map(|t| t.0).or(memory.first_seen);
    if let (Some(seconds), Some(start)) = (view.spec().active_deadline_seconds, start) {
        let deadline = plus(start, Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        if deadline <= now && !is_terminal(memory.reported.phase.as_deref()) {
            let message = "Pod was active on the node longer than the specified deadline";
            plan.ended = Some(("DeadlineExceeded".into(), message.into()));
            return true;
        }
        if deadline > now {
            plan.wake(deadline);
        }
    }
    let reported = view.pod.status.as_ref().and_then(|s| s.phase.as_deref());
    memory.gone
        || view.deleting()
        || is_terminal(reported)
        || is_terminal(memory.reported.phase.as_deref())
        || all_done(view, seen, memory)
}

/// How a container's last run ended: from the runtime's record, or from the status reported before if the record is lost.
pub(super) fn last_exit(container: &ContainerView, seen: &Observed, memory: &Memory) -> Option<i32> {
    match seen.latest(container.name()) {
        Some(record) => record.exited().then(|| record.exit_code()),
        None => {
            let state = reported(container.name(), memory)?.state.as_ref()?;
            match (&state.terminated, &state.running) {
                (Some(terminated), _) => Some(terminated.exit_code),
                // It ran, and nothing is left of it: it ended as if killed.
                (None, Some(_)) => Some(137),
                (None, None) => None,
            }
        }
    }
}

pub(super) fn reported<'a>(name: &str, memory: &'a Memory) -> Option<&'a k8s_openapi::api::core::v1::ContainerStatus> {
    let status = &memory.reported;
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|c| c.name == name)
}

/// No app container runs or will run again, or an init container failed for good.
fn all_done(view: &PodView, seen: &Observed, memory: &Memory) -> bool {
    let over = |c: &ContainerView| {
        !memory.operations.contains_key(c.name())
            && last_exit(c, seen, memory).is_some_and(|code| !view.restarts(c, code))
    };
    let init_failed = view.of_kind(Kind::Init).any(|c| {
        let failed = last_exit(c, seen, memory).is_some_and(|code| code != 0);
        failed && over(c)
    });
    init_failed || view.of_kind(Kind::App).all(over)
}

fn end(view: &PodView, seen: &Observed, memory: &Memory, now: Timestamp, plan: &mut Plan) {
    let mut alive = false;
    let leaving = view.deleting() || memory.gone;
    let since = memory.ending_since.unwrap_or(now);
    let grace = view.grace().saturating_sub(between(since, now)).max(SHORTEST_GRACE.min(view.grace()));
    for record in &seen.containers {
        let name = &record.status.name;
        match memory.operations.get(name) {
            Some(Operation::Starting) => {
                alive = true;
                plan.actions.push(Action::CancelStart { name: name.clone() });
            }
            Some(Operation::Stopping) => {
                alive = true;
                let whole = view.grace().saturating_sub(between(since, now));
                plan.actions.push(Action::HastenStop { name: name.clone(), grace: whole });
            }
            None if record.status.state == ContainerState::Running => {
                alive = true;
                plan.actions.push(Action::StopContainer {
                    name: name.clone(),
                    id: record.status.id.clone(),
                    message: format!("Stopping container {name}"),
                    grace,
                    after: view.container(name).map(|c| outlived_by(view, c)).unwrap_or_default(),
                });
            }
            // Created but never started: nothing to stop.
            None => {}
        }
    }
    for (name, operation) in &memory.operations {
        if *operation == Operation::Starting && seen.latest(name).is_none() {
            alive = true;
            plan.actions.push(Action::CancelStart { name: name.clone() });
        }
    }
    plan.actions.dedup();
    if alive || memory.busy() {
        return;
    }
    plan.terminal = true;
    if leaving {
        plan.actions.push(Action::Finish);
        return;
    }
    for sandbox in seen.sandboxes.iter().filter(|s| s.state == SandboxState::Ready) {
        plan.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
    }
    if plan.actions.is_empty() && memory.volumes != Volumes::Unmounted {
        plan.actions.push(Action::UnmountVolumes);
    }
}

/// The containers that a sidecar outlives: all that come after it, and every app container.
fn outlived_by(view: &PodView, container: &ContainerView) -> Vec<String> {
    if container.kind != Kind::Sidecar {
        return Vec::new();
    }
    let later = view.containers.iter().skip_while(|c| c.name() != container.name()).skip(1);
    later.filter(|c| matches!(c.kind, Kind::Sidecar | Kind::App)).map(|c| c.name().to_string()).collect()
}

fn run(view: &PodView, seen: &Observed, memory: &Memory, now: Timestamp, plan: &mut Plan) {
    let mounted = match &memory.volumes {
        Volumes::Mounted => true,
        Volumes::Changing => false,
        Volumes::Failed { retry_at, .. } if *retry_at > now => {
            plan.wake(*retry_at);
            false
        }
        Volumes::Unmounted | Volumes::Failed { .. } => {
            plan.actions.push(Action::MountVolumes);
            false
        }
    };
    let sandbox = sandbox_ready(seen, memory, now, plan);
    if !(mounted && sandbox) {
        for container in &view.containers {
            if seen.current(container).is_none() {
                wait(plan, container, first_reason(view), "");
            }
        }
        return;
    }
    for container in view.of_kind(Kind::Ephemeral) {
        if last_exit(container, seen, memory).is_none() {
            advance(view, container, seen, memory, now, plan);
        }
    }
    if init(view, seen, memory, now, plan) {
        for container in view.of_kind(Kind::App) {
            advance(view, container, seen, memory, now, plan);
        }
    } else {
        for container in view.of_kind(Kind::App).filter(|c| seen.latest(c.name()).is_none()) {
            wait(plan, container, "PodInitializing", "");
        }
    }
}

/// What containers that were not started yet wait for; as upstream, it names init containers as long as there are any.
fn first_reason(view: &PodView) -> &'static str {
    if view.containers.iter().any(|c| matches!(c.kind, Kind::Init | Kind::Sidecar)) {
        "PodInitializing"
    } else {
        "ContainerCreating"
    }
}

fn wait(plan: &mut Plan, container: &ContainerView, reason: &str, message: &str) {
    plan.waiting.insert(container.name().to_string(), (reason.to_string(), message.to_string()));
}

fn sandbox_ready(seen: &Observed, memory: &Memory, now: Timestamp, plan: &mut Plan) -> bool {
    if memory.sandbox_operations > 0 {
        return false;
    }
    if seen.ready_sandbox().is_some() {
        return true;
    }
    if let Some(failure) = memory.sandbox_failure.as_ref().filter(|f| f.retry_at > now) {
        plan.wake(failure.retry_at);
        return false;
    }
    match seen.sandbox() {
        // The dead sandbox may still hold processes; they end before the next one begins.
        Some(dead) if seen.any_alive() => plan.actions.push(Action::StopSandbox { id: dead.id.clone() }),
        _ => plan.actions.push(Action::RunSandbox { attempt: seen.next_attempt() }),
    }
    false
}

/// Takes init containers and sidecars one step on; true when the app containers may run.
fn init(view: &PodView, seen: &Observed, memory: &Memory, now: Timestamp, plan: &mut Plan) -> bool {
    let app_ran =
        view.of_kind(Kind::App).any(|c| seen.current(c).is_some() || memory.operations.contains_key(c.name()));
    let mut open = true;
    for container in view.containers.iter().filter(|c| matches!(c.kind, Kind::Init | Kind::Sidecar)) {
        if !open {
            if seen.latest(container.name()).is_none() {
                wait(plan, container, "PodInitializing", "");
            }
            continue;
        }
        match container.kind {
            Kind::Init if app_ran => {}
            Kind::Init => {
                let done = seen.current(container).is_some_and(|r| r.exited() && r.exit_code() == 0);
                if !done {
                    advance(view, container, seen, memory, now, plan);
                    open = false;
                }
            }
            _ => {
                advance(view, container, seen, memory, now, plan);
                let started = seen.current(container).is_some_and(|r| started(container, r, memory));
                open = app_ran || started;
            }
        }
    }
    open
}

/// A running container whose postStart hook and startup probe are through.
pub(super) fn started(container: &ContainerView, record: &Seen, memory: &Memory) -> bool {
    let id = &record.status.id;
    let probed = container.spec.startup_probe.is_none()
        || memory.verdicts.get(id).is_some_and(|verdicts| verdicts.started == Some(true));
    record.running() && probed && !memory.hooks.contains(id)
}

/// One container: start, restart after its back-off, or stop because it changed or its probe failed.
fn advance(
    view: &PodView,
    container: &ContainerView,
    seen: &Observed,
    memory: &Memory,
    now: Timestamp,
    plan: &mut Plan,
) {
    let name = container.name();
    let operation = memory.operations.get(name).copied();
    let record = seen.latest(name);
    if let Some(record) = seen.current(container).filter(|r| r.running()) {
        if operation.is_none() {
            stop_if_unwanted(view, container, record, memory, plan);
        }
        return;
    }
    if let Some(operation) = operation {
        if operation == Operation::Starting && record.is_none_or(|r| !r.exited()) {
            wait(plan, container, first_reason(view), "");
        }
        return;
    }
    if let Some(failure) = memory.failures.get(name) {
        let (reason, message) = failure.shown(now);
        wait(plan, container, &reason, &message);
        if failure.retry_at > now {
            plan.wake(failure.retry_at);
            if let Some((from, ..)) = failure.later.as_ref().filter(|(from, ..)| *from > now) {
                plan.wake(*from);
            }
            return;
        }
    }
    let ended = record.filter(|r| r.exited()).map(|r| r.finished_at().unwrap_or(now));
    if let Some(code) = last_exit(container, seen, memory) {
        let in_place = seen.current(container).is_some() || record.is_none();
        // In a new sandbox everything starts over, except what is done for good.
        if !view.restarts(container, code) && (in_place || container.kind != Kind::Init) {
            return;
        }
    }
    if let Some((until, delay)) = ended.and_then(|ended| memory.crashes.until(&crash_key(container), ended, now)) {
        let delay = go_duration(delay);
        let message = format!("back-off {delay} restarting failed container={name} pod={}", view.formatted());
        wait(plan, container, "CrashLoopBackOff", &message);
        plan.wake(until);
        return;
    }
    if !plan.waiting.contains_key(name) && record.is_none() {
        wait(plan, container, first_reason(view), "");
    }
    plan.actions.push(Action::StartContainer {
        name: name.to_string(),
        restart_count: next_restart_count(container, seen, memory),
        ended,
    });
}

/// The key of a container in the back-off; a changed spec starts over.
pub(crate) fn crash_key(container: &ContainerView) -> String {
    format!("{}/{}", container.name(), container.hash)
}

fn next_restart_count(container: &ContainerView, seen: &Observed, memory: &Memory) -> u32 {
    if let Some(record) = seen.latest(container.name()) {
        return record.restart_count + 1;
    }
    match reported(container.name(), memory) {
        Some(status) if status.container_id.is_some() => u32::try_from(status.restart_count).unwrap_or(0) + 1,
        Some(status) => u32::try_from(status.restart_count).unwrap_or(0),
        None => 0,
    }
}

fn stop_if_unwanted(view: &PodView, container: &ContainerView, record: &Seen, memory: &Memory, plan: &mut Plan) {
    let name = container.name();
    let verdict = memory.verdicts.get(&record.status.id).and_then(|v| v.kill.clone());
    let (message, probe_grace) = if record.hash != container.hash && container.kind != Kind::Ephemeral {
        (format!("Container {name} definition changed, will be restarted"), None)
    } else if let Some(message) = verdict {
        let probes = [&container.spec.liveness_probe, &container.spec.startup_probe];
        let startup = message.contains("startup probe");
        let probe = if startup { probes[1] } else { probes[0] };
        (message, probe.as_ref().and_then(|p| p.termination_grace_period_seconds))
    } else {
        return;
    };
    let seconds = probe_grace.or(view.spec().termination_grace_period_seconds).unwrap_or(30);
    plan.actions.push(Action::StopContainer {
        name: name.to_string(),
        id: record.status.id.clone(),
        message,
        grace: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).max(SHORTEST_GRACE),
        after: Vec::new(),
    });
}

/// Keeps one dead record of each container beside the newest, and no dead sandbox that holds none of them.
fn collect_garbage(view: &PodView, seen: &Observed, memory: &Memory, plan: &mut Plan) {
    let mut removed = Vec::new();
    for container in &view.containers {
        if memory.operations.contains_key(container.name()) {
            continue;
        }
        let keep = if seen.latest(container.name()).is_some_and(Seen::exited) { 1 } else { 2 };
        for record in seen.records(container.name()).skip(keep).filter(|r| !r.running()) {
            removed.push(record.status.id.clone());
        }
    }
    if memory.sandbox_operations == 0 {
        for sandbox in seen.sandboxes.iter().skip(1) {
            let held =
                seen.containers.iter().any(|c| c.status.sandbox == sandbox.id && !removed.contains(&c.status.id));
            if !held {
                plan.actions.push(Action::RemoveSandbox { id: sandbox.id.clone() });
            }
        }
    }
    plan.actions.extend(removed.into_iter().map(|id| Action::RemoveContainer { id }));
}

#[cfg(test)]
mod tests;
