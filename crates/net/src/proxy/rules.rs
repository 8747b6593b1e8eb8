//! The service proxy's table. A packet's way through it:
//!
//! ```text
//! prerouting, output ─► firewall ─► services ─┬─ @service-ips ────► service, local or external chain
//!                                             └─ @service-nodeports (to any address of the node) ─► the same
//! external chain ─► (mark to masquerade) ─► service or local chain ─► one endpoint's chain ─► dnat
//! input, forward, output (not translated) ─► @no-endpoint-ips, @no-endpoint-nodeports ─► reject or drop
//! postrouting ─► masquerade what is marked
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use nlink::netlink::nftables::{
    BaseChain, CmpOp, DynsetExpr, DynsetOp, Expr, FilterHook, NatHook, NatStatement, NumgenKind, PacketField, Priority,
    Register, Rule, RuleSpec, SetKeyType, Stmt, Verdict,
};

use super::model::{Backend, ServicePort};
use crate::nft::{Ruleset, SetKind, key, rule};

pub(super) const TABLE: &str = "kminik-services";

/// Marks packets to be masqueraded on their way out of this table; the bit upstream uses.
const MASQUERADE: u32 = 0x4000;

const SERVICE_IPS: &str = "service-ips";
const NODE_PORTS: &str = "service-nodeports";
const EMPTY_IPS: &str = "no-endpoint-ips";
const EMPTY_NODE_PORTS: &str = "no-endpoint-nodeports";
const CLUSTER_IPS: &str = "cluster-ips";
const FIREWALL_IPS: &str = "firewall-ips";

/// The whole table for these services. Traffic to a cluster IP from outside `pods` is masqueraded, as its sender may have no
/// way back from an endpoint on another node.
pub(super) fn wanted(ports: &[ServicePort], pods: Ipv4Net) -> Ruleset {
    let mut rules = Ruleset::default();
    frame(&mut rules);
    for port in ports {
        Port { rules: &mut rules, port, pods }.add();
    }
    rules
}

/// The chains and maps that are there without any service.
fn frame(rules: &mut Ruleset) {
    for map in [SERVICE_IPS, EMPTY_IPS, FIREWALL_IPS] {
        rules.set(map, rule::address_port_key(), SetKind::VerdictMap);
    }
    for map in [NODE_PORTS, EMPTY_NODE_PORTS] {
        rules.set(map, rule::port_key(), SetKind::VerdictMap);
    }
    rules.set(CLUSTER_IPS, SetKeyType::Ipv4Addr, SetKind::Set);

    let node_ports = |map| rule::port_vmap(RuleSpec::new().then(rule::to_local_address()), map);
    rules.chain("services", vec![rule::address_port_vmap(RuleSpec::new(), SERVICE_IPS), node_ports(NODE_PORTS)]);
    let services = || vec![RuleSpec::new().then(rule::jump("services"))];
    rules.base_chain("nat-prerouting", BaseChain::nat(NatHook::Prerouting, Priority::DstNat), services());
    rules.base_chain("nat-output", BaseChain::nat(NatHook::Output, Priority::DstNat), services());

    let masquerade = Rule::new("", "")
        .match_mark_masked(MASQUERADE, MASQUERADE)
        .set_mark_masked(0, MASQUERADE)
        .nat(NatStatement::masquerade().fully_random());
    let postrouting = BaseChain::nat(NatHook::Postrouting, Priority::SrcNat);
    rules.base_chain("nat-postrouting", postrouting, vec![masquerade.into_spec()]);

    rules.chain("reject", vec![Rule::new("", "").reject().into_spec()]);
    let endpoints = vec![
        rule::address_port_vmap(RuleSpec::new(), EMPTY_IPS),
        // Of a service's own address only its ports answer.
        Rule::new("", "").match_daddr_in_set(CLUSTER_IPS).reject().into_spec(),
        node_ports(EMPTY_NODE_PORTS),
    ];
    rules.chain("no-endpoints", endpoints);
    // After translation: what was given an endpoint is no longer addressed to the service.
    let check = || RuleSpec::new().then(rule::new_connections()).then(rule::jump("no-endpoints"));
    let filter = |hook| BaseChain::filter(hook, Priority::Filter);
    rules.base_chain("filter-input", filter(FilterHook::Input), vec![rule::drop_foreign_loopback(), check()]);
    rules.base_chain("filter-forward", filter(FilterHook::Forward), vec![check()]);
    rules.base_chain("filter-output", filter(FilterHook::Output), vec![check()]);

    let before_nat = |hook| BaseChain::filter(hook, Priority::Custom(-110));
    let guard = || vec![rule::address_port_vmap(RuleSpec::new().then(rule::new_connections()), FIREWALL_IPS)];
    rules.base_chain("firewall-prerouting", before_nat(FilterHook::Prerouting), guard());
    rules.base_chain("firewall-output", before_nat(FilterHook::Output), guard());
}

