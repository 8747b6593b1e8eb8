//! The columns of pods.

use jiff::Timestamp;
use serde_json::Value;

use super::describe::{NONE, condition, count, holds, member, or};
use super::{AGE, Column, NAME, text, wide};
use crate::{Object, time};

pub(super) const POD: &[Column] = &[
    NAME,
    text("Ready", "Containers that are ready, of all that keep running.", |pod, _| {
        let view = View::of(pod);
        format!("{}/{}", view.ready, view.total).into()
    }),
    text("Status", "The state of the pod in one word.", |pod, _| View::of(pod).reason.into()),
    text("Restarts", "Restarts of the pod's containers, and when the last one was.", |pod, now| {
        View::of(pod).restarts(now).into()
    }),
    AGE,
    wide(text("IP", "First address of the pod.", |pod, _| {
        let first = pod.array(&["status", "podIPs"]).first().map(|ip| member(ip, "ip")).filter(|ip| !ip.is_empty());
        first.unwrap_or_else(|| or(pod, &["status", "podIP"], NONE)).into()
    })),
    wide(text("Node", "Node the pod is bound to.", |pod, _| or(pod, &["spec", "nodeName"], NONE).into())),
    wide(text("Nominated Node", "Node on which room is being made for the pod.", |pod, _| {
        or(pod, &["status", "nominatedNodeName"], NONE).into()
    })),
    wide(text("Readiness Gates", "Readiness gates that hold, of all the pod has.", |pod, _| {
        let gates = pod.array(&["spec", "readinessGates"]);
        if gates.is_empty() {
            return NONE.into();
        }
        let open = gates.iter().filter(|gate| holds(pod, member(gate, "conditionType"))).count();
        format!("{open}/{}", gates.len()).into()
    })),
];

/// What the containers' states add up to.
struct View {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl View {
    fn of(pod: &Object) -> Self {
        let init_containers = pod.array(&["spec", "initContainers"]);
        let keeps_running = |name: &str| {
            init_containers.iter().any(|c| member(c, "name") == name && member(c, "restartPolicy") == "Always")
        };
        let sidecars = init_containers.iter().filter(|c| member(c, "restartPolicy") == "Always").count();
        let mut view = Self {
            reason: or(pod, &["status", "reason"], or(pod, &["status", "phase"], "")).to_owned(),
            ready: 0,
            total: pod.array(&["spec", "containers"]).len() + sidecars,
            restarts: 0,
            last_restart: None,
        };
        if condition(pod, "PodScheduled").is_some_and(|c| member(c, "reason") == "SchedulingGated") {
            view.reason = "SchedulingGated".to_owned();
        }
        let initializing = view.add_init_containers(pod, init_containers.len(), keeps_running);
        if !initializing || holds(pod, "Initialized") {
            view.restarts = 0;
            view.last_restart = None;
            for status in pod.array(&["status", "initContainerStatuses"]) {
                if keeps_running(member(status, "name")) {
                    view.add_restarts(status);
                }
            }
            view.add_containers(pod);
        }
        if pod.is_deleting() {
            if pod.str(&["status", "reason"]) == Some("NodeLost") {
                view.reason = "Unknown".to_owned();
            } else if !matches!(pod.str(&["status", "phase"]), Some("Succeeded" | "Failed")) {
                view.reason = "Terminating".to_owned();
            }
        }
        view
    }

    fn add_restarts(&mut self, status: &Value) {
        self.restarts += status.get("restartCount").and_then(Value::as_i64).unwrap_or_default();
        let ended = status.pointer("/lastState/terminated/finishedAt").and_then(Value::as_str).and_then(time::parse);
        self.last_restart = self.last_restart.max(ended);
    }

    /// Gives whether the pod still initialises, with the reason set to what it waits for.
    fn add_init_containers(&mut self, pod: &Object, total: usize, keeps_running: impl Fn(&str) -> bool) -> bool {
        for (index, status) in pod.array(&["status", "initContainerStatuses"]).iter().enumerate() {
            self.add_restarts(status);
            let flag = |name: &str| status.get(name).and_then(Value::as_bool).unwrap_or_default();
            let waiting = status.pointer("/state/waiting/reason").and_then(Value::as_str).unwrap_or_default();
            match status.pointer("/state/terminated") {
                Some(ended) if exit_code(ended) == 0 => continue,
                _ if keeps_running(member(status, "name")) && flag("started") => {
                    self.ready += usize::from(flag("ready"));
                    continue;
                }
                Some(ended) => self.reason = format!("Init:{}", end_reason(ended)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => self.reason = format!("Init:{waiting}"),
                None => self.reason = format!("Init:{index}/{total}"),
            }
            return true;
        }
        false
    }

    fn add_containers(&mut self, pod: &Object) {
        let mut running = false;
        for status in pod.array(&["status", "containerStatuses"]).iter().rev() {
            self.add_restarts(status);
            let waiting = status.pointer("/state/waiting/reason").and_then(Value::as_str).unwrap_or_default();
            let ready = status.get("ready").and_then(Value::as_bool).unwrap_or_default();
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(ended) = status.pointer("/state/terminated") {
                self.reason = end_reason(ended);
            } else if ready && status.pointer("/state/running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        // Some containers are done and others go on.
        if self.reason == "Completed" && running {
            self.reason = if holds(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn restarts(&self, now: Timestamp) -> String {
        match self.last_restart {
            Some(last) if self.restarts > 0 => format!("{} ({} ago)", self.restarts, time::age(Some(last), now)),
            _ => self.restarts.to_string(),
        }
    }
}

fn exit_code(ended: &Value) -> i64 {
    ended.get("exitCode").and_then(Value::as_i64).unwrap_or_default()
}

fn end_reason(ended: &Value) -> String {
    let signal = ended.get("signal").and_then(Value::as_i64).unwrap_or_default();
    match (member(ended, "reason"), signal) {
        ("", 0) => format!("ExitCode:{}", exit_code(ended)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// A count of ready replicas as `ready/desired`.
pub(super) fn ready_of(object: &Object) -> Value {
    format!("{}/{}", count(object, &["status", "readyReplicas"]), count(object, &["spec", "replicas"])).into()
}
