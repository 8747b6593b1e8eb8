//! What a StatefulSet does next: pure, over its pods in the order of their numbers.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSetSpec;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use crate::deployment::scaled;
use crate::pods::{Availability, availability, is_terminal, is_terminating};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Create(i32),
    Delete(i32),
}

/// First number, and the one after the last.
pub(super) fn numbers(spec: &StatefulSetSpec) -> (i32, i32) {
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    (start, start + spec.replicas.unwrap_or(1))
}

/// How many pods, from the first on, keep the earlier template.
pub(super) fn partition(spec: &StatefulSetSpec) -> i32 {
    let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    rolling.and_then(|rolling| rolling.partition).unwrap_or(0)
}

fn unavailable_allowed(spec: &StatefulSetSpec) -> usize {
    let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let bound = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let bound = bound.map_or(1, |bound| scaled(bound, spec.replicas.unwrap_or(1), true));
    usize::try_from(bound).unwrap_or(1).max(1)
}

/// The steps to take now. With `OrderedReady` at most one, unless an update may take several.
pub(super) fn plan(
    spec: &StatefulSetSpec,
    pods: &[(i32, Arc<Pod>)],
    is_updated: impl Fn(&Pod) -> bool,
    now: Timestamp,
) -> Vec<Step> {
    let (start, end) = numbers(spec);
    let ordered = spec.pod_management_policy.as_deref() != Some("Parallel");
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let serves = |pod: &Pod| {
        !is_terminating(pod) && !is_terminal(pod) && availability(pod, min_ready, now) == Availability::Available
    };
    let mut steps = Vec::new();
    for number in start..end {
        let pod = pods.iter().find(|(own, _)| *own == number).map(|(_, pod)| pod);
        let waits = match pod {
            None => {
                steps.push(Step::Create(number));
                true
            }
            // Made anew once it is gone.
            Some(pod) if is_terminal(pod) => {
                if !is_terminating(pod) {
                    steps.push(Step::Delete(number));
                }
                true
            }
            Some(pod) => !serves(pod),
        };
        if waits && ordered {
            // A pod that stands in the way and is to be replaced anyway does not wait to become ready first.
            let broken = pod.filter(|pod| {
                steps.is_empty()
                    && !is_terminating(pod)
                    && rolls(spec)
                    && number >= start + partition(spec)
                    && !is_updated(pod)
            });
            if broken.is_some() {
                steps.push(Step::Delete(number));
            }
            return steps;
        }
    }
    let condemned: Vec<_> = pods.iter().rev().filter(|(number, _)| !(start..end).contains(number)).collect();
    for (number, pod) in &condemned {
        if is_terminating(pod) {
            if ordered {
                return steps;
            }
            continue;
        }
        steps.push(Step::Delete(*number));
        if ordered {
            return steps;
        }
    }
    if !rolls(spec) || (ordered && !condemned.is_empty()) {
        return steps;
    }
    let members = || pods.iter().rev().filter(|(number, _)| (start + partition(spec)..end).contains(number));
    let missing = members().filter(|(_, pod)| !serves(pod)).count();
    let absent = usize::try_from(end - start - partition(spec)).unwrap_or(0).saturating_sub(members().count());
    let mut room = unavailable_allowed(spec).saturating_sub(missing + absent);
    for (number, pod) in members() {
        if is_updated(pod) || is_terminating(pod) || is_terminal(pod) {
            continue;
        }
        if !serves(pod) {
            // It counts as missing already.
            steps.push(Step::Delete(*number));
        } else if room > 0 {
            room -= 1;
            steps.push(Step::Delete(*number));
        }
    }
    steps
}

fn rolls(spec: &StatefulSetSpec) -> bool {
    spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Step::{Create, Delete};
    use super::*;

    fn spec(value: Value) -> StatefulSetSpec {
        let mut spec = json!({"selector": {}, "serviceName": "s", "template": {}});
        for (name, field) in value.as_object().unwrap() {
            spec[name] = field.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    /// `r` ready, `n` not ready, `f` failed, `t` terminating; upper case: of the new template.
    fn pods(states: &[(i32, char)]) -> Vec<(i32, Arc<Pod>)> {
        let pod = |state: char| {
            let mut value = json!({
                "metadata": {"labels": {"new": state.is_uppercase().to_string()}}, "spec": {"containers": []},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            });
            match state.to_ascii_lowercase() {
                'n' => value["status"]["conditions"][0]["status"] = json!("False"),
                'f' => value["status"]["phase"] = json!("Failed"),
                't' => value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
                _ => {}
            }
            Arc::new(serde_json::from_value(value).unwrap())
        };
        states.iter().map(|(number, state)| (*number, pod(*state))).collect()
    }

    fn steps(value: Value, states: &[(i32, char)]) -> Vec<Step> {
        let is_new = |pod: &Pod| pod.metadata.labels.as_ref().unwrap()["new"] == "true";
        plan(&spec(value), &pods(states), is_new, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn pods_come_in_order_and_go_in_reverse() {
        let three = || json!({"replicas": 3});
        assert_eq!(steps(three(), &[]), [Create(0)]);
        assert_eq!(steps(three(), &[(0, 'N')]), []);
        assert_eq!(steps(three(), &[(0, 'R'), (2, 'R')]), [Create(1)]);
        assert_eq!(steps(three(), &[(0, 'R'), (1, 'F'), (2, 'R')]), [Delete(1)]);
        assert_eq!(steps(three(), &[(0, 'R'), (1, 'T'), (2, 'R')]), []);
        assert_eq!(steps(json!({"replicas": 1}), &[(0, 'R'), (1, 'R'), (2, 'R')]), [Delete(2)]);
        assert_eq!(steps(json!({"replicas": 1}), &[(0, 'R'), (1, 'R'), (2, 'T')]), []);
        let shifted = json!({"replicas": 2, "ordinals": {"start": 5}});
        assert_eq!(steps(shifted, &[(0, 'R'), (5, 'R')]), [Create(6)]);
    }

    #[test]
    fn parallel_waits_for_none() {
        let parallel = |replicas: i32| json!({"replicas": replicas, "podManagementPolicy": "Parallel"});
        assert_eq!(steps(parallel(3), &[(1, 'N')]), [Create(0), Create(2)]);
        assert_eq!(steps(parallel(1), &[(0, 'N'), (1, 'R'), (2, 'N')]), [Delete(2), Delete(1)]);
    }

    #[test]
    fn updates_go_from_the_highest_to_the_partition() {
        let rolling = |partition: i32| json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}});
        assert_eq!(steps(rolling(0), &[(0, 'r'), (1, 'r'), (2, 'r')]), [Delete(2)]);
        assert_eq!(steps(rolling(0), &[(0, 'r'), (1, 'r'), (2, 'N')]), []);
        assert_eq!(steps(rolling(0), &[(0, 'r'), (1, 'r'), (2, 'R')]), [Delete(1)]);
        assert_eq!(steps(rolling(2), &[(0, 'r'), (1, 'r'), (2, 'R')]), []);
        assert_eq!(
            steps(rolling(0), &[(0, 'R'), (1, 'n'), (2, 'R')]),
            [Delete(1)],
            "a broken earlier one is replaced at once"
        );
        let on_delete = json!({"replicas": 1, "updateStrategy": {"type": "OnDelete"}});
        assert_eq!(steps(on_delete, &[(0, 'r')]), []);
        let two =
            json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}});
        assert_eq!(steps(two, &[(0, 'r'), (1, 'r'), (2, 'r')]), [Delete(2), Delete(1)]);
    }
}
