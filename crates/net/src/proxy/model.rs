//! Services and their endpoints as the rules need them: one [`ServicePort`] a port, IPv4 only.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::ops::Deref;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServicePort as ApiPort};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::nft::rule::{SCTP, TCP, UDP};

/// One port of a service that has a cluster IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServicePort {
    /// `namespace/name/protocol/port name`.
    pub(super) id: String,
    /// IP protocol number.
    pub(super) protocol: u8,
    pub(super) port: u16,
    pub(super) cluster_ip: Ipv4Addr,
    pub(super) node_port: Option<u16>,
    /// Addresses from outside: spec.externalIPs and those of the load balancer.
    pub(super) external_ips: Vec<Ipv4Addr>,
    /// Those among them that `source_ranges` guards.
    pub(super) load_balancer_ips: Vec<Ipv4Addr>,
    /// Empty admits all.
    pub(super) source_ranges: Vec<Ipv4Net>,
    /// Seconds for which a client stays with an endpoint.
    pub(super) affinity_seconds: Option<u32>,
    /// Only endpoints on this node serve the cluster IP.
    pub(super) internal_local: bool,
    /// Only endpoints on this node serve clients from outside.
    pub(super) external_local: bool,
    /// For traffic that any endpoint may take; sorted.
    pub(super) endpoints: Vec<Backend>,
    /// For traffic that stays on this node; sorted.
    pub(super) local_endpoints: Vec<Backend>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Backend {
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
}

/// All service ports, sorted by id. `node` is the name of this node.
pub(super) fn service_ports<S, E>(services: &[S], slices: &[E], node: &str) -> Vec<ServicePort>
where
    S: Deref<Target = Service>,
    E: Deref<Target = EndpointSlice>,
{
    let mut by_service: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
    for slice in slices.iter().map(Deref::deref).filter(|slice| slice.address_type == "IPv4") {
        let labels = slice.metadata.labels.as_ref();
        if let Some(service) = labels.and_then(|labels| labels.get("kubernetes.io/service-name")) {
            by_service
                .entry((slice.metadata.namespace.as_deref().unwrap_or_default(), service))
                .or_default()
                .push(slice);
        }
    }
    let mut ports = Vec::new();
    for service in services.iter().map(Deref::deref) {
        let Some(common) = Common::of(service) else { continue };
        let slices = by_service.get(&(common.namespace, common.name)).map(Vec::as_slice).unwrap_or_default();
        let api_ports = service.spec.iter().filter_map(|spec| spec.ports.as_ref()).flatten();
        ports.extend(api_ports.filter_map(|port| common.port(port, slices, node)));
    }
    ports.sort_by(|one, other| one.id.cmp(&other.id));
    ports
}

/// What all ports of a service share.
struct Common<'s> {
    namespace: &'s str,
    name: &'s str,
    template: ServicePort,
}

impl<'s> Common<'s> {
    /// `None` for services that are not for this proxy: headless, ExternalName, another family, another proxy's.
    fn of(service: &'s Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let labels = service.metadata.labels.as_ref();
        if spec.type_.as_deref() == Some("ExternalName")
            || labels.is_some_and(|labels| labels.contains_key("service.kubernetes.io/service-proxy-name"))
        {
            return None;
        }
        let cluster_ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let cluster_ip = cluster_ips.filter_map(|ip| ip.parse().ok()).next()?;
        let ingress = service.status.iter().filter_map(|status| status.load_balancer.as_ref());
        let load_balancer_ips: Vec<Ipv4Addr> = ingress
            .filter_map(|load_balancer| load_balancer.ingress.as_ref())
            .flatten()
            // In mode Proxy the load balancer sends to the node's address itself.
            .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
            .collect();
        let external_ips = spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok());
        let mut external_ips: Vec<Ipv4Addr> = external_ips.chain(load_balancer_ips.iter().copied()).collect();
        external_ips.sort_unstable();
        external_ips.dedup();
        let ranges = spec.load_balancer_source_ranges.iter().flatten();
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
            config.and_then(|config| config.timeout_seconds).and_then(|s| u32::try_from(s).ok()).unwrap_or(10_800)
        });
        Some(Self {
            namespace: service.metadata.namespace.as_deref().unwrap_or_default(),
            name: service.metadata.name.as_deref().unwrap_or_default(),
            template: ServicePort {
                id: String::new(),
                protocol: TCP,
                port: 0,
                cluster_ip,
                node_port: None,
                external_ips,
                load_balancer_ips,
                source_ranges: ranges.filter_map(|range| range.trim().parse().ok()).collect(),
                affinity_seconds: affinity,
                internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
                external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
                endpoints: Vec::new(),
                local_endpoints: Vec::new(),
            },
        })
    }

    fn port(&self, port: &ApiPort, slices: &[&EndpointSlice], node: &str) -> Option<ServicePort> {
        let protocol_name = port.protocol.as_deref().unwrap_or("TCP");
        let protocol = protocol_number(protocol_name)?;
        let port_name = port.name.as_deref().unwrap_or_default();
        let endpoints = Endpoints::of(slices, port_name, protocol_name, node);
        Some(ServicePort {
            id: format!("{}/{}/{}/{port_name}", self.namespace, self.name, protocol_name.to_ascii_lowercase()),
            protocol,
            port: u16::try_from(port.port).ok()?,
            node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0),
            endpoints: endpoints.usable(|_| true),
            local_endpoints: endpoints.usable(|state| state.local),
            ..self.template.clone()
        })
    }
}

fn protocol_number(name: &str) -> Option<u8> {
    match name {
        "TCP" => Some(TCP),
        "UDP" => Some(UDP),
        "SCTP" => Some(SCTP),
        _ => None,
    }
}

