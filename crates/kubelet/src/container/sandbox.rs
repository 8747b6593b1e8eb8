//! A pod's sandbox as the runtime is asked to make it.

use std::collections::BTreeMap;

use kminik_runtime::{NamespaceMode, PortMapping, Protocol, SandboxConfig};

use super::{files, qos, resources};
use crate::pods::observed::{annotation, pod_labels};
use crate::pods::view::{Kind, PodView};

/// The configuration of the `attempt`th sandbox of a pod.
pub(crate) fn config(view: &PodView, id: String, attempt: u32, cluster_domain: &str) -> SandboxConfig {
    let spec = view.spec();
    let mode = |node: Option<bool>| if node == Some(true) { NamespaceMode::Node } else { NamespaceMode::Pod };
    let pid = if spec.host_pid == Some(true) {
        NamespaceMode::Node
    } else if spec.share_process_namespace == Some(true) {
        NamespaceMode::Shared
    } else {
        NamespaceMode::Pod
    };
    let sysctls = spec.security_context.as_ref().and_then(|c| c.sysctls.as_ref());
    let grace = spec.termination_grace_period_seconds.unwrap_or(30).to_string();
    SandboxConfig {
        id,
        // The node keeps its own name where the pod is in its network.
        hostname: if view.host_network() { String::new() } else { files::uts_name(view, cluster_domain) },
        cgroup_parent: qos::class(spec).cgroup(&view.uid),
        resources: resources::pod(spec),
        network: mode(spec.host_network),
        ipc: mode(spec.host_ipc),
        pid,
        sysctls: sysctls.into_iter().flatten().map(|s| (s.name.clone(), s.value.clone())).collect(),
        port_mappings: if view.host_network() { Vec::new() } else { port_mappings(view) },
        labels: pod_labels(view),
        annotations: BTreeMap::from([
            (annotation::ATTEMPT.to_string(), attempt.to_string()),
            (annotation::GRACE.to_string(), grace),
        ]),
    }
}

/// Host ports of the pod's containers, init containers aside.
pub(crate) fn port_mappings(view: &PodView) -> Vec<PortMapping> {
    let containers = view.containers.iter().filter(|c| matches!(c.kind, Kind::App | Kind::Sidecar));
    let ports = containers.flat_map(|c| c.spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let node_port = u16::try_from(port.host_port?).ok().filter(|p| *p > 0)?;
            Some(PortMapping {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
                container_port: u16::try_from(port.container_port).ok()?,
                node_port,
                node_ip: port
                    .host_ip
                    .as_deref()
                    .and_then(|ip| ip.parse().ok())
                    .filter(|ip: &std::net::IpAddr| !ip.is_unspecified()),
            })
        })
        .collect()
}
