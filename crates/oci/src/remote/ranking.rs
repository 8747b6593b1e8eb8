//! The order in which places are asked for blobs, from how they answered for the manifest.

use std::time::Duration;

use crate::Digest;
use crate::mirrors::{Rank, Source};

/// How a place answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) source: Source,
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
    if let Some(digest) = standings.iter().filter(|standing| standing.source == Source::Registry).find_map(served) {
        return Some(digest);
    }
    let mut order: Vec<&Standing> = standings.iter().collect();
    order.sort_by_key(|standing| standing.source.rank());
    order.into_iter().find_map(served)
}

/// Indices of all places, best first: a cache that answers at all, for it costs next to nothing; those that served the
/// digest, by rank and then speed; those that may still; those that refused or served something else, which may have the
/// blobs all the same.
pub(super) fn order(standings: &[Standing], truth: &Digest) -> Vec<usize> {
    let mut order: Vec<usize> = (0..standings.len()).collect();
    order.sort_by_key(|index| {
        standings.get(*index).map(|standing| {
            let rank = standing.source.rank();
            match &standing.answer {
                Answer::Served { .. } | Answer::Refused if rank == Rank::Cached => (0, rank, standing.megabyte),
                Answer::Served { digest, after } if digest == truth => (1, rank, *after + standing.megabyte),
                Answer::Silent => (2, rank, standing.megabyte),
                Answer::Served { .. } | Answer::Refused => (3, rank, standing.megabyte),
            }
        })
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHOSEN: Source = Source::Argument;

    fn standing(source: Source, answer: Answer) -> Standing {
        Standing { source, answer, megabyte: Duration::ZERO }
    }

    fn served(content: &str, millis: u64) -> Answer {
        Answer::Served { digest: Digest::of(content.as_bytes()), after: Duration::from_millis(millis) }
    }

    #[test]
    fn the_registry_itself_is_right_and_stale_mirrors_come_last() {
        let standings = [
            standing(CHOSEN, served("old", 5)),
            standing(Source::Preset, served("new", 50)),
            standing(Source::Preset, Answer::Silent),
            standing(Source::Registry, served("new", 20)),
        ];
        let truth = truth(&standings).unwrap();
        assert_eq!(truth, Digest::of(b"new"));
        assert_eq!(order(&standings, &truth), [3, 1, 2, 0]);
    }

    #[test]
    fn without_the_registry_the_preferred_place_is_believed() {
        let standings = [
            standing(Source::Registry, Answer::Refused),
            standing(Source::Preset, served("b", 1)),
            standing(CHOSEN, served("a", 900)),
        ];
        let truth = truth(&standings).unwrap();
        assert_eq!(truth, Digest::of(b"a"));
        assert_eq!(order(&standings, &truth), [2, 0, 1]);
    }

    #[test]
    fn a_cache_is_asked_first_for_blobs_and_believed_last_of_names() {
        let standings = [
            standing(Source::Cache, served("old", 1)),
            standing(Source::Preset, served("new", 700)),
            standing(CHOSEN, Answer::Refused),
        ];
        let found = truth(&standings).unwrap();
        assert_eq!(found, Digest::of(b"new"));
        assert_eq!(order(&standings, &found), [0, 1, 2]);
        assert_eq!(truth(&standings[..1]), Some(Digest::of(b"old")));
    }

    #[test]
    fn known_slowness_counts_among_equals() {
        let mut slow = standing(Source::Preset, served("a", 1));
        slow.megabyte = Duration::from_secs(20);
        let standings = [slow, standing(Source::Preset, served("a", 300))];
        assert_eq!(order(&standings, &Digest::of(b"a")), [1, 0]);
    }
}
