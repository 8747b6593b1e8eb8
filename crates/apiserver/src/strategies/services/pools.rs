//! Where cluster IPs and node ports come from.
//!
//! What is in use is read off the services and IP addresses in the cache; what was given out since is held beside it until
//! the cache has seen the service that it was given to. So nothing can leak, and no record of what is in use can differ
//! from what is. The ranges are those of the ServiceCIDRs that are ready.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;

use super::{addresses, spec};
use crate::config::Cidr;
use crate::registry::Registry;
use crate::registry::strategy::Reservation;
use crate::storage::cache::Snapshot;
use crate::storage::key;

const SERVICES: &str = "core/services";

/// The address ranges and the port range, both with what was given out lately.
pub(crate) struct Pools {
    /// Where addresses come from while there is no ServiceCIDR.
    cidr: Cidr,
    ports: (u16, u16),
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The newest change of a service that `in_use` knows.
    built_from: u64,
    in_use: Taken,
    held: Held,
    /// The newest change of a ServiceCIDR that `ranges` knows.
    ranges_from: u64,
    ranges: Vec<Cidr>,
}

#[derive(Default)]
struct Taken {
    addresses: HashSet<Ipv4Addr>,
    ports: HashSet<u16>,
}

/// Given out, with the revision at which the service was stored; `None` while it is being written.
#[derive(Default)]
struct Held {
    addresses: HashMap<Ipv4Addr, Option<u64>>,
    ports: HashMap<u16, Option<u64>>,
}

/// Why a pool does not give what was asked for, in upstream's words.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PoolError {
    #[error("failed to allocate IP {address}: provided IP is already allocated")]
    AddressTaken { address: Ipv4Addr },
    #[error(
        "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
    )]
    AddressOutside { address: Ipv4Addr, range: String },
    #[error("failed to allocate a serviceIP: range is full")]
    NoAddress,
    #[error("provided port is already allocated")]
    PortTaken,
    #[error("provided port is not in the valid range. The range of valid ports is {first}-{last}")]
    PortOutside { first: u16, last: u16 },
    #[error("range is full")]
    NoPort,
}

impl Pools {
    /// Over these ranges, both ends of the ports included.
    pub(crate) fn new(cidr: Cidr, ports: (u16, u16)) -> Arc<Self> {
        Arc::new(Pools { cidr, ports, state: Mutex::default() })
    }

    /// Begins taking things for one service.
    pub(crate) fn begin(self: &Arc<Self>, registry: &Registry) -> Reserved {
        let mut state = self.state.lock();
        let cache = registry.cache();
        // In this order: what the cache had seen before is in the services read after, so that nothing that was given out
        // is let go before it is found in use. A change in between leads to another look the next time.
        let seen = cache.revision();
        let newest = cache.resource(SERVICES).last_changed();
        if state.built_from != newest {
            state.in_use = Taken::default();
            for service in cache.snapshot(SERVICES).entries.values().filter_map(|entry| entry.object().ok()) {
                state.in_use.addresses.extend(spec::addresses(&service));
                state.in_use.ports.extend(spec::node_ports(&service));
            }
            state.built_from = newest;
        }
        let newest = cache.resource(addresses::RANGES).last_changed();
        if state.ranges_from != newest || state.ranges.is_empty() {
            state.ranges = addresses::ranges(&cache.snapshot(addresses::RANGES), self.cidr);
            state.ranges_from = newest;
        }
        let arrived = |at: &Option<u64>| at.is_some_and(|at| at <= seen);
        state.held.addresses.retain(|_, at| !arrived(at));
        state.held.ports.retain(|_, at| !arrived(at));
        let ranges = state.ranges.clone();
        drop(state);
        let known = Some(cache.snapshot(addresses::ADDRESSES));
        Reserved { pools: self.clone(), ranges, known, addresses: Vec::new(), ports: Vec::new() }
    }
}

/// Addresses of a range that can be given out: its first and its last are none.
fn hosts(range: Cidr) -> u32 {
    match range.prefix {
        0 => u32::MAX,
        prefix => (1u32 << (32 - prefix.min(32))).saturating_sub(2),
    }
}

fn contains(range: Cidr, address: Ipv4Addr) -> bool {
    let offset = u32::from(address).wrapping_sub(u32::from(range.address));
    offset >= 1 && offset <= hosts(range)
}

impl State {
    fn has_address(&self, address: Ipv4Addr) -> bool {
        self.in_use.addresses.contains(&address) || self.held.addresses.contains_key(&address)
    }

    fn has_port(&self, port: u16) -> bool {
        self.in_use.ports.contains(&port) || self.held.ports.contains_key(&port)
    }
}

/// What was taken for one service; given back when dropped before the service is stored.
pub(crate) struct Reserved {
    pools: Arc<Pools>,
    ranges: Vec<Cidr>,
    /// The IP addresses there are, whoever made them.
    known: Option<Snapshot>,
    addresses: Vec<Ipv4Addr>,
    ports: Vec<u16>,
}

