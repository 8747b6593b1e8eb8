//! The etcd backend: the same store in an etcd cluster (API v3, etcd 3.4 and later), over gRPC.
//!
//! Revisions, transactions, ranges and watches are etcd's own. Times to live are leases ([`lease`]), a watch is one stream
//! that is opened again where it broke off ([`watch`]), and calls go to whichever endpoint answers ([`transport`]).

mod lease;
mod proto;
mod transport;
mod watch;

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use self::lease::Leases;
use self::proto::{
    COMPACT, CompactionRequest, CompactionResponse, CompareTarget, DeleteRangeRequest, KeyValue, PutRequest, RANGE,
    RangeRequest, RangeResponse, RequestOp, TXN, TxnRequest, TxnResponse, WATCH, WatchCreateRequest, WatchRequest,
    WatchResponse,
};
use self::transport::{Repeat, Transport};
use crate::api::{
    Compare, Op, Range, RangeResult, Record, Revision, Store, StoreError, Txn, TxnResult, WatchOptions, Watcher,
};
use crate::embedded::Export;

/// Largest value sent: etcd's own limit of a request, in bytes.
const VALUE_BYTES: usize = 3 << 19;
/// Records of the first page of a range.
const FIRST_PAGE: usize = 128;
/// Records of the largest page.
const LARGEST_PAGE: usize = 8192;
/// What a page should hold, in bytes: the next one is made smaller or larger accordingly.
const PAGE_BYTES: usize = 4 << 20;
/// Tries of a transaction whose lease was not known any more.
const LEASE_ATTEMPTS: usize = 2;

/// Where the etcd cluster is, and how it is spoken to.
#[derive(Clone, Debug, Default)]
pub struct EtcdOptions {
    /// `http://` or `https://` URLs of the members, without a path.
    pub endpoints: Vec<String>,
    /// The CA that signed the members' certificates.
    pub ca_pem: Option<String>,
    /// Our certificate and its key.
    pub client_pem: Option<(String, String)>,
}

/// The store in an etcd cluster, which may have other users: only what is written here is touched.
#[derive(Debug)]
pub struct EtcdStore {
    transport: Arc<Transport>,
    leases: Leases,
    /// The revision that all watchers shall report once they reach it.
    wanted: tokio::sync::watch::Sender<Revision>,
    closed: CancellationToken,
}

impl EtcdStore {
    /// Opens no connection yet: the first call does. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Endpoint`] for what is no address, or certificates that cannot be used.
    pub fn new(options: &EtcdOptions) -> Result<Self, StoreError> {
        Ok(EtcdStore {
            transport: Arc::new(Transport::new(options)?),
            leases: Leases::default(),
            wanted: tokio::sync::watch::Sender::new(0),
            closed: CancellationToken::new(),
        })
    }

    fn open(&self) -> Result<(), StoreError> {
        if self.closed.is_cancelled() { Err(StoreError::Closed) } else { Ok(()) }
    }

    async fn read(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        self.open()?;
        match self.transport.unary(RANGE, request, Repeat::Always).await {
            Ok(answer) => Ok(answer),
            Err(status) => Err(self.history_failure(status, request.revision).await),
        }
    }

    /// A failed call for an old or future revision, with what etcd leaves out of its answer.
    async fn history_failure(&self, status: Status, requested: i64) -> StoreError {
        if status.code() != Code::OutOfRange {
            return failure(&status);
        }
        let requested = revision_of(requested);
        if status.message().contains("compacted") {
            match self.compacted().await {
                Ok(oldest) => StoreError::Compacted { requested, oldest },
                Err(error) => error,
            }
        } else {
            match self.revision().await {
                Ok(current) => StoreError::Future { requested, current },
                Err(error) => error,
            }
        }
    }

