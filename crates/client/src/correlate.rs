//! Decides what becomes of an event: a new object, a higher count on an earlier one, or nothing.
//!
//! As upstream: an event equal to an earlier one raises its count; more than ten that differ only in their message within
//! ten minutes are merged into one; and each source may send 25 about an object at once, then one every five minutes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How many groups of events are remembered; beyond it the longest unused are forgotten.
const REMEMBERED: usize = 1024;
const SIMILAR: u32 = 10;
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

/// What two events have in common beside their message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Group {
    pub(crate) object_uid: String,
    pub(crate) object: String,
    pub(crate) event_type: &'static str,
    pub(crate) reason: String,
}

/// What to do with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Create it, with this message.
    Create { message: String },
    /// Raise the count of the event of that name, with this message.
    Count { name: String, count: i32, message: String },
    /// Too many about this object.
    Drop,
}

struct Series {
    name: String,
    count: i32,
}

struct Seen {
    used: Instant,
    /// By message; the merged series stands under `None`.
    series: HashMap<Option<String>, Series>,
    similar_since: Instant,
    similar: u32,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// Bounded memory of the events sent.
#[derive(Default)]
pub(crate) struct Correlator {
    groups: HashMap<Group, Seen>,
    buckets: HashMap<String, Bucket>,
}

impl Correlator {
    /// Judges an event that happens `now`.
    pub(crate) fn judge(&mut self, group: &Group, message: &str, now: Instant) -> Verdict {
        self.bound();
        let seen = self.groups.entry(group.clone()).or_insert_with(|| Seen {
            used: now,
            series: HashMap::new(),
            similar_since: now,
            similar: 0,
        });
        if now.duration_since(seen.similar_since) > SIMILAR_WITHIN {
            seen.similar = 0;
            seen.similar_since = now;
        }
        seen.used = now;
        let known = seen.series.contains_key(&Some(message.to_string()));
        if !known {
            seen.similar += 1;
        }
        let merged = !known && seen.similar > SIMILAR;
        let (slot, message) = if merged {
            (None, format!("(combined from similar events): {message}"))
        } else {
            (Some(message.to_string()), message.to_string())
        };
        let bucket = self
            .buckets
            .entry(group.object_uid.clone() + &group.object)
            .or_insert(Bucket { tokens: BURST, filled: now });
        let refilled = now.duration_since(bucket.filled).as_secs_f64() / REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + refilled).min(BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return Verdict::Drop;
        }
        bucket.tokens -= 1.0;
        match seen.series.get_mut(&slot) {
            Some(series) => {
                series.count += 1;
                Verdict::Count { name: series.name.clone(), count: series.count, message }
            }
            None => Verdict::Create { message },
        }
    }

    /// Remembers under which name an event was created.
    pub(crate) fn created(&mut self, group: &Group, message: &str, name: String) {
        if let Some(seen) = self.groups.get_mut(group) {
            let merged = message.starts_with("(combined from similar events): ");
            seen.series.insert((!merged).then(|| message.to_string()), Series { name, count: 1 });
        }
    }

    /// Forgets an event that the API server no longer has.
    pub(crate) fn forget(&mut self, group: &Group, name: &str) {
        if let Some(seen) = self.groups.get_mut(group) {
            seen.series.retain(|_, series| series.name != name);
        }
    }

    fn bound(&mut self) {
        if self.groups.len() >= REMEMBERED {
            let mut used: Vec<Instant> = self.groups.values().map(|seen| seen.used).collect();
            let middle = used.len() / 2;
            let (_, median, _) = used.select_nth_unstable(middle);
            let median = *median;
            self.groups.retain(|_, seen| seen.used > median);
        }
        if self.buckets.len() >= REMEMBERED {
            self.buckets.retain(|_, bucket| bucket.tokens < BURST - 1.0);
        }
        if self.buckets.len() >= REMEMBERED {
            self.buckets.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(object: &str) -> Group {
        Group { object_uid: "u".into(), object: object.into(), event_type: "Normal", reason: "R".into() }
    }

    fn create(correlator: &mut Correlator, group: &Group, message: &str, now: Instant) -> Verdict {
        let verdict = correlator.judge(group, message, now);
        if let Verdict::Create { message } = &verdict {
            correlator.created(group, message, format!("event-{message}"));
        }
        verdict
    }

    #[test]
    fn equal_events_are_counted() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        assert!(matches!(create(&mut correlator, &group("a"), "m", now), Verdict::Create { .. }));
        let second = create(&mut correlator, &group("a"), "m", now);
        assert_eq!(second, Verdict::Count { name: "event-m".into(), count: 2, message: "m".into() });
        assert!(matches!(create(&mut correlator, &group("b"), "m", now), Verdict::Create { .. }));
    }

    #[test]
    fn events_that_differ_in_their_message_are_merged() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        for n in 0..10 {
            let verdict = create(&mut correlator, &group("a"), &format!("m{n}"), now);
            assert_eq!(verdict, Verdict::Create { message: format!("m{n}") });
        }
        let merged = "(combined from similar events): m10".to_string();
        assert_eq!(create(&mut correlator, &group("a"), "m10", now), Verdict::Create { message: merged });
        assert!(matches!(create(&mut correlator, &group("a"), "m11", now), Verdict::Count { count: 2, .. }));
    }

    #[test]
    fn one_object_cannot_flood() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        let sent = (0..100).filter(|_| create(&mut correlator, &group("a"), "m", now) != Verdict::Drop).count();
        assert_eq!(sent, 25);
        let later = now + REFILL;
        assert_ne!(create(&mut correlator, &group("a"), "m", later), Verdict::Drop);
        assert_eq!(create(&mut correlator, &group("a"), "m", later), Verdict::Drop);
    }
}
