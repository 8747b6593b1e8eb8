//! Checks of services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::containers::{port_reference, range};
use super::node::Node;
use super::{Kind, labels, required};
use crate::field::{ErrorList, FieldError};
use crate::names;

pub(super) const KINDS: &[Kind] =
    &[Kind::new("", "Service", service).named(names::dns1035_label).change(service_change).status(balancer_status)];

/// An address as text.
pub(super) fn address(node: &Node<'_>, errors: &mut ErrorList) {
    if node.text().parse::<IpAddr>().is_err() {
        let message = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(&node.path, node.text(), message));
    }
}

/// An address that others than the machine itself can reach.
pub(super) fn reachable_address(node: &Node<'_>, errors: &mut ErrorList) {
    let Ok(ip) = node.text().parse::<IpAddr>() else {
        return address(node, errors);
    };
    let (link_local, local_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02),
    };
    let rules = [
        (ip.is_unspecified(), format!("may not be unspecified ({ip})")),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (local_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()),
    ];
    let broken = rules.into_iter().filter(|(broken, _)| *broken);
    errors.extend(broken.map(|(_, message)| FieldError::invalid(&node.path, node.text(), message)));
}

/// A range of addresses.
pub(super) fn network(node: &Node<'_>, errors: &mut ErrorList) {
    let parsed = node
        .text()
        .trim()
        .split_once('/')
        .and_then(|(ip, bits)| Some((ip.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?)));
    if parsed.is_none_or(|(ip, bits)| bits > if ip.is_ipv4() { 32 } else { 128 }) {
        let message = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(FieldError::invalid(&node.path, node.text(), message));
    }
}

fn service(service: &Node<'_>, errors: &mut ErrorList) {
    let spec = service.child("spec");
    let kind = spec.child("type").text();
    let headless = spec.child("clusterIP").text() == "None";
    let ports = spec.child("ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required(&ports.path, ""));
    }
    match kind {
        "LoadBalancer" if headless => {
            let path = spec.path.child("clusterIPs").index(0);
            errors.push(FieldError::invalid(&path, "None", "may not be set to 'None' for LoadBalancer services"));
        }
        "NodePort" if headless => {
            let path = spec.path.child("clusterIPs").index(0);
            errors.push(FieldError::invalid(&path, "None", "may not be set to 'None' for NodePort services"));
        }
        "ExternalName" => {
            if !spec.child("clusterIPs").is_empty() {
                let path = spec.path.child("clusterIPs");
                errors.push(FieldError::forbidden(&path, "may not be set for ExternalName services"));
            }
            let name = spec.child("externalName");
            let host = name.text().strip_suffix('.').unwrap_or(name.text());
            if host.is_empty() {
                errors.push(FieldError::required(&name.path, ""));
            } else {
                errors.invalid_each(&name.path, name.text(), names::dns1123_subdomain(host));
            }
        }
        _ => {}
    }
    affinity(&spec, errors);
    service_ports(&ports, kind, errors);
    labels(&spec.child("selector"), errors);
    spec.child("externalIPs").items().for_each(|ip| reachable_address(&ip, errors));
    balancing(&spec, kind, errors);
    for ip in spec.child("clusterIPs").items().filter(|ip| ip.text() != "None") {
        address(&ip, errors);
    }
    let external =
        matches!(kind, "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && !spec.child("externalIPs").is_empty());
    let policy = spec.child("externalTrafficPolicy");
    if !policy.is_empty() && !external {
        let message = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(&policy.path, policy.text(), message));
    }
    if policy.is_empty() && external {
        errors.push(FieldError::required(&policy.path, ""));
    }
    for member in ["loadBalancerClass", "allocateLoadBalancerNodePorts"] {
        let node = spec.child(member);
        if node.is_set() && kind != "LoadBalancer" {
            let message = "may only be used when `type` is 'LoadBalancer'";
            errors.push(FieldError::forbidden(&node.path, message));
        }
    }
}

/// What only load balancers have, and where clients' packets prefer to go.
fn balancing(spec: &Node<'_>, kind: &str, errors: &mut ErrorList) {
    let ranges = spec.child("loadBalancerSourceRanges");
    if !ranges.is_empty() {
        if kind != "LoadBalancer" {
            errors.push(FieldError::forbidden(&ranges.path, "may only be used when `type` is 'LoadBalancer'"));
        }
        ranges.items().for_each(|range| network(&range, errors));
    }
    let check = spec.child("healthCheckNodePort");
    let local = spec.child("externalTrafficPolicy").text() == "Local";
    if check.integer().is_some_and(|port| port != 0) && !(kind == "LoadBalancer" && local) {
        let message = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid(&check.path, check.value.clone(), message));
    }
    const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
    let distribution = spec.child("trafficDistribution");
    if distribution.is_set() && !DISTRIBUTIONS.contains(&distribution.text()) {
        errors.push(FieldError::not_supported(&distribution.path, distribution.text(), DISTRIBUTIONS));
    }
}

