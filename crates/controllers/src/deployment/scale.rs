//! How many pods each set of a Deployment is to have next: pure arithmetic over sizes and availability.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DeploymentSpec, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Pods a set is told to have.
pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Available pods a set reports.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// The set holds no pod, is to hold none, and its status says so of its newest spec.
pub(super) fn is_retired(set: &ReplicaSet) -> bool {
    let status = set.status.as_ref();
    size(set) == 0
        && status.is_none_or(|status| status.replicas == 0)
        && set.metadata.deletion_timestamp.is_none()
        && set.metadata.generation <= status.and_then(|status| status.observed_generation)
}

/// How many pods a rolling update may have above and may miss below the wanted number. Percentages of surge round up, those of
/// unavailability down; if both come out as zero one pod may be missing, or nothing would ever move.
pub(super) fn bounds(spec: &DeploymentSpec) -> (i32, i32) {
    let wanted = spec.replicas.unwrap_or(1);
    let strategy = spec.strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        return (0, 0);
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".into());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&quarter);
    let surge = scaled(surge, wanted, true);
    let unavailable = scaled(unavailable, wanted, false).min(wanted);
    if surge == 0 && unavailable == 0 { (0, 1.min(wanted)) } else { (surge, unavailable) }
}

/// A number, or a percentage of `total`.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let Some(percent) = text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok()) else { return 0 };
            let parts = i64::from(total) * percent.max(0);
            let number = if round_up { (parts + 99) / 100 } else { parts / 100 };
            i32::try_from(number).unwrap_or(i32::MAX)
        }
    }
}

/// The size of the new set when all sets together have `total` pods and it has `current`.
pub(super) fn new_size(wanted: i32, surge: i32, total: i32, current: i32, rolling: bool) -> i32 {
    if !rolling || current >= wanted {
        return wanted;
    }
    let room = (wanted + surge - total).max(0);
    current + room.min(wanted - current)
}

/// The sizes of old sets after one step of a rolling update, by position: first those pods go that serve nobody, then as many
/// as availability allows, from the oldest sets.
pub(super) fn shrink_old(
    wanted: i32,
    max_unavailable: i32,
    new: &ReplicaSet,
    old: &[Arc<ReplicaSet>],
) -> Vec<(usize, i32)> {
    let mut sizes: Vec<i32> = old.iter().map(|set| size(set)).collect();
    let total: i32 = sizes.iter().sum::<i32>() + size(new);
    let least_available = wanted - max_unavailable;
    let mut room = total - least_available - (size(new) - available(new));
    if room <= 0 {
        return Vec::new();
    }
    for (size, set) in sizes.iter_mut().zip(old) {
        let useless = (*size - available(set)).clamp(0, room);
        *size -= useless;
        room -= useless;
    }
    let mut spare = available(new) + old.iter().map(|set| available(set)).sum::<i32>() - least_available;
    for size in &mut sizes {
        let less = (*size).min(spare).max(0);
        *size -= less;
        spare -= less;
    }
    let changed = sizes.into_iter().zip(old).enumerate();
    changed.filter(|(_, (after, set))| *after != size(set)).map(|(at, (after, _))| (at, after)).collect()
}

/// What [`rescale`] starts from.
pub(super) struct Rescale {
    pub(super) wanted: i32,
    pub(super) surge: i32,
    pub(super) rolling: bool,
    /// Position of the new set.
    pub(super) new: Option<usize>,
    /// Pods the Deployment had, for sets that do not say what they were sized for.
    pub(super) before: i32,
}

