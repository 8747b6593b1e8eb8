//! A cluster's networks, domain and port on its inside, as kubeadm's `networking`: chosen when it is made, for its objects and
//! certificates carry them ever after.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use kminik_net::hostnet::{PODS, overlap};
use serde::{Deserialize, Serialize};

const SERVICES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12);
const DOMAIN: &str = "cluster.local";
/// Of the API, on the control plane's node.
pub const API_PORT: u16 = 8443;
/// The widest network that an API server gives addresses of, and the narrowest that has enough for what a cluster itself needs.
const SERVICE_PREFIXES: std::ops::RangeInclusive<u8> = 12..=24;
/// Of Services; the API's port on a node may be none of them.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// Where a kubelet listens.
const KUBELET_PORT: u16 = 10_250;

/// Of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Networking {
    /// Where Services have their addresses.
    pub services: Ipv4Net,
    /// Below which their names are.
    pub domain: String,
    /// Of the API, on the control plane's node.
    pub api_port: u16,
    /// By what kubeconfigs call the API, in place of its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_name: Option<String>,
    /// The container engine's network that the nodes are in; `None` is one of the cluster's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

impl Default for Networking {
    fn default() -> Self {
        Self { services: SERVICES, domain: DOMAIN.to_owned(), api_port: API_PORT, api_name: None, network: None }
    }
}

/// As asked for; what is not said is as ever.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub services: Option<Ipv4Net>,
    pub domain: Option<String>,
    pub api_port: Option<u16>,
    pub api_name: Option<String>,
    pub network: Option<String>,
}

impl Networking {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Of a new cluster. A port that the API cannot have on a node is the one of this machine only.
    pub fn new(wish: &Wish) -> Self {
        let wish = wish.clone();
        Self {
            services: wish.services.unwrap_or(SERVICES),
            domain: wish.domain.unwrap_or_else(|| DOMAIN.to_owned()),
            api_port: wish.api_port.filter(|port| taken_on_nodes(*port).is_none()).unwrap_or(API_PORT),
            api_name: wish.api_name,
            network: wish.network,
        }
    }

    /// The flags by which something else is asked for; `host_port` is where this machine reaches the API.
    pub fn others(&self, wish: &Wish, host_port: u16) -> impl Iterator<Item = &'static str> {
        let name = |wanted: &Option<String>, own: &Option<String>| wanted.is_some() && wanted != own;
        let is_port = |port: u16| port == if taken_on_nodes(port).is_some() { host_port } else { self.api_port };
        let differ = [
            ("--service-cluster-ip-range", wish.services.is_some_and(|services| services != self.services)),
            ("--dns-domain", wish.domain.as_ref().is_some_and(|domain| *domain != self.domain)),
            ("--apiserver-port", wish.api_port.is_some_and(|port| !is_port(port))),
            ("--apiserver-name", name(&wish.api_name, &self.api_name)),
            ("--network", name(&wish.network, &self.network)),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(flag, _)| flag)
    }

    /// Of cluster DNS.
    pub fn dns(&self) -> Ipv4Addr {
        dns_of(self.services)
    }

    /// Of the registry addon's Service.
    pub fn registry(&self) -> Ipv4Addr {
        registry_of(self.services)
    }
}

/// Of cluster DNS, in this network of Services: the tenth, as everywhere.
pub fn dns_of(services: Ipv4Net) -> Ipv4Addr {
    address_of(services, 10)
}

/// Of the registry addon's Service: among those that are never given to a Service which names none, of which a network has
/// a sixteenth of its addresses, at least 16.
pub fn registry_of(services: Ipv4Net) -> Ipv4Addr {
    let addresses = 1_u32 << (32 - u32::from(services.prefix_len()));
    address_of(services, (addresses / 16).max(16).saturating_sub(1).min(50))
}

fn address_of(services: Ipv4Net, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(services.network()).saturating_add(number))
}

/// The network of Services as it is typed.
pub fn parse_services(text: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = text.parse().map_err(|_| format!("{text:?} is not a network such as 10.96.0.0/12"))?;
    if !SERVICE_PREFIXES.contains(&net.prefix_len()) {
        let (widest, narrowest) = (SERVICE_PREFIXES.start(), SERVICE_PREFIXES.end());
        return Err(format!("a network for Services is of /{widest} to /{narrowest}"));
    }
    let net = net.trunc();
    if overlap(net, PODS) {
        return Err(format!("it overlaps the network of pods, {PODS}"));
    }
    let first = net.network();
    if first.is_loopback() || first.is_multicast() || first.is_link_local() || first.is_unspecified() {
        return Err("its addresses have a meaning of their own".to_owned());
    }
    Ok(net)
}

/// The domain as it is typed; one dot behind it is nothing else.
pub fn parse_domain(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if is_dns_name(text) { Ok(text.to_owned()) } else { Err("it is not a DNS name such as cluster.local".to_owned()) }
}

/// The name of a namespace as it is typed.
pub fn parse_label(text: &str) -> Result<String, String> {
    if is_dns_name(text) && !text.contains('.') {
        Ok(text.to_owned())
    } else {
        Err("it is no name of small letters, digits and inner dashes".to_owned())
    }
}

