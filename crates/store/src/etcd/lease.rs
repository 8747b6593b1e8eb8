//! Times to live as etcd's leases. Keys with the same time share a lease that lives a little longer, so that a stream of
//! short-lived objects does not make a lease each.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tonic::Status;

use super::proto::{LEASE_GRANT, LeaseGrantRequest, LeaseGrantResponse};
use super::transport::{Repeat, Transport};

/// A lease takes keys for this share of its time, and for no longer than [`SHARED_MOST`].
const SHARED_PART: u32 = 20;
const SHARED_MOST: Duration = Duration::from_secs(60);
/// Keys of one lease: etcd deletes them in one go.
const KEYS: u32 = 1000;

#[derive(Debug, Default)]
pub(super) struct Leases {
    /// The lease that still takes keys, by time to live in seconds.
    open: Mutex<HashMap<u64, Lease>>,
}

#[derive(Debug)]
struct Lease {
    id: i64,
    /// Until when it takes keys.
    until: Instant,
    keys: u32,
}

impl Leases {
    /// A lease that ends when `ttl` (rounded up to seconds, etcd's unit) has passed, or a little later.
    pub(super) async fn for_ttl(&self, transport: &Transport, ttl: Duration) -> Result<i64, Status> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let now = Instant::now();
        if let Some(lease) = self.open.lock().get_mut(&seconds)
            && now < lease.until
            && lease.keys < KEYS
        {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let shared = (ttl / SHARED_PART).min(SHARED_MOST);
        let granted = i64::try_from(seconds.saturating_add(shared.as_secs())).unwrap_or(i64::MAX);
        let request = LeaseGrantRequest { ttl: granted };
        let answer: LeaseGrantResponse = transport.unary(LEASE_GRANT, &request, Repeat::Always).await?;
        let mut open = self.open.lock();
        open.retain(|_, lease| now < lease.until);
        open.insert(seconds, Lease { id: answer.id, until: now + Duration::from_secs(shared.as_secs()), keys: 1 });
        Ok(answer.id)
    }

    /// The server does not know the leases that were given out: the next key gets a new one.
    pub(super) fn forget(&self) {
        self.open.lock().clear();
    }
}
