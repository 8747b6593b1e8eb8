//! Checks of discovery: endpoints of services.

use super::node::Node;
use super::services::reachable_address;
use super::{Kind, immutable, required};
use crate::field::{ErrorList, FieldError};
use crate::names;

/// Endpoints one slice may hold.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;

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