/// A name or address that a certificate is to be for.
pub fn parse_name(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() || is_dns_name(text) {
        return Ok(text.to_owned());
    }
    Err("it is neither a DNS name in small letters nor an address".to_owned())
}

/// The same in any letters; the part before its first dot may be a star, and one dot behind it is nothing else. Empty for none.
pub fn parse_pattern(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if text.is_empty() {
        return Ok(text);
    }
    parse_name(text.strip_prefix("*.").unwrap_or(&text))?;
    Ok(text)
}

/// An address; empty for none.
pub fn parse_address(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    text.parse::<IpAddr>().map(|address| address.to_string()).map_err(|error| error.to_string())
}

/// The port of the API as it is typed.
pub fn parse_api_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Err(_) | Ok(0) => Err("it is not a port, 1 to 65535".to_owned()),
        Ok(port) => Ok(port),
    }
}

/// Who has a port on every node, so that the API cannot.
pub fn taken_on_nodes(port: u16) -> Option<&'static str> {
    match port {
        KUBELET_PORT => Some("it is the kubelet's port"),
        _ if NODE_PORTS.contains(&port) => Some("Services have the ports from 30000 to 32767"),
        _ => None,
    }
}

/// The name of an engine's network as it is typed.
pub fn parse_network(text: &str) -> Result<String, String> {
    let is_name = text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    match text {
        "bridge" | "host" | "none" | "default" => {
            Err("nodes need fixed addresses, which the engine gives only in a network of one's own".to_owned())
        }
        _ if is_name => Ok(text.to_owned()),
        _ => Err("it is not the name of a network".to_owned()),
    }
}

/// RFC 1123: labels of small letters, digits and inner dashes.
fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        label.len() <= 63
            && matches!(label.as_bytes(), [first, .., last] | [first @ last] if inner(*first) && inner(*last))
            && label.bytes().all(|b| inner(b) || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_services_have_room_and_their_own_addresses() {
        let default = Networking::default();
        assert_eq!(
            (default.dns().to_string(), default.registry().to_string()),
            ("10.96.0.10".into(), "10.96.0.50".into())
        );
        for (text, dns, registry) in
            [("10.43.0.0/16", "10.43.0.10", "10.43.0.50"), ("192.168.7.9/24", "192.168.7.10", "192.168.7.15")]
        {
            let services = parse_services(text).unwrap();
            assert_eq!(
                (dns_of(services).to_string(), registry_of(services).to_string()),
                (dns.into(), registry.into())
            );
        }
        for bad in [
            "",
            "10.96.0.0",
            "10.0.0.0/8",
            "10.0.0.0/25",
            "fd00::/108",
            "10.244.8.0/24",
            "10.240.0.0/12",
            "127.0.0.0/16",
        ] {
            assert!(parse_services(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_ports_as_they_are_typed() {
        assert_eq!(parse_domain("corp.example.").unwrap(), "corp.example");
        assert_eq!(parse_domain("k8s").unwrap(), "k8s");
        for bad in ["", ".", "a..b", "-a", "Cluster.Local", "a_b", "a b", &"x".repeat(64)] {
            assert!(parse_domain(bad).is_err(), "{bad}");
        }
        for good in ["dev.example", "*.dev.example", "192.0.2.1", "fd00::1", ""] {
            assert_eq!(parse_pattern(good).unwrap(), good);
        }
        assert_eq!(parse_pattern("Dev.Example.").unwrap(), "dev.example");
        assert_eq!(parse_address("FD00::1").unwrap(), "fd00::1");
        assert!(parse_address("").unwrap().is_empty() && parse_address("dev").is_err());
        assert!(parse_name("*.dev.example").is_err() && parse_pattern("*").is_err() && parse_pattern("a.*.b").is_err());
        assert!(parse_label("kube-system").is_ok() && parse_label("a.b").is_err() && parse_label("A").is_err());
        assert_eq!(parse_api_port("6443").unwrap(), 6443);
        for bad in ["", "0", "65536", "x"] {
            assert!(parse_api_port(bad).is_err(), "{bad}");
        }
        // Such a port is good for this machine, not for a node.
        for host in [10_250, 30_000, 32_767] {
            assert_eq!(parse_api_port(&host.to_string()), Ok(host));
            let wish = Wish { api_port: Some(host), ..Wish::default() };
            let own = Networking::new(&wish);
            assert_eq!(own.api_port, API_PORT);
            assert_eq!((own.others(&wish, host).count(), own.others(&wish, 40_000).count()), (0, 1));
        }
        assert!(parse_network("my_net-1.x").is_ok());
        for bad in ["", "-a", "a/b", "host", "bridge", "none"] {
            assert!(parse_network(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_asked_for_anew_is_named() {
        let wish = Wish { api_port: Some(6443), domain: Some("a.b".into()), ..Wish::default() };
        let own = Networking::new(&wish);
        assert_eq!(own.others(&wish, 6443).count(), 0);
        assert_eq!(own.others(&Wish::default(), 6443).count(), 0);
        assert_eq!(Networking::default().others(&wish, 6443).collect::<Vec<_>>(), ["--dns-domain", "--apiserver-port"]);
    }
}
