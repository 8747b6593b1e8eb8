use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use nlink::netlink::nftables::{Chain, Family, Rule, RuleSpec, Set, SetElement, Transaction, Verdict};
use nlink::netlink::{Connection, Nftables};

use super::{ChainSpec, Ruleset, SetKind, SetSpec};

#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("nftables socket cannot be opened")]
    Socket(#[source] nlink::Error),
    #[error("nftables tables cannot be listed")]
    List(#[source] nlink::Error),
    #[error("nftables chain name {name:?} is not valid")]
    ChainName {
        name: String,
        #[source]
        source: nlink::Error,
    },
    #[error("nftables table {table} cannot be changed")]
    Commit {
        table: String,
        #[source]
        source: nlink::Error,
    },
    #[error("nftables table {table} cannot be removed")]
    Remove {
        table: String,
        #[source]
        source: nlink::Error,
    },
}

/// How much an application changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The table was built anew.
    pub replaced: bool,
    pub chains: usize,
    pub elements: usize,
}

impl Applied {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One table of family `ip`, and what it holds.
pub struct Table {
    name: String,
    nft: Connection<Nftables>,
    applied: Option<Ruleset>,
}

/// One transaction carries all rules of a large cluster; the kernel's default of about 200 KiB is too small for that.
const SOCKET_BUFFER_BYTES: usize = 64 << 20;
/// The elements of one message share an attribute of at most 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 256;

impl Table {
    /// Does not touch the kernel's table yet.
    pub fn open(name: &str) -> Result<Self, NftError> {
        Ok(Self { name: name.to_owned(), nft: connect()?, applied: None })
    }

    /// What was applied last; `None` before the first application and after a failed one.
    pub fn applied(&self) -> Option<&Ruleset> {
        self.applied.as_ref()
    }

    /// Brings the kernel from what was applied last to `wanted`, in one transaction. When that fails nothing has changed,
    /// and the next application replaces the whole table.
    pub async fn apply(&mut self, wanted: Ruleset) -> Result<Applied, NftError> {
        let previous = self.applied.take().filter(|previous| compatible(previous, &wanted));
        let (transaction, applied) = match &previous {
            Some(previous) => self.difference(previous, &wanted)?,
            None => self.replacement(&wanted).await?,
        };
        if !applied.is_empty() {
            let commit = transaction.commit(&self.nft).await;
            commit.map_err(|source| NftError::Commit { table: self.name.clone(), source })?;
        }
        self.applied = Some(wanted);
        Ok(applied)
    }

    /// Removes the table; succeeds if there is none.
    pub async fn remove(&mut self) -> Result<(), NftError> {
        self.applied = None;
        match self.nft.del_table_if_exists(self.name.as_str(), Family::Ip).await {
            Ok(_) => Ok(()),
            Err(source) => Err(NftError::Remove { table: self.name.clone(), source }),
        }
    }

    async fn replacement(&self, wanted: &Ruleset) -> Result<(Transaction, Applied), NftError> {
        let tables = self.nft.list_tables_in(Family::Ip).await.map_err(NftError::List)?;
        let mut transaction = self.nft.transaction();
        if tables.iter().any(|table| table.name == self.name) {
            transaction = transaction.del_table(&self.name, Family::Ip);
        }
        transaction = transaction.add_table(&self.name, Family::Ip);
        let (transaction, mut applied) = self.change(transaction, &Ruleset::default(), wanted)?;
        applied.replaced = true;
        Ok((transaction, applied))
    }

    fn difference(&self, previous: &Ruleset, wanted: &Ruleset) -> Result<(Transaction, Applied), NftError> {
        self.change(self.nft.transaction(), previous, wanted)
    }

