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

/// Whether this network can be a profile's, by the same rules.
///
/// # Errors
/// [`HostNetError::SubnetTaken`] with what it overlaps.
pub async fn claim(subnet: Ipv4Net, taken: &[Ipv4Net]) -> Result<(), HostNetError> {
    let routed = Links::here()?.prefixes().await?;
    match overlapped(subnet, routed.iter().chain(taken).copied()) {
        Some(other) => Err(HostNetError::SubnetTaken { subnet, other }),
        None => Ok(()),
    }
}

/// The network of pods, the same in every cluster.
pub const PODS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);

/// A route wider than this is a split default route, as tunnels set them; our own, narrower one wins over it.
const WIDEST: u8 = 8;

fn choose(used: impl Iterator<Item = Ipv4Net>) -> Result<Ipv4Net, HostNetError> {
    let used: Vec<Ipv4Net> = used.collect();
    let free = |candidate: &Ipv4Net| overlapped(*candidate, used.iter().copied()).is_none();
    candidates().find(free).ok_or(HostNetError::NoSubnet { tried: candidates().count() })
}

/// The first network in use that has an address in common with this one.
fn overlapped(subnet: Ipv4Net, used: impl Iterator<Item = Ipv4Net>) -> Option<Ipv4Net> {
    let mut used = used.filter(|net| net.prefix_len() >= WIDEST).chain([PODS]);
    used.find(|net| overlap(*net, subnet))
}

/// Whether they have an address in common.
pub fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
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
    fn a_network_of_the_user_is_checked_by_the_same_rules() {
        let wanted: Ipv4Net = "10.50.0.0/16".parse().unwrap();
        let other = |used: &[&str]| overlapped(wanted, nets(used).into_iter()).map(|net| net.to_string());
        assert_eq!(other(&["0.0.0.0/1", "10.51.0.0/16"]), None);
        assert_eq!(other(&["10.50.3.1/32"]).as_deref(), Some("10.50.3.1/32"));
        assert_eq!(
            overlapped("10.244.9.0/24".parse().unwrap(), std::iter::empty()).unwrap().to_string(),
            "10.244.0.0/16"
        );
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
