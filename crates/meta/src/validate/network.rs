//! Checks of networking and discovery.

use super::containers::{port_reference, range};
use super::node::Node;
use super::{Kind, immutable, label_selector, required};
use crate::field::{ErrorList, FieldError};
use crate::names;

/// Endpoints one slice may hold.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;

pub(super) const KINDS: &[Kind] = &[
    Kind::new("discovery.k8s.io", "EndpointSlice", slice).change(|new, old, errors| {
        immutable(&new.child("addressType"), &old.child("addressType"), errors);
    }),
    Kind::new("networking.k8s.io", "NetworkPolicy", policy),
    Kind::new("networking.k8s.io", "Ingress", ingress),
    Kind::new("networking.k8s.io", "IngressClass", |class, errors| {
        required(&class.at(&["spec", "controller"]), errors);
    })
    .change(|new, old, errors| {
        immutable(&new.at(&["spec", "controller"]), &old.at(&["spec", "controller"]), errors);
    }),
];

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
                ("IPv4", Ok(ip)) if ip.is_ipv4() => {}
                ("IPv6", Ok(ip)) if ip.is_ipv6() => {}
                ("IPv4", _) => {
                    errors.push(FieldError::invalid(&address.path, address.text(), "must be a valid IPv4 address"))
                }
                ("IPv6", _) => {
                    errors.push(FieldError::invalid(&address.path, address.text(), "must be a valid IPv6 address"))
                }
                _ => errors.invalid_each(&address.path, address.text(), names::dns1123_subdomain(address.text())),
            }
        }
        let host = endpoint.child("hostname");
        if !host.is_empty() {
            errors.invalid_each(&host.path, host.text(), names::dns1123_label(host.text()));
        }
    }
    let mut seen = Vec::new();
    for port in slice.child("ports").items() {
        let name = port.child("name");
        if !name.is_empty() {
            errors.invalid_each(&name.path, name.text(), names::dns1123_label(name.text()));
        }
        if seen.contains(&name.text()) {
            errors.push(FieldError::duplicate(&name.path, name.text()));
        }
        seen.push(name.text());
    }
}

fn policy(policy: &Node<'_>, errors: &mut ErrorList) {
    let spec = policy.child("spec");
    label_selector(&spec.child("podSelector"), errors);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.child(rules).items() {
            for port in rule.child("ports").items() {
                let (number, end) = (port.child("port"), port.child("endPort"));
                if number.is_set() {
                    port_reference(&number, errors);
                }
                if end.integer().is_some() && number.integer().is_none() {
                    errors.push(FieldError::invalid(
                        &end.path,
                        end.value.clone(),
                        "may not be specified when `port` is non-numeric",
                    ));
                }
                if let (Some(first), Some(last)) = (number.integer(), end.integer())
                    && last < first
                {
                    errors.push(FieldError::invalid(&end.path, last, "must be greater than or equal to `port`"));
                }
            }
            for peer in rule.child(peers).items() {
                label_selector(&peer.child("podSelector"), errors);
                label_selector(&peer.child("namespaceSelector"), errors);
                let block = peer.child("ipBlock");
                if block.is_set() {
                    required(&block.child("cidr"), errors);
                    if peer.child("podSelector").is_set() || peer.child("namespaceSelector").is_set() {
                        let message = "may not specify both ipBlock and another peer";
                        errors.push(FieldError::forbidden(&peer.path, message));
                    }
                } else if peer.value.as_object().is_none_or(serde_json::Map::is_empty) {
                    errors.push(FieldError::required(&peer.path, "must specify a peer"));
                }
            }
        }
    }
}

fn ingress(ingress: &Node<'_>, errors: &mut ErrorList) {
    let spec = ingress.child("spec");
    let backend_given = spec.child("defaultBackend").is_set();
    if spec.child("rules").is_empty() && !backend_given {
        let message = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(&spec.path, spec.child("rules").value.clone(), message));
    }
    if backend_given {
        backend(&spec.child("defaultBackend"), errors);
    }
    for rule in spec.child("rules").items() {
        let host = rule.child("host");
        if host.text().parse::<std::net::IpAddr>().is_ok() {
            errors.push(FieldError::invalid(&host.path, host.text(), "must be a DNS name, not an IP address"));
        } else if host.text().contains('*') {
            errors.invalid_each(&host.path, host.text(), names::wildcard_dns1123_subdomain(host.text()));
        } else if !host.is_empty() {
            errors.invalid_each(&host.path, host.text(), names::dns1123_subdomain(host.text()));
        }
        let http = rule.child("http");
        let paths = http.child("paths");
        if http.is_set() && paths.is_empty() {
            errors.push(FieldError::required(&paths.path, ""));
        }
        for entry in paths.items() {
            let (kind, path) = (entry.child("pathType"), entry.child("path"));
            if kind.is_empty() {
                errors.push(FieldError::required(&kind.path, "pathType must be specified"));
            }
            if matches!(kind.text(), "Exact" | "Prefix") && !path.text().starts_with('/') {
                errors.push(FieldError::invalid(&path.path, path.text(), "must be an absolute path"));
            }
            backend(&entry.child("backend"), errors);
        }
    }
}

fn backend(backend: &Node<'_>, errors: &mut ErrorList) {
    let service = backend.child("service");
    match (service.is_set(), backend.child("resource").is_set()) {
        (true, true) => {
            errors.push(FieldError::invalid(&backend.path, "", "cannot set both resource and service backends"));
        }
        (false, false) => {
            errors.push(FieldError::required(&backend.path, "resource or service backend is required"));
        }
        (true, false) => {
            required(&service.child("name"), errors);
            let port = service.child("port");
            let (name, number) = (port.child("name"), port.child("number"));
            if name.is_empty() && number.integer().unwrap_or_default() == 0 {
                errors.push(FieldError::required(&port.path, "port name or number is required"));
            } else if let Some(value) = number.integer().filter(|n| *n != 0) {
                range(&number, names::port_number(value), errors);
            }
        }
        (false, true) => {}
    }
}
