//! Which machine of a cluster is meant.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use crate::profile::{Profile, Worker};

/// One machine, as its profile describes it: the control plane's, or a worker's.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    profile: &'a Profile,
    worker: Option<&'a Worker>,
}

impl<'a> Machine<'a> {
    /// `None` is the control plane's.
    pub fn new(profile: &'a Profile, worker: Option<&'a Worker>) -> Self {
        Self { profile, worker }
    }

    /// The cluster that it is of.
    pub fn profile(self) -> &'a Profile {
        self.profile
    }

    pub fn is_worker(self) -> bool {
        self.worker.is_some()
    }

    /// Of a worker, from 2 on.
    pub fn number(self) -> Option<u32> {
        self.worker.map(|worker| worker.number)
    }

    /// It was stopped by itself, so nobody is to start it but by name, or with the whole cluster.
    pub fn is_stopped(self) -> bool {
        self.worker.is_some_and(|worker| worker.stopped)
    }

    /// As minikube names them: the profile's name, of a worker with its number, `dev-m02`. Unique among all machines.
    pub fn name(self) -> Cow<'a, str> {
        match self.worker {
            None => Cow::Borrowed(&self.profile.name),
            Some(worker) => Cow::Owned(machine_name(&self.profile.name, worker.number)),
        }
    }

    /// Of its Node object.
    pub fn node_name(self) -> String {
        self.name().to_ascii_lowercase()
    }

    /// In the cluster's network.
    pub fn address(self) -> Ipv4Addr {
        self.worker.map_or(self.profile.node_address, |worker| worker.address)
    }

    /// Whether this is what a user calls it: by its name, or without the profile's (`m02`; the control plane's is `m01`).
    pub fn is_called(self, name: &str) -> bool {
        let short = Worker::short(self.number().unwrap_or(1));
        *name == *self.name() || name == short
    }

    /// Cores, `None` is no limit.
    pub fn cpus(self) -> Option<u32> {
        Some(self.profile.cpus).filter(|cpus| *cpus > 0)
    }

    /// `None` is no limit.
    pub fn memory_bytes(self) -> Option<u64> {
        Some(self.profile.memory_mib << 20).filter(|bytes| *bytes > 0)
    }
}

/// The name of the machine of a cluster's worker.
pub fn machine_name(cluster: &str, number: u32) -> String {
    format!("{cluster}-{}", Worker::short(number))
}

/// The cluster and the number that the name of a worker's machine is made of.
pub fn split_name(name: &str) -> Option<(&str, u32)> {
    let (cluster, number) = name.rsplit_once("-m")?;
    let parsed = number.parse().ok()?;
    (parsed > 1 && Worker::short(parsed) == format!("m{number}") && !cluster.is_empty()).then_some((cluster, parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_workers() {
        assert_eq!(split_name("dev-m02"), Some(("dev", 2)));
        assert_eq!(split_name("a-m03-m10"), Some(("a-m03", 10)));
        assert_eq!(split_name("a-m100"), Some(("a", 100)));
        for other in ["dev", "dev-m01", "dev-m2", "dev-m002", "dev-m", "-m02", "dev-mx", "m02"] {
            assert_eq!(split_name(other), None, "{other}");
        }
    }
}
