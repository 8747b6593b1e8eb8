//! How the server's seats are divided: each level's nominal part by its shares, and what it gets of it, and beyond it, by
//! what is wanted.

use super::level::Demand;
use super::rules::LevelSpec;

/// The seats that a level may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Its part by shares.
    pub(crate) nominal: u32,
    /// What is never lent.
    pub(crate) lower: u32,
    /// With all that may be borrowed.
    pub(crate) upper: u32,
}

/// The bounds of every level, in order, of a server with `total` seats.
pub(crate) fn bounds(total: u32, levels: &[&LevelSpec]) -> Vec<Bounds> {
    let sum: u64 = levels.iter().map(|level| u64::from(level.shares())).sum();
    let nominal = |level: &LevelSpec| match sum {
        0 => 0,
        // Rounded up, so that none with a share has no seat.
        sum => u32::try_from((u64::from(total) * u64::from(level.shares())).div_ceil(sum)).unwrap_or(total),
    };
    let all: u32 = levels.iter().map(|level| nominal(level)).sum();
    let percent =
        |of: u32, percent: u32| u32::try_from((u64::from(of) * u64::from(percent) + 50) / 100).unwrap_or(u32::MAX);
    let of = |level: &&LevelSpec| {
        let nominal = nominal(level);
        let lower = nominal - percent(nominal, level.lendable_percent()).min(nominal);
        let upper = match level.borrowing_percent() {
            Some(borrowed) => nominal.saturating_add(percent(nominal, borrowed)).min(all),
            None => all,
        };
        Bounds { nominal, lower, upper }
    };
    levels.iter().map(of).collect()
}

/// Demand over several periods: it follows a rise at once and forgets it slowly.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Smoothed(pub(crate) f64);

/// What is left of the smoothed demand's excess after one period.
const DECAY: f64 = 0.977;

impl Smoothed {
    pub(crate) fn update(&mut self, demand: Demand) {
        let envelope = demand.average + demand.deviation;
        self.0 = envelope.max(DECAY * self.0 + (1.0 - DECAY) * envelope);
    }
}

/// A level that takes part in borrowing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) bounds: Bounds,
    pub(crate) high_watermark: u32,
    pub(crate) smoothed: f64,
}

impl Claim {
    /// What it keeps of its own while it wants it.
    fn floor(&self) -> f64 {
        f64::from(self.bounds.lower.max(self.bounds.nominal.min(self.high_watermark)))
    }

    pub(crate) fn target(&self) -> f64 {
        self.floor().max(self.smoothed).max(0.001)
    }
}

/// The seats each level gets of `total`: in proportion to what it wants, within its bounds. Also the proportion itself.
pub(crate) fn divide(total: u32, claims: &[Claim]) -> (Vec<u32>, f64) {
    let total = f64::from(total);
    let upper = |claim: &Claim| f64::from(claim.bounds.upper).max(claim.floor());
    let given = |claim: &Claim, fraction: f64| (claim.target() * fraction).clamp(claim.floor(), upper(claim));
    let sum = |fraction: f64| claims.iter().map(|claim| given(claim, fraction)).sum::<f64>();
    let floors: f64 = claims.iter().map(Claim::floor).sum();
    let lowers: f64 = claims.iter().map(|claim| f64::from(claim.bounds.lower)).sum();
    if floors >= total {
        // Not even what they keep is there (the exempt take theirs first): what is above the lower bounds shrinks alike.
        let fraction = if floors > lowers { ((total - lowers) / (floors - lowers)).clamp(0.0, 1.0) } else { 0.0 };
        let part = |claim: &Claim| {
            let lower = f64::from(claim.bounds.lower);
            rounded(lower + (claim.floor() - lower) * fraction)
        };
        return (claims.iter().map(part).collect(), 0.0);
    }
    // The sum grows with the fraction, so halving finds the one that gives out everything.
    let (mut low, mut high) = (0.0, 1.0);
    while sum(high) < total && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..64 {
        let middle = f64::midpoint(low, high);
        if sum(middle) < total { low = middle } else { high = middle }
    }
    (claims.iter().map(|claim| rounded(given(claim, high))).collect(), high)
}

fn rounded(seats: f64) -> u32 {
    // Bounded by the server's seats, which are few.
    seats.round().clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn level(shares: u32, lendable: u32, borrowing: Option<u32>) -> LevelSpec {
        let mut limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable});
        if let Some(percent) = borrowing {
            limited["borrowingLimitPercent"] = percent.into();
        }
        serde_json::from_value(json!({"type": "Limited", "limited": limited})).unwrap()
    }

    #[test]
    fn nominal_seats_go_by_shares() {
        // Upstream's suggested levels and its 600 seats.
        let levels = [level(30, 0, None), level(40, 25, None), level(10, 0, None), level(40, 50, None)];
        let rest = [level(100, 90, None), level(20, 50, None), level(5, 0, None)];
        let all: Vec<&LevelSpec> = levels.iter().chain(&rest).collect();
        let nominal: Vec<u32> = bounds(600, &all).iter().map(|bounds| bounds.nominal).collect();
        assert_eq!(nominal, [74, 98, 25, 98, 245, 49, 13]);
        let bounds = bounds(100, &[&level(50, 20, Some(10)), &level(50, 0, None)]);
        assert_eq!(bounds[0], Bounds { nominal: 50, lower: 40, upper: 55 });
        assert_eq!(bounds[1], Bounds { nominal: 50, lower: 50, upper: 100 });
    }

    fn claim(nominal: u32, lower: u32, upper: u32, high_watermark: u32, smoothed: f64) -> Claim {
        Claim { bounds: Bounds { nominal, lower, upper }, high_watermark, smoothed }
    }

    #[test]
    fn what_is_not_wanted_is_lent_and_comes_back() {
        // One wants much, the other nothing: it lends what it may.
        let (seats, _) = divide(100, &[claim(50, 10, 100, 90, 90.0), claim(50, 20, 100, 0, 0.0)]);
        assert_eq!(seats, [80, 20]);
        // Both want: each has at least its own.
        let (seats, _) = divide(100, &[claim(50, 10, 100, 90, 90.0), claim(50, 20, 100, 60, 60.0)]);
        assert_eq!(seats, [50, 50]);
        // A borrowing limit holds, and what nobody may have more of goes to the others.
        let (seats, _) = divide(100, &[claim(50, 10, 60, 90, 90.0), claim(50, 20, 100, 0, 0.0)]);
        assert_eq!(seats, [60, 40]);
        // The exempt have taken nearly all.
        let (seats, fraction) = divide(40, &[claim(50, 10, 100, 90, 90.0), claim(50, 20, 100, 60, 60.0)]);
        assert_eq!((seats, fraction), (vec![16, 24], 0.0));
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let mut smoothed = Smoothed::default();
        smoothed.update(Demand { high_watermark: 9, average: 8.0, deviation: 1.0 });
        assert_eq!(smoothed.0, 9.0);
        smoothed.update(Demand::default());
        assert!(smoothed.0 > 8.7 && smoothed.0 < 9.0);
    }
}
