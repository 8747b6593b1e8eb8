//! How many seats a request takes: lists by the bytes they touch, writes by the watchers that will be told.

use std::time::Duration;

use super::Widest;
use super::level::Work;
use super::meters::FlowMeters;
use crate::http::info::{Query, RequestInfo};
use crate::registry::{Registry, storage_prefix};

const BYTES_PER_SEAT: u64 = 100_000;
/// A list from the cache is sent while it is made, so that it never takes more memory at once.
const STREAMED_BYTES: u64 = 1_000_000;
const WATCHES_PER_SEAT: u32 = 10;
/// Widest that a write is taken for, of any level.
const MOST_WRITE_SEATS: u32 = 10;
/// What one event costs beyond the write itself, in seats times this.
const EVENT_DURATION: Duration = Duration::from_millis(5);

/// The work of a request, at most as wide as its level allows.
pub(crate) fn work(
    registry: &Registry,
    info: &RequestInfo,
    query: &Query,
    Widest(most): Widest,
    meters: &FlowMeters,
) -> Work {
    if !info.is_resource {
        return Work::ONE;
    }
    match info.verb.as_str() {
        "list" => list(registry, info, query, most),
        "watch" => {
            let from_scratch = matches!(query.get("resourceVersion"), None | Some("0"));
            if from_scratch || query.flag("sendInitialEvents") { list(registry, info, query, most) } else { Work::ONE }
        }
        "create" | "update" | "patch" | "delete" | "deletecollection" => write(registry, info, most, meters),
        _ => Work::ONE,
    }
}

fn list(registry: &Registry, info: &RequestInfo, query: &Query, most: u32) -> Work {
    if !info.name.is_empty() {
        return Work::ONE;
    }
    let Ok(row) = registry.row(&info.group, &info.resource) else { return Work::ONE };
    let Ok(prefix) = storage_prefix(&row) else { return Work::ONE };
    let snapshot = registry.cache().snapshot(prefix);
    let stored = snapshot.entries.len() as u64;
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
    let objects = limit.unwrap_or(stored).min(stored);
    // Objects of a resource are of a size: the first and the last tell enough.
    let ends = [snapshot.entries.get_min(), snapshot.entries.get_max()];
    let size = ends.iter().flatten().map(|(_, entry)| entry.value.len() as u64).max().unwrap_or_default();
    let bytes = objects.saturating_mul(size).min(STREAMED_BYTES);
    let seats = u32::try_from(bytes.div_ceil(BYTES_PER_SEAT)).unwrap_or(u32::MAX);
    Work { initial: seats.clamp(1, most.max(1)), ..Work::ONE }
}

fn write(registry: &Registry, info: &RequestInfo, most: u32, meters: &FlowMeters) -> Work {
    // A token is no event.
    if info.resource == "serviceaccounts" && info.subresource == "token" {
        return Work::ONE;
    }
    let Ok(row) = registry.row(&info.group, &info.resource) else { return Work::ONE };
    let Ok(prefix) = storage_prefix(&row) else { return Work::ONE };
    let watchers = u32::try_from(registry.cache().resource(prefix).watchers()).unwrap_or(u32::MAX);
    meters.watchers.observe(f64::from(watchers));
    aftermath(watchers, most)
}

/// Seats for telling the watchers; a narrow request for longer rather than a wide one, for a wide one must wait for all its
/// seats.
fn aftermath(watchers: u32, most: u32) -> Work {
    if watchers < WATCHES_PER_SEAT {
        return Work::ONE;
    }
    let wanted = watchers.div_ceil(WATCHES_PER_SEAT);
    let last = wanted.min(most.clamp(1, MOST_WRITE_SEATS));
    let after = EVENT_DURATION.mul_f64(f64::from(wanted) / f64::from(last));
    Work { initial: 1, last, after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_watchers_make_a_write_longer_not_wider() {
        assert_eq!(aftermath(9, 10), Work::ONE);
        assert_eq!(aftermath(10, 10), Work { initial: 1, last: 1, after: EVENT_DURATION });
        assert_eq!(aftermath(1000, 10), Work { initial: 1, last: 10, after: EVENT_DURATION * 10 });
        assert_eq!(aftermath(1000, 2), Work { initial: 1, last: 2, after: EVENT_DURATION * 50 });
    }
}