/// The sizes of all sets, by position, after the wanted number changed. One set alone gets all; a new set that is complete keeps
/// all; in the middle of a rollout every set grows or shrinks in proportion, and the largest takes what rounding leaves.
/// `max_of` tells how many pods the Deployment could have when a set was last sized.
pub(super) fn rescale(
    request: &Rescale,
    sets: &[Arc<ReplicaSet>],
    max_of: impl Fn(&ReplicaSet) -> Option<i32>,
) -> Vec<(usize, i32)> {
    let active: Vec<usize> = (0..sets.len()).filter(|at| size(&sets[*at]) > 0).collect();
    let only = match active.as_slice() {
        [] => request.new.or_else(|| sets.len().checked_sub(1)),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(only) = only {
        return vec![(only, request.wanted)];
    }
    if let Some(new) = request.new.and_then(|at| sets.get(at))
        && size(new) == request.wanted
        && available(new) == request.wanted
    {
        let old = active.into_iter().filter(|at| Some(*at) != request.new);
        return old.map(|at| (at, 0)).collect();
    }
    if !request.rolling || active.is_empty() {
        return Vec::new();
    }
    let limit = if request.wanted > 0 { request.wanted + request.surge } else { 0 };
    let total: i32 = active.iter().map(|at| size(&sets[*at])).sum();
    let change = limit - total;
    let mut order = active;
    // Newer sets come later in `sets`: growth favours them among equals, shrinking the older ones.
    if change > 0 {
        order.sort_by_key(|at| (Reverse(size(&sets[*at])), Reverse(*at)));
    } else {
        order.sort_by_key(|at| (Reverse(size(&sets[*at])), *at));
    }
    let mut done = 0;
    let mut sizes = Vec::with_capacity(order.len());
    for at in order {
        let set = &sets[at];
        let share = if change == done || change == 0 {
            0
        } else {
            let before = max_of(set).filter(|max| *max > 0).unwrap_or(request.before);
            let fraction = fraction(size(set), request.wanted, limit, before);
            let left = change - done;
            if change > 0 { fraction.min(left) } else { fraction.max(left) }
        };
        done += share;
        sizes.push((at, size(set) + share));
    }
    if let Some((_, first)) = sizes.first_mut() {
        *first = (*first + change - done).max(0);
    }
    sizes
}

/// By how much a set of `size` changes when the whole may have `limit` pods instead of `before`.
fn fraction(size: i32, wanted: i32, limit: i32, before: i32) -> i32 {
    if wanted == 0 {
        return -size;
    }
    if before == 0 {
        return 0;
    }
    let scaled = (f64::from(size) * f64::from(limit) / f64::from(before)).round();
    // Within i32: both factors are numbers of pods.
    scaled as i32 - size
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(size: i32, available: i32) -> Arc<ReplicaSet> {
        let value = json!({
            "metadata": {}, "spec": {"replicas": size, "selector": {}},
            "status": {"replicas": size, "availableReplicas": available},
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn spec(replicas: i32, surge: &str, unavailable: &str) -> DeploymentSpec {
        serde_json::from_value(json!({
            "replicas": replicas, "selector": {}, "template": {},
            "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
        }))
        .unwrap()
    }

    #[test]
    fn percentages_round_away_from_harm() {
        assert_eq!(bounds(&spec(10, "25%", "25%")), (3, 2));
        assert_eq!(bounds(&spec(1, "25%", "25%")), (1, 0));
        assert_eq!(bounds(&spec(2, "0%", "10%")), (0, 1));
    }

    #[test]
    fn a_rollout_keeps_within_its_bounds() {
        // 10 wanted, surge 3, unavailable 2, as upstream's documentation steps through it.
        assert_eq!(new_size(10, 3, 10, 0, true), 3);
        assert_eq!(shrink_old(10, 2, &set(3, 0), &[set(10, 10)]), [(0, 8)]);
        assert_eq!(new_size(10, 3, 11, 3, true), 5);
        assert_eq!(shrink_old(10, 2, &set(5, 0), &[set(8, 8)]), []);
        assert_eq!(shrink_old(10, 2, &set(5, 5), &[set(8, 8)]), [(0, 3)]);
        assert_eq!(shrink_old(10, 2, &set(10, 10), &[set(3, 3)]), [(0, 0)]);
    }

    #[test]
    fn pods_that_serve_nobody_go_first() {
        assert_eq!(shrink_old(10, 2, &set(3, 0), &[set(5, 5), set(5, 0)]), [(1, 3)]);
    }

    #[test]
    fn one_set_alone_gets_the_whole_change() {
        let request = Rescale { wanted: 7, surge: 2, rolling: true, new: Some(0), before: 3 };
        assert_eq!(rescale(&request, &[set(3, 3)], |_| Some(5)), [(0, 7)]);
    }

    #[test]
    fn a_rollout_in_the_middle_scales_in_proportion() {
        // 10 wanted with surge 3 is scaled to 15: upstream's example gives the five more as 8+? -> 11 and 5+? -> 7.
        let request = Rescale { wanted: 15, surge: 3, rolling: true, new: Some(1), before: 13 };
        let sizes = rescale(&request, &[set(8, 8), set(5, 0)], |_| Some(13));
        assert_eq!(sizes, [(0, 11), (1, 7)]);
        let request = Rescale { wanted: 0, surge: 3, rolling: true, new: Some(1), before: 13 };
        assert_eq!(rescale(&request, &[set(8, 8), set(5, 0)], |_| Some(13)), [(0, 0), (1, 0)]);
    }
}
