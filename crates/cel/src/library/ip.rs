//! Addresses and blocks of them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::opaque::Opaque;
use super::text;
use crate::env::Row;
use crate::error::EvalError;
use crate::value::Value;

pub(super) const ROWS: &[Row] = &[
    ("ip", "string_to_ip", "(string) net.IP", |_, args| parse_ip(text(args, 0)?).map(ip_value)),
    ("isIP", "is_ip", "(string) bool", |_, args| Ok(parse_ip(text(args, 0)?).is_ok().into())),
    ("ip.isCanonical", "ip_is_canonical", "(string) bool", |_, args| {
        let source = text(args, 0)?;
        Ok(Value::Bool(parse_ip(source)?.to_string() == source))
    }),
    ("family", "ip_family", "net.IP.() int", |_, args| Ok(Value::Int(if ip(args, 0)?.is_ipv4() { 4 } else { 6 }))),
    ("isUnspecified", "ip_is_unspecified", "net.IP.() bool", |_, args| Ok(ip(args, 0)?.is_unspecified().into())),
    ("isLoopback", "ip_is_loopback", "net.IP.() bool", |_, args| Ok(ip(args, 0)?.is_loopback().into())),
    ("isLinkLocalMulticast", "ip_is_link_local_multicast", "net.IP.() bool", |_, args| {
        Ok(link_local_multicast(ip(args, 0)?).into())
    }),
    ("isLinkLocalUnicast", "ip_is_link_local_unicast", "net.IP.() bool", |_, args| Ok(link_local(ip(args, 0)?).into())),
    ("isGlobalUnicast", "ip_is_global_unicast", "net.IP.() bool", |_, args| Ok(global_unicast(ip(args, 0)?).into())),
    ("cidr", "string_to_cidr", "(string) net.CIDR", |_, args| {
        Ok(Value::Opaque(Opaque::Cidr(parse_cidr(text(args, 0)?)?)))
    }),
    ("isCIDR", "is_cidr", "(string) bool", |_, args| Ok(parse_cidr(text(args, 0)?).is_ok().into())),
    ("containsIP", "cidr_contains_ip_string", "net.CIDR.(string) bool", |_, args| {
        Ok(contains(&cidr(args, 0)?, parse_ip(text(args, 1)?)?).into())
    }),
    ("containsIP", "cidr_contains_ip_ip", "net.CIDR.(net.IP) bool", |_, args| {
        Ok(contains(&cidr(args, 0)?, ip(args, 1)?).into())
    }),
    ("containsCIDR", "cidr_contains_cidr_string", "net.CIDR.(string) bool", |_, args| {
        Ok(covers(&cidr(args, 0)?, &parse_cidr(text(args, 1)?)?).into())
    }),
    ("containsCIDR", "cidr_contains_cidr", "net.CIDR.(net.CIDR) bool", |_, args| {
        Ok(covers(&cidr(args, 0)?, &cidr(args, 1)?).into())
    }),
    ("ip", "cidr_ip", "net.CIDR.() net.IP", |_, args| Ok(ip_value(cidr(args, 0)?.addr()))),
    ("prefixLength", "cidr_prefix_length", "net.CIDR.() int", |_, args| {
        Ok(Value::Int(cidr(args, 0)?.prefix_len().into()))
    }),
    ("masked", "cidr_masked", "net.CIDR.() net.CIDR", |_, args| {
        Ok(Value::Opaque(Opaque::Cidr(cidr(args, 0)?.trunc())))
    }),
];

fn ip_value<'a>(ip: IpAddr) -> Value<'a> {
    Value::Opaque(Opaque::Ip(ip))
}

fn ip(args: &[Value<'_>], i: usize) -> Result<IpAddr, EvalError> {
    match args.get(i) {
        Some(Value::Opaque(Opaque::Ip(ip))) => Ok(*ip),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn cidr(args: &[Value<'_>], i: usize) -> Result<IpNet, EvalError> {
    match args.get(i) {
        Some(Value::Opaque(Opaque::Cidr(net))) => Ok(*net),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// Reads an address; IPv4 mapped into IPv6 and zones are not taken.
fn parse_ip(source: &str) -> Result<IpAddr, EvalError> {
    let fail = |why: &str| {
        EvalError::new(format_args!("IP Address {source:?} parse error during conversion from string: {why}"))
    };
    if source.contains('%') {
        return Err(EvalError::new(format_args!("IP address {source:?} with zone value is not allowed")));
    }
    let ip: IpAddr = source.parse().map_err(|_| fail(&format!("ParseAddr({source:?}): unable to parse IP")))?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(EvalError::new(format_args!("IPv4-mapped IPv6 address {source:?} is not allowed")))
        }
        ip => Ok(ip),
    }
}

fn parse_cidr(source: &str) -> Result<IpNet, EvalError> {
    let fail =
        |why: &str| EvalError::new(format_args!("network address parse error during conversion from string: {why}"));
    let (_, length) = source.split_once('/').ok_or_else(|| fail(&format!("netip.ParsePrefix({source:?}): no '/'")))?;
    let padded = length.len() > 1 && length.starts_with('0') || length.starts_with('+');
    let net: IpNet = source
        .parse()
        .ok()
        .filter(|_| !padded)
        .ok_or_else(|| fail(&format!("netip.ParsePrefix({source:?}): unable to parse IP")))?;
    match net.addr() {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(EvalError::new(format_args!("IPv4-mapped IPv6 address {source:?} is not allowed")))
        }
        _ => Ok(net),
    }
}

fn contains(net: &IpNet, ip: IpAddr) -> bool {
    net.contains(&ip)
}

fn covers(net: &IpNet, other: &IpNet) -> bool {
    other.prefix_len() >= net.prefix_len() && net.contains(&other.addr())
}

fn link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

/// As Go has it: neither unspecified, broadcast, loopback, multicast nor link-local.
fn global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(ip.is_unspecified() || broadcast || ip.is_loopback() || ip.is_multicast() || link_local(ip))
}
