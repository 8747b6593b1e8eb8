//! The order in which places are asked for blobs, from how they answered for the manifest.

use std::time::Duration;

use crate::Digest;
use crate::mirrors::Rank;

/// How a place answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) rank: Rank,
    pub(super) upstream: bool,
    pub(super) answer: Answer,
    /// What a megabyte from it is known to take.
    pub(super) megabyte: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Served {
        digest: Digest,
        after: Duration,
    },
    /// It has not answered yet, or could not be reached.
    Silent,
    /// It answered that it does not serve this.
    Refused,
}

/// The digest that the name means: what the registry itself says, else the preferred place that answered.
pub(super) fn truth(standings: &[Standing]) -> Option<Digest> {
    let served = |standing: &Standing| match &standing.answer {
        Answer::Served { digest, .. } => Some(digest.clone()),
        Answer::Silent | Answer::Refused => None,
    };
    if let Some(digest) = standings.iter().filter(|standing| standing.upstream).find_map(served) {
        return Some(digest);
    }
    let mut order: Vec<&Standing> = standings.iter().collect();
    order.sort_by_key(|standing| standing.rank);
    order.into_iter().find_map(served)
}

/// Indices of all places, best first: those that served the digest, by rank and then speed; those that may still; those
/// that refused or served something else, which may have the blobs all the same.
pub(super) fn order(standings: &[Standing], truth: &Digest) -> Vec<usize> {
    let mut order: Vec<usize> = (0..standings.len()).collect();
    order.sort_by_key(|index| {
        standings.get(*index).map(|standing| match &standing.answer {
            Answer::Served { digest, after } if digest == truth => (0, standing.rank, *after + standing.megabyte),
            Answer::Silent => (1, standing.rank, standing.megabyte),
            Answer::Served { .. } | Answer::Refused => (2, standing.rank, standing.megabyte),
        })
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(rank: Rank, upstream: bool, answer: Answer) -> Standing {
        Standing { rank, upstream, answer, megabyte: Duration::ZERO }
    }

    fn served(content: &str, millis: u64) -> Answer {
        Answer::Served { digest: Digest::of(content.as_bytes()), after: Duration::from_millis(millis) }
    }

    #[test]
    fn the_registry_itself_is_right_and_stale_mirrors_come_last() {
        let standings = [
            standing(Rank::Chosen, false, served("old", 5)),
            standing(Rank::Known, false, served("new", 50)),
            standing(Rank::Known, false, Answer::Silent),
            standing(Rank::Known, true, served("new", 20)),
        ];
        let truth = truth(&standings).unwrap();
        assert_eq!(truth, Digest::of(b"new"));
        assert_eq!(order(&standings, &truth), [3, 1, 2, 0]);
    }

    #[test]
    fn without_the_registry_the_preferred_place_is_believed() {
        let standings = [
            standing(Rank::Known, true, Answer::Refused),
            standing(Rank::Known, false, served("b", 1)),
            standing(Rank::Chosen, false, served("a", 900)),
        ];
        let truth = truth(&standings).unwrap();
        assert_eq!(truth, Digest::of(b"a"));
        assert_eq!(order(&standings, &truth), [2, 0, 1]);
    }

    #[test]
    fn known_slowness_counts_among_equals() {
        let mut slow = standing(Rank::Known, false, served("a", 1));
        slow.megabyte = Duration::from_secs(20);
        let standings = [slow, standing(Rank::Known, false, served("a", 300))];
        assert_eq!(order(&standings, &Digest::of(b"a")), [1, 0]);
    }
}