#[derive(Clone, Copy)]
struct EndpointState {
    ready: bool,
    /// Still answers though it is being deleted.
    draining: bool,
    local: bool,
}

/// The endpoints of one service port, each once.
struct Endpoints(BTreeMap<Backend, EndpointState>);

impl Endpoints {
    fn of(slices: &[&EndpointSlice], port_name: &str, protocol: &str, node: &str) -> Self {
        let mut endpoints = BTreeMap::new();
        for slice in slices {
            let ports = slice.ports.iter().flatten().filter(|port| {
                port.name.as_deref().unwrap_or_default() == port_name
                    && port.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            for port in ports.filter_map(|port| u16::try_from(port.port?).ok()) {
                for endpoint in &slice.endpoints {
                    // Only the first of several addresses means anything.
                    let Some(address) = endpoint.addresses.first().and_then(|address| address.parse().ok()) else {
                        continue;
                    };
                    let conditions = endpoint.conditions.as_ref();
                    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
                    let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
                    let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
                    let state = EndpointState {
                        ready,
                        draining: serving && terminating,
                        local: endpoint.node_name.as_deref() == Some(node),
                    };
                    let known = endpoints.entry(Backend { address, port }).or_insert(state);
                    // While it moves from one slice to another it is in both.
                    if state.ready && !known.ready {
                        *known = state;
                    }
                }
            }
        }
        Self(endpoints)
    }

    /// Of those that `wanted` admits the ready ones, or when there is none those that drain.
    fn usable(&self, wanted: impl Fn(&EndpointState) -> bool) -> Vec<Backend> {
        let select = |usable: fn(&EndpointState) -> bool| -> Vec<Backend> {
            let chosen = self.0.iter().filter(|(_, state)| wanted(state) && usable(state));
            chosen.map(|(backend, _)| *backend).collect()
        };
        let ready = select(|state| state.ready);
        if ready.is_empty() { select(|state| state.draining) } else { ready }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ports(services: Value, slices: Value) -> Vec<ServicePort> {
        let services: Vec<Service> = serde_json::from_value(services).unwrap();
        let slices: Vec<EndpointSlice> = serde_json::from_value(slices).unwrap();
        service_ports(&services.iter().collect::<Vec<_>>(), &slices.iter().collect::<Vec<_>>(), "here")
    }

    fn service(spec: Value) -> Value {
        json!([{"metadata": {"namespace": "ns", "name": "web"}, "spec": spec}])
    }

    fn slice(endpoints: Value) -> Value {
        json!([{
            "metadata": {"namespace": "ns", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        }])
    }

    fn endpoint(address: &str, node: &str, ready: bool, serving: bool, terminating: bool) -> Value {
        json!({
            "addresses": [address], "nodeName": node,
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        })
    }

    fn addresses(backends: &[Backend]) -> Vec<String> {
        backends.iter().map(|backend| format!("{}:{}", backend.address, backend.port)).collect()
    }

    #[test]
    fn ready_endpoints_or_else_draining_ones() {
        let spec = json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]});
        let all = json!([
            endpoint("10.244.0.2", "here", false, true, true),
            endpoint("10.244.0.3", "there", true, true, false),
            endpoint("10.244.0.4", "there", false, false, false),
        ]);
        let port = &ports(service(spec.clone()), slice(all))[0];
        assert_eq!(addresses(&port.endpoints), ["10.244.0.3:8080"]);
        assert_eq!(addresses(&port.local_endpoints), ["10.244.0.2:8080"], "each kind of traffic falls back by itself");
        let draining = json!([
            endpoint("10.244.0.2", "here", false, true, true),
            endpoint("10.244.0.4", "there", false, false, true),
        ]);
        assert_eq!(addresses(&ports(service(spec.clone()), slice(draining))[0].endpoints), ["10.244.0.2:8080"]);
        let unset = json!([{"addresses": ["10.244.0.5"]}]);
        assert_eq!(addresses(&ports(service(spec), slice(unset))[0].endpoints), ["10.244.0.5:8080"]);
    }

    #[test]
    fn what_has_no_cluster_ip_is_left_out() {
        for spec in [
            json!({"clusterIP": "None", "ports": [{"port": 80}]}),
            json!({"type": "ExternalName", "externalName": "example.org"}),
            json!({"clusterIP": "fd00::1", "ports": [{"port": 80}]}),
        ] {
            assert_eq!(ports(service(spec), json!([])), []);
        }
    }

    #[test]
    fn one_port_number_for_two_protocols() {
        let spec = json!({"clusterIP": "10.96.0.10", "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ]});
        let found = ports(service(spec), json!([]));
        let ids: Vec<&str> = found.iter().map(|port| port.id.as_str()).collect();
        assert_eq!(ids, ["ns/web/tcp/dns-tcp", "ns/web/udp/dns"]);
    }

    #[test]
    fn addresses_from_outside() {
        let services = json!([{
            "metadata": {"namespace": "ns", "name": "web"},
            "spec": {
                "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080}], "externalIPs": ["198.51.100.7"],
                "externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP", "loadBalancerSourceRanges": ["10.0.0.0/8"],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.8"}, {"ip": "198.51.100.9", "ipMode": "Proxy"}]}},
        }]);
        let port = &ports(services, json!([]))[0];
        assert_eq!(port.external_ips, [Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(198, 51, 100, 8)]);
        assert_eq!(port.load_balancer_ips, [Ipv4Addr::new(198, 51, 100, 8)]);
        assert_eq!((port.node_port, port.affinity_seconds), (Some(30080), Some(10_800)));
        assert!(port.external_local && !port.internal_local);
    }
}
