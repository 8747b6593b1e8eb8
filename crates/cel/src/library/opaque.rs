//! Values that only libraries make and read.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use kminik_meta::Quantity;

use super::authorizer::{AuthorizerValue, Decision, ResourceCheck};
use super::format::Format;
use super::semver::Semver;
use super::url::Url;

/// A value of a library.
#[derive(Clone, Debug)]
pub enum Opaque {
    Url(Arc<Url>),
    Quantity(Quantity),
    Ip(IpAddr),
    /// The address as written, host bits included, and the prefix.
    Cidr(IpNet),
    Semver(Arc<Semver>),
    Format(&'static Format),
    Authorizer(AuthorizerValue),
    PathCheck(AuthorizerValue, Arc<str>),
    GroupCheck(AuthorizerValue, Arc<str>),
    ResourceCheck(AuthorizerValue, Arc<ResourceCheck>),
    Decision(Arc<Decision>),
    /// The error that a quantifier's accumulator holds until an element decides.
    Failed(Arc<str>),
}

impl Opaque {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Opaque::Url(_) => "kubernetes.URL",
            Opaque::Quantity(_) => "kubernetes.Quantity",
            Opaque::Ip(_) => "net.IP",
            Opaque::Cidr(_) => "net.CIDR",
            Opaque::Semver(_) => "kubernetes.Semver",
            Opaque::Format(_) => "kubernetes.NamedFormat",
            Opaque::Authorizer(_) => "kubernetes.authorization.Authorizer",
            Opaque::PathCheck(..) => "kubernetes.authorization.PathCheck",
            Opaque::GroupCheck(..) => "kubernetes.authorization.GroupCheck",
            Opaque::ResourceCheck(..) => "kubernetes.authorization.ResourceCheck",
            Opaque::Decision(_) => "kubernetes.authorization.Decision",
            Opaque::Failed(_) => "error",
        }
    }

    /// Bytes of an address, characters of a URL's; `None` for what has no size.
    pub(crate) fn size(&self) -> Option<u64> {
        let bytes = |v4: bool| if v4 { 4 } else { 16 };
        match self {
            Opaque::Ip(ip) => Some(bytes(ip.is_ipv4())),
            Opaque::Cidr(net) => Some(bytes(net.addr().is_ipv4())),
            _ => None,
        }
    }

    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Opaque::Url(a), Opaque::Url(b)) => a == b,
            (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
            (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
            (Opaque::Cidr(a), Opaque::Cidr(b)) => a == b,
            (Opaque::Semver(a), Opaque::Semver(b)) => a.cmp(b) == std::cmp::Ordering::Equal,
            (Opaque::Format(a), Opaque::Format(b)) => a.name == b.name,
            _ => false,
        }
    }
}
