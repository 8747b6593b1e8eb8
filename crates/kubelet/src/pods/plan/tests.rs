//! The plan as a table of situations.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kminik_runtime::{ContainerStatus, SandboxStatus};
use serde_json::{Value, json};

use super::super::memory::Verdicts;
use super::super::observed::annotation;
use super::super::status;
use super::*;

struct Situation {
    view: PodView,
    seen: Observed,
    memory: Memory,
    now: Timestamp,
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

impl Situation {
    fn new(spec: Value) -> Self {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1}, "spec": spec});
        let view = PodView::new(Arc::new(serde_json::from_value(pod).unwrap()));
        let memory = Memory { volumes: Volumes::Mounted, first_seen: Some(now()), ..Memory::default() };
        Self { view, seen: Observed::default(), memory, now: now() }.sandbox("s0", SandboxState::Ready)
    }

    fn sandbox(mut self, id: &str, state: SandboxState) -> Self {
        let attempt = id.trim_start_matches('s').to_string();
        let status = SandboxStatus {
            id: id.into(),
            state,
            created_at: SystemTime::UNIX_EPOCH,
            ips: vec!["10.0.0.1".parse().unwrap()],
            netns: None,
            labels: Default::default(),
            annotations: [(annotation::ATTEMPT.to_string(), attempt)].into(),
        };
        self.seen.sandboxes.retain(|s| s.id != id);
        self.seen.sandboxes.insert(0, status);
        self
    }

    /// A record in the newest sandbox; `exit`: its code, if it has ended.
    fn record(mut self, name: &str, restart_count: u32, exit: Option<i32>) -> Self {
        let hash = self.view.container(name).map(|c| c.hash.clone()).unwrap_or_default();
        let status = ContainerStatus {
            id: format!("{name}-{restart_count}"),
            sandbox: self.seen.sandboxes[0].id.clone(),
            name: name.into(),
            state: if exit.is_some() { ContainerState::Exited } else { ContainerState::Running },
            pid: None,
            created_at: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(restart_count)),
            started_at: Some(SystemTime::UNIX_EPOCH),
            finished_at: exit.map(|_| SystemTime::UNIX_EPOCH + Duration::from_secs(999_990)),
            exit_code: exit,
            reason: None,
            message: None,
            log_path: "/none".into(),
            labels: Default::default(),
            annotations: [
                (annotation::RESTART_COUNT.to_string(), restart_count.to_string()),
                (annotation::HASH.to_string(), hash),
            ]
            .into(),
        };
        self.seen.containers.insert(0, Seen::new(status));
        self
    }

    fn edit(mut self, edit: impl FnOnce(&mut Value)) -> Self {
        let mut pod = serde_json::to_value(self.view.pod.as_ref()).unwrap();
        edit(&mut pod);
        self.view = PodView::new(Arc::new(serde_json::from_value(pod).unwrap()));
        self
    }

    fn remember(mut self, edit: impl FnOnce(&mut Memory)) -> Self {
        edit(&mut self.memory);
        self
    }

    fn plan(&self) -> Plan {
        plan(&self.view, &self.seen, &self.memory, self.now)
    }

    /// Short names of the actions.
    fn actions(&self) -> Vec<String> {
        let short = |action: &Action| match action {
            Action::StartContainer { name, restart_count, .. } => format!("start {name} {restart_count}"),
            Action::StopContainer { name, after, .. } => format!("stop {name} after {after:?}"),
            Action::CancelStart { name } => format!("cancel {name}"),
            Action::HastenStop { name, .. } => format!("hasten {name}"),
            Action::RunSandbox { attempt } => format!("sandbox {attempt}"),
            other => format!("{other:?}"),
        };
        self.plan().actions.iter().map(short).collect()
    }

    fn phase(&self) -> String {
        status::compute(&self.view, &self.seen, &self.memory, &self.plan(), &[], self.now).phase.unwrap()
    }
}

fn container(name: &str) -> Value {
    json!({"name": name, "image": "i"})
}

fn sidecar(name: &str) -> Value {
    json!({"name": name, "image": "i", "restartPolicy": "Always"})
}

#[test]
fn everything_begins_at_once() {
    let mut new = Situation::new(json!({"containers": [container("a")]}));
    new.seen = Observed::default();
    new.memory.volumes = Volumes::Unmounted;
    assert_eq!(new.actions(), ["MountVolumes", "sandbox 0"]);
    assert_eq!(new.plan().waiting["a"].0, "ContainerCreating");
    assert_eq!(new.phase(), "Pending");
}

