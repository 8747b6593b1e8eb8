//! The status of a pod: a pure function of the desired pod, what the runtime has, what the worker remembers, its plan and the clock.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, PodCondition, PodIP, PodStatus, ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::memory::Memory;
use super::observed::{Observed, Seen, annotation, timestamp};
use super::plan::{Plan, last_exit, reported, started};
use super::view::{ContainerView, Kind, PodView, RestartPolicy};
use crate::container::qos;

/// Prefix of container ids in the API.
pub(crate) const ID_PREFIX: &str = "kminik://";

/// See the module. `host_ips`: of the node, primary first.
pub(crate) fn compute(
    view: &PodView,
    seen: &Observed,
    memory: &Memory,
    plan: &Plan,
    host_ips: &[String],
    now: Timestamp,
) -> PodStatus {
    let statuses = |kinds: &[Kind]| -> Option<Vec<ContainerStatus>> {
        let list: Vec<_> = view
            .containers
            .iter()
            .filter(|c| kinds.contains(&c.kind))
            .map(|c| container_status(view, c, seen, memory, plan, now))
            .collect();
        (!list.is_empty()).then_some(list)
    };
    let init = statuses(&[Kind::Init, Kind::Sidecar]);
    let apps = statuses(&[Kind::App]);
    let (phase, reason, message) = phase(view, seen, memory, plan, init.as_deref(), apps.as_deref());
    let ips = pod_ips(view, seen, memory, host_ips);
    let mut status = PodStatus {
        phase: Some(phase.clone()),
        reason,
        message,
        start_time: memory.reported.start_time.clone().or(memory.first_seen.map(Time)),
        qos_class: Some(qos::class(view.spec()).as_str().to_string()),
        observed_generation: view.pod.metadata.generation,
        ..PodStatus::default()
    };
    if memory.rejected.is_none() {
        status.host_ip = host_ips.first().cloned();
        status.host_ips = Some(host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
        status.pod_ip = ips.first().cloned();
        status.pod_ips = (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect());
        status.init_container_statuses = init;
        status.container_statuses = apps;
        status.ephemeral_container_statuses = statuses(&[Kind::Ephemeral]);
    }
    status.conditions = Some(conditions(view, seen, memory, plan, &status, &phase, now));
    status
}

fn pod_ips(view: &PodView, seen: &Observed, memory: &Memory, host_ips: &[String]) -> Vec<String> {
    if view.host_network() {
        return if seen.sandbox().is_some() { host_ips.to_vec() } else { Vec::new() };
    }
    match seen.sandbox() {
        Some(sandbox) if !sandbox.ips.is_empty() => sandbox.ips.iter().map(ToString::to_string).collect(),
        // An ended pod keeps the address it had.
        _ => memory.reported.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
    }
}

fn phase(
    view: &PodView,
    seen: &Observed,
    memory: &Memory,
    plan: &Plan,
    init: Option<&[ContainerStatus]>,
    apps: Option<&[ContainerStatus]>,
) -> (String, Option<String>, Option<String>) {
    let before = memory.reported.phase.clone().unwrap_or_else(|| "Pending".into());
    if matches!(before.as_str(), "Failed" | "Succeeded") {
        return (before, memory.reported.reason.clone(), memory.reported.message.clone());
    }
    if let Some((reason, message)) = &plan.ended {
        // Not terminal as long as something may run.
        if plan.terminal {
            return ("Failed".into(), Some(reason.clone()), Some(message.clone()));
        }
        return (before, memory.reported.reason.clone(), memory.reported.message.clone());
    }
    let apps = apps.unwrap_or_default();
    let exit = |c: &ContainerView| last_exit(c, seen, memory);
    let succeeded = |s: &ContainerStatus| terminated(s).is_some_and(|t| t.exit_code == 0);
    let init_failed =
        view.of_kind(Kind::Init).any(|c| exit(c).is_some_and(|code| code != 0 && !view.restarts(c, code)));
    if plan.terminal {
        let ran = apps.iter().all(|s| terminated(s).is_some());
        let good = !init_failed && ran && apps.iter().all(succeeded);
        return (if good { "Succeeded" } else { "Failed" }.into(), None, None);
    }
    let any_ran = apps.iter().any(|s| running(s) || terminated(s).is_some() || last_terminated(s).is_some());
    let initializing = !any_ran
        && init.unwrap_or_default().iter().any(|s| {
            let sidecar = view.container(&s.name).is_some_and(|c| c.kind == Kind::Sidecar);
            if sidecar { s.started != Some(true) } else { !succeeded(s) }
        });
    let waiting = apps.iter().any(|s| !running(s) && terminated(s).is_none() && last_terminated(s).is_none());
    let phase = if initializing || waiting { "Pending" } else { "Running" };
    (phase.into(), None, None)
}

fn running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

fn terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

fn last_terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.last_state.as_ref()?.terminated.as_ref()
}

