//! Checks of services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::json;

use super::containers::{port_reference, range};
use super::node::Node;
use super::{Kind, labels, mixes_families, required};
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
            for member in ["ipFamilies", "ipFamilyPolicy"].map(|member| spec.child(member)) {
                if !member.is_empty() {
                    errors.push(FieldError::forbidden(&member.path, "may not be set for ExternalName services"));
                }
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
    first_address(&spec, errors);
    if kind != "ExternalName" {
        addresses(&spec, errors);
    }
    for ip in spec.child("externalIPs").items() {
        reachable_address(&ip, errors);
    }
    balancing(service, &spec, kind, errors);
    let inside = spec.child("internalTrafficPolicy");
    if inside.is_empty() && kind != "ExternalName" {
        errors.push(FieldError::required(&inside.path, ""));
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
    let (ports, class) = (spec.child("allocateLoadBalancerNodePorts"), spec.child("loadBalancerClass"));
    if kind == "LoadBalancer" {
        if class.is_set() {
            errors.invalid_each(&class.path, class.text(), names::qualified_name(class.text()));
        }
        return;
    }
    for node in [ports, class].iter().filter(|node| node.is_set()) {
        errors.push(FieldError::forbidden(&node.path, "may only be used when `type` is 'LoadBalancer'"));
    }
}

/// The old field and the first element of the new one say the same.
fn first_address(spec: &Node<'_>, errors: &mut ErrorList) {
    let (first, list) = (spec.child("clusterIP"), spec.child("clusterIPs"));
    let whole = |message: &str| FieldError::invalid(&list.path, list.value.clone(), message);
    match (first.is_empty(), list.items().next()) {
        (false, None) => errors.push(FieldError::required(&list.path, "")),
        (false, Some(ip)) if ip.text() != first.text() => errors.push(whole("first value must match `clusterIP`")),
        (true, Some(_)) => errors.push(whole("must be empty when `clusterIP` is not specified")),
        _ => {}
    }
}

/// The cluster's addresses of a service, and their families.
fn addresses(spec: &Node<'_>, errors: &mut ErrorList) {
    const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
    let (list, families) = (spec.child("clusterIPs"), spec.child("ipFamilies"));
    let texts: Vec<&str> = list.items().map(|ip| ip.text()).collect();
    let whole = |message: &str| FieldError::invalid(&list.path, list.value.clone(), message);
    let mut seen = BTreeSet::new();
    for family in families.items() {
        if !FAMILIES.contains(&family.text()) {
            errors.push(FieldError::not_supported(&family.path, family.text(), &FAMILIES));
        }
        if !seen.insert(family.text()) {
            errors.push(FieldError::duplicate(&family.path, family.text()));
        }
    }
    let mut wrong = ErrorList::new();
    for (index, ip) in list.items().enumerate() {
        if index > 0 || ip.text() != "None" {
            address(&ip, &mut wrong);
        } else if texts.len() > 1 {
            wrong.push(whole("'None' must be the first and only value"));
        }
    }
    let readable = wrong.is_empty();
    errors.append(wrong);
    if texts.len() > 2 {
        errors.push(whole("may only hold up to 2 values"));
    }
    if !readable {
        return;
    }
    if texts.len() > 1 && !mixes_families(&texts) {
        errors.push(whole("may specify no more than one IP for each IP family"));
    }
    for (index, (ip, family)) in
        list.items().zip(families.items()).enumerate().filter(|(_, (ip, _))| ip.text() != "None")
    {
        let is_second = ip.text().contains(':');
        if (family.text() == "IPv4" && is_second) || (family.text() == "IPv6" && !is_second) {
            let message = format!("expected an {} value as indicated by `ipFamilies[{index}]`", family.text());
            errors.push(FieldError::invalid(&ip.path, ip.text(), message));
        }
    }
}

/// What only load balancers have, and where clients' packets prefer to go.
fn balancing(service: &Node<'_>, spec: &Node<'_>, kind: &str, errors: &mut ErrorList) {
    const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    const OTHERS: &str = "may only be used when `type` is 'LoadBalancer'";
    let annotations = service.at(&["metadata", "annotations"]);
    // By upstream's own name of the member.
    let ranges = spec.child("loadBalancerSourceRanges").renamed(&spec.path.child("LoadBalancerSourceRanges"));
    let annotated = annotations.child(RANGES).renamed(&annotations.path.key(RANGES));
    let refused = |node: &Node<'_>| (kind != "LoadBalancer").then(|| FieldError::forbidden(&node.path, OTHERS));
    if !ranges.is_empty() {
        errors.extend(refused(&ranges));
        ranges.items().for_each(|range| network(&range, errors));
    } else if annotated.is_set() {
        errors.extend(refused(&annotated));
        for range in annotated.text().split(',').map(str::trim).filter(|_| !annotated.text().trim().is_empty()) {
            network(&Node::new(&range.into(), annotated.path.clone()), errors);
        }
    }
    let (mode, hints) = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints");
    let (mode_text, hints_text) = (annotations.child(mode), annotations.child(hints));
    if mode_text.is_set() && hints_text.is_set() && mode_text.value != hints_text.value {
        let message = format!("must match annotations[{hints}] when both are specified");
        errors.push(FieldError::invalid(&annotations.path.key(mode), mode_text.text(), message));
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
        let message = "may only be used when `spec.type` is 'LoadBalancer'";
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
    if kind.text() != "ClientIP" {
        return;
    }
    let client = config.child("clientIP");
    let timeout = client.child("timeoutSeconds");
    if let Some(missing) = [&config, &client, &timeout].into_iter().find(|node| !node.is_set()) {
        errors.push(FieldError::required(&missing.path, "when session affinity type is ClientIP"));
    } else if !timeout.integer().is_some_and(|seconds| (1..=86_400).contains(&seconds)) {
        let message = "must be greater than 0 and less than 86400";
        errors.push(FieldError::invalid(&timeout.path, timeout.value.clone(), message));
    }
}

/// The name of a protocol above the transport.
pub(super) fn application(protocol: &Node<'_>, errors: &mut ErrorList) {
    if protocol.is_set() {
        errors.invalid_each(&protocol.path, protocol.text(), names::qualified_name(protocol.text()));
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
        application(&port.child("appProtocol"), errors);
        port_reference(&port.child("targetPort"), errors);
        if !ports_seen.insert((protocol.text(), number.integer())) {
            let pair = json!({"port": number.value, "protocol": protocol.value});
            errors.push(FieldError::duplicate(&port.path, pair));
        }
        let node = port.child("nodePort");
        let Some(value) = node.integer().filter(|n| *n != 0) else { continue };
        if kind == "ClusterIP" {
            let message = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(&node.path, message));
        } else if !node_ports.insert((protocol.text(), value)) {
            errors.push(FieldError::duplicate(&node.path, value));
        }
    }
}

/// Addresses that are allocated stay while the type needs them; a second family may come and go.
fn service_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let (new, old) = (new.child("spec"), old.child("spec"));
    let of = |spec: &Node<'_>, kind: &str| spec.child("type").text() == kind;
    let headless = |spec: &Node<'_>| spec.child("clusterIP").text() == "None";
    if ![&new, &old].iter().any(|spec| of(spec, "ExternalName")) {
        if !(headless(&new) && headless(&old)) {
            stays(&new, &old, "clusterIPs", "clusterIP", errors);
        }
        if !headless(&new) && !headless(&old) {
            stays(&new, &old, "ipFamilies", "ipFamily", errors);
        }
    }
    let balances = [&new, &old].iter().all(|spec| of(spec, "LoadBalancer"));
    let (class, before) = (new.child("loadBalancerClass"), old.child("loadBalancerClass"));
    if balances && class.value != before.value {
        errors.push(FieldError::invalid(&class.path, class.value.clone(), "may not change once set"));
    }
    let (check, before) = (new.child("healthCheckNodePort"), old.child("healthCheckNodePort"));
    let local = [&new, &old].iter().all(|spec| spec.child("externalTrafficPolicy").text() == "Local");
    if balances && local && check.value != before.value {
        errors.push(FieldError::forbidden(&check.path, super::IMMUTABLE));
    }
}