    /// The revision of the newest compaction, which only a watch from before it is told. There must have been one.
    async fn compacted(&self) -> Result<Revision, StoreError> {
        let key = Bytes::from_static(b"\0");
        let create = WatchCreateRequest { key, start_revision: 1, ..Default::default() };
        let messages = futures::stream::iter([WatchRequest { create: Some(create) }]).chain(futures::stream::pending());
        let (_, mut stream) = self.transport.stream(WATCH, messages).await.map_err(|status| failure(&status))?;
        let answer = async {
            while let Some(WatchResponse { compact_revision, .. }) =
                stream.message().await.map_err(|status| failure(&status))?
            {
                if compact_revision > 0 {
                    return Ok(revision_of(compact_revision));
                }
            }
            Err(StoreError::Unreachable { detail: "the watch ended".into() })
        };
        match tokio::time::timeout(transport::CALL_TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Unreachable { detail: "the datastore did not answer in time".into() }),
        }
    }

    async fn request(&self, txn: &Txn) -> Result<TxnRequest, StoreError> {
        let mut success = Vec::with_capacity(txn.ops.len());
        for op in &txn.ops {
            success.push(match op {
                Op::Put { key, value, ttl } => {
                    let lease = match ttl {
                        Some(ttl) => {
                            self.leases.for_ttl(&self.transport, *ttl).await.map_err(|status| failure(&status))?
                        }
                        None => 0,
                    };
                    let put = PutRequest { key: key.clone(), value: value.clone(), lease };
                    RequestOp { put: Some(put), ..Default::default() }
                }
                Op::Delete { key } => {
                    let delete = DeleteRangeRequest { key: key.clone() };
                    RequestOp { delete_range: Some(delete), ..Default::default() }
                }
            });
        }
        let compare = txn.compare.iter().map(|compare| match compare {
            Compare::Absent(key) => proto::Compare {
                target: CompareTarget::Version.into(),
                key: key.clone(),
                version: Some(0),
                mod_revision: None,
            },
            Compare::ModRevision(key, revision) => proto::Compare {
                target: CompareTarget::Mod.into(),
                key: key.clone(),
                version: None,
                // An absent key has 0 there, which must not pass for a key that exists.
                mod_revision: Some(if *revision == 0 { -1 } else { number(*revision) }),
            },
        });
        let failure = txn.compare.iter().map(|compare| {
            let (Compare::Absent(key) | Compare::ModRevision(key, _)) = compare;
            let range = RangeRequest { key: key.clone(), ..Default::default() };
            RequestOp { range: Some(range), ..Default::default() }
        });
        Ok(TxnRequest { compare: compare.collect(), success, failure: failure.collect() })
    }
}

