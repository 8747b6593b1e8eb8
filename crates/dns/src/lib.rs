//! DNS for pods: the cluster's own names, and everything else by way of the resolvers that the node uses.
//!
//! Owns: no file; the sockets it is told to listen on. Runs in the coredns pod ([`run`]) and, without a zone of its own,
//! in the agent on the host ([`DnsServer`]), whose loopback resolvers nodes reach through it.
//!
//! **Invariant:** what the answer to a question is, is a function of a [`Zone`] ([`Zone::answer`]), without time or network.
//! **Invariant:** no buffer grows with what clients send: the cache is bounded in bytes, requests in flight in number.

mod answer;
mod cache;
mod cluster;
mod forward;
mod health;
mod resolv;
mod server;
mod zone;

pub use answer::Reply;
pub use cluster::{ClusterDns, ClusterDnsConfig, DnsError, run};
pub use forward::{Forwarder, ForwarderConfig};
pub use resolv::nameservers;
pub use server::{DnsServer, ListenError};
pub use zone::Zone;
