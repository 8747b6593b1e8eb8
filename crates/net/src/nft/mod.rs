//! nftables tables of ours: what they should hold as plain values, and the applier that brings them there.
//!
//! A [`Ruleset`] is compared with the one applied last; only the difference is sent, as one transaction, so a packet sees the
//! old rules or the new ones and never a mixture. The first application replaces whatever table of that name is there.

pub(crate) mod rule;
mod table;

use std::collections::BTreeMap;

use nlink::netlink::nftables::{BaseChain, RuleSpec, SetKeyType, Verdict};

pub(crate) use table::connect;
pub use table::{Applied, NftError, Table};

/// What one table must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub chains: BTreeMap<String, ChainSpec>,
    pub sets: BTreeMap<String, SetSpec>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainSpec {
    /// `None` is a chain that others jump to.
    pub base: Option<BaseChain>,
    pub rules: Vec<RuleSpec>,
}

/// A set or map. Its key and kind are fixed for a name: a change of them replaces the whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSpec {
    pub key: SetKeyType,
    pub kind: SetKind,
    /// Key bytes as the kernel holds them (see [`key`]); the verdict only in a verdict map. Empty for `Dynamic`.
    pub elements: BTreeMap<Vec<u8>, Option<Verdict>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetKind {
    /// Membership.
    Set,
    /// Key to verdict.
    VerdictMap,
    /// Filled by rules, each element with a timeout of its own; the applier leaves its elements alone.
    Dynamic,
}

impl Ruleset {
    pub fn base_chain(&mut self, name: &str, base: BaseChain, rules: Vec<RuleSpec>) {
        self.chains.insert(name.to_owned(), ChainSpec { base: Some(base), rules });
    }

    pub fn chain(&mut self, name: &str, rules: Vec<RuleSpec>) {
        self.chains.insert(name.to_owned(), ChainSpec { base: None, rules });
    }

    /// Declares a set; `elements` are added by [`Ruleset::element`].
    pub fn set(&mut self, name: &str, key: SetKeyType, kind: SetKind) {
        self.sets.insert(name.to_owned(), SetSpec { key, kind, elements: BTreeMap::new() });
    }

    /// Adds an element to a declared set; the first of two with one key stays.
    pub fn element(&mut self, set: &str, key: Vec<u8>, verdict: Option<Verdict>) {
        if let Some(set) = self.sets.get_mut(set) {
            set.elements.entry(key).or_insert(verdict);
        }
    }
}

/// Key bytes: every part padded to four bytes, as the kernel lays a concatenation out.
pub mod key {
    use std::net::Ipv4Addr;

    /// `ipv4_addr`.
    pub fn address(address: Ipv4Addr) -> Vec<u8> {
        address.octets().to_vec()
    }

    /// `inet_proto . inet_service`.
    pub fn port(protocol: u8, port: u16) -> Vec<u8> {
        let [high, low] = port.to_be_bytes();
        vec![protocol, 0, 0, 0, high, low, 0, 0]
    }

    /// `ipv4_addr . inet_proto . inet_service`.
    pub fn address_port(address: Ipv4Addr, protocol: u8, port: u16) -> Vec<u8> {
        let mut key = self::address(address);
        key.extend(self::port(protocol, port));
        key
    }
}