/// Addresses that a load balancer reports.
fn balancer_status(new: &Node<'_>, _old: &Node<'_>, errors: &mut ErrorList) {
    let ingress = new.at(&["status", "loadBalancer", "ingress"]);
    if !ingress.is_empty() && new.at(&["spec", "type"]).text() != "LoadBalancer" {
        let message = "may only be used when `spec.type` is \"LoadBalancer\"";
        errors.push(FieldError::forbidden(&ingress.path, message));
        return;
    }
    for entry in ingress.items() {
        let (ip, mode, host) = (entry.child("ip"), entry.child("ipMode"), entry.child("hostname"));
        if !ip.is_empty() {
            address(&ip, errors);
        }
        match (ip.is_empty(), mode.is_set()) {
            (false, false) => errors.push(FieldError::required(&mode.path, "must be specified when `ip` is set")),
            (true, true) => errors.push(FieldError::forbidden(&mode.path, "may not be specified when `ip` is not set")),
            _ => {}
        }
        if host.text().parse::<IpAddr>().is_ok() {
            errors.push(FieldError::invalid(&host.path, host.text(), "must be a DNS name, not an IP address"));
        } else if !host.is_empty() {
            errors.invalid_each(&host.path, host.text(), names::dns1123_subdomain(host.text()));
        }
    }
}

fn affinity(spec: &Node<'_>, errors: &mut ErrorList) {
    let kind = spec.child("sessionAffinity");
    required(&kind, errors);
    let config = spec.child("sessionAffinityConfig");
    if kind.text() == "None" && config.is_set() {
        let message = "must not be set when session affinity is None";
        errors.push(FieldError::forbidden(&config.path, message));
    }
    let timeout = config.at(&["clientIP", "timeoutSeconds"]);
    if kind.text() == "ClientIP" && !timeout.integer().is_some_and(|s| (1..=86_400).contains(&s)) {
        let message = "must be greater than 0 and less than 86400";
        errors.push(FieldError::invalid(&timeout.path, timeout.value.clone(), message));
    }
}

fn service_ports(ports: &Node<'_>, kind: &str, errors: &mut ErrorList) {
    let many = ports.value.as_array().is_some_and(|p| p.len() > 1);
    let (mut names_seen, mut ports_seen, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for port in ports.items() {
        let name = port.child("name");
        if name.is_empty() {
            if many {
                errors.push(FieldError::required(&name.path, ""));
            }
        } else {
            errors.invalid_each(&name.path, name.text(), names::dns1123_label(name.text()));
            if !names_seen.insert(name.text()) {
                errors.push(FieldError::duplicate(&name.path, name.text()));
            }
        }
        let (number, protocol) = (port.child("port"), port.child("protocol"));
        range(&number, names::port_number(number.integer().unwrap_or_default()), errors);
        required(&protocol, errors);
        let application = port.child("appProtocol");
        if application.is_set() {
            errors.invalid_each(&application.path, application.text(), names::qualified_name(application.text()));
        }
        port_reference(&port.child("targetPort"), errors);
        if !ports_seen.insert((protocol.text(), number.integer())) {
            let pair = json!({"port": number.value, "protocol": protocol.value});
            errors.push(FieldError::duplicate(&port.path, pair));
        }
        let node = port.child("nodePort");
        let Some(value) = node.integer().filter(|n| *n != 0) else { continue };
        if !matches!(kind, "NodePort" | "LoadBalancer") {
            let message = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(&node.path, message));
        } else if !node_ports.insert((protocol.text(), value)) {
            errors.push(FieldError::duplicate(&node.path, value));
        }
    }
}

/// A cluster address that is allocated stays while the type needs one.
fn service_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let (new, old) = (new.child("spec"), old.child("spec"));
    let allocates = |spec: &Node<'_>| spec.child("type").text() != "ExternalName";
    let first = |spec: &Node<'_>| spec.child("clusterIP").text().to_owned();
    if allocates(&new) && allocates(&old) && !first(&old).is_empty() && first(&new) != first(&old) {
        let path = new.path.child("clusterIPs").index(0);
        errors.push(FieldError::invalid(&path, Value::from(first(&new)), "may not change once set"));
    }
    let (class, before) = (new.child("loadBalancerClass"), old.child("loadBalancerClass"));
    let stays = [&new, &old].iter().all(|spec| spec.child("type").text() == "LoadBalancer");
    if stays && class.value != before.value {
        errors.push(FieldError::invalid(&class.path, class.value.clone(), "may not change once set"));
    }
}
