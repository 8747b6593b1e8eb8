//! Distributes endpoints over slices: pure, and with as few slices changed as possible.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

/// Endpoints that a slice holds at most.
const CAPACITY: usize = 100;

/// The ports that all endpoints of a slice have, ordered by content.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ports(pub(crate) Vec<EndpointPort>);

/// Name, protocol, number and application protocol.
type PortKey<'a> = (Option<&'a str>, Option<&'a str>, Option<i32>, Option<&'a str>);

impl Ports {
    fn sort_key(&self) -> Vec<PortKey<'_>> {
        let mut key: Vec<_> = self
            .0
            .iter()
            .map(|port| (port.name.as_deref(), port.protocol.as_deref(), port.port, port.app_protocol.as_deref()))
            .collect();
        key.sort();
        key
    }
}

impl Eq for Ports {}

impl Ord for Ports {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sort_key().cmp(&other.sort_key())
    }
}

impl PartialOrd for Ports {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What is to be written. A kept slice may turn out unchanged.
#[derive(Default)]
pub(crate) struct Changes {
    /// Without metadata.
    pub(crate) create: Vec<EndpointSlice>,
    pub(crate) keep: Vec<(Arc<EndpointSlice>, EndpointSlice)>,
    pub(crate) delete: Vec<Arc<EndpointSlice>>,
}

impl Changes {
    pub(crate) fn merge(&mut self, other: Changes) {
        self.create.extend(other.create);
        self.keep.extend(other.keep);
        self.delete.extend(other.delete);
    }
}

/// Brings the slices of one address family to hold exactly `desired`.
pub(crate) fn plan(
    desired: &BTreeMap<Ports, Vec<Endpoint>>,
    existing: Vec<Arc<EndpointSlice>>,
    family: &str,
) -> Changes {
    let mut changes = Changes::default();
    let mut by_ports: BTreeMap<Ports, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        by_ports.entry(Ports(slice.ports.clone().unwrap_or_default())).or_default().push(slice);
    }
    let empty = BTreeMap::from([(Ports::default(), Vec::new())]);
    let desired = if desired.is_empty() { &empty } else { desired };
    for (ports, endpoints) in desired {
        distribute(ports, endpoints, by_ports.remove(ports).unwrap_or_default(), family, &mut changes);
    }
    changes.delete.extend(by_ports.into_values().flatten());
    changes
}

fn distribute(
    ports: &Ports,
    endpoints: &[Endpoint],
    existing: Vec<Arc<EndpointSlice>>,
    family: &str,
    changes: &mut Changes,
) {
    let mut missing: BTreeMap<&str, &Endpoint> =
        endpoints.iter().map(|endpoint| (identity(endpoint), endpoint)).collect();
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in existing {
        let stay = slice.endpoints.iter().filter_map(|endpoint| missing.remove(identity(endpoint)).cloned()).collect();
        kept.push((slice, stay));
    }
    let mut waiting: Vec<Endpoint> = missing.into_values().cloned().collect();
    // Slices that change anyway take newcomers first, then any with room, then new ones.
    kept.sort_by_key(|(slice, stay)| slice.endpoints == *stay);
    for (_, stay) in &mut kept {
        let room = CAPACITY.saturating_sub(stay.len()).min(waiting.len());
        stay.extend(waiting.drain(..room));
    }
    let mut held = kept.iter().filter(|(_, stay)| !stay.is_empty()).count();
    for (slice, stay) in kept {
        if stay.is_empty() && (!endpoints.is_empty() || held > 0) {
            changes.delete.push(slice);
            continue;
        }
        held += usize::from(stay.is_empty());
        let new = EndpointSlice { endpoints: stay, ..slice.as_ref().clone() };
        changes.keep.push((slice, new));
    }
    let mut fresh: Vec<Vec<Endpoint>> = waiting.chunks(CAPACITY).map(<[Endpoint]>::to_vec).collect();
    if held == 0 && fresh.is_empty() {
        fresh.push(Vec::new());
    }
    changes.create.extend(fresh.into_iter().map(|endpoints| EndpointSlice {
        address_type: family.to_string(),
        endpoints,
        ports: Some(ports.0.clone()),
        ..EndpointSlice::default()
    }));
}

/// What tells endpoints apart: the pod, or the address where none is named.
fn identity(endpoint: &Endpoint) -> &str {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref());
    uid.or(endpoint.addresses.first().map(String::as_str)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(n: usize) -> Endpoint {
        Endpoint { addresses: vec![format!("10.0.{}.{}", n / 256, n % 256)], ..Endpoint::default() }
    }

    fn ports(port: i32) -> Ports {
        Ports(vec![EndpointPort { port: Some(port), ..EndpointPort::default() }])
    }

    fn slice(port: i32, endpoints: impl Iterator<Item = usize>) -> Arc<EndpointSlice> {
        Arc::new(EndpointSlice {
            address_type: "IPv4".into(),
            endpoints: endpoints.map(endpoint).collect(),
            ports: Some(ports(port).0),
            ..EndpointSlice::default()
        })
    }

    fn desired(port: i32, endpoints: impl Iterator<Item = usize>) -> BTreeMap<Ports, Vec<Endpoint>> {
        BTreeMap::from([(ports(port), endpoints.map(endpoint).collect())])
    }

    fn changed(changes: &Changes) -> Vec<usize> {
        changes.keep.iter().filter(|(old, new)| old.as_ref() != new).map(|(_, new)| new.endpoints.len()).collect()
    }

    #[test]
    fn no_endpoints_leave_one_empty_slice() {
        let changes = plan(&BTreeMap::new(), Vec::new(), "IPv4");
        assert_eq!(changes.create.len(), 1);
        let empty = Arc::new(EndpointSlice { ports: Some(Vec::new()), ..EndpointSlice::default() });
        let changes = plan(&BTreeMap::new(), vec![empty], "IPv4");
        assert_eq!((changes.create.len(), changes.keep.len(), changes.delete.len()), (0, 1, 0));
    }

    #[test]
    fn slices_are_filled_to_capacity() {
        let changes = plan(&desired(80, 0..250), Vec::new(), "IPv4");
        let sizes: Vec<_> = changes.create.iter().map(|slice| slice.endpoints.len()).collect();
        assert_eq!(sizes, [100, 100, 50]);
    }

    #[test]
    fn a_newcomer_changes_one_slice() {
        let existing = vec![slice(80, 0..100), slice(80, 100..150)];
        let changes = plan(&desired(80, 0..151), existing.clone(), "IPv4");
        assert_eq!((changed(&changes), changes.create.len(), changes.delete.len()), (vec![51], 0, 0));
        // One leaves the full slice: the newcomer takes its place there.
        let changes = plan(&desired(80, 1..151), existing, "IPv4");
        assert_eq!(changed(&changes), [100]);
    }

    #[test]
    fn other_ports_mean_other_slices() {
        let changes = plan(&desired(81, 0..3), vec![slice(80, 0..3)], "IPv4");
        assert_eq!((changes.create.len(), changes.keep.len(), changes.delete.len()), (1, 0, 1));
    }
}
