//! Answers of others, until they expire; the least recently stored go first when the bound on bytes is reached.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use parking_lot::Mutex;
use tokio::time::Instant;

type Key = (Name, RecordType);

pub(crate) struct Cache {
    entries: Mutex<Entries>,
    limit_bytes: usize,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<Key, Entry>,
    /// Oldest first; an entry that was replaced is in it twice, known by its number.
    order: VecDeque<(Key, u64)>,
    bytes: usize,
    next: u64,
}

struct Entry {
    message: Message,
    stored: Instant,
    lifetime: Duration,
    bytes: usize,
    number: u64,
}

/// As CoreDNS is configured for clusters: nothing of others is kept longer.
const LONGEST: Duration = Duration::from_secs(30);

impl Cache {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { entries: Mutex::default(), limit_bytes }
    }

    /// The stored answer, its records' lifetimes reduced by its age.
    pub(crate) fn get(&self, name: &Name, kind: RecordType) -> Option<Message> {
        let entries = self.entries.lock();
        let entry = entries.by_key.get(&(name.to_lowercase(), kind))?;
        let age = entry.stored.elapsed();
        if age >= entry.lifetime {
            return None;
        }
        let mut message = entry.message.clone();
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        for record in message.answers.iter_mut().chain(&mut message.authorities).chain(&mut message.additionals) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(message)
    }

    /// Stores an answer of `bytes` on the wire if it may be stored.
    pub(crate) fn put(&self, name: &Name, kind: RecordType, message: &Message, bytes: usize) {
        let Some(lifetime) = lifetime(message) else { return };
        // What the maps and the parsed form take beside the bytes of the wire.
        let bytes = bytes * 4 + 256;
        if bytes > self.limit_bytes / 16 {
            return;
        }
        let mut entries = self.entries.lock();
        let key = (name.to_lowercase(), kind);
        let number = entries.next;
        entries.next += 1;
        entries.bytes += bytes;
        let entry = Entry { message: message.clone(), stored: Instant::now(), lifetime, bytes, number };
        if let Some(old) = entries.by_key.insert(key.clone(), entry) {
            entries.bytes -= old.bytes;
        }
        entries.order.push_back((key, number));
        while entries.bytes > self.limit_bytes || entries.order.len() > 2 * entries.by_key.len() + 16 {
            let Some((key, number)) = entries.order.pop_front() else { break };
            if entries.by_key.get(&key).is_some_and(|entry| entry.number == number)
                && let Some(old) = entries.by_key.remove(&key)
            {
                entries.bytes -= old.bytes;
            }
        }
    }
}

/// How long an answer may be kept; `None` if not at all.
fn lifetime(message: &Message) -> Option<Duration> {
    if message.metadata.truncation {
        return None;
    }
    let seconds = match message.metadata.response_code {
        ResponseCode::NoError if !message.answers.is_empty() => {
            message.answers.iter().map(|record| record.ttl).min()?
        }
        // How long an absence holds is in the SOA record beside it.
        ResponseCode::NoError | ResponseCode::NXDomain => {
            let soa = message.authorities.iter().find_map(|record| match &record.data {
                RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                _ => None,
            });
            soa?
        }
        _ => return None,
    };
    let lifetime = Duration::from_secs(u64::from(seconds)).min(LONGEST);
    (!lifetime.is_zero()).then_some(lifetime)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::op::OpCode;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::A;

    use super::*;

    fn message(name: &Name, ttl: u32) -> Message {
        let mut message = Message::response(1, OpCode::Query);
        message.add_answer(Record::from_rdata(name.clone(), ttl, RData::A(A(Ipv4Addr::LOCALHOST))));
        message
    }

    #[tokio::test(start_paused = true)]
    async fn ages_and_expires() {
        let cache = Cache::new(1 << 20);
        let name = Name::from_ascii("Example.org.").unwrap();
        cache.put(&name, RecordType::A, &message(&name, 20), 50);
        tokio::time::advance(Duration::from_secs(8)).await;
        let found = cache.get(&Name::from_ascii("example.ORG.").unwrap(), RecordType::A).unwrap();
        assert_eq!(found.answers[0].ttl, 12);
        assert!(cache.get(&name, RecordType::AAAA).is_none());
        tokio::time::advance(Duration::from_secs(12)).await;
        assert!(cache.get(&name, RecordType::A).is_none());
        cache.put(&name, RecordType::A, &message(&name, 0), 50);
        assert!(cache.get(&name, RecordType::A).is_none());
        cache.put(&name, RecordType::A, &message(&name, 900), 50);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(cache.get(&name, RecordType::A).is_none(), "the longest is 30 s");
    }

    #[tokio::test(start_paused = true)]
    async fn stays_within_its_bound() {
        let cache = Cache::new(64 << 10);
        for round in 0..10_000 {
            let name = Name::from_ascii(format!("n{}.example.", round % 700)).unwrap();
            cache.put(&name, RecordType::A, &message(&name, 30), 100);
        }
        let entries = cache.entries.lock();
        assert!(entries.bytes <= 64 << 10 && entries.by_key.len() > 50);
        assert!(entries.order.len() <= 2 * entries.by_key.len() + 16);
    }
}
