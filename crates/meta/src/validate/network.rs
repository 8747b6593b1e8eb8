//! Checks of discovery: endpoints of services.

use std::collections::BTreeSet;

use super::node::Node;
use super::services::reachable_address;
use super::{Kind, NameCheck, immutable, labels, required};
use crate::field::{ErrorList, FieldError};
use crate::names;

/// Endpoints one slice may hold.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_TOPOLOGY: usize = 16;
/// Zones, and nodes, that one endpoint may be meant for.
const MAX_HINTS: usize = 8;

pub(super) const KINDS: &[Kind] =
    &[Kind::new("discovery.k8s.io", "EndpointSlice", slice).change(|new, old, errors| {
        immutable(&new.child("addressType"), &old.child("addressType"), errors);
    })];

fn slice(slice: &Node<'_>, errors: &mut ErrorList) {
    let kind = slice.child("addressType");
    required(&kind, errors);
    let endpoints = slice.child("endpoints");
    let count = endpoints.items().count();
    if count > MAX_ENDPOINTS {
        errors.push(FieldError::too_many(&endpoints.path, count, MAX_ENDPOINTS));
        return;
    }
    for endpoint in endpoints.items() {
        let addresses = endpoint.child("addresses");
        let count = addresses.items().count();
        if count == 0 {
            errors.push(FieldError::required(&addresses.path, "must contain at least 1 address"));
        } else if count > MAX_ADDRESSES {
            errors.push(FieldError::too_many(&addresses.path, count, MAX_ADDRESSES));
        }
        for address in addresses.items() {
            match (kind.text(), address.text().parse::<std::net::IpAddr>()) {
                ("IPv4", Ok(ip)) if ip.is_ipv4() => reachable_address(&address, errors),
                ("IPv6", Ok(ip)) if ip.is_ipv6() => reachable_address(&address, errors),
                ("IPv4", _) => {
                    errors.push(FieldError::invalid(&address.path, address.text(), "must be a valid IPv4 address"))
                }
                ("IPv6", _) => {
                    errors.push(FieldError::invalid(&address.path, address.text(), "must be a valid IPv6 address"))
                }
                ("FQDN", _) => domain(&address, errors),
                _ => {}
            }
        }
        let (host, node) = (endpoint.child("hostname"), endpoint.child("nodeName"));
        if node.is_set() {
            errors.invalid_each(&node.path, node.text(), names::dns1123_subdomain(node.text()));
        }
        let topology = endpoint.child("deprecatedTopology");
        let count = topology.entries().count();
        if count > MAX_TOPOLOGY {
            errors.push(FieldError::too_many(&topology.path, count, MAX_TOPOLOGY));
        }
        labels(&topology, errors);
        if host.is_set() {
            errors.invalid_each(&host.path, host.text(), names::dns1123_label(host.text()));
        }
        let named: [(&str, NameCheck); 2] = [("forZones", names::label_value), ("forNodes", names::dns1123_subdomain)];
        for (list, check) in named {
            hints(&endpoint.child("hints").child(list), check, errors);
        }
    }
    let (ports, mut seen) = (slice.child("ports"), BTreeSet::new());
    let count = ports.items().count();
    if count > MAX_PORTS {
        errors.push(FieldError::too_many(&ports.path, count, MAX_PORTS));
        return;
    }
    for port in ports.items() {
        let name = port.child("name");
        if !name.is_empty() {
            errors.invalid_each(&name.path, name.text(), names::dns1123_label(name.text()));
        }
        if !seen.insert(name.text()) {
            errors.push(FieldError::duplicate(&name.path, name.text()));
        }
        required(&port.child("protocol"), errors);
        super::services::application(&port.child("appProtocol"), errors);
    }
}

/// The name of a host with its domain, perhaps with the root's dot.
fn domain(node: &Node<'_>, errors: &mut ErrorList) {
    if !required(node, errors) {
        return;
    }
    let name = node.text().strip_suffix('.').unwrap_or(node.text());
    let whole = names::dns1123_subdomain(name);
    let mut labels = name.split('.').map(|label| (label, names::dns1123_label(label)));
    let wrong = if !whole.is_empty() {
        Some((name, whole.join(",")))
    } else if !name.contains('.') {
        Some((name, "should be a domain with at least two segments separated by dots".to_owned()))
    } else {
        labels.find(|(_, messages)| !messages.is_empty()).map(|(label, messages)| (label, messages.join(",")))
    };
    errors.extend(wrong.map(|(part, message)| FieldError::invalid(&node.path, part, message)));
}

/// Whom an endpoint is meant for, none twice.
fn hints(list: &Node<'_>, check: NameCheck, errors: &mut ErrorList) {
    let count = list.items().count();
    if count > MAX_HINTS {
        errors.push(FieldError::too_many(&list.path, count, MAX_HINTS));
        return;
    }
    let mut seen = Vec::new();
    for name in list.items().map(|hint| hint.child("name")) {
        if seen.contains(&name.text()) {
            errors.push(FieldError::duplicate(&name.path, name.text()));
        }
        seen.push(name.text());
        errors.invalid_each(&name.path, name.text(), check(name.text()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validate::tests::created;

    #[test]
    fn endpoints_of_slices() {
        let refused = |more: Value| {
            let mut endpoint = json!({"addresses": ["10.0.0.1"]});
            endpoint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let slice = json!({"addressType": "IPv4", "endpoints": [endpoint], "ports": [{"port": 80}]});
            created("discovery.k8s.io", "EndpointSlice", slice)
        };
        let zones = |names: &[&str]| {
            let zones: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            json!({"nodeName": "n", "hints": {"forZones": zones}})
        };
        assert_eq!(refused(zones(&["a", "b"])), [""; 0]);
        assert_eq!(refused(zones(&["a", "a"])), ["endpoints[0].hints.forZones[1].name: Duplicate value: \"a\""]);
        assert_eq!(refused(zones(&["x"; 9])), ["endpoints[0].hints.forZones: Too many: 9: must have at most 8 items"]);
        assert!(refused(json!({"nodeName": "A B"}))[0].starts_with("endpoints[0].nodeName: Invalid value: \"A B\": "));
    }
}