/// Adds what one service port needs.
struct Port<'r> {
    rules: &'r mut Ruleset,
    port: &'r ServicePort,
    pods: Ipv4Net,
}

impl Port<'_> {
    fn add(&mut self) {
        let port = self.port;
        self.rules.element(CLUSTER_IPS, key::address(port.cluster_ip), None);
        let service = (!port.endpoints.is_empty()).then(|| self.balance("service", &port.endpoints));
        let uses_local = port.internal_local || port.external_local;
        let local =
            (uses_local && !port.local_endpoints.is_empty()).then(|| self.balance("local", &port.local_endpoints));

        let internal = if port.internal_local { &local } else { &service };
        let internal = internal.as_deref().map(rule::goto).ok_or_else(|| self.refusal());
        self.frontend(port.cluster_ip, internal);
        if port.node_port.is_none() && port.external_ips.is_empty() {
            return;
        }
        let external = self.external(service.as_deref(), local.as_deref());
        for address in &port.external_ips {
            self.frontend(*address, external.clone().map(|chain| rule::goto(&chain)).ok_or_else(|| self.refusal()));
            if external.is_some() && port.external_local && local.is_none() {
                self.empty(*address, Verdict::Drop);
            }
        }
        if let Some(node_port) = port.node_port {
            let key = key::port(port.protocol, node_port);
            match &external {
                Some(chain) => self.rules.element(NODE_PORTS, key.clone(), Some(rule::goto(chain))),
                None => self.rules.element(EMPTY_NODE_PORTS, key.clone(), Some(self.refusal())),
            }
            if external.is_some() && port.external_local && local.is_none() {
                self.rules.element(EMPTY_NODE_PORTS, key, Some(Verdict::Drop));
            }
        }
        self.firewall();
    }

    /// What becomes of traffic that no endpoint may take: refused if there is none at all, lost if there are some elsewhere.
    fn refusal(&self) -> Verdict {
        if self.port.endpoints.is_empty() { rule::goto("reject") } else { Verdict::Drop }
    }

    fn frontend(&mut self, address: Ipv4Addr, verdict: Result<Verdict, Verdict>) {
        match verdict {
            Ok(chain) => {
                let key = key::address_port(address, self.port.protocol, self.port.port);
                self.rules.element(SERVICE_IPS, key, Some(chain));
            }
            Err(refusal) => self.empty(address, refusal),
        }
    }

    fn empty(&mut self, address: Ipv4Addr, verdict: Verdict) {
        let key = key::address_port(address, self.port.protocol, self.port.port);
        self.rules.element(EMPTY_IPS, key, Some(verdict));
    }

    fn chain_name(&self, kind: &str) -> String {
        rule::chain_name(kind, &self.port.id)
    }

    /// A chain that leads to one of the backends, with each backend's own chain; its name.
    fn balance(&mut self, kind: &str, backends: &[Backend]) -> String {
        let port = self.port;
        let from_outside = Rule::new("", "")
            .match_daddr_v4(port.cluster_ip, 32)
            .match_saddr_v4_not(self.pods.network(), self.pods.prefix_len())
            .set_mark_masked(MASQUERADE, MASQUERADE);
        let mut rules = vec![from_outside.into_spec()];
        let chains: Vec<(String, String)> = backends.iter().map(|backend| self.backend(*backend)).collect();
        if port.affinity_seconds.is_some() {
            let sticky = |(chain, set): &(String, String)| {
                Rule::new("", "").match_saddr_in_set(set).into_spec().then(rule::goto(chain))
            };
            rules.extend(chains.iter().map(sticky));
        }
        for (index, (chain, _)) in chains.iter().enumerate() {
            let left = u32::try_from(chains.len() - index).unwrap_or(u32::MAX);
            rules.push(one_in(left).then(rule::goto(chain)));
        }
        let name = self.chain_name(kind);
        self.rules.chain(&name, rules);
        name
    }

    /// A backend's chain and, with affinity, the set of its clients.
    fn backend(&mut self, backend: Backend) -> (String, String) {
        let port = self.port;
        let id = format!("{}/{}/{}", port.id, backend.address, backend.port);
        let (chain, set) = (rule::chain_name("endpoint", &id), rule::chain_name("affinity", &id));
        // Its own client would see itself answer, and drop that.
        let hairpin = Rule::new("", "").match_saddr_v4(backend.address, 32).set_mark_masked(MASQUERADE, MASQUERADE);
        let mut rules = vec![hairpin.into_spec()];
        if let Some(seconds) = port.affinity_seconds {
            let timeout = Duration::from_secs(u64::from(seconds));
            let dynset = DynsetExpr::new(DynsetOp::Update, &set, Register::R0).timeout(timeout);
            rules.push(RuleSpec::new().then(Stmt::Dynset { field: PacketField::Ip4Saddr, dynset }));
            self.rules.set(&set, SetKeyType::Ipv4Addr, SetKind::Dynamic);
        }
        rules.push(rule::dnat(RuleSpec::new(), port.protocol, backend.address, backend.port));
        self.rules.chain(&chain, rules);
        (chain, set)
    }

    /// The chain for traffic by node port or external address; `None` if no endpoint may take any of it.
    fn external(&mut self, service: Option<&str>, local: Option<&str>) -> Option<String> {
        let service = service?;
        let mark = |rule: RuleSpec| rule.then(Stmt::SetMarkMasked { value: MASQUERADE, mask: MASQUERADE });
        let mut rules = Vec::new();
        if self.port.external_local {
            // Pods and the node itself are not outside, whichever address they use.
            let from_pods = Rule::new("", "").match_saddr_v4(self.pods.network(), self.pods.prefix_len());
            rules.push(from_pods.into_spec().then(rule::goto(service)));
            let from_node = RuleSpec::new().then(rule::from_local_address());
            rules.push(mark(from_node.clone()));
            rules.push(from_node.then(rule::goto(service)));
            rules.extend(local.map(|local| RuleSpec::new().then(rule::goto(local))));
        } else {
            rules.push(mark(RuleSpec::new()));
            rules.push(RuleSpec::new().then(rule::goto(service)));
        }
        let name = self.chain_name("external");
        self.rules.chain(&name, rules);
        Some(name)
    }

    fn firewall(&mut self) {
        let port = self.port;
        if port.source_ranges.is_empty() || port.load_balancer_ips.is_empty() {
            return;
        }
        let admit = |range: &Ipv4Net| {
            Rule::new("", "").match_saddr_v4(range.network(), range.prefix_len()).into_spec().then(Verdict::Return)
        };
        let mut rules: Vec<RuleSpec> = port.source_ranges.iter().map(admit).collect();
        rules.push(RuleSpec::new().then(Verdict::Drop));
        let name = self.chain_name("firewall");
        self.rules.chain(&name, rules);
        for address in &port.load_balancer_ips {
            let key = key::address_port(*address, port.protocol, port.port);
            self.rules.element(FIREWALL_IPS, key, Some(rule::goto(&name)));
        }
    }
}

/// Matches one packet in `count`; all of them for one.
fn one_in(count: u32) -> RuleSpec {
    if count <= 1 {
        return RuleSpec::new();
    }
    let (dreg, kind) = (Register::Reg32_00, NumgenKind::Random);
    let draw = Expr::Numgen { dreg, kind, modulus: count, offset: 0 };
    RuleSpec::new().then(draw).then(Expr::Cmp { sreg: dreg, op: CmpOp::Eq, data: vec![0; 4] })
}
