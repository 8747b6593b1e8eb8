//! What a node itself asks for: its name, whether it takes pods, taints, labels, host ports.

use k8s_openapi::api::core::v1::{PodSpec, Taint};
use kminik_client::placement::{admits, taints as taints_of, term_selects, tolerates, untolerated};

use crate::info::{HostPort, NodeInfo};
use crate::plugin::{Cycle, Unfit};

pub(crate) fn unschedulable(cycle: &Cycle, node: &NodeInfo) -> Result<(), Unfit> {
    let closed = node.node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    let taint =
        Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
    let tolerations = cycle.pod.spec().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    if closed && !tolerations.iter().any(|toleration| tolerates(toleration, &taint)) {
        return Err(Unfit::unresolvable("node(s) were unschedulable"));
    }
    Ok(())
}

pub(crate) fn name(cycle: &Cycle, node: &NodeInfo) -> Result<(), Unfit> {
    match cycle.pod.spec().and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty()) {
        Some(name) if name != node.name() => Err(Unfit::unresolvable("node(s) didn't match the requested node name")),
        _ => Ok(()),
    }
}

pub(crate) fn taints(cycle: &Cycle, node: &NodeInfo) -> Result<(), Unfit> {
    let spec = cycle.pod.spec();
    match spec.and_then(|spec| untolerated(spec, &node.node, &["NoSchedule", "NoExecute"])) {
        // Which taint it is stays unsaid: pods' owners need not know it.
        Some(_) => Err(Unfit::unresolvable("node(s) had untolerated taint(s)")),
        None => Ok(()),
    }
}

pub(crate) fn taint_score(cycle: &Cycle, node: &NodeInfo) -> i64 {
    let tolerations = cycle.pod.spec().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let disliked = taints_of(&node.node).filter(|taint| {
        taint.effect == "PreferNoSchedule" && !tolerations.iter().any(|toleration| tolerates(toleration, taint))
    });
    i64::try_from(disliked.count()).unwrap_or(i64::MAX)
}

pub(crate) fn affinity(cycle: &Cycle, node: &NodeInfo) -> Result<(), Unfit> {
    match cycle.pod.spec() {
        Some(spec) if !admits(spec, &node.node) => {
            Err(Unfit::unresolvable("node(s) didn't match Pod's node affinity/selector"))
        }
        _ => Ok(()),
    }
}

pub(crate) fn affinity_score(cycle: &Cycle, node: &NodeInfo) -> i64 {
    let preferred = |spec: &PodSpec| {
        let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let terms = affinity.preferred_during_scheduling_ignored_during_execution.as_ref()?;
        let held = terms.iter().filter(|term| term_selects(&term.preference, &node.node));
        Some(held.map(|term| i64::from(term.weight)).sum())
    };
    cycle.pod.spec().and_then(preferred).unwrap_or(0)
}

pub(crate) fn ports(cycle: &Cycle, node: &NodeInfo) -> Result<(), Unfit> {
    let mut taken = node.pods.iter().flat_map(|pod| &pod.ports);
    if taken.any(|taken| cycle.pod.ports.iter().any(|wanted| conflict(taken, wanted))) {
        return Err(Unfit::resolvable("node(s) didn't have free ports for the requested pod ports"));
    }
    Ok(())
}

/// Two ports cannot be had at once: same protocol and number, on one address or with one of them on every address.
fn conflict(a: &HostPort, b: &HostPort) -> bool {
    let everywhere = |address: &str| address == "0.0.0.0" || address == "::";
    (&a.1, a.2) == (&b.1, b.2) && (a.0 == b.0 || everywhere(&a.0) || everywhere(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_conflict_by_address_protocol_and_number() {
        let port = |address: &str, protocol: &str, number| (address.to_string(), protocol.to_string(), number);
        assert!(conflict(&port("0.0.0.0", "TCP", 80), &port("127.0.0.1", "TCP", 80)));
        assert!(conflict(&port("127.0.0.1", "TCP", 80), &port("127.0.0.1", "TCP", 80)));
        assert!(!conflict(&port("127.0.0.1", "TCP", 80), &port("127.0.0.2", "TCP", 80)));
        assert!(!conflict(&port("0.0.0.0", "TCP", 80), &port("0.0.0.0", "UDP", 80)));
    }
}
