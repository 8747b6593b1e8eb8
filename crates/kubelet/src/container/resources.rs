//! Requests and limits to cgroup values, with upstream's formulas.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kminik_runtime::Resources;

use super::qos::{self, Class};
use super::quantity;

const PERIOD_US: u64 = 100_000;
const MIN_QUOTA_US: i64 = 1000;
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
/// From this priority on, a pod is critical to its node.
const NODE_CRITICAL: i32 = 2_000_001_000;

/// Shares for a CPU request.
pub(crate) fn shares(milli_cpu: i64) -> u64 {
    (u64::try_from(milli_cpu).unwrap_or(0) * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// Quota per period for a CPU limit; `None` is unlimited.
pub(crate) fn quota(milli_cpu: i64) -> Option<i64> {
    (milli_cpu > 0).then(|| (milli_cpu * (PERIOD_US as i64) / 1000).max(MIN_QUOTA_US))
}

/// How eagerly the kernel kills a container's processes when the node is out of memory.
pub(crate) fn oom_score(spec: &PodSpec, container: &Container, node_memory_bytes: i64) -> i32 {
    if spec.priority.is_some_and(|p| p >= NODE_CRITICAL) {
        return -997;
    }
    match qos::class(spec) {
        Class::Guaranteed => -997,
        Class::BestEffort => 1000,
        Class::Burstable => {
            let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
            let request = quantity::of(requests, "memory").map_or(0, quantity::value);
            let score = 1000 - 1000_i64.saturating_mul(request) / node_memory_bytes.max(1);
            // Between guaranteed pods and those that asked for nothing.
            i32::try_from(score.clamp(3, 999)).unwrap_or(999)
        }
    }
}

fn amount(list: Option<&BTreeMap<String, Quantity>>, name: &str, read: fn(&Quantity) -> i64) -> Option<i64> {
    quantity::of(list, name).map(read).filter(|amount| *amount > 0)
}

/// What a container's cgroup gets.
pub(crate) fn container(spec: &PodSpec, container: &Container, node_memory_bytes: i64) -> Resources {
    let given = container.resources.as_ref();
    let limits = given.and_then(|r| r.limits.as_ref());
    let requests = given.and_then(|r| r.requests.as_ref());
    let limit = amount(limits, "cpu", quantity::milli);
    let request = quantity::of(requests, "cpu").map(quantity::milli).or(limit);
    let memory = amount(limits, "memory", quantity::value);
    Resources {
        cpu_shares: Some(shares(request.unwrap_or(0))),
        cpu_quota_us: limit.and_then(quota),
        cpu_period_us: limit.map(|_| PERIOD_US),
        memory_limit_bytes: memory,
        memory_swap_limit_bytes: memory,
        oom_score_adj: Some(oom_score(spec, container, node_memory_bytes)),
        ..Resources::default()
    }
}

/// What all containers of a pod may ask for together.
pub(crate) fn pod_total(spec: &PodSpec, read: impl Fn(&ResourceRequirements) -> i64) -> i64 {
    let of = |c: &Container| c.resources.as_ref().map_or(0, &read);
    let mut sidecars = 0;
    let mut highest_init = 0;
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars += of(container);
            highest_init = highest_init.max(sidecars);
        } else {
            highest_init = highest_init.max(sidecars + of(container));
        }
    }
    let apps: i64 = spec.containers.iter().map(of).sum();
    (apps + sidecars).max(highest_init)
}

/// Request of a whole pod for a resource, with its overhead.
pub(crate) fn pod_request(spec: &PodSpec, name: &str, read: fn(&Quantity) -> i64) -> i64 {
    let own = spec.resources.as_ref().and_then(|r| quantity::of(r.requests.as_ref(), name));
    let overhead = quantity::of(spec.overhead.as_ref(), name).map_or(0, read);
    let total = own.map(read).unwrap_or_else(|| {
        pod_total(spec, |r| {
            let request = quantity::of(r.requests.as_ref(), name).or(quantity::of(r.limits.as_ref(), name));
            request.map_or(0, read)
        })
    });
    total + overhead
}

/// What the pod's own cgroup gets: limits only where every container has one.
pub(crate) fn pod(spec: &PodSpec) -> Resources {
    let own = spec.resources.as_ref().and_then(|r| r.limits.as_ref());
    let all_limited = |name: &str| {
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        containers
            .into_iter()
            .all(|c| amount(c.resources.as_ref().and_then(|r| r.limits.as_ref()), name, quantity::milli).is_some())
    };
    let limit = |name: &str, read: fn(&Quantity) -> i64| {
        let overhead = quantity::of(spec.overhead.as_ref(), name).map_or(0, read);
        if let Some(own) = amount(own, name, read) {
            return Some(own + overhead);
        }
        all_limited(name).then(|| pod_total(spec, |r| quantity::of(r.limits.as_ref(), name).map_or(0, read)) + overhead)
    };
    let cpu = limit("cpu", quantity::milli);
    let memory = limit("memory", quantity::value);
    Resources {
        cpu_shares: Some(shares(pod_request(spec, "cpu", quantity::milli))),
        cpu_quota_us: cpu.and_then(quota),
        cpu_period_us: cpu.map(|_| PERIOD_US),
        memory_limit_bytes: memory,
        memory_swap_limit_bytes: memory,
        ..Resources::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn cpu_formulas() {
        assert_eq!([shares(0), shares(1), shares(100), shares(1000), shares(10_000_000)], [2, 2, 102, 1024, 262_144]);
        assert_eq!([quota(0), quota(5), quota(100), quota(1500)], [None, Some(1000), Some(10_000), Some(150_000)]);
    }

    #[test]
    fn oom_scores() {
        let gib = 1 << 30;
        let burstable =
            spec(serde_json::json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "256Mi"}}}]}));
        assert_eq!(oom_score(&burstable, &burstable.containers[0], gib), 750);
        let nothing = spec(serde_json::json!({"containers": [{"name": "c"}]}));
        assert_eq!(oom_score(&nothing, &nothing.containers[0], gib), 1000);
        let limits = serde_json::json!({"cpu": "1", "memory": "1Mi"});
        let guaranteed = spec(serde_json::json!({"containers": [{"name": "c", "resources": {"limits": limits}}]}));
        assert_eq!(oom_score(&guaranteed, &guaranteed.containers[0], gib), -997);
    }

    #[test]
    fn pods_add_up_with_init_and_sidecars() {
        let spec = spec(serde_json::json!({
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "i", "resources": {"requests": {"cpu": "500m"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "200m"}}}, {"name": "b", "resources": {"requests": {"cpu": "150m"}}}]
        }));
        assert_eq!(pod_request(&spec, "cpu", quantity::milli), 600);
    }
}
