//! Everything kminik does to the kernel's network: the pod network, the service proxy, routes between nodes, and the
//! host side of native nodes.
//!
//! Owns, in a node's network namespace: the pod bridge and its veth pairs, nftables tables `ip kminik-pods` and
//! `ip kminik-services`, routes with protocol 107, the address file of the pod network. On the host ([`hostnet`]): one
//! bridge and one nftables table a profile, tagged rules in other owners' chains, `net.ipv4.ip_forward`, and the record of
//! them all.
//!
//! **Invariant:** what rules should be is computed as plain values ([`nft::Ruleset`]); one applier brings them to the kernel.
//! **Invariant:** no other program is run; all goes through netlink and /proc/sys.
//! **Invariant:** code acts in the network namespace of the thread that calls it, unless a namespace is given by path.

pub mod hostnet;
pub mod nft;
pub mod pod;
pub mod proxy;
pub mod routes;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
pub use link::LinkError;

mod link;
mod names;
mod sysctl;

/// The network that this address of the calling thread's namespace is in; `None` if no link has it.
///
/// # Errors
/// When netlink cannot be asked.
pub async fn network_of(address: Ipv4Addr) -> Result<Option<Ipv4Net>, LinkError> {
    link::Links::here()?.network_of(address).await
}