#[test]
fn init_then_sidecar_then_apps() {
    let spec = json!({"initContainers": [container("i"), sidecar("s"), container("j")], "containers": [container("a"), container("b")]});
    let pod = || Situation::new(spec.clone());
    assert_eq!(pod().actions(), ["start i 0"]);
    assert!(pod().record("i", 0, None).actions().is_empty());
    assert_eq!(pod().record("i", 0, Some(0)).actions(), ["start s 0"]);
    let with_sidecar = || pod().record("i", 0, Some(0)).record("s", 0, None);
    assert_eq!(with_sidecar().actions(), ["start j 0"]);
    let initialized = || with_sidecar().record("j", 0, Some(0));
    assert_eq!(initialized().actions(), ["start a 0", "start b 0"]);
    let running = || initialized().record("a", 0, None).record("b", 0, None);
    assert!(running().actions().is_empty());
    assert_eq!(running().phase(), "Running");
    // A sidecar comes back while the apps run.
    let mut back = running().record("s", 1, Some(1));
    back.seen.containers.retain(|c| c.status.id != "s-0");
    assert_eq!(back.actions(), ["start s 2"]);
}

#[test]
fn a_sidecar_with_a_startup_probe_holds_the_rest() {
    let mut probed = sidecar("s");
    probed["startupProbe"] = json!({"exec": {"command": ["x"]}});
    let pod = Situation::new(json!({"initContainers": [probed], "containers": [container("a")]})).record("s", 0, None);
    assert!(pod.actions().is_empty());
    let started =
        pod.remember(|m| drop(m.verdicts.insert("s-0".into(), Verdicts { started: Some(true), ..Default::default() })));
    assert_eq!(started.actions(), ["start a 0"]);
}

#[test]
fn sidecars_stop_last() {
    let spec = json!({"initContainers": [sidecar("s"), sidecar("t")], "containers": [container("a")]});
    let pod = Situation::new(spec).record("s", 0, None).record("t", 0, None).record("a", 0, None);
    let pod = pod.edit(|p| {
        p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        p["metadata"]["deletionGracePeriodSeconds"] = json!(5);
    });
    assert_eq!(pod.actions(), ["stop a after []", "stop t after [\"a\"]", "stop s after [\"t\", \"a\"]"]);
    let over = pod.record("a", 0, Some(0)).record("s", 0, Some(0)).record("t", 0, Some(0));
    let mut over = over;
    over.seen.containers.retain(Seen::exited);
    assert_eq!(over.actions(), ["Finish"]);
}

#[test]
fn restart_policies() {
    for (policy, code, restarts, phase) in [
        ("Always", 0, true, "Running"),
        ("Always", 1, true, "Running"),
        ("OnFailure", 0, false, "Succeeded"),
        ("OnFailure", 1, true, "Running"),
        ("Never", 0, false, "Succeeded"),
        ("Never", 1, false, "Failed"),
    ] {
        let pod =
            Situation::new(json!({"restartPolicy": policy, "containers": [container("a")]})).record("a", 0, Some(code));
        let started = pod.actions().contains(&"start a 1".to_string());
        assert_eq!((started, pod.phase().as_str()), (restarts, phase), "{policy} {code}");
    }
}

#[test]
fn restart_rules_of_a_container_win() {
    let mut ruled = container("a");
    ruled["restartPolicy"] = json!("Never");
    ruled["restartPolicyRules"] = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let pod = |code| {
        Situation::new(json!({"restartPolicy": "Always", "containers": [ruled.clone()]})).record("a", 0, Some(code))
    };
    assert_eq!(pod(42).actions(), ["start a 1"]);
    assert_eq!(pod(1).phase(), "Failed");
}

#[test]
fn crashes_back_off() {
    let pod = Situation::new(json!({"containers": [container("a")]})).record("a", 0, Some(1));
    let key = crash_key(&pod.view.containers[0]);
    let ended = Timestamp::from_second(999_990).unwrap();
    let pod = pod.remember(|m| {
        m.crashes.advance(&key, ended, ended);
        m.crashes.advance(&key, ended, ended);
    });
    let plan = pod.plan();
    assert_eq!(
        plan.waiting["a"],
        ("CrashLoopBackOff".into(), "back-off 20s restarting failed container=a pod=p_n(u)".into())
    );
    assert_eq!(plan.wake_at, Some(plus(ended, Duration::from_secs(20))));
    assert!(plan.actions.is_empty());
}

#[test]
fn a_dead_sandbox_is_replaced() {
    let pod = Situation::new(json!({"initContainers": [container("i")], "containers": [container("a")]}));
    let dead = pod.record("i", 0, Some(0)).record("a", 0, None).sandbox("s0", SandboxState::NotReady);
    assert_eq!(dead.actions(), ["StopSandbox { id: \"s0\" }"]);
    let mut dead = dead.record("a", 1, Some(137));
    dead.seen.containers.retain(Seen::exited);
    assert_eq!(dead.actions(), ["sandbox 1"]);
    // In the new one the init containers run again.
    let again = dead.sandbox("s1", SandboxState::Ready);
    assert_eq!(again.actions(), ["start i 1"]);
}

