//! What a service's spec says, and how its types differ: pure functions of the object.

use std::net::Ipv4Addr;

use kminik_meta::Object;
use serde_json::Value;

/// Stands for "no cluster IP".
pub(super) const HEADLESS: &str = "None";

/// A service's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

impl Type {
    pub(super) fn of(service: &Object) -> Self {
        match service.str(&["spec", "type"]) {
            Some("NodePort") => Type::NodePort,
            Some("LoadBalancer") => Type::LoadBalancer,
            Some("ExternalName") => Type::ExternalName,
            _ => Type::ClusterIp,
        }
    }

    pub(super) fn has_cluster_ip(self) -> bool {
        self != Type::ExternalName
    }

    pub(super) fn is_external(self) -> bool {
        matches!(self, Type::NodePort | Type::LoadBalancer)
    }
}

pub(super) fn text<'a>(service: &'a Object, field: &str) -> &'a str {
    service.str(&["spec", field]).unwrap_or_default()
}

pub(super) fn cluster_ip(service: &Object) -> &str {
    text(service, "clusterIP")
}

pub(super) fn is_headless(service: &Object) -> bool {
    cluster_ip(service) == HEADLESS
}

/// Whether every port gets a node port.
pub(super) fn needs_node_ports(service: &Object) -> bool {
    match Type::of(service) {
        Type::NodePort => true,
        Type::LoadBalancer => service.bool(&["spec", "allocateLoadBalancerNodePorts"]) != Some(false),
        Type::ClusterIp | Type::ExternalName => false,
    }
}

/// Whether load balancers ask nodes where the service has endpoints.
pub(super) fn needs_health_check_port(service: &Object) -> bool {
    Type::of(service) == Type::LoadBalancer && text(service, "externalTrafficPolicy") == "Local"
}

/// The cluster IPs that the service has.
pub(super) fn addresses(service: &Object) -> Vec<Ipv4Addr> {
    let one = service.str(&["spec", "clusterIP"]).into_iter();
    let all = service.array(&["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
    one.chain(all).filter_map(|address| address.parse().ok()).collect()
}

/// The node ports that the service has, the health check's among them.
pub(super) fn node_ports(service: &Object) -> Vec<u16> {
    let ports = service.array(&["spec", "ports"]).iter().filter_map(|port| port.get("nodePort")?.as_u64());
    let health = service.get(&["spec", "healthCheckNodePort"]).and_then(Value::as_u64);
    ports.chain(health).filter_map(|port| u16::try_from(port).ok()).filter(|port| *port > 0).collect()
}

/// One port's node port, `None` if it has none.
pub(super) fn node_port(port: &Value) -> Option<u16> {
    port.get("nodePort")?.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

/// Protocol and number: what makes two ports of one service the same.
pub(super) fn port_key(port: &Value) -> (String, i64) {
    let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
    (protocol.to_owned(), port.get("port").and_then(Value::as_i64).unwrap_or_default())
}