#[async_trait]
impl Store for EtcdStore {
    fn is_shared(&self) -> bool {
        true
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError> {
        self.open()?;
        for op in &txn.ops {
            let size = op.key().len() + if let Op::Put { value, .. } = op { value.len() } else { 0 };
            if size > VALUE_BYTES {
                return Err(StoreError::TooLarge { size, limit: VALUE_BYTES });
            }
        }
        if let Some(key) = txn.duplicate_key() {
            return Err(StoreError::DuplicateKey { key: key.clone() });
        }
        let mut attempt = 1;
        let answer: TxnResponse = loop {
            let request = self.request(&txn).await?;
            match self.transport.unary(TXN, &request, Repeat::IfUnsent).await {
                Ok(answer) => break answer,
                Err(status) if status.code() == Code::NotFound && attempt < LEASE_ATTEMPTS => {
                    self.leases.forget();
                    attempt += 1;
                }
                Err(status) if status.message().contains("request is too large") => {
                    let size = prost::Message::encoded_len(&request);
                    return Err(StoreError::TooLarge { size, limit: VALUE_BYTES });
                }
                Err(status) => return Err(failure(&status)),
            }
        };
        let revision = answer.header.map_or(0, |header| revision_of(header.revision));
        if answer.succeeded {
            return Ok(TxnResult::Committed { revision });
        }
        let found = |response: proto::ResponseOp| response.range?.kvs.into_iter().next().map(record);
        Ok(TxnResult::Conflict { revision, current: answer.responses.into_iter().map(found).collect() })
    }

    async fn get(&self, key: &[u8]) -> Result<(Revision, Option<Record>), StoreError> {
        let answer = self.read(&RangeRequest { key: Bytes::copy_from_slice(key), ..Default::default() }).await?;
        let revision = answer.header.map_or(0, |header| revision_of(header.revision));
        Ok((revision, answer.kvs.into_iter().next().map(record)))
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        if range.start >= range.end {
            let revision = match range.revision {
                Some(revision) => revision,
                None => self.revision().await?,
            };
            return Ok(RangeResult { records: Vec::new(), revision, more: false, count: 0 });
        }
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let mut request = RangeRequest {
            key: range.start,
            range_end: range.end,
            revision: range.revision.map_or(0, number),
            ..Default::default()
        };
        let mut records: Vec<Record> = Vec::new();
        let (mut page, mut total) = (FIRST_PAGE, None);
        let (revision, more) = loop {
            request.limit = i64::try_from(page.min(limit - records.len())).unwrap_or(i64::MAX);
            let answer = self.read(&request).await?;
            if request.revision == 0 {
                // All pages are of one revision.
                request.revision = answer.header.map_or(0, |header| header.revision);
            }
            // The count is of what this page's request named: the first one's is of the whole range.
            total.get_or_insert(answer.count);
            let bytes: usize = answer.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
            let next = if bytes > PAGE_BYTES { page / 2 } else { page * 2 };
            page = next.clamp(1, LARGEST_PAGE);
            records.extend(answer.kvs.into_iter().map(record));
            match records.last() {
                Some(last) if answer.more && records.len() < limit => {
                    request.key = [&last.key[..], b"\0"].concat().into();
                }
                _ => break (revision_of(request.revision), answer.more),
            }
        };
        let count = match total {
            Some(total) if range.count => usize::try_from(total).unwrap_or_default(),
            _ => records.len(),
        };
        Ok(RangeResult { records, revision, more, count })
    }

    async fn watch(&self, options: WatchOptions) -> Result<Watcher, StoreError> {
        let WatchOptions { prefix, from, buffer_bytes } = options;
        let from = from.max(1);
        // Reading the state just before tells whether it is compacted away; one in the future is waited for.
        let before = RangeRequest {
            key: Bytes::from_static(b"\0"),
            count_only: true,
            revision: number((from - 1).max(1)),
            ..Default::default()
        };
        match self.read(&before).await {
            Ok(_) | Err(StoreError::Future { .. }) => {}
            Err(StoreError::Compacted { oldest, .. }) => {
                return Err(StoreError::Compacted { requested: from, oldest: oldest + 1 });
            }
            Err(error) => return Err(error),
        }
        let (sender, watcher) = crate::watch::channel(prefix.clone(), from, buffer_bytes, VecDeque::new(), None);
        let feed = watch::Feed {
            transport: self.transport.clone(),
            prefix,
            sender,
            delivered: from - 1,
            told: from - 1,
            wanted: self.wanted.subscribe(),
            closed: self.closed.clone(),
        };
        tokio::spawn(feed.run());
        Ok(watcher)
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        let any = RangeRequest { key: Bytes::from_static(b"\0"), count_only: true, ..Default::default() };
        self.open()?;
        let answer: Result<RangeResponse, Status> = self.transport.unary(RANGE, &any, Repeat::Always).await;
        let answer = answer.map_err(|status| failure(&status))?;
        Ok(answer.header.map_or(0, |header| revision_of(header.revision)))
    }

    async fn progress(&self) -> Result<(), StoreError> {
        let revision = self.revision().await?;
        self.wanted.send_modify(|wanted| *wanted = revision.max(*wanted));
        Ok(())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.open()?;
        let request = CompactionRequest { revision: number(revision) };
        let done: Result<CompactionResponse, Status> = self.transport.unary(COMPACT, &request, Repeat::Always).await;
        match done {
            Ok(_) => Ok(()),
            // Another server of the cluster was there before.
            Err(status) if status.code() == Code::OutOfRange && status.message().contains("compacted") => Ok(()),
            Err(status) => Err(self.history_failure(status, request.revision).await),
        }
    }

    async fn export(&self) -> Result<Export, StoreError> {
        Err(StoreError::Refused { detail: "an etcd cluster is saved with its own etcdctl snapshot save".to_owned() })
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.closed.cancel();
        Ok(())
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

fn failure(status: &Status) -> StoreError {
    match status.code() {
        // A handshake that the other side ends looks like a call that was cancelled; we cancel none.
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled => {
            StoreError::Unreachable { detail: transport::describe(status) }
        }
        _ => StoreError::Refused { detail: status.message().to_owned() },
    }
}

fn record(kv: KeyValue) -> Record {
    Record {
        key: kv.key.into(),
        value: kv.value.into(),
        create_revision: revision_of(kv.create_revision),
        mod_revision: revision_of(kv.mod_revision),
        version: revision_of(kv.version),
    }
}

/// A revision as etcd writes it.
fn number(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// A revision, or a version, that etcd wrote.
fn revision_of(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