#[test]
fn a_changed_image_or_a_failed_probe_restarts_the_container() {
    let pod = Situation::new(json!({"containers": [container("a")]})).record("a", 0, None);
    assert!(pod.actions().is_empty());
    let pod = pod.edit(|p| p["spec"]["containers"][0]["image"] = json!("other"));
    assert_eq!(pod.actions(), ["stop a after []"]);
    let pod = Situation::new(json!({"containers": [container("a")]})).record("a", 0, None);
    let pod = pod.remember(|m| {
        drop(m.verdicts.insert("a-0".into(), Verdicts { kill: Some("why".into()), ..Default::default() }))
    });
    assert!(matches!(&pod.plan().actions[..], [Action::StopContainer { message, .. }] if message == "why"));
}

#[test]
fn a_deadline_ends_the_pod() {
    let pod = Situation::new(json!({"activeDeadlineSeconds": 5, "containers": [container("a")]})).record("a", 0, None);
    assert_eq!(pod.plan().wake_at, Some(plus(now(), Duration::from_secs(5))));
    let mut late = pod;
    late.now = plus(now(), Duration::from_secs(6));
    assert_eq!(late.actions(), ["stop a after []"]);
    assert_eq!(late.phase(), "Pending", "not over as long as something runs");
    let mut over = late.record("a", 0, Some(137));
    over.seen.containers.retain(Seen::exited);
    let status = status::compute(&over.view, &over.seen, &over.memory, &over.plan(), &[], over.now);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
}

#[test]
fn deleting_cancels_what_begins() {
    let pod = Situation::new(json!({"containers": [container("a")]})).remember(|m| {
        m.operations.insert("a".into(), Operation::Starting);
    });
    let pod = pod.edit(|p| p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    assert_eq!(pod.actions(), ["cancel a"]);
    let idle = pod.remember(|m| m.operations.clear());
    assert_eq!(idle.actions(), ["Finish"]);
}

#[test]
fn an_ended_pod_keeps_its_records_but_not_its_sandbox_and_volumes() {
    let pod =
        || Situation::new(json!({"restartPolicy": "Never", "containers": [container("a")]})).record("a", 0, Some(0));
    assert_eq!(pod().actions(), ["StopSandbox { id: \"s0\" }"]);
    let stopped = || pod().sandbox("s0", SandboxState::NotReady);
    assert_eq!(stopped().actions(), ["UnmountVolumes"]);
    assert!(stopped().remember(|m| m.volumes = Volumes::Unmounted).actions().is_empty());
}

#[test]
fn a_lost_record_is_not_a_container_that_never_ran() {
    let reported = json!({"containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 3,
        "containerID": "kminik://x", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]});
    let pod = |policy: &str| {
        let pod = Situation::new(json!({"restartPolicy": policy, "containers": [container("a")]}));
        pod.remember(|m| m.reported = serde_json::from_value(reported.clone()).unwrap())
    };
    assert_eq!(pod("Always").actions(), ["start a 4"]);
    assert_eq!(pod("Never").phase(), "Failed");
    let never = pod("Never");
    let status = status::compute(&never.view, &never.seen, &never.memory, &never.plan(), &[], never.now);
    let state = status.container_statuses.unwrap()[0].state.clone().unwrap();
    assert_eq!(state.terminated.unwrap().reason.as_deref(), Some("ContainerStatusUnknown"));
}

#[test]
fn one_dead_record_is_kept() {
    let pod = Situation::new(json!({"containers": [container("a")]}));
    let pod = pod.record("a", 0, Some(1)).record("a", 1, Some(1)).record("a", 2, None);
    assert_eq!(pod.actions(), ["RemoveContainer { id: \"a-0\" }"]);
}

#[test]
fn conditions_and_readiness() {
    let mut probed = container("a");
    probed["readinessProbe"] = json!({"tcpSocket": {"port": 1}});
    let pod = Situation::new(json!({"containers": [probed]})).record("a", 0, None);
    let condition = |pod: &Situation, kind: &str| {
        let status = status::compute(&pod.view, &pod.seen, &pod.memory, &pod.plan(), &[], pod.now);
        let found = status.conditions.unwrap().into_iter().find(|c| c.type_ == kind).unwrap();
        (found.status, found.message.unwrap_or_default())
    };
    assert_eq!(condition(&pod, "Ready"), ("False".into(), "containers with unready status: [a]".into()));
    let pod =
        pod.remember(|m| drop(m.verdicts.insert("a-0".into(), Verdicts { ready: Some(true), ..Default::default() })));
    assert_eq!(condition(&pod, "Ready").0, "True");
    let gated = pod.edit(|p| p["spec"]["readinessGates"] = json!([{"conditionType": "x/y"}]));
    assert_eq!(condition(&gated, "Ready").0, "False");
    assert_eq!(condition(&gated, "ContainersReady").0, "True");
}
