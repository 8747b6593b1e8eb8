//! Where a cluster is found from outside: the address that its ports listen on, published ports, further names of its API.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use serde::{Deserialize, Serialize};

use crate::ports;
use crate::reason::{Failure, HOST_PORT_IN_USE, MK_USAGE, Outcome};

/// Ports that one range may have.
const LONGEST_RANGE: u16 = 256;

/// Of a profile; what is not said is on loopback, by the node's own names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exposure {
    /// Where the API and published ports listen; `None` is loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PublishedPort>,
    /// Names and addresses that the API's certificate is for, beside its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A port of the node that is one of the host's too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPort {
    /// Of the host; `None` is where the cluster listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    pub host: u16,
    pub node: u16,
    pub protocol: Protocol,
}

/// As it was typed: any port of the host will do where none is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedPort {
    pub address: Option<IpAddr>,
    pub host: Option<u16>,
    pub node: u16,
    pub protocol: Protocol,
}

impl Exposure {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Where the cluster's own ports listen.
    pub fn address(&self) -> IpAddr {
        self.listen.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// Where a published port listens.
    pub fn of(&self, port: &PublishedPort) -> SocketAddr {
        SocketAddr::new(port.address.unwrap_or_else(|| self.address()), port.host)
    }

    /// Whether a published port takes this one of loopback.
    pub fn is_on_loopback(&self, protocol: Protocol, port: u16) -> bool {
        let takes = |address: SocketAddr| {
            address.port() == port && (address.ip().is_loopback() || address.ip().is_unspecified())
        };
        self.ports.iter().any(|published| published.protocol == protocol && takes(self.of(published)))
    }

    /// Publishes these ports and no others. Those for which no port of the host is named keep theirs, or get one that is free and
    /// none of `taken`: what belongs to clusters that are stopped.
    ///
    /// # Errors
    /// `MK_USAGE` for two that are to be found at one place.
    pub fn publish(&mut self, wanted: &[WantedPort], taken: &[u16]) -> Outcome<()> {
        let mut held = Vec::new();
        let mut ports: Vec<PublishedPort> = Vec::new();
        for port in wanted {
            let kept = |known: &&PublishedPort| {
                (known.address, known.node, known.protocol) == (port.address, port.node, port.protocol)
            };
            let host = match (port.host, self.ports.iter().find(kept)) {
                (Some(host), _) => host,
                (None, Some(known)) => known.host,
                (None, None) => {
                    let (host, holder) = free(port.address.unwrap_or_else(|| self.address()), port.protocol, taken)?;
                    held.push(holder);
                    host
                }
            };
            let port = PublishedPort { address: port.address, host, node: port.node, protocol: port.protocol };
            let place = (self.of(&port), port.protocol);
            if ports.iter().any(|other| (self.of(other), other.protocol) == place) {
                return Err(Failure::new(&MK_USAGE, format!("two ports are to be published at {}", place.0)));
            }
            ports.push(port);
        }
        self.ports = ports;
        Ok(())
    }
}

/// Keeps a port from being given twice.
enum Holder {
    Tcp(#[expect(dead_code, reason = "held")] TcpListener),
    Udp(#[expect(dead_code, reason = "held")] UdpSocket),
}

fn free(address: IpAddr, protocol: Protocol, taken: &[u16]) -> Outcome<(u16, Holder)> {
    let bound = |port: u16| -> std::io::Result<(u16, Holder)> {
        Ok(match protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind((address, port))?;
                (listener.local_addr()?.port(), Holder::Tcp(listener))
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind((address, port))?;
                (socket.local_addr()?.port(), Holder::Udp(socket))
            }
        })
    };
    let free = ports::lasting().filter(|port| !taken.contains(port)).find_map(|port| bound(port).ok());
    free.ok_or_else(|| Failure::new(&HOST_PORT_IN_USE, format!("no port of {address} is free")))
}

/// Ports as docker's `--publish` has them: `[ADDRESS:][PORT:]NODEPORT[/tcp|/udp]`, each port also a range `8000-8003`.
pub fn parse(text: &str) -> Outcome<Vec<WantedPort>> {
    let bad = || {
        Failure::new(&MK_USAGE, format!("--ports={text} is not [ADDRESS:][PORT:]NODEPORT[/udp]"))
            .advise("Examples: 8080:30080, 0.0.0.0:8443:30443, 5353:30053/udp, 8000-8002:30000-30002, [::1]:80:30080.")
    };
    let (rest, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((rest, "tcp")) => (rest, Protocol::Tcp),
        Some((rest, "udp")) => (rest, Protocol::Udp),
        Some(_) => return Err(bad()),
    };
    let (rest, node) = rest.rsplit_once(':').map_or((None, rest), |(rest, node)| (Some(rest), node));
    let (address, host) = match rest {
        None => (None, ""),
        Some(rest) => match rest.rsplit_once(':') {
            // `[::1]` alone has no port.
            Some((address, host)) if !rest.ends_with(']') => (Some(address), host),
            _ if rest.ends_with(']') || rest.contains('.') => (Some(rest), ""),
            _ => (None, rest),
        },
    };
    let address = match address {
        None | Some("") => None,
        Some(address) => Some(address.trim_matches(['[', ']']).parse::<IpAddr>().map_err(|_| bad())?),
    };
    let nodes = range(node).ok_or_else(bad)?;
    let hosts = match host {
        "" => nodes.clone().map(|_| None).collect(),
        host => range(host).ok_or_else(bad)?.map(Some).collect::<Vec<_>>(),
    };
    if hosts.len() != nodes.len() {
        return Err(bad());
    }
    let port = |(host, node)| WantedPort { address, host, node, protocol };
    Ok(hosts.into_iter().zip(nodes).map(port).collect())
}

fn range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (first > 0 && first <= last && last - first < LONGEST_RANGE).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: &str, host: Option<u16>, node: u16, protocol: Protocol) -> WantedPort {
        WantedPort { address: address.parse().ok(), host, node, protocol }
    }

    #[test]
    fn ports_of_every_form() {
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        for (text, wanted) in [
            ("30080", vec![port("", None, 30080, tcp)]),
            ("8080:30080", vec![port("", Some(8080), 30080, tcp)]),
            ("8080:30080/tcp", vec![port("", Some(8080), 30080, tcp)]),
            ("0.0.0.0:53:30053/udp", vec![port("0.0.0.0", Some(53), 30053, udp)]),
            ("127.0.0.1::80", vec![port("127.0.0.1", None, 80, tcp)]),
            ("127.0.0.1:80", vec![port("127.0.0.1", None, 80, tcp)]),
            ("[::1]:8080:80", vec![port("::1", Some(8080), 80, tcp)]),
            ("[::1]:80", vec![port("::1", None, 80, tcp)]),
            ("8000-8001:9000-9001", vec![port("", Some(8000), 9000, tcp), port("", Some(8001), 9001, tcp)]),
        ] {
            assert_eq!(parse(text).unwrap(), wanted, "{text}");
        }
        for bad in
            ["", "x", "0", "1:2:3:4:5", "70000", "80/sctp", "1-2:3", "3-1", "1-60000", "host:1:2", ":", "a.b:1:2"]
        {
            assert_eq!(parse(bad).unwrap_err().reason.id, "MK_USAGE", "{bad}");
        }
    }

    #[test]
    fn a_port_that_was_chosen_stays() {
        let mut exposure = Exposure::default();
        let wanted = [
            port("", None, 80, Protocol::Tcp),
            port("", None, 80, Protocol::Udp),
            port("", Some(1234), 81, Protocol::Tcp),
        ];
        exposure.publish(&wanted, &[]).unwrap();
        let first = exposure.clone();
        assert!(first.ports[0].host > 0 && first.ports[2].host == 1234);
        exposure.publish(&wanted, &[]).unwrap();
        assert_eq!(exposure, first);
        let twice = [port("", Some(1), 80, Protocol::Tcp), port("127.0.0.1", Some(1), 81, Protocol::Tcp)];
        assert_eq!(exposure.publish(&twice, &[]).unwrap_err().reason.id, "MK_USAGE");
        assert_eq!(exposure, first, "a refusal changes nothing");
        exposure.publish(&[], &[]).unwrap();
        assert!(exposure.is_default());
    }
}
