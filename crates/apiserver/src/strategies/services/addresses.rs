//! The objects behind cluster IPs: an IPAddress for each that is in use, a ServiceCIDR for each range they come from.

use std::net::{IpAddr, Ipv4Addr};

use kminik_meta::{Gvk, Object, names};
use serde_json::{Value, json};

use super::spec;
use crate::config::Cidr;
use crate::registry::strategy::Companion;
use crate::storage::cache::Snapshot;

pub(crate) const GROUP: &str = "networking.k8s.io";
/// Storage prefixes.
pub(crate) const ADDRESSES: &str = "networking.k8s.io/ipaddresses";
pub(crate) const RANGES: &str = "networking.k8s.io/servicecidrs";
/// The ServiceCIDR of the range that the server is started with.
pub(crate) const DEFAULT_RANGE: &str = "kubernetes";
const PLURAL: &str = "ipaddresses";
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";

/// The IPAddress of one of a service's cluster IPs.
pub(crate) fn object(address: Ipv4Addr, service: &Object) -> Object {
    let mut object = Object::new(&Gvk::new(GROUP, "v1", "IPAddress"));
    object.set_name(&address.to_string());
    object.set_label(FAMILY, "IPv4");
    object.set_label(MANAGED_BY.0, MANAGED_BY.1);
    let parent = json!({ "resource": "services", "namespace": service.namespace(), "name": service.name() });
    object.set(&["spec", "parentRef"], parent);
    object
}

/// Whether the server made the IPAddress.
pub(crate) fn is_managed(address: &Object) -> bool {
    address.label(MANAGED_BY.0) == Some(MANAGED_BY.1)
}

/// The cluster IPs of a service.
pub(crate) fn of_service(service: &Object) -> Vec<Ipv4Addr> {
    let mut addresses = spec::addresses(service);
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The IPAddresses that come and go with a service's cluster IPs.
pub(super) fn companions(old: Option<&Object>, new: Option<&Object>) -> Vec<Companion> {
    let of = |service: Option<&Object>| service.map(of_service).unwrap_or_default();
    let (before, after) = (of(old), of(new));
    let made = after.iter().filter(|address| !before.contains(address)).filter_map(|address| {
        new.map(|service| Companion::Made { group: GROUP, plural: PLURAL, object: object(*address, service) })
    });
    let removed = before.iter().filter(|address| !after.contains(address));
    let removed = removed.map(|a| Companion::Removed { group: GROUP, plural: PLURAL, name: a.to_string() });
    made.chain(removed).collect()
}

/// The ranges that addresses may be taken from: those of the ServiceCIDRs that are ready, the default one first. While there
/// is none at all, `default` is.
pub(super) fn ranges(snapshot: &Snapshot, default: Cidr) -> Vec<Cidr> {
    let mut objects: Vec<_> = snapshot.entries.values().filter_map(|entry| entry.object().ok()).collect();
    if objects.is_empty() {
        return vec![default];
    }
    objects.sort_by_key(|object| object.name() != DEFAULT_RANGE);
    let ready = objects.iter().filter(|object| !object.is_deleting() && is_ready(object));
    ready.flat_map(|object| object.array(&["spec", "cidrs"])).filter_map(Value::as_str).filter_map(parse).collect()
}

/// The default range is ready from the beginning; others are once a controller has said so.
fn is_ready(range: &Object) -> bool {
    let conditions = range.array(&["status", "conditions"]);
    match conditions.iter().find(|condition| condition["type"] == "Ready") {
        Some(condition) => condition["status"] == "True",
        None => range.name() == DEFAULT_RANGE,
    }
}

fn parse(text: &str) -> Option<Cidr> {
    match names::parse_cidr(text)? {
        (IpAddr::V4(address), prefix) => Some(Cidr { address, prefix }),
        (IpAddr::V6(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(address: &str) -> Object {
        Object::try_from(json!({
            "metadata": {"name": "s", "namespace": "n"}, "spec": {"clusterIP": address, "clusterIPs": [address]},
        }))
        .unwrap()
    }

    #[test]
    fn addresses_come_and_go_with_their_service() {
        let (one, other, none) = (service("10.0.0.1"), service("10.0.0.2"), service("None"));
        let told = |old: Option<&Object>, new: Option<&Object>| -> Vec<String> {
            let companions = companions(old, new).into_iter();
            let told = companions.map(|companion| match companion {
                Companion::Made { object, .. } => format!("+{}", object.name()),
                Companion::Removed { name, .. } => format!("-{name}"),
            });
            told.collect()
        };
        assert_eq!(told(None, Some(&one)), ["+10.0.0.1"]);
        assert_eq!(told(Some(&one), Some(&one)), Vec::<String>::new());
        assert_eq!(told(Some(&one), None), ["-10.0.0.1"]);
        assert_eq!(told(Some(&one), Some(&other)), ["+10.0.0.2", "-10.0.0.1"]);
        assert_eq!(told(Some(&none), Some(&none)), Vec::<String>::new());
        assert_eq!(object(Ipv4Addr::new(10, 0, 0, 1), &one).str(&["spec", "parentRef", "namespace"]), Some("n"));
    }
}