/// The first of a list stays; the second may be added, or released by whoever asks for a single stack.
fn stays(new: &Node<'_>, old: &Node<'_>, member: &str, one: &str, errors: &mut ErrorList) {
    let (now, before) = (new.child(member), old.child(member));
    let texts = |list: &Node<'_>| list.items().map(|item| item.text().to_owned()).collect::<Vec<_>>();
    let (wanted, held) = (texts(&now), texts(&before));
    let refuse =
        |index: usize, message: String| FieldError::invalid(&now.path.index(index), now.value.clone(), message);
    if held.len() == wanted.len() {
        let changed = held.iter().zip(&wanted).enumerate().filter(|(_, (held, wanted))| held != wanted);
        errors.extend(changed.map(|(index, _)| refuse(index, "may not change once set".into())));
        return;
    }
    match (held.first(), wanted.first()) {
        (Some(_), None) => errors.push(refuse(0, format!("primary {one} can not be unset"))),
        (Some(held), Some(wanted)) if held != wanted => errors.push(refuse(0, "may not change once set".into())),
        _ => {}
    }
    let policy = new.child("ipFamilyPolicy");
    if held.len() > wanted.len() && wanted.len() == 1 && policy.text() != "SingleStack" {
        let message = format!("must be set to 'SingleStack' when releasing the secondary {one}");
        errors.push(FieldError::invalid(&policy.path, policy.value.clone(), message));
    }
}