fn container_status(
    view: &PodView,
    container: &ContainerView,
    seen: &Observed,
    memory: &Memory,
    plan: &Plan,
    now: Timestamp,
) -> ContainerStatus {
    let name = container.name();
    let mut records = seen.records(name);
    let latest = records.next();
    let before = records.find(|r| r.exited());
    let old = reported(name, memory);
    let waiting = plan.waiting.get(name).map(|(reason, message)| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.clone()),
            message: (!message.is_empty()).then(|| message.clone()),
        }),
        ..ContainerState::default()
    });
    let mut status =
        ContainerStatus { name: name.to_string(), image: container.image().to_string(), ..ContainerStatus::default() };
    let ended = |record: &Seen| ContainerState {
        terminated: Some(terminated_state(record, memory)),
        ..ContainerState::default()
    };
    match latest {
        Some(record) => {
            describe_record(&mut status, record);
            let run = record.running();
            status.state = Some(match (run, record.exited(), waiting) {
                (true, ..) => ContainerState {
                    running: Some(ContainerStateRunning {
                        started_at: record.status.started_at.map(|t| Time(timestamp(t))),
                    }),
                    ..ContainerState::default()
                },
                (false, true, None) => ended(record),
                (false, _, Some(waiting)) => waiting,
                (false, false, None) => creating(view),
            });
            let over = status.state.as_ref().is_some_and(|s| s.waiting.is_some()) && record.exited();
            status.last_state = if over { Some(ended(record)) } else { before.map(ended) };
            status.started = Some(started(container, record, memory));
            status.ready = ready(container, record, memory);
            if container.kind == Kind::Init && record.exited() {
                status.ready = record.exit_code() == 0;
            }
        }
        None => from_reported(&mut status, view, old, waiting, plan, now),
    }
    if status.last_state.is_none() {
        // The record may be collected; what was reported stays true.
        let kept =
            old.filter(|old| old.restart_count == i32::try_from(latest.map_or(0, |r| r.restart_count)).unwrap_or(0));
        status.last_state = kept.and_then(|old| old.last_state.clone()).filter(|s| s.terminated.is_some());
    }
    if status.last_state.is_none() {
        status.last_state = Some(ContainerState::default());
    }
    resources(&mut status, &container.spec, latest.is_some_and(Seen::running));
    status.volume_mounts = volume_mounts(&container.spec);
    status
}

/// No record: nothing was created yet, or the runtime lost it. Then what was reported before counts.
fn from_reported(
    status: &mut ContainerStatus,
    view: &PodView,
    old: Option<&ContainerStatus>,
    waiting: Option<ContainerState>,
    plan: &Plan,
    now: Timestamp,
) {
    status.started = Some(false);
    let old_state = old.and_then(|old| old.state.clone()).unwrap_or_default();
    if let Some(old) = old {
        status.restart_count = old.restart_count;
        status.container_id = old.container_id.clone();
        status.image_id = old.image_id.clone();
        status.last_state = old.last_state.clone();
    }
    let lost = old_state.running.map(|run| ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            started_at: run.started_at,
            finished_at: Some(Time(now)),
            container_id: status.container_id.clone(),
            signal: None,
        }),
        ..ContainerState::default()
    });
    let ended =
        lost.or_else(|| old_state.terminated.map(|t| ContainerState { terminated: Some(t), ..Default::default() }));
    status.state = Some(match (waiting, ended) {
        (Some(waiting), Some(ended)) => {
            status.last_state = Some(ended);
            waiting
        }
        (None, Some(ended)) => ended,
        (Some(waiting), None) => waiting,
        (None, None) if plan.terminal => never_ran(now),
        (None, None) => creating(view),
    });
}

