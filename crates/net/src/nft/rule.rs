//! Pieces of rules that more than one table uses.

use std::net::{IpAddr, Ipv4Addr};

use nlink::netlink::nftables::{
    ChainName, CtState, Expr, FibFlags, FibResult, Field, LookupExpr, Match, MetaKey, NatType, PayloadBase, Register,
    Rule, RuleSpec, SetKeyType, Stmt, Value, Verdict,
};
use nlink::netlink::types::route::RouteType;

use crate::names;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;

/// `inet_proto . inet_service`.
pub(crate) fn port_key() -> SetKeyType {
    SetKeyType::Concat(vec![SetKeyType::InetProto, SetKeyType::InetService])
}

/// `ipv4_addr . inet_proto . inet_service`.
pub(crate) fn address_port_key() -> SetKeyType {
    SetKeyType::Concat(vec![SetKeyType::Ipv4Addr, SetKeyType::InetProto, SetKeyType::InetService])
}

/// `fib daddr type local`.
pub(crate) fn to_local_address() -> Match {
    let destination = Field::Fib { flags: FibFlags::DADDR, result: FibResult::AddrType };
    Match::eq(destination, Value::RouteType(RouteType::Local))
}

/// `fib saddr type local`.
pub(crate) fn from_local_address() -> Match {
    let source = Field::Fib { flags: FibFlags::SADDR, result: FibResult::AddrType };
    Match::eq(source, Value::RouteType(RouteType::Local))
}

/// `ct state new`.
pub(crate) fn new_connections() -> Match {
    Match::eq(Field::CtState, Value::CtState(CtState::NEW))
}

/// Drops what others send to the loopback address, which the kernel itself no longer refuses once ports of the node answer
/// there.
pub(crate) fn drop_foreign_loopback() -> RuleSpec {
    let to_loopback = Rule::new("", "").match_iif_not("lo").match_daddr_v4(Ipv4Addr::new(127, 0, 0, 0), 8);
    to_loopback.into_spec().then(new_connections()).then(Verdict::Drop)
}

/// `meta l4proto . th dport vmap @map`.
pub(crate) fn port_vmap(rule: RuleSpec, map: &str) -> RuleSpec {
    let load_protocol = Expr::Meta { dreg: Register::Reg32_00, key: MetaKey::L4Proto };
    let rule = rule.then(load_protocol).then(destination_port(Register::Reg32_01));
    rule.then(Expr::from(LookupExpr::new(map, Register::Reg32_00).dreg(Register::Verdict)))
}

/// `ip daddr . meta l4proto . th dport vmap @map`.
pub(crate) fn address_port_vmap(rule: RuleSpec, map: &str) -> RuleSpec {
    let load_address = Expr::Payload { dreg: Register::Reg32_00, base: PayloadBase::Network, offset: 16, len: 4 };
    let load_protocol = Expr::Meta { dreg: Register::Reg32_01, key: MetaKey::L4Proto };
    let rule = rule.then(load_address).then(load_protocol).then(destination_port(Register::Reg32_02));
    rule.then(Expr::from(LookupExpr::new(map, Register::Reg32_00).dreg(Register::Verdict)))
}

fn destination_port(register: Register) -> Expr {
    Expr::Payload { dreg: register, base: PayloadBase::Transport, offset: 2, len: 2 }
}

/// `meta l4proto <protocol> dnat to <address>:<port>`.
pub(crate) fn dnat(rule: RuleSpec, protocol: u8, address: Ipv4Addr, port: u16) -> RuleSpec {
    let nat = Stmt::NatTo { nat_type: NatType::Dnat, addr: IpAddr::V4(address), port: Some(port) };
    rule.then(Match::eq(Field::L4Proto, Value::Int(u64::from(protocol)))).then(nat)
}

/// Goes on in a chain and comes back. A name no chain can have drops.
pub(crate) fn jump(chain: &str) -> Verdict {
    ChainName::new(chain).map_or(Verdict::Drop, Verdict::JumpTo)
}

/// Goes on in a chain for good. A name no chain can have drops.
pub(crate) fn goto(chain: &str) -> Verdict {
    ChainName::new(chain).map_or(Verdict::Drop, Verdict::GotoTo)
}

/// A chain name of `prefix`, a hash, and as much of `text` as fits: unique and readable.
pub(crate) fn chain_name(prefix: &str, text: &str) -> String {
    const LIMIT: usize = 100;
    let readable: String = text.chars().filter(char::is_ascii_graphic).take(LIMIT - prefix.len()).collect();
    format!("{prefix}-{:08x}-{readable}", names::hash(text) >> 32)
}
