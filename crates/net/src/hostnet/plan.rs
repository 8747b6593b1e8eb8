use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::HostNetError;
use crate::link::Links;

/// Chooses a /24 for a profile's nodes that overlaps neither a route or address of this host nor a subnet in `taken`
/// (those of other profiles, also stopped ones).
pub async fn plan(taken: &[Ipv4Net]) -> Result<Ipv4Net, HostNetError> {
    let routed = Links::here()?.prefixes().await?;
    choose(routed.iter().chain(taken).copied())
}

/// What clusters use inside: pods and services.
const RESERVED: [Ipv4Net; 2] =
    [Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16), Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12)];

/// A route wider than this is a split default route, as tunnels set them; our own, narrower one wins over it.
const WIDEST: u8 = 8;

fn choose(used: impl Iterator<Item = Ipv4Net>) -> Result<Ipv4Net, HostNetError> {
    let used: Vec<Ipv4Net> = used.filter(|net| net.prefix_len() >= WIDEST).chain(RESERVED).collect();
    let free = |candidate: &Ipv4Net| !used.iter().any(|net| net.contains(candidate) || candidate.contains(net));
    candidates().find(free).ok_or(HostNetError::NoSubnet { tried: candidates().count() })
}

/// The first ones as other local clusters choose them, then wider space.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let familiar = (49..=247).step_by(9).map(|third| Ipv4Addr::new(192, 168, third, 0));
    let wide = (0..=255).map(|third| Ipv4Addr::new(172, 30, third, 0));
    let widest = (0..=255).map(|third| Ipv4Addr::new(10, 213, third, 0));
    familiar.chain(wide).chain(widest).map(|address| Ipv4Net::new_assert(address, 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(nets: &[&str]) -> Vec<Ipv4Net> {
        nets.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn avoids_routes_and_other_profiles() {
        assert_eq!(choose(nets(&[]).into_iter()).unwrap().to_string(), "192.168.49.0/24");
        let used = nets(&["192.168.49.0/24", "192.168.58.128/32", "192.168.64.0/21", "0.0.0.0/1"]);
        assert_eq!(choose(used.into_iter()).unwrap().to_string(), "192.168.76.0/24");
        assert_eq!(choose(nets(&["192.168.0.0/16"]).into_iter()).unwrap().to_string(), "172.30.0.0/24");
        let all = nets(&["192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8"]);
        assert!(matches!(choose(all.into_iter()), Err(HostNetError::NoSubnet { .. })));
    }
}
