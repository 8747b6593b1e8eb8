//! Whether a pod that was bound to this node can run on it; what does not fit is rejected as upstream rejects it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::memory::Rejection;
use super::view::PodView;
use crate::config::Capacity;
use crate::container::sandbox::port_mappings;
use crate::container::{quantity, resources};

/// Sysctls that cannot harm other pods; others have no place on a node that everyone may use.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Reads an amount in the unit that a resource is counted in.
type Read = fn(&Quantity) -> i64;

/// What pods are measured against.
pub(crate) struct Node<'a> {
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    pub allocatable: Capacity,
    pub max_pods: u32,
}

/// The reason to reject `pod` beside `others`, the pods that run on the node and are not over.
pub(crate) fn check(pod: &PodView, others: &[std::sync::Arc<PodView>], node: &Node<'_>) -> Option<Rejection> {
    if pod.spec().node_name.as_deref() != Some(node.name) {
        return reject("NodeName", "Predicate NodeName failed: node(s) didn't match the requested node name".into());
    }
    let selector = pod.spec().node_selector.iter().flatten();
    if selector.into_iter().any(|(key, value)| node.labels.get(key) != Some(value)) {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return reject("NodeAffinity", message.into());
    }
    let sysctls = pod.spec().security_context.as_ref().and_then(|c| c.sysctls.as_ref());
    if let Some(unsafe_one) =
        sysctls.into_iter().flatten().find(|s| !SAFE_SYSCTLS.contains(&s.name.replace('/', ".").as_str()))
    {
        let message = format!("forbidden sysctl: \"{}\" not allowlisted", unsafe_one.name);
        return reject("SysctlForbidden", message);
    }
    let count = u64::try_from(others.len()).unwrap_or(u64::MAX);
    let room = u64::from(node.max_pods);
    if count + 1 > room {
        return out_of("pods", 1, count, room);
    }
    let amounts: [(&str, Read, u64); 3] = [
        ("cpu", quantity::milli, node.allocatable.milli_cpu),
        ("memory", quantity::value, node.allocatable.memory_bytes),
        ("ephemeral-storage", quantity::value, node.allocatable.ephemeral_storage_bytes),
    ];
    for (name, read, room) in amounts {
        let amount = |view: &PodView| u64::try_from(resources::pod_request(view.spec(), name, read)).unwrap_or(0);
        let wanted = amount(pod);
        let used: u64 = others.iter().map(|view| amount(view)).sum();
        if wanted > 0 && used + wanted > room {
            return out_of(name, wanted, used, room);
        }
    }
    let taken = others.iter().flat_map(|view| host_ports(view));
    let taken: Vec<_> = taken.collect();
    if host_ports(pod).iter().any(|port| taken.iter().any(|other| clash(port, other))) {
        return reject(
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".into(),
        );
    }
    None
}

type HostPort = (kminik_runtime::Protocol, u16, Option<std::net::IpAddr>);

fn host_ports(view: &PodView) -> Vec<HostPort> {
    port_mappings(view).into_iter().map(|p| (p.protocol, p.node_port, p.node_ip)).collect()
}

fn clash(a: &HostPort, b: &HostPort) -> bool {
    a.0 == b.0 && a.1 == b.1 && (a.2.is_none() || b.2.is_none() || a.2 == b.2)
}

fn reject(reason: &str, detail: String) -> Option<Rejection> {
    Some(Rejection { reason: reason.to_string(), message: format!("Pod was rejected: {detail}") })
}

fn out_of(resource: &str, wanted: u64, used: u64, room: u64) -> Option<Rejection> {
    let detail =
        format!("Node didn't have enough resource: {resource}, requested: {wanted}, used: {used}, capacity: {room}");
    reject(&format!("OutOf{resource}"), detail)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn pod(spec: serde_json::Value) -> Arc<PodView> {
        let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
        Arc::new(PodView::new(Arc::new(serde_json::from_value(pod).unwrap())))
    }

    fn check_reason(new: serde_json::Value, others: &[Arc<PodView>]) -> Option<String> {
        let allocatable = Capacity { milli_cpu: 1000, memory_bytes: 1 << 30, ephemeral_storage_bytes: 1 << 30 };
        let node = Node { name: "n1", labels: &BTreeMap::new(), allocatable, max_pods: 3 };
        check(&pod(new), others, &node).map(|r| r.reason)
    }

    #[test]
    fn reasons() {
        let cpu = |amount: &str, port: i32| {
            serde_json::json!({"nodeName": "n1", "containers": [{"name": "c", "resources": {"requests": {"cpu": amount}},
                "ports": [{"containerPort": 1, "hostPort": port}]}]})
        };
        let running = [pod(cpu("600m", 80))];
        assert_eq!(check_reason(cpu("400m", 81), &running), None);
        assert_eq!(check_reason(cpu("401m", 81), &running).as_deref(), Some("OutOfcpu"));
        assert_eq!(check_reason(cpu("1m", 80), &running).as_deref(), Some("NodePorts"));
        let other = serde_json::json!({"nodeName": "n1", "nodeSelector": {"a": "b"}, "containers": []});
        assert_eq!(check_reason(other, &running).as_deref(), Some("NodeAffinity"));
        let sysctl = serde_json::json!({"nodeName": "n1", "containers": [], "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}});
        assert_eq!(check_reason(sysctl, &running).as_deref(), Some("SysctlForbidden"));
        let full = [running[0].clone(), running[0].clone(), running[0].clone()];
        assert_eq!(check_reason(cpu("1m", 81), &full).as_deref(), Some("OutOfpods"));
    }
}
