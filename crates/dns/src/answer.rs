//! Answers, after the specification of DNS-based service discovery 1.1.0 and as CoreDNS gives them with `pods insecure`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::zone::{Addresses, EndpointAddress, Port, Target, Zone};

/// Seconds for which an answer holds, and for which its absence does.
const TTL: u32 = 30;
const NEGATIVE_TTL: u32 = 5;

/// What to send back.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The whole answer; `authorities` has the SOA record where there is no answer.
    Own { code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>, additionals: Vec<Record> },
    /// These answers, and then those for `target`, which is none of ours.
    Follow { answers: Vec<Record>, target: Name },
    /// Not ours to answer.
    Forward,
}

/// What a name is.
enum Found<'z> {
    /// Records can be here, none of them asked for or not.
    Records(Vec<RData>),
    /// Only below it are there names.
    Node,
    Alias(&'z str),
    Nothing,
}

impl Zone {
    /// The answer to a question. Records are owned by `name` as it was written by the client.
    pub fn answer(&self, name: &Name, kind: RecordType) -> Reply {
        let mut aliases: Vec<Record> = Vec::new();
        let mut owner = name.clone();
        // A chain of aliases within the zone is followed; a longer one is a loop.
        for _ in 0..8 {
            let found = match self.relative(&owner) {
                Some(labels) => self.find(&labels.iter().map(String::as_str).collect::<Vec<_>>(), &owner, kind),
                None if aliases.is_empty() => return self.reverse(name, kind),
                None => return Reply::Follow { answers: aliases, target: owner },
            };
            match found {
                Found::Alias(target) => {
                    let Ok(target) = absolute(target) else { return self.negative(ResponseCode::ServFail, aliases) };
                    aliases.push(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(target.clone()))));
                    if kind == RecordType::CNAME {
                        return self.own(aliases);
                    }
                    owner = target;
                }
                Found::Records(data) => {
                    let wanted = data.into_iter().filter(|data| data.record_type() == kind || kind == RecordType::ANY);
                    let records: Vec<Record> =
                        wanted.map(|data| Record::from_rdata(owner.clone(), TTL, data)).collect();
                    if records.is_empty() {
                        return self.negative(ResponseCode::NoError, aliases);
                    }
                    aliases.extend(records);
                    return self.own(aliases);
                }
                Found::Node => return self.negative(ResponseCode::NoError, aliases),
                Found::Nothing => return self.negative(ResponseCode::NXDomain, aliases),
            }
        }
        self.negative(ResponseCode::ServFail, Vec::new())
    }

    fn own(&self, answers: Vec<Record>) -> Reply {
        let targets = answers.iter().filter_map(|record| match &record.data {
            RData::SRV(service) => Some(&service.target),
            _ => None,
        });
        let mut additionals: Vec<Record> = Vec::new();
        for target in targets {
            if additionals.iter().any(|record| record.name == *target) {
                continue;
            }
            let Some(labels) = self.relative(target) else { continue };
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            if let Found::Records(data) = self.find(&labels, target, RecordType::A) {
                let addresses = data.into_iter().filter(|data| data.ip_addr().is_some());
                additionals.extend(addresses.map(|data| Record::from_rdata(target.clone(), TTL, data)));
            }
        }
        Reply::Own { code: ResponseCode::NoError, answers, authorities: Vec::new(), additionals }
    }

    fn negative(&self, code: ResponseCode, answers: Vec<Record>) -> Reply {
        let soa = Record::from_rdata(self.domain.clone(), NEGATIVE_TTL, self.soa());
        Reply::Own { code, answers, authorities: vec![soa], additionals: Vec::new() }
    }

    fn soa(&self) -> RData {
        let below = |labels: &str| absolute(labels).and_then(|name| name.append_domain(&self.domain));
        let server = below("ns.dns").unwrap_or_else(|_| self.domain.clone());
        let contact = below("hostmaster").unwrap_or_else(|_| self.domain.clone());
        RData::SOA(SOA::new(server, contact, self.serial, 7200, 1800, 86_400, NEGATIVE_TTL))
    }

    /// The labels of `name` in front of the domain, lowercase, the first one last; `None` outside of the domain.
    fn relative(&self, name: &Name) -> Option<Vec<String>> {
        if !self.domain.zone_of(name) {
            return None;
        }
        let own = usize::from(name.num_labels()).checked_sub(usize::from(self.domain.num_labels()))?;
        let labels = name.iter().take(own).map(|label| String::from_utf8_lossy(label).to_ascii_lowercase());
        Some(labels.collect::<Vec<_>>().into_iter().rev().collect())
    }

    fn find(&self, labels: &[&str], owner: &Name, kind: RecordType) -> Found<'_> {
        match labels {
            [] => Found::Records(self.name_server().into_iter().chain([self.soa()]).collect()),
            ["dns-version"] => Found::Records(vec![RData::TXT(TXT::new(vec!["1.1.0".to_owned()]))]),
            ["svc" | "pod"] => Found::Node,
            ["svc" | "pod", namespace] if self.namespaces.contains(*namespace) => Found::Node,
            ["pod", namespace, address] if self.namespaces.contains(*namespace) => match undashed(address) {
                Some(address) => Found::Records(vec![address_data(address)]),
                None => Found::Nothing,
            },
            ["svc", namespace, service, rest @ ..] => {
                match self.services.get(&((*namespace).to_owned(), (*service).to_owned())) {
                    Some(target) => self.in_service(target, namespace, service, rest, owner, kind),
                    None => Found::Nothing,
                }
            }
            _ => Found::Nothing,
        }
    }

    fn in_service<'z>(
        &'z self,
        target: &'z Target,
        namespace: &str,
        service: &str,
        rest: &[&str],
        owner: &Name,
        kind: RecordType,
    ) -> Found<'z> {
        if let Addresses::External(name) = &target.addresses {
            return if rest.is_empty() { Found::Alias(name) } else { Found::Nothing };
        }
        match rest {
            [] => match self.service_data(target, namespace, service, kind) {
                data if data.is_empty() => Found::Nothing,
                data => Found::Records(data),
            },
            [protocol] if protocol.starts_with('_') => {
                let known = |port: &Port| *protocol == format!("_{}", port.protocol);
                if target.all_ports().any(known) { Found::Node } else { Found::Nothing }
            }
            [protocol, name] if protocol.starts_with('_') && name.starts_with('_') => {
                let wanted =
                    |port: &Port| *protocol == format!("_{}", port.protocol) && *name == format!("_{}", port.name);
                match self.srv(target, namespace, service, wanted) {
                    data if data.is_empty() => Found::Nothing,
                    data => Found::Records(data),
                }
            }
            [label] => match target.endpoints.get(*label) {
                Some(endpoints) => Found::Records(self.endpoint_data(endpoints, owner)),
                None => Found::Nothing,
            },
            _ => Found::Nothing,
        }
    }

    /// Addresses, and service records when those are asked for.
    fn service_data(&self, target: &Target, namespace: &str, service: &str, kind: RecordType) -> Vec<RData> {
        let mut data: Vec<RData> = match &target.addresses {
            Addresses::Cluster(addresses) => addresses.iter().copied().map(address_data).collect(),
            Addresses::Headless => target.endpoints.values().flatten().map(|at| address_data(at.address)).collect(),
            Addresses::External(_) => Vec::new(),
        };
        data.sort_by_key(RData::ip_addr);
        data.dedup();
        if kind == RecordType::SRV && !data.is_empty() {
            data.extend(self.srv(target, namespace, service, |_| true));
        }
        data
    }

    /// Service records: of a headless service one an endpoint, else one that names the service itself.
    fn srv(&self, target: &Target, namespace: &str, service: &str, wanted: impl Fn(&Port) -> bool) -> Vec<RData> {
        let own = format!("{service}.{namespace}.svc");
        let record = |name: &str, port: u16, weight: u16| {
            let target = absolute(name).and_then(|name| name.append_domain(&self.domain)).ok()?;
            Some(RData::SRV(SRV::new(0, weight, port, target)))
        };
        let records: Vec<(String, u16)> = match &target.addresses {
            Addresses::Headless => {
                let endpoints = target.endpoints.iter();
                let mut records: Vec<(String, u16)> = endpoints
                    .flat_map(|(label, endpoints)| {
                        let ports = endpoints.iter().flat_map(|endpoint| &endpoint.ports).filter(|port| wanted(port));
                        ports.map(|port| (format!("{label}.{own}"), port.number)).collect::<Vec<_>>()
                    })
                    .collect();
                records.sort();
                records.dedup();
                records
            }
            _ => target.ports.iter().filter(|port| wanted(port)).map(|port| (own.clone(), port.number)).collect(),
        };
        let weight = u16::try_from(100 / records.len().max(1)).unwrap_or(1).max(1);
        records.iter().filter_map(|(name, port)| record(name, *port, weight)).collect()
    }

    fn endpoint_data(&self, endpoints: &[EndpointAddress], owner: &Name) -> Vec<RData> {
        let mut data: Vec<RData> = endpoints.iter().map(|endpoint| address_data(endpoint.address)).collect();
        let ports = endpoints.iter().flat_map(|endpoint| &endpoint.ports);
        data.extend(ports.map(|port| RData::SRV(SRV::new(0, 100, port.number, owner.clone()))));
        data
    }

    fn name_server(&self) -> Option<RData> {
        Some(RData::NS(NS(absolute("ns.dns").ok()?.append_domain(&self.domain).ok()?)))
    }

    /// Names of an address; addresses that are none of ours are for others to name.
    fn reverse(&self, name: &Name, kind: RecordType) -> Reply {
        let Ok(network) = name.parse_arpa_name() else { return Reply::Forward };
        let address = network.addr();
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let Some(names) = self.by_address.get(&address).filter(|_| network.prefix_len() == whole) else {
            return Reply::Forward;
        };
        if kind != RecordType::PTR && kind != RecordType::ANY {
            return self.negative(ResponseCode::NoError, Vec::new());
        }
        let names = names.iter().filter_map(|own| absolute(own).ok()?.append_domain(&self.domain).ok());
        self.own(names.map(|own| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(own)))).collect())
    }
}

