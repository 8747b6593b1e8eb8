//! Passage through a host whose policy is to drop: accepting rules of ours, tagged, at the head of each chain that would drop.
//! Of what is forwarded the nodes' packets and the answers to them pass, of what is for the host questions to its DNS forwarder
//! and connections to the ports that it serves for nodes.
//!
//! iptables in its nft form keeps its rules in table `ip filter`; there our rules use only what it can list, or it would refuse
//! to show and to change the table. A chain `DOCKER-USER` in it is the place meant for others' rules.

use nlink::netlink::nftables::{
    ChainInfo, CtState, Expr, Family, Hook, NFT_MSG_NEWRULE, Policy, RawExpr, RawMessage, Rule, RuleInfo,
    write_expressions,
};
use nlink::netlink::{Connection, MessageBuilder, Nftables};

use super::{HostNetError, legacy};
use crate::nft::connect;
use crate::nft::rule::{TCP, UDP};

/// Where the host's forwarder answers.
const DNS: u16 = 53;

/// A chain that needs our rules.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    hook: Hook,
    table: String,
    chain: String,
    family: Family,
    /// The table is iptables'.
    iptables: bool,
}

/// Lets what nodes on `bridge` need through every chain that drops by policy; `served` are TCP ports of the host beside DNS.
pub(super) async fn open(bridge: &str, tag: &str, served: &[u16]) -> Result<(), HostNetError> {
    if legacy::drops_forwarded(bridge).map_err(HostNetError::LegacyFirewall)? {
        return Err(HostNetError::Firewall {
            firewall: "legacy iptables, chain FORWARD with policy DROP".to_owned(),
            command: format!(
                "iptables-legacy -I FORWARD -i {bridge} -j ACCEPT && iptables-legacy -I FORWARD -o {bridge} -j ACCEPT"
            ),
        });
    }
    let nft = connect()?;
    let chains = nft.list_chains().await.map_err(failed("listed"))?;
    for place in places(&chains) {
        let rules = nft.list_rules(&place.table, place.family).await.map_err(failed("listed"))?;
        if rules.iter().any(|rule| rule.chain == place.chain && rule.comment_text.as_deref() == Some(tag)) {
            continue;
        }
        let mut transaction = nft.transaction();
        let needed = match place.hook {
            Hook::Forward => vec![(inward(bridge), None), (answers(bridge, place.iptables), None)],
            _ => {
                let ports = [(UDP, DNS), (TCP, DNS)].into_iter().chain(served.iter().map(|port| (TCP, *port)));
                ports
                    .map(|(protocol, port)| (to_host(bridge, protocol, port, place.iptables), Some(protocol)))
                    .collect()
            }
        };
        for (rule, protocol) in needed {
            transaction = transaction.raw(at_head(&place, &rule.comment(tag), protocol)?);
        }
        transaction.commit(&nft).await.map_err(failed("added to"))?;
    }
    Ok(())
}

/// Removes every rule with our tag, from whatever chain.
pub(super) async fn close(tag: &str) -> Result<(), HostNetError> {
    let nft = connect()?;
    for family in [Family::Ip, Family::Inet] {
        let tables = nft.list_tables_in(family).await.map_err(failed("listed"))?;
        for table in tables {
            for rule in tagged(&nft, &table.name, family, tag).await? {
                let gone = nft.del_rule_if_exists(&rule.table, &rule.chain, family, rule.handle).await;
                gone.map_err(failed("removed"))?;
            }
        }
    }
    Ok(())
}

async fn tagged(
    nft: &Connection<Nftables>,
    table: &str,
    family: Family,
    tag: &str,
) -> Result<Vec<RuleInfo>, HostNetError> {
    let rules = match nft.list_rules(table, family).await {
        // Removed since it was listed.
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        outcome => outcome.map_err(failed("listed"))?,
    };
    Ok(rules.into_iter().filter(|rule| rule.comment_text.as_deref() == Some(tag)).collect())
}

/// Where forwarded packets, or those for the host, are dropped by policy.
fn places(chains: &[ChainInfo]) -> Vec<Place> {
    let place = |chain: &ChainInfo| -> Option<Place> {
        let hooks = [Hook::Forward, Hook::Input];
        let hook = hooks.into_iter().find(|hook| chain.hook == Some(hook.number(chain.family)))?;
        let ours = matches!(chain.family, Family::Ip | Family::Inet) && chain.policy == Some(Policy::Drop.to_u32());
        let iptables = chain.family == Family::Ip && chain.table == "filter";
        let users = chains
            .iter()
            .any(|other| other.family == chain.family && other.table == chain.table && other.name == "DOCKER-USER");
        let name = if iptables && users && hook == Hook::Forward { "DOCKER-USER" } else { chain.name.as_str() };
        let (table, chain_name) = (chain.table.clone(), name.to_owned());
        ours.then_some(Place { hook, table, chain: chain_name, family: chain.family, iptables })
    };
    chains.iter().filter_map(place).collect()
}

fn inward(bridge: &str) -> Rule {
    Rule::new("", "").match_iif(bridge).counter().accept()
}

