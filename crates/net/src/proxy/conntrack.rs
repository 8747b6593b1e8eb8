//! Connections the kernel remembers for UDP, which has no end of its own: a client that keeps sending keeps its entry, and with
//! it an endpoint that is gone, or the lack of one. They are deleted when what the rules say has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use nlink::netlink::netfilter::{ConntrackEntry, ConntrackFilter, IpProtocol};
use nlink::netlink::types::AddressFamily;
use nlink::netlink::{Connection, Netfilter};

use super::model::{Backend, ServicePort};
use crate::nft::rule::UDP;

#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    #[error("conntrack socket cannot be opened")]
    Socket(#[source] nlink::Error),
    #[error("tracked connections cannot be listed")]
    List(#[source] nlink::Error),
    #[error("tracked connection cannot be deleted")]
    Delete(#[source] nlink::Error),
}

/// What UDP clients are sent to: by address and port, or by node port alone.
pub(super) type UdpServices = BTreeMap<(Option<Ipv4Addr>, u16), BTreeSet<Backend>>;

pub(super) fn udp_services(ports: &[ServicePort]) -> UdpServices {
    let mut services = UdpServices::new();
    for port in ports.iter().filter(|port| port.protocol == UDP) {
        let backends: BTreeSet<Backend> = port.endpoints.iter().chain(&port.local_endpoints).copied().collect();
        for address in port.external_ips.iter().chain([&port.cluster_ip]) {
            services.insert((Some(*address), port.port), backends.clone());
        }
        if let Some(node_port) = port.node_port {
            services.insert((None, node_port), backends);
        }
    }
    services
}

/// Deletes what leads from a service to anything but one of its endpoints; the number deleted.
pub(super) async fn flush_stale(services: &UdpServices) -> Result<usize, ConntrackError> {
    if services.is_empty() {
        return Ok(0);
    }
    let netfilter = Connection::<Netfilter>::new().map_err(ConntrackError::Socket)?;
    let udp = ConntrackFilter::new().family(AddressFamily::Inet).proto(IpProtocol::Udp);
    let entries = netfilter.get_conntrack_matching(&udp).await.map_err(ConntrackError::List)?;
    let mut deleted = 0;
    for entry in entries.iter().filter(|entry| is_stale(entry, services)) {
        match netfilter.del_conntrack_entry(entry).await {
            Ok(()) => deleted += 1,
            Err(error) if error.is_not_found() => {}
            Err(source) => return Err(ConntrackError::Delete(source)),
        }
    }
    Ok(deleted)
}

fn is_stale(entry: &ConntrackEntry, services: &UdpServices) -> bool {
    let (Some(IpAddr::V4(address)), Some(port)) = (entry.orig.dst_ip, entry.orig.dst_port) else { return false };
    let (Some(IpAddr::V4(from)), Some(from_port)) = (entry.reply.src_ip, entry.reply.src_port) else { return false };
    let answering = Backend { address: from, port: from_port };
    if let Some(backends) = services.get(&(Some(address), port)) {
        return !backends.contains(&answering);
    }
    // A packet to another host's port of that number was never ours: only what was translated, or is answered by the
    // address it was sent to without having been translated, can be.
    match services.get(&(None, port)) {
        Some(backends) if backends.contains(&answering) => false,
        Some(_) => is_translated(entry) || from == address,
        None => false,
    }
}

fn is_translated(entry: &ConntrackEntry) -> bool {
    const DESTINATION_TRANSLATED: u32 = 1 << 5;
    entry.status.is_some_and(|status| status & DESTINATION_TRANSLATED != 0)
}