fn creating(view: &PodView) -> ContainerState {
    let init = view.containers.iter().any(|c| matches!(c.kind, Kind::Init | Kind::Sidecar));
    let reason = if init { "PodInitializing" } else { "ContainerCreating" };
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.into()), message: None }),
        ..ContainerState::default()
    }
}

/// As upstream reports a container of an ended pod that never ran.
fn never_ran(_now: Timestamp) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn describe_record(status: &mut ContainerStatus, record: &Seen) {
    status.restart_count = i32::try_from(record.restart_count).unwrap_or(i32::MAX);
    status.container_id = Some(format!("{ID_PREFIX}{}", record.status.id));
    if let Some(image) = record.status.annotations.get(annotation::IMAGE) {
        status.image = image.clone();
    }
    status.image_id = record.status.annotations.get(annotation::IMAGE_ID).cloned().unwrap_or_default();
    status.stop_signal = record.status.annotations.get(annotation::STOP_SIGNAL).cloned();
}

fn ready(container: &ContainerView, record: &Seen, memory: &Memory) -> bool {
    if !started(container, record, memory) {
        return false;
    }
    container.spec.readiness_probe.is_none()
        || memory.verdicts.get(&record.status.id).is_some_and(|v| v.ready == Some(true))
}

fn terminated_state(record: &Seen, memory: &Memory) -> ContainerStateTerminated {
    let status = &record.status;
    let time = |t: Option<std::time::SystemTime>| Some(Time(t.map_or(Timestamp::UNIX_EPOCH, timestamp)));
    let reason = status.reason.clone().filter(|r| !r.is_empty());
    let default = if record.exit_code() == 0 { "Completed" } else { "Error" };
    let message = memory.messages.get(&status.id).cloned().filter(|m| !m.is_empty()).or_else(|| status.message.clone());
    ContainerStateTerminated {
        exit_code: record.exit_code(),
        reason: Some(reason.unwrap_or_else(|| default.into())),
        message,
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        container_id: Some(format!("{ID_PREFIX}{}", status.id)),
        signal: None,
    }
}

fn resources(status: &mut ContainerStatus, spec: &Container, running: bool) {
    let Some(wanted) = spec.resources.as_ref() else { return };
    status.allocated_resources = wanted.requests.clone().filter(|r| !r.is_empty());
    if running {
        let none = |m: &Option<BTreeMap<_, _>>| m.as_ref().is_none_or(BTreeMap::is_empty);
        status.resources = Some(if none(&wanted.requests) && none(&wanted.limits) {
            ResourceRequirements::default()
        } else {
            ResourceRequirements { claims: None, ..wanted.clone() }
        });
    }
}

fn volume_mounts(spec: &Container) -> Option<Vec<VolumeMountStatus>> {
    let list: Vec<_> = spec
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only.filter(|ro| *ro),
            recursive_read_only: mount.read_only.filter(|ro| *ro).map(|_| {
                let mode = mount.recursive_read_only.as_deref();
                if matches!(mode, Some("Enabled" | "IfPossible")) { "Enabled" } else { "Disabled" }.to_string()
            }),
        })
        .collect();
    (!list.is_empty()).then_some(list)
}

/// A condition before its times are known.
struct Verdict {
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn yes() -> Self {
        Self { status: true, reason: None, message: None }
    }

    fn no(reason: &'static str, message: Option<String>) -> Self {
        Self { status: false, reason: Some(reason), message }
    }
}

/// Conditions the kubelet owns; the order is upstream's.
pub(crate) const OWN_CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

