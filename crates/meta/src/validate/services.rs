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
    &[Kind::new("", "Service", service).named(names::dns1035_label).change(service_change)];

/// An address as text.
pub(super) fn address(node: &Node<'_>, errors: &mut ErrorList) {
    if node.text().parse::<IpAddr>().is_err() {
        let message = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
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
    for ip in spec.child("externalIPs").items() {
        address(&ip, errors);
    }
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
}
