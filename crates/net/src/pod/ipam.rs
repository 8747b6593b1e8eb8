//! Which sandbox has which address, kept in a file that is written before an address is handed out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use kminik_base::atomic_file::{self, FileError};
use kminik_runtime::PortMapping;
use serde::{Deserialize, Serialize};

use crate::hostnet;

#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    #[error("all addresses of pod range {range} are in use")]
    Exhausted { range: Ipv4Net },
    #[error("address {address} is in use by two sandboxes, {one} and {other}")]
    Conflict { address: Ipv4Addr, one: String, other: String },
    #[error("address record {} is for pod range {recorded}, not {range}", path.display())]
    Range { path: PathBuf, recorded: Ipv4Net, range: Ipv4Net },
    #[error("address record {} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("directory {} cannot be created", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    File(#[from] FileError),
}

/// What one sandbox holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) address: Ipv4Addr,
    pub(super) ports: Vec<PortMapping>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    range: Ipv4Net,
    /// The address handed out last; the search goes on behind it, so that an address rests before it is used again.
    last: Ipv4Addr,
    leases: BTreeMap<String, Lease>,
}

pub(super) struct Addresses {
    path: PathBuf,
    record: Record,
}

const LIMIT_BYTES: u64 = 64 << 20;

impl Addresses {
    pub(super) fn open(dir: &Path, range: Ipv4Net) -> Result<Self, IpamError> {
        std::fs::create_dir_all(dir).map_err(|source| IpamError::Directory { path: dir.to_owned(), source })?;
        let path = dir.join("addresses.json");
        let record = match atomic_file::read_optional(&path, LIMIT_BYTES)? {
            None => Record { range, last: hostnet::gateway(range), leases: BTreeMap::new() },
            Some(bytes) => serde_json::from_slice::<Record>(&bytes)
                .map_err(|source| IpamError::Damaged { path: path.clone(), source })?,
        };
        if record.range != range {
            return Err(IpamError::Range { path, recorded: record.range, range });
        }
        Ok(Self { path, record })
    }

    pub(super) fn all(&self) -> &BTreeMap<String, Lease> {
        &self.record.leases
    }

    /// The sandbox' address, a free one if it has none.
    pub(super) fn take(&mut self, sandbox: &str, ports: &[PortMapping]) -> Result<Ipv4Addr, IpamError> {
        let address = match self.record.leases.get(sandbox) {
            Some(lease) if lease.ports == ports => return Ok(lease.address),
            Some(lease) => lease.address,
            None => self.free()?,
        };
        let before = self.record.leases.insert(sandbox.to_owned(), Lease { address, ports: ports.to_vec() });
        let last = std::mem::replace(&mut self.record.last, address);
        if let Err(error) = self.save() {
            self.record.last = last;
            match before {
                Some(lease) => self.record.leases.insert(sandbox.to_owned(), lease),
                None => self.record.leases.remove(sandbox),
            };
            return Err(error);
        }
        Ok(address)
    }

    /// Records an address that a sandbox is known to hold, if it is of this range.
    pub(super) fn keep(&mut self, sandbox: &str, address: Ipv4Addr) -> Result<(), IpamError> {
        if !self.record.range.contains(&address)
            || self.record.leases.get(sandbox).is_some_and(|l| l.address == address)
        {
            return Ok(());
        }
        if let Some((other, _)) = self.record.leases.iter().find(|(_, lease)| lease.address == address) {
            return Err(IpamError::Conflict { address, one: sandbox.to_owned(), other: other.clone() });
        }
        self.record.leases.insert(sandbox.to_owned(), Lease { address, ports: Vec::new() });
        self.save()
    }

    /// Frees what the sandbox holds; whether ports of the node were among it.
    pub(super) fn release(&mut self, sandbox: &str) -> Result<bool, IpamError> {
        let Some(lease) = self.record.leases.remove(sandbox) else { return Ok(false) };
        let ports = !lease.ports.is_empty();
        if let Err(error) = self.save() {
            self.record.leases.insert(sandbox.to_owned(), lease);
            return Err(error);
        }
        Ok(ports)
    }

    fn free(&self) -> Result<Ipv4Addr, IpamError> {
        let range = self.record.range;
        let used: BTreeSet<Ipv4Addr> = self.record.leases.values().map(|lease| lease.address).collect();
        // The first host is the gateway's.
        let free = |address: &Ipv4Addr| !used.contains(address);
        let behind = range.hosts().skip(1).filter(|address| *address > self.record.last).find(free);
        behind.or_else(|| range.hosts().skip(1).find(free)).ok_or(IpamError::Exhausted { range })
    }

    fn save(&self) -> Result<(), IpamError> {
        let bytes = serde_json::to_vec(&self.record)
            .map_err(|source| IpamError::Damaged { path: self.path.clone(), source })?;
        Ok(atomic_file::write(&self.path, &bytes, 0o600)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> Ipv4Net {
        "10.244.3.0/29".parse().unwrap()
    }

    #[test]
    fn no_address_twice_and_all_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut addresses = Addresses::open(dir.path(), range()).unwrap();
        let taken: Vec<String> = (0..5).map(|i| addresses.take(&format!("s{i}"), &[]).unwrap().to_string()).collect();
        assert_eq!(taken, ["10.244.3.2", "10.244.3.3", "10.244.3.4", "10.244.3.5", "10.244.3.6"]);
        assert!(matches!(addresses.take("s5", &[]), Err(IpamError::Exhausted { .. })));
        assert_eq!(addresses.take("s3", &[]).unwrap().to_string(), "10.244.3.5", "asked again, the same");
        addresses.release("s1").unwrap();
        drop(addresses);

        let mut addresses = Addresses::open(dir.path(), range()).unwrap();
        assert_eq!(addresses.take("s0", &[]).unwrap().to_string(), "10.244.3.2");
        assert_eq!(addresses.take("new", &[]).unwrap().to_string(), "10.244.3.3");
        let other = Addresses::open(dir.path(), "10.244.4.0/24".parse().unwrap());
        assert!(matches!(other, Err(IpamError::Range { .. })));
    }

    #[test]
    fn a_freed_address_rests() {
        let dir = tempfile::tempdir().unwrap();
        let mut addresses = Addresses::open(dir.path(), range()).unwrap();
        addresses.take("a", &[]).unwrap();
        addresses.release("a").unwrap();
        assert_eq!(addresses.take("b", &[]).unwrap().to_string(), "10.244.3.3");
    }

    #[test]
    fn keep_refuses_an_address_held_by_another() {
        let dir = tempfile::tempdir().unwrap();
        let mut addresses = Addresses::open(dir.path(), range()).unwrap();
        let address = addresses.take("a", &[]).unwrap();
        addresses.keep("a", address).unwrap();
        assert!(matches!(addresses.keep("b", address), Err(IpamError::Conflict { .. })));
        addresses.keep("b", "10.244.3.4".parse().unwrap()).unwrap();
        assert_eq!(addresses.take("c", &[]).unwrap().to_string(), "10.244.3.3");
    }
}
