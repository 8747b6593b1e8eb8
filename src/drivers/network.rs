//! The network that a cluster's nodes are in: as the user wants it, or the first that is free.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use kminik_net::hostnet::{self, HostNetError};

use crate::reason::{Failure, IF_NETWORK, IF_SUBNET, MK_USAGE, Outcome};

/// What the user asks for of it; the rest is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkWish {
    pub subnet: Option<Ipv4Net>,
    /// Of the control plane's node.
    pub node_address: Option<Ipv4Addr>,
    /// The API's, where it is reached from this machine.
    pub api_port: Option<u16>,
    /// A container engine's network.
    pub network: Option<String>,
}

/// What others have.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// Networks that this machine's routes do not show.
    pub subnets: Vec<Ipv4Net>,
    /// Of nodes, also in those.
    pub addresses: Vec<Ipv4Addr>,
    /// Of other clusters on this machine, their APIs' and published ones, also of clusters that are stopped.
    pub ports: Vec<u16>,
}

/// A network for nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    pub subnet: Ipv4Net,
    pub gateway: Ipv4Addr,
    pub node_address: Ipv4Addr,
}

/// The narrowest and the widest a network may be: eight addresses; what no route of a tunnel is as wide as.
const PREFIXES: std::ops::RangeInclusive<u8> = 9..=29;

/// A subnet as it is typed: `192.168.50.0/24`; of an address alone the /24.
pub fn parse_subnet(text: &str) -> Result<Ipv4Net, String> {
    let net = match text.parse::<Ipv4Addr>() {
        Ok(address) => Ipv4Net::new_assert(address, 24),
        Err(_) => text.parse::<Ipv4Net>().map_err(|_| format!("{text:?} is not a network such as 192.168.50.0/24"))?,
    };
    if !PREFIXES.contains(&net.prefix_len()) {
        return Err(format!("a network for nodes is of /{} to /{}", PREFIXES.start(), PREFIXES.end()));
    }
    Ok(net.trunc())
}

/// Chooses; nothing is made. `taken` are networks of others that this machine's routes do not show.
///
/// # Errors
/// `MK_USAGE` for an address that no node can have, `IF_SUBNET` for a network that is in use.
pub async fn choose(wish: &NetworkWish, taken: &[Ipv4Net]) -> Outcome<Site> {
    let subnet = match (wish.subnet, wish.node_address) {
        (Some(subnet), _) => Some(subnet),
        (None, Some(address)) => Some(Ipv4Net::new_assert(address, 24).trunc()),
        (None, None) => None,
    };
    if let (Some(subnet), Some(address)) = (subnet, wish.node_address) {
        check_address(subnet, address, hostnet::gateway(subnet))?;
    }
    let subnet = match subnet {
        Some(subnet) => hostnet::claim(subnet, taken).await.map(|()| subnet),
        None => hostnet::plan(taken).await,
    };
    let subnet = subnet.map_err(|error| failure(&error))?;
    let gateway = hostnet::gateway(subnet);
    let node_address = wish.node_address.unwrap_or_else(|| Ipv4Addr::from(u32::from(gateway) + 1));
    Ok(Site { subnet, gateway, node_address })
}

/// Refuses a network of Services that this machine reaches something in: its pods would not.
///
/// # Errors
/// `IF_SUBNET` with what it overlaps.
pub async fn check_services(services: Ipv4Net) -> Outcome<()> {
    hostnet::claim(services, &[]).await.map_err(|error| failure(&error))
}

fn failure(error: &HostNetError) -> Failure {
    match error {
        HostNetError::NoSubnet { .. } | HostNetError::SubnetTaken { .. } => Failure::new(&IF_SUBNET, error.to_string()),
        _ => Failure::because(&IF_NETWORK, "cannot read this machine's routes", error),
    }
}

/// As minikube checks a static address.
pub fn check_address(subnet: Ipv4Net, address: Ipv4Addr, gateway: Ipv4Addr) -> Outcome<()> {
    let why = if !address.is_private() {
        "it is not a private address"
    } else if !subnet.contains(&address) {
        "it is not in the cluster's subnet"
    } else if [subnet.network(), subnet.broadcast(), gateway].contains(&address) {
        "it is the network's own, or the gateway's"
    } else {
        return Ok(());
    };
    Err(Failure::new(&MK_USAGE, format!("--static-ip={address} cannot be a node's: {why}"))
        .advise("Give an address such as 192.168.200.200, which is private and not the first or last of its network."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_as_they_are_typed() {
        let parsed = |text: &str| parse_subnet(text).unwrap().to_string();
        assert_eq!(parsed("192.168.50.0/24"), "192.168.50.0/24");
        assert_eq!(parsed("192.168.50.0"), "192.168.50.0/24");
        assert_eq!(parsed("10.1.2.3/16"), "10.1.0.0/16");
        for bad in ["", "x", "10.0.0.0/8", "10.0.0.0/30", "fd00::/64", "192.168.50.0/33"] {
            assert!(parse_subnet(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_that_a_node_can_have() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let check = |subnet: &str, address: &str| {
            check_address(net(subnet), address.parse().unwrap(), hostnet::gateway(net(subnet)))
        };
        assert!(check("192.168.50.0/24", "192.168.50.9").is_ok());
        assert!(check("10.9.0.0/16", "10.9.1.255").is_ok());
        for (subnet, address) in [
            ("192.168.50.0/24", "192.168.51.9"),
            ("192.168.50.0/24", "192.168.50.0"),
            ("192.168.50.0/24", "192.168.50.1"),
            ("192.168.50.0/24", "192.168.50.255"),
            ("8.8.8.0/24", "8.8.8.8"),
        ] {
            assert_eq!(check(subnet, address).unwrap_err().reason.id, "MK_USAGE", "{address}");
        }
    }
}