fn answers(bridge: &str, iptables: bool) -> Rule {
    let rule = Rule::new("", "").match_oif(bridge);
    let rule = match iptables {
        true => rule.expr(Expr::Raw(RawExpr::new("match", conntrack_match()))),
        false => rule.match_ct_state(CtState(CtState::ESTABLISHED.bits() | CtState::RELATED.bits())),
    };
    rule.counter().accept()
}

/// What is for a port of the host itself.
fn to_host(bridge: &str, protocol: u8, port: u16, iptables: bool) -> Rule {
    let rule = Rule::new("", "").match_iif(bridge).match_l4proto(protocol);
    let rule = match (iptables, protocol) {
        (true, TCP) => rule.expr(Expr::Raw(RawExpr::new("match", port_match("tcp", port)))),
        (true, _) => rule.expr(Expr::Raw(RawExpr::new("match", port_match("udp", port)))),
        (false, TCP) => rule.match_tcp_dport(port),
        (false, _) => rule.match_udp_dport(port),
    };
    rule.counter().accept()
}

/// A message that puts `rule` first in its chain. Extensions of iptables that are for one protocol need to be told which.
fn at_head(place: &Place, rule: &Rule, protocol: Option<u8>) -> Result<RawMessage, HostNetError> {
    const NLM_F_CREATE: u16 = 0x400;
    const TABLE: u16 = 1;
    const CHAIN: u16 = 2;
    const COMPATIBILITY: u16 = 5;
    const COMPATIBILITY_PROTOCOL: u16 = 1;
    const COMPATIBILITY_FLAGS: u16 = 2;
    const USERDATA: u16 = 7;
    let expressions = rule.spec().lower(place.family).map_err(failed("added to"))?;
    let mut message = MessageBuilder::new(0, 0);
    message.append_attr_str(TABLE, &place.table);
    message.append_attr_str(CHAIN, &place.chain);
    write_expressions(&mut message, &expressions);
    if let Some(protocol) = protocol.filter(|_| place.iptables) {
        let nest = message.nest_start(COMPATIBILITY);
        message.append_attr(COMPATIBILITY_PROTOCOL, &u32::from(protocol).to_be_bytes());
        message.append_attr(COMPATIBILITY_FLAGS, &[0; 4]);
        message.nest_end(nest);
    }
    if let Some(comment) = rule.comment_ref() {
        message.append_attr(USERDATA, &comment_userdata(comment));
    }
    let header = nlink::netlink::NLMSG_HDRLEN;
    let attributes = message.finish().split_off(header);
    Ok(RawMessage::new(NFT_MSG_NEWRULE, place.family).flags(NLM_F_CREATE).attrs(attributes))
}

/// The comment as libnftnl stores it: type 0, length, text with its end.
fn comment_userdata(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    let mut userdata = vec![0, length];
    userdata.extend(comment.bytes().take(usize::from(length) - 1));
    userdata.push(0);
    userdata
}

/// `-m conntrack --ctstate RELATED,ESTABLISHED`: the only form of it that iptables can list.
fn conntrack_match() -> Vec<u8> {
    // struct xt_conntrack_mtinfo3, zero but for the two fields below; a multiple of eight bytes.
    const INFO_BYTES: usize = 168;
    const MATCH_FLAGS_AT: usize = 146;
    const STATE_MASK_AT: usize = 150;
    const MATCH_STATE: u16 = 1;
    const ESTABLISHED_RELATED: u16 = 2 | 4;
    let mut info = vec![0; INFO_BYTES];
    info[MATCH_FLAGS_AT..MATCH_FLAGS_AT + 2].copy_from_slice(&MATCH_STATE.to_ne_bytes());
    info[STATE_MASK_AT..STATE_MASK_AT + 2].copy_from_slice(&ESTABLISHED_RELATED.to_ne_bytes());
    extension("conntrack", 3, &info)
}

/// `-m udp --dport 53`, or tcp.
fn port_match(protocol: &str, port: u16) -> Vec<u8> {
    // struct xt_udp and xt_tcp begin alike: lowest and highest source port, lowest and highest destination port.
    let ports = [0, u16::MAX, port, port];
    let mut info: Vec<u8> = ports.into_iter().flat_map(u16::to_ne_bytes).collect();
    info.resize(16, 0);
    extension(protocol, 0, &info)
}

/// Attributes of an expression that calls an extension of iptables.
fn extension(name: &str, revision: u32, info: &[u8]) -> Vec<u8> {
    const NAME: u16 = 1;
    const REVISION: u16 = 2;
    const INFO: u16 = 3;
    let mut attributes = MessageBuilder::new(0, 0);
    attributes.append_attr_str(NAME, name);
    attributes.append_attr(REVISION, &revision.to_be_bytes());
    attributes.append_attr(INFO, info);
    attributes.finish().split_off(nlink::netlink::NLMSG_HDRLEN)
}

fn failed(action: &'static str) -> impl FnOnce(nlink::Error) -> HostNetError {
    move |source| HostNetError::FirewallRules { action, source }
}
