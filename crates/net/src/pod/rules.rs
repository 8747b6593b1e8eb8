//! The pod network's table: masquerade outward, and ports of the node that lead to pods.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use kminik_runtime::{PortMapping, Protocol};
use nlink::netlink::nftables::{BaseChain, FilterHook, NatHook, Priority, Rule, RuleSpec};

use super::PodNetworkConfig;
use super::ipam::Lease;
use crate::nft::{Ruleset, SetKind, key, rule};

pub(super) const TABLE: &str = "kminik-pods";

/// Marks packets to be masqueraded on their way out of this table.
const MASQUERADE: u32 = 0x2000;

const ON_ADDRESS: &str = "hostports";
const ON_ANY: &str = "hostports-any";

pub(super) fn wanted(config: &PodNetworkConfig, leases: &BTreeMap<String, Lease>) -> Ruleset {
    let mut rules = Ruleset::default();
    rules.set(ON_ADDRESS, rule::address_port_key(), SetKind::VerdictMap);
    rules.set(ON_ANY, rule::port_key(), SetKind::VerdictMap);

    let local = RuleSpec::new().then(rule::to_local_address());
    let lookups = vec![rule::address_port_vmap(RuleSpec::new(), ON_ADDRESS), rule::port_vmap(local, ON_ANY)];
    rules.chain("hostports", lookups);
    let jump = || vec![RuleSpec::new().then(rule::jump("hostports"))];
    rules.base_chain("prerouting", BaseChain::nat(NatHook::Prerouting, Priority::DstNat), jump());
    rules.base_chain("output", BaseChain::nat(NatHook::Output, Priority::DstNat), jump());

    let (pods, cluster) = (config.pod_cidr, config.cluster_cidr);
    let outward = Rule::new("", "")
        .match_saddr_v4(pods.network(), pods.prefix_len())
        .match_daddr_v4_not(cluster.network(), cluster.prefix_len())
        .match_oif_not(&config.bridge_name)
        .match_oif_not("lo")
        .masquerade();
    // A pod cannot answer the loopback address, nor itself when it is its own client.
    let loopback = Rule::new("", "").match_saddr_v4(Ipv4Addr::new(127, 0, 0, 0), 8).match_oif(&config.bridge_name);
    let marked = Rule::new("", "").match_mark_masked(MASQUERADE, MASQUERADE);
    let postrouting = [outward, loopback.masquerade(), marked.masquerade()].map(Rule::into_spec).to_vec();
    rules.base_chain("postrouting", BaseChain::nat(NatHook::Postrouting, Priority::SrcNat), postrouting);

    let input = BaseChain::filter(FilterHook::Input, Priority::Filter);
    rules.base_chain("input", input, vec![rule::drop_foreign_loopback()]);

    for (sandbox, lease) in leases {
        for port in &lease.ports {
            add_port(&mut rules, sandbox, lease.address, port);
        }
    }
    rules
}

fn add_port(rules: &mut Ruleset, sandbox: &str, pod: Ipv4Addr, port: &PortMapping) {
    let protocol = match port.protocol {
        Protocol::Tcp => rule::TCP,
        Protocol::Udp => rule::UDP,
        Protocol::Sctp => rule::SCTP,
    };
    let address = port.node_ip.map(|ip| ip.to_string()).unwrap_or_default();
    let chain = rule::chain_name("hostport", &format!("{sandbox}/{protocol}/{}/{address}", port.node_port));
    let to_chain = rule::goto(&chain);
    let hairpin = Rule::new("", "").match_saddr_v4(pod, 32).set_mark_masked(MASQUERADE, MASQUERADE);
    let translate = rule::dnat(RuleSpec::new(), protocol, pod, port.container_port);
    rules.chain(&chain, vec![hairpin.into_spec(), translate]);
    match port.node_ip {
        None => rules.element(ON_ANY, key::port(protocol, port.node_port), Some(to_chain)),
        Some(IpAddr::V4(address)) if address.is_unspecified() => {
            rules.element(ON_ANY, key::port(protocol, port.node_port), Some(to_chain));
        }
        Some(IpAddr::V4(address)) => {
            rules.element(ON_ADDRESS, key::address_port(address, protocol, port.node_port), Some(to_chain));
        }
        // The pod network has no IPv6.
        Some(IpAddr::V6(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use nlink::netlink::nftables::Family;

    use super::*;

    #[test]
    fn rules_read_as_meant() {
        let config = PodNetworkConfig {
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            bridge_name: "kminik0".into(),
            state_dir: "/nowhere".into(),
            mtu: None,
        };
        let port = |node_ip| PortMapping { protocol: Protocol::Udp, container_port: 53, node_port: 5353, node_ip };
        let leases = BTreeMap::from([
            ("s1".to_owned(), Lease { address: Ipv4Addr::new(10, 244, 1, 2), ports: vec![port(None)] }),
            (
                "s2".to_owned(),
                Lease {
                    address: Ipv4Addr::new(10, 244, 1, 3),
                    ports: vec![port(Some(IpAddr::V4(Ipv4Addr::new(192, 168, 49, 2))))],
                },
            ),
        ]);
        let rules = wanted(&config, &leases);
        let text = |chain: &str| -> Vec<String> {
            rules.chains[chain].rules.iter().map(|rule| rule.nft_syntax_stateless(Family::Ip).unwrap()).collect()
        };
        assert_eq!(
            text("postrouting")[0],
            "ip saddr 10.244.1.0/24 ip daddr != 10.244.0.0/16 oifname != \"kminik0\" oifname != \"lo\" masquerade"
        );
        assert_eq!(
            text(rules.chains.keys().find(|name| name.ends_with("s1/17/5353/")).unwrap())[1],
            "meta l4proto udp dnat to 10.244.1.2:53"
        );
        assert_eq!(rules.sets[ON_ANY].elements.len(), 1);
        assert_eq!(rules.sets[ON_ADDRESS].elements.len(), 1);
    }
}