    /// Appends what leads from `previous` to `wanted`, in the order the kernel needs: what is referred to before what refers
    /// to it, and the other way round for removals.
    fn change(
        &self,
        mut transaction: Transaction,
        previous: &Ruleset,
        wanted: &Ruleset,
    ) -> Result<(Transaction, Applied), NftError> {
        let mut applied = Applied::default();
        for (name, spec) in wanted.sets.iter().filter(|(name, _)| !previous.sets.contains_key(*name)) {
            transaction = transaction.add_set(self.set(name, spec));
            applied.elements += 1;
        }
        for (name, spec) in wanted.chains.iter().filter(|(name, _)| !previous.chains.contains_key(*name)) {
            transaction = transaction.add_chain(self.chain(name, spec)?);
        }
        for (name, spec) in &wanted.chains {
            let before = previous.chains.get(name);
            if before == Some(spec) {
                continue;
            }
            if before.is_some_and(|before| !before.rules.is_empty()) {
                transaction = transaction.flush_chain(&self.name, name, Family::Ip);
            }
            transaction = self.rules(transaction, name, spec);
            applied.chains += 1;
        }
        for (name, spec) in &wanted.sets {
            let none = SetSpec { key: spec.key.clone(), kind: spec.kind, elements: Default::default() };
            let before = previous.sets.get(name).unwrap_or(&none);
            let set = self.set(name, spec);
            let gone = before.elements.iter().filter(|(key, verdict)| spec.elements.get(*key) != Some(verdict));
            let gone: Vec<SetElement> = gone.map(|(key, _)| SetElement::new(key.clone())).collect();
            let fresh = spec.elements.iter().filter(|(key, verdict)| before.elements.get(*key) != Some(verdict));
            let fresh: Vec<SetElement> = fresh.map(|(key, verdict)| element(key, verdict.as_ref())).collect();
            applied.elements += gone.len() + fresh.len();
            for some in gone.chunks(ELEMENTS_PER_MESSAGE) {
                transaction = transaction.del_set_elements(&set, some);
            }
            for some in fresh.chunks(ELEMENTS_PER_MESSAGE) {
                transaction = transaction.add_set_elements(&set, some);
            }
        }
        let gone: Vec<&String> = previous.chains.keys().filter(|name| !wanted.chains.contains_key(*name)).collect();
        for name in &gone {
            // Chains that are removed may jump to one another: empty all first.
            transaction = transaction.flush_chain(&self.name, name, Family::Ip);
        }
        for name in gone {
            transaction = transaction.del_chain(&self.name, name, Family::Ip);
            applied.chains += 1;
        }
        for name in previous.sets.keys().filter(|name| !wanted.sets.contains_key(*name)) {
            transaction = transaction.del_set(&self.name, name, Family::Ip);
            applied.elements += 1;
        }
        Ok((transaction, applied))
    }

    fn chain(&self, name: &str, spec: &ChainSpec) -> Result<Chain, NftError> {
        let chain = Chain::new(self.name.as_str(), name);
        let chain = chain.map_err(|source| NftError::ChainName { name: name.to_owned(), source })?.family(Family::Ip);
        Ok(match &spec.base {
            Some(base) => chain.base(base.clone()),
            None => chain,
        })
    }

    fn rules(&self, mut transaction: Transaction, chain: &str, spec: &ChainSpec) -> Transaction {
        for rule in &spec.rules {
            let rule: RuleSpec = rule.clone();
            transaction = transaction.add_rule(Rule::from_spec(&self.name, chain, rule).family(Family::Ip));
        }
        transaction
    }

    fn set(&self, name: &str, spec: &SetSpec) -> Set {
        let set = Set::new(&self.name, name).family(Family::Ip).key_type(spec.key.clone());
        match spec.kind {
            SetKind::Set => set,
            SetKind::VerdictMap => set.vmap(),
            SetKind::Dynamic => set.dynamic().per_element_timeouts(),
        }
    }
}

fn element(key: &[u8], verdict: Option<&Verdict>) -> SetElement {
    let element = SetElement::new(key.to_vec());
    match verdict {
        Some(verdict) => element.verdict(verdict.clone()),
        None => element,
    }
}

/// Opens a connection that takes large transactions.
pub(crate) fn connect() -> Result<Connection<Nftables>, NftError> {
    let nft = Connection::<Nftables>::new().map_err(NftError::Socket)?;
    let socket = nft.socket();
    // Needs CAP_NET_ADMIN over the host's user namespace; without it large clusters alone suffer.
    if setsockopt(&socket.as_fd(), sockopt::SndBufForce, &SOCKET_BUFFER_BYTES).is_err() {
        tracing::debug!("netlink send buffer cannot be enlarged");
    }
    if socket.set_rcvbuf(SOCKET_BUFFER_BYTES).is_err() {
        tracing::debug!("netlink receive buffer cannot be enlarged");
    }
    Ok(nft)
}

/// Whether one can become the other by increments: sets and base chains that are in both are the same kind.
fn compatible(previous: &Ruleset, wanted: &Ruleset) -> bool {
    let sets = wanted.sets.iter().all(|(name, set)| {
        previous.sets.get(name).is_none_or(|previous| previous.key == set.key && previous.kind == set.kind)
    });
    let chains = wanted
        .chains
        .iter()
        .all(|(name, chain)| previous.chains.get(name).is_none_or(|previous| previous.base == chain.base));
    sets && chains
}
