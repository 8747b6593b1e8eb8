//! How each registry and mirror has answered, remembered over restarts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kminik_base::atomic_file;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::mirrors::Place;

/// A place whose last word was a failure counts as unwell for so long.
const UNWELL: Duration = Duration::from_secs(600);
/// Most places kept.
const MAX_PLACES: usize = 500;
const MAX_FILE_BYTES: u64 = 1024 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// Seconds since 1970.
    last_ok: u64,
    last_failure: u64,
    /// Mean over the last blobs, the newest weighing a third.
    bytes_per_second: Option<u64>,
    /// It sends a blob from its beginning, whatever is asked.
    ignores_ranges: bool,
    #[serde(skip)]
    not_before: Option<Instant>,
}

/// What is remembered of a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Experience {
    /// Seconds since 1970; `None` is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_worked: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

/// The memory; kept in `places.json`.
pub(crate) struct Health {
    path: PathBuf,
    records: Mutex<BTreeMap<String, Record>>,
}

impl Health {
    /// A file that cannot be read is forgotten: it only holds experience.
    pub(crate) fn load(path: PathBuf) -> Health {
        let bytes = atomic_file::read_optional(&path, MAX_FILE_BYTES).ok().flatten().unwrap_or_default();
        let records = serde_json::from_slice(&bytes).unwrap_or_default();
        let health = Health { path, records: Mutex::new(records) };
        if bytes.is_empty() {
            health.save();
        }
        health
    }

    pub(crate) fn save(&self) {
        let mut records = self.records.lock().clone();
        while records.len() > MAX_PLACES {
            let oldest = records.iter().min_by_key(|(_, record)| record.last_ok.max(record.last_failure));
            let Some(oldest) = oldest.map(|(base, _)| base.clone()) else { break };
            records.remove(&oldest);
        }
        let bytes = serde_json::to_vec(&records).unwrap_or_default();
        if let Err(error) = atomic_file::write(&self.path, &bytes, atomic_file::PUBLIC) {
            tracing::warn!(error = %error, "cannot remember how registries answered");
        }
    }

    pub(super) fn ok(&self, place: &Place) {
        self.change(place, |record| record.last_ok = now());
    }

    pub(super) fn failed(&self, place: &Place) {
        self.change(place, |record| record.last_failure = now());
    }

    pub(super) fn busy_until(&self, place: &Place, when: Instant) {
        self.change(place, |record| record.not_before = Some(when));
    }

    pub(super) fn ignores_ranges(&self, place: &Place, ignores: bool) {
        self.change(place, |record| record.ignores_ranges = ignores);
    }

    pub(super) fn measured(&self, place: &Place, bytes: u64, took: Duration) {
        // Small blobs measure the latency, not the speed.
        if bytes < 256 * 1024 {
            return;
        }
        let speed = (bytes as f64 / took.as_secs_f64().max(0.001)) as u64;
        self.change(place, |record| {
            record.bytes_per_second = Some(record.bytes_per_second.map_or(speed, |old| (2 * old + speed) / 3));
        });
    }

    pub(crate) fn experience(&self, place: &Place) -> Experience {
        let some = |seconds: u64| (seconds > 0).then_some(seconds);
        self.read(place, |record| Experience {
            last_worked: some(record.last_ok),
            last_failed: some(record.last_failure),
            bytes_per_second: record.bytes_per_second,
        })
    }

    /// Its last word, not long ago, was a failure.
    pub(super) fn is_unwell(&self, place: &Place) -> bool {
        self.read(place, |record| {
            record.last_failure > record.last_ok && now().saturating_sub(record.last_failure) < UNWELL.as_secs()
        })
    }

    /// How long it still asks not to be asked.
    pub(super) fn wait(&self, place: &Place) -> Duration {
        let until = self.read(place, |record| record.not_before);
        until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default()
    }

    pub(super) fn can_resume(&self, place: &Place) -> bool {
        !self.read(place, |record| record.ignores_ranges)
    }

    /// What a blob of a megabyte would take, as far as is known.
    pub(super) fn megabyte(&self, place: &Place) -> Duration {
        let speed = self.read(place, |record| record.bytes_per_second);
        speed.map_or(Duration::ZERO, |speed| Duration::from_secs_f64(1e6 / speed.max(1) as f64))
    }

    fn change(&self, place: &Place, change: impl FnOnce(&mut Record)) {
        change(self.records.lock().entry(place.base.as_str().to_owned()).or_default());
    }

    fn read<T: Default>(&self, place: &Place, read: impl FnOnce(&Record) -> T) -> T {
        self.records.lock().get(place.base.as_str()).map(read).unwrap_or_default()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}