fn conditions(
    view: &PodView,
    seen: &Observed,
    memory: &Memory,
    plan: &Plan,
    status: &PodStatus,
    phase: &str,
    now: Timestamp,
) -> Vec<PodCondition> {
    let over = matches!(phase, "Succeeded" | "Failed");
    let sandbox = seen.ready_sandbox().is_some_and(|s| view.host_network() || !s.ips.is_empty());
    let initialized = initialized(view, seen, memory, status, phase);
    let containers = containers_ready(view, status, phase);
    let ready = pod_ready(view, &containers, over);
    let verdicts = [
        Verdict { status: sandbox && !plan.terminal, reason: None, message: None },
        initialized,
        ready,
        containers,
        Verdict::yes(),
    ];
    let known: Vec<&PodCondition> = view.pod.status.iter().flat_map(|s| s.conditions.iter().flatten()).collect();
    let mut list: Vec<PodCondition> =
        known.iter().filter(|c| !OWN_CONDITIONS.contains(&c.type_.as_str())).map(|c| (*c).clone()).collect();
    for (type_, verdict) in OWN_CONDITIONS.iter().zip(verdicts) {
        let text = if verdict.status { "True" } else { "False" };
        let reported = memory.reported.conditions.iter().flatten().find(|c| c.type_ == *type_);
        let before = reported.or_else(|| known.iter().copied().find(|c| c.type_ == *type_));
        let since = before.filter(|c| c.status == text).and_then(|c| c.last_transition_time.clone());
        list.push(PodCondition {
            type_: (*type_).to_string(),
            status: text.to_string(),
            reason: verdict.reason.map(Into::into),
            message: verdict.message,
            last_transition_time: Some(since.unwrap_or(Time(now))),
            last_probe_time: None,
            observed_generation: view.pod.metadata.generation,
        });
    }
    list
}

fn initialized(view: &PodView, seen: &Observed, memory: &Memory, status: &PodStatus, phase: &str) -> Verdict {
    if phase == "Succeeded" && view.restart_policy() != RestartPolicy::Always {
        return Verdict { status: true, reason: Some("PodCompleted"), message: None };
    }
    let app_ran = view.of_kind(Kind::App).any(|c| {
        seen.latest(c.name()).is_some() || reported(c.name(), memory).is_some_and(|s| s.container_id.is_some())
    });
    let incomplete: Vec<&str> = view
        .containers
        .iter()
        .filter(|c| match c.kind {
            Kind::Init => !app_ran && last_exit(c, seen, memory) != Some(0),
            Kind::Sidecar => !app_ran && find(status, c.name()).is_none_or(|s| s.started != Some(true)),
            _ => false,
        })
        .map(ContainerView::name)
        .collect();
    if incomplete.is_empty() {
        return Verdict::yes();
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    Verdict::no("ContainersNotInitialized", Some(message))
}

fn find<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let lists = [&status.container_statuses, &status.init_container_statuses];
    lists.into_iter().flatten().flatten().find(|c| c.name == name)
}

fn containers_ready(view: &PodView, status: &PodStatus, phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::no("PodCompleted", None),
        "Failed" => return Verdict::no("PodFailed", None),
        _ => {}
    }
    let unready: Vec<&str> = view
        .containers
        .iter()
        .filter(|c| matches!(c.kind, Kind::App | Kind::Sidecar))
        .filter(|c| find(status, c.name()).is_none_or(|s| !s.ready))
        .map(ContainerView::name)
        .collect();
    if unready.is_empty() {
        return Verdict::yes();
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    Verdict::no("ContainersNotReady", Some(message))
}

fn pod_ready(view: &PodView, containers: &Verdict, over: bool) -> Verdict {
    if !containers.status || over {
        return Verdict { status: false, reason: containers.reason, message: containers.message.clone() };
    }
    let conditions = view.pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let mut unmet = Vec::new();
    for gate in view.spec().readiness_gates.iter().flatten() {
        let found = conditions.and_then(|list| list.iter().find(|c| c.type_ == gate.condition_type));
        match found {
            None => unmet.push(format!(
                "corresponding condition of pod readiness gate \"{}\" does not exist.",
                gate.condition_type
            )),
            Some(c) if c.status != "True" => {
                unmet.push(format!(
                    "the status of pod readiness gate \"{}\" is not \"True\", but {}",
                    gate.condition_type, c.status
                ));
            }
            Some(_) => {}
        }
    }
    if unmet.is_empty() { Verdict::yes() } else { Verdict::no("ReadinessGatesNotReady", Some(unmet.join(", "))) }
}
