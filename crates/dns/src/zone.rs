//! The cluster's services and endpoints as names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Deref;

use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Everything that can be asked for below the cluster's domain.
#[derive(Clone, Debug)]
pub struct Zone {
    pub(crate) domain: Name,
    /// Revision of the newest object in it, for the SOA record.
    pub(crate) serial: u32,
    pub(crate) namespaces: BTreeSet<String>,
    /// By namespace and name.
    pub(crate) services: HashMap<(String, String), Target>,
    /// Names below the domain, relative to it, by address.
    pub(crate) by_address: HashMap<IpAddr, Vec<String>>,
}

/// What a service's name leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) addresses: Addresses,
    /// Of the service; of a headless one only endpoints' ports count.
    pub(crate) ports: Vec<Port>,
    /// By label, which is the endpoint's hostname or its address with dashes.
    pub(crate) endpoints: BTreeMap<String, Vec<EndpointAddress>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Addresses {
    Cluster(Vec<IpAddr>),
    #[default]
    Headless,
    External(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointAddress {
    pub(crate) address: IpAddr,
    pub(crate) ports: Vec<Port>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// Lowercase.
    pub(crate) protocol: String,
    pub(crate) number: u16,
}

impl Zone {
    /// A zone without a name but its own.
    pub fn empty(domain: Name) -> Self {
        Self {
            domain: domain.to_lowercase(),
            serial: 0,
            namespaces: BTreeSet::new(),
            services: HashMap::new(),
            by_address: HashMap::new(),
        }
    }

    /// The zone of these objects. Only ready endpoints have names.
    pub fn new<S, E, N>(domain: Name, services: &[S], slices: &[E], namespaces: &[N]) -> Self
    where
        S: Deref<Target = Service>,
        E: Deref<Target = EndpointSlice>,
        N: Deref<Target = Namespace>,
    {
        let mut zone = Self::empty(domain);
        zone.namespaces.extend(namespaces.iter().filter_map(|namespace| namespace.metadata.name.clone()));
        for service in services {
            let (Some(namespace), Some(name)) = (&service.metadata.namespace, &service.metadata.name) else { continue };
            let Some(target) = target(service) else { continue };
            zone.see(service.metadata.resource_version.as_deref());
            if let Addresses::Cluster(addresses) = &target.addresses {
                for address in addresses {
                    zone.by_address.entry(*address).or_default().push(format!("{name}.{namespace}.svc"));
                }
            }
            zone.services.insert((namespace.clone(), name.clone()), target);
        }
        for slice in slices {
            zone.see(slice.metadata.resource_version.as_deref());
            zone.add_slice(slice);
        }
        for names in zone.by_address.values_mut() {
            names.sort_unstable();
            names.dedup();
        }
        zone
    }

    fn add_slice(&mut self, slice: &EndpointSlice) {
        let Some(namespace) = &slice.metadata.namespace else { return };
        let labels = slice.metadata.labels.as_ref();
        let Some(name) = labels.and_then(|labels| labels.get("kubernetes.io/service-name")) else { return };
        let Some(target) = self.services.get_mut(&(namespace.clone(), name.clone())) else { return };
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
                number: u16::try_from(port.port?).ok()?,
            })
        });
        let ports: Vec<Port> = ports.collect();
        for endpoint in &slice.endpoints {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
            if ready == Some(false) {
                continue;
            }
            for address in endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok()) {
                let label = endpoint.hostname.clone().unwrap_or_else(|| dashed(address)).to_ascii_lowercase();
                let full_name = format!("{label}.{name}.{namespace}.svc");
                let known = target.endpoints.entry(label).or_default();
                match known.iter_mut().find(|known| known.address == address) {
                    // One endpoint may be in several slices, with different ports.
                    Some(known) => {
                        let new = ports.iter().filter(|port| !known.ports.contains(port)).cloned();
                        let new: Vec<Port> = new.collect();
                        known.ports.extend(new);
                    }
                    None => known.push(EndpointAddress { address, ports: ports.clone() }),
                }
                self.by_address.entry(address).or_default().push(full_name);
            }
        }
    }

    fn see(&mut self, revision: Option<&str>) {
        let revision = revision.and_then(|revision| revision.parse::<u64>().ok()).unwrap_or(0);
        // A serial number wraps.
        self.serial = self.serial.max(revision as u32);
    }
}

fn target(service: &Service) -> Option<Target> {
    let spec = service.spec.as_ref()?;
    let addresses = if spec.type_.as_deref() == Some("ExternalName") {
        Addresses::External(spec.external_name.clone()?)
    } else if spec.cluster_ip.as_deref() == Some("None") {
        Addresses::Headless
    } else {
        let mut addresses: Vec<IpAddr> = spec.cluster_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect();
        if addresses.is_empty() {
            addresses.extend(spec.cluster_ip.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()));
        }
        Addresses::Cluster(addresses)
    };
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
            number: u16::try_from(port.port).ok()?,
        })
    });
    Some(Target { addresses, ports: ports.collect(), endpoints: BTreeMap::new() })
}

/// `10-244-0-7`, `fd00--1`.
pub(crate) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}