impl Reserved {
    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.ports.is_empty()
    }

    /// Takes this address.
    pub(crate) fn address(&mut self, address: Ipv4Addr) -> Result<(), PoolError> {
        if !self.ranges.iter().any(|range| contains(*range, address)) {
            let ranges: Vec<String> =
                self.ranges.iter().map(|range| format!("{}/{}", range.address, range.prefix)).collect();
            return Err(PoolError::AddressOutside { address, range: ranges.join(",") });
        }
        let mut state = self.pools.state.lock();
        if state.has_address(address) || self.knows(address) {
            return Err(PoolError::AddressTaken { address });
        }
        state.held.addresses.insert(address, None);
        self.addresses.push(address);
        Ok(())
    }

    fn knows(&self, address: Ipv4Addr) -> bool {
        let key = key::object(addresses::ADDRESSES, "", &address.to_string());
        self.known.as_ref().is_some_and(|known| known.get(&key).is_some())
    }

    /// Takes any free address: from the upper part of a range while there is one, so that the lower part stays for
    /// addresses that people choose.
    pub(crate) fn any_address(&mut self) -> Result<Ipv4Addr, PoolError> {
        let mut state = self.pools.state.lock();
        let found = self.ranges.iter().find_map(|range| {
            let hosts = hosts(*range);
            let reserved = (hosts / 16).clamp(16, 256).min(hosts);
            let at = |offset: u32| Ipv4Addr::from(u32::from(range.address).wrapping_add(offset));
            let free = |offset: &u32| !state.has_address(at(*offset)) && !self.knows(at(*offset));
            pick(reserved + 1, hosts, free).or_else(|| pick(1, reserved, free)).map(at)
        });
        let address = found.ok_or(PoolError::NoAddress)?;
        state.held.addresses.insert(address, None);
        self.addresses.push(address);
        Ok(address)
    }

    /// Takes this port; one service may use a port for several protocols.
    pub(crate) fn port(&mut self, port: u16) -> Result<(), PoolError> {
        let (first, last) = self.pools.ports;
        if self.ports.contains(&port) {
            return Ok(());
        }
        if port < first || port > last {
            return Err(PoolError::PortOutside { first, last });
        }
        let mut state = self.pools.state.lock();
        if state.has_port(port) {
            return Err(PoolError::PortTaken);
        }
        state.held.ports.insert(port, None);
        self.ports.push(port);
        Ok(())
    }

    /// Takes any free port, as [`Reserved::any_address`].
    pub(crate) fn any_port(&mut self) -> Result<u16, PoolError> {
        let (first, last) = (u32::from(self.pools.ports.0), u32::from(self.pools.ports.1));
        let size = (last + 1).saturating_sub(first);
        let reserved = (size / 32).clamp(16, 128).min(size);
        let mut state = self.pools.state.lock();
        let free = |port: &u32| u16::try_from(*port).is_ok_and(|port| !state.has_port(port));
        let found = pick(first + reserved, last, free).or_else(|| pick(first, first + reserved - 1, free));
        let port = found.and_then(|port| u16::try_from(port).ok()).ok_or(PoolError::NoPort)?;
        state.held.ports.insert(port, None);
        self.ports.push(port);
        Ok(port)
    }
}

/// A random free number of `first..=last`: the first one from a random start on.
fn pick(first: u32, last: u32, free: impl Fn(&u32) -> bool) -> Option<u32> {
    if first > last {
        return None;
    }
    let start = rand::rng().random_range(first..=last);
    (start..=last).chain(first..start).find(free)
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut state = self.pools.state.lock();
        for address in &self.addresses {
            state.held.addresses.remove(address);
        }
        for port in &self.ports {
            state.held.ports.remove(port);
        }
    }
}

impl Reservation for Reserved {
    fn commit(mut self: Box<Self>, revision: u64) {
        let mut state = self.pools.state.lock();
        for address in &self.addresses {
            state.held.addresses.insert(*address, Some(revision));
        }
        for port in &self.ports {
            state.held.ports.insert(*port, Some(revision));
        }
        drop(state);
        self.addresses.clear();
        self.ports.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools() -> Arc<Pools> {
        let cidr = Cidr { address: Ipv4Addr::new(10, 0, 0, 0), prefix: 28 };
        Arc::new(Pools { cidr, ports: (30000, 30019), state: Mutex::default() })
    }

    fn begin(pools: &Arc<Pools>) -> Reserved {
        let ranges = vec![pools.cidr];
        Reserved { pools: pools.clone(), ranges, known: None, addresses: Vec::new(), ports: Vec::new() }
    }

    #[test]
    fn everything_is_given_once_and_comes_back() {
        let pools = pools();
        let mut all = begin(&pools);
        let mut addresses: Vec<_> = (0..14).map(|_| all.any_address().unwrap()).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 14);
        assert_eq!(begin(&pools).any_address(), Err(PoolError::NoAddress));
        assert_eq!(begin(&pools).address(addresses[0]), Err(PoolError::AddressTaken { address: addresses[0] }));
        drop(all);
        let mut one = begin(&pools);
        assert_eq!(one.address(addresses[0]), Ok(()));
        Box::new(one).commit(7);
        assert!(begin(&pools).address(addresses[0]).is_err());
    }

    #[test]
    fn ranges_are_kept() {
        let pools = pools();
        for outside in [Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(10, 0, 0, 15), Ipv4Addr::new(10, 0, 1, 1)] {
            assert!(matches!(begin(&pools).address(outside), Err(PoolError::AddressOutside { .. })), "{outside}");
        }
        assert_eq!(begin(&pools).port(80), Err(PoolError::PortOutside { first: 30000, last: 30019 }));
        let mut reserved = begin(&pools);
        assert_eq!((reserved.port(30001), reserved.port(30001)), (Ok(()), Ok(())));
        let rest: HashSet<_> = (0..19).map(|_| reserved.any_port().unwrap()).collect();
        assert_eq!((rest.len(), rest.contains(&30001)), (19, false));
        assert_eq!(reserved.any_port(), Err(PoolError::NoPort));
    }
}