impl Target {
    fn all_ports(&self) -> impl Iterator<Item = &Port> {
        let of_endpoints = self.endpoints.values().flatten().flat_map(|endpoint| &endpoint.ports);
        let of_endpoints = matches!(self.addresses, Addresses::Headless).then_some(of_endpoints);
        self.ports.iter().chain(of_endpoints.into_iter().flatten())
    }
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// The address that a pod's label stands for.
fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

fn absolute(name: &str) -> Result<Name, hickory_proto::ProtoError> {
    let mut name = Name::from_utf8(name)?;
    name.set_fqdn(true);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RecordType as T;
    use k8s_openapi::api::core::v1::{Namespace, Service};
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde_json::{Value, json};

    use super::*;

    fn zone() -> Zone {
        let service = |name: &str, spec: Value| -> Service {
            serde_json::from_value(json!({
                "metadata": {"namespace": "ns", "name": name, "resourceVersion": "42"}, "spec": spec,
            }))
            .unwrap()
        };
        let slice = |service: &str, endpoints: Value| -> EndpointSlice {
            serde_json::from_value(json!({
                "metadata": {"namespace": "ns", "name": service, "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
            }))
            .unwrap()
        };
        let port = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
        let services = [
            service("web", json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": port})),
            service("db", json!({"clusterIP": "None", "ports": port})),
            service("none", json!({"clusterIP": "None", "ports": port})),
            service("out", json!({"type": "ExternalName", "externalName": "example.org"})),
            service("alias", json!({"type": "ExternalName", "externalName": "web.ns.svc.cluster.local"})),
            service("loop", json!({"type": "ExternalName", "externalName": "loop.ns.svc.cluster.local."})),
        ];
        let slices = [
            slice("web", json!([{"addresses": ["10.244.0.5"], "conditions": {"ready": true}}])),
            slice(
                "db",
                json!([
                    {"addresses": ["10.244.0.7"], "hostname": "db-0", "conditions": {"ready": true}},
                    {"addresses": ["10.244.0.8"], "conditions": {}},
                    {"addresses": ["10.244.0.9"], "conditions": {"ready": false}},
                ]),
            ),
        ];
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "ns"}})).unwrap();
        let domain = Name::from_ascii("cluster.local.").unwrap();
        let services: Vec<&Service> = services.iter().collect();
        Zone::new(domain, &services, &slices.iter().collect::<Vec<_>>(), &[&namespace])
    }

    /// Code and answers, one line each.
    fn ask(name: &str, kind: T) -> (String, Vec<String>) {
        match zone().answer(&Name::from_ascii(name).unwrap(), kind) {
            Reply::Own { code, answers, authorities, .. } => {
                assert_eq!(answers.is_empty(), !authorities.is_empty());
                (format!("{code:?}"), lines(&answers))
            }
            Reply::Follow { answers, target } => (format!("follow {target}"), lines(&answers)),
            Reply::Forward => ("forward".to_owned(), Vec::new()),
        }
    }

    fn lines(records: &[Record]) -> Vec<String> {
        records.iter().map(|record| format!("{} {} {}", record.name, record.record_type(), record.data)).collect()
    }

    fn answers(name: &str, kind: T) -> Vec<String> {
        let (code, answers) = ask(name, kind);
        assert_eq!(code, "NoError", "{name}");
        answers
    }

    #[test]
    fn cluster_ip_services() {
        let web = "web.ns.svc.cluster.local.";
        assert_eq!(answers(web, T::A), [format!("{web} A 10.96.0.9")]);
        assert_eq!(answers("WEB.ns.SVC.cluster.local.", T::A), ["WEB.ns.SVC.cluster.local. A 10.96.0.9"]);
        assert!(answers(web, T::AAAA).is_empty() && answers(web, T::MX).is_empty());
        let srv = "_http._tcp.web.ns.svc.cluster.local.";
        assert_eq!(answers(srv, T::SRV), [format!("{srv} SRV 0 100 80 {web}")]);
        assert_eq!(answers(web, T::SRV), [format!("{web} SRV 0 100 80 {web}")]);
        assert!(answers("_tcp.web.ns.svc.cluster.local.", T::SRV).is_empty());
        assert_eq!(answers("10-244-0-5.web.ns.svc.cluster.local.", T::A).len(), 1);
        let Reply::Own { additionals, .. } = zone().answer(&Name::from_ascii(srv).unwrap(), T::SRV) else { panic!() };
        assert_eq!(lines(&additionals), [format!("{web} A 10.96.0.9")]);
    }

    #[test]
    fn headless_services_and_hostnames() {
        let db = "db.ns.svc.cluster.local.";
        assert_eq!(answers(db, T::A), [format!("{db} A 10.244.0.7"), format!("{db} A 10.244.0.8")], "ready ones only");
        assert_eq!(answers(&format!("db-0.{db}"), T::A), [format!("db-0.{db} A 10.244.0.7")]);
        assert_eq!(answers(&format!("10-244-0-8.{db}"), T::A), [format!("10-244-0-8.{db} A 10.244.0.8")]);
        let srv = format!("_http._tcp.{db}");
        assert_eq!(
            answers(&srv, T::SRV),
            [format!("{srv} SRV 0 50 8080 10-244-0-8.{db}"), format!("{srv} SRV 0 50 8080 db-0.{db}")]
        );
        assert_eq!(ask("none.ns.svc.cluster.local.", T::A).0, "NXDomain", "no ready endpoint");
    }

    #[test]
    fn external_names() {
        let out = "out.ns.svc.cluster.local.";
        assert_eq!(ask(out, T::A), ("follow example.org.".into(), vec![format!("{out} CNAME example.org.")]));
        assert_eq!(answers(out, T::CNAME), [format!("{out} CNAME example.org.")]);
        let alias = "alias.ns.svc.cluster.local.";
        let web = "web.ns.svc.cluster.local.";
        assert_eq!(answers(alias, T::A), [format!("{alias} CNAME {web}"), format!("{web} A 10.96.0.9")]);
        assert_eq!(ask("loop.ns.svc.cluster.local.", T::A).0, "ServFail");
    }

    #[test]
    fn pods_and_addresses() {
        let pod = "10-244-0-7.ns.pod.cluster.local.";
        assert_eq!(answers(pod, T::A), [format!("{pod} A 10.244.0.7")]);
        assert_eq!(ask("10-244-0-7.gone.pod.cluster.local.", T::A).0, "NXDomain");
        assert_eq!(ask("nonsense.ns.pod.cluster.local.", T::A).0, "NXDomain");
        let ptr = "7.0.244.10.in-addr.arpa.";
        assert_eq!(answers(ptr, T::PTR), [format!("{ptr} PTR db-0.db.ns.svc.cluster.local.")]);
        assert_eq!(answers("9.0.96.10.in-addr.arpa.", T::PTR).len(), 1);
        assert_eq!(ask("1.1.1.1.in-addr.arpa.", T::PTR).0, "forward");
    }

    #[test]
    fn what_is_not_there_and_what_is_not_ours() {
        for name in ["gone.ns.svc", "web.gone.svc", "gone.svc", "nonsense", "x.web.ns.svc", "_x._tcp.web.ns.svc"] {
            assert_eq!(ask(&format!("{name}.cluster.local."), T::A).0, "NXDomain", "{name}");
        }
        for name in ["svc", "pod", "ns.svc", "ns.pod"] {
            assert!(answers(&format!("{name}.cluster.local."), T::A).is_empty(), "{name}");
        }
        assert_eq!(answers("cluster.local.", T::SOA).len(), 1);
        assert_eq!(ask("example.org.", T::A).0, "forward");
        assert_eq!(ask("web.ns.svc.cluster.local.example.org.", T::A).0, "forward");
        let Reply::Own { authorities, .. } = zone().answer(&Name::from_ascii("x.cluster.local.").unwrap(), T::A) else {
            panic!()
        };
        assert_eq!((authorities[0].ttl, authorities[0].record_type()), (5, T::SOA));
        assert!(authorities[0].data.to_string().contains("hostmaster.cluster.local. 42 "));
    }
}
