//! One priority level as a state machine: who gets seats now, who waits in which queue, who is turned away.
//!
//! Pure: it is told the time and owns no clock, no lock and no request. Fair queueing goes by virtual time R, which grows
//! as the work of one active queue would if all shared the seats evenly; a queue's `next` is the R at which its oldest
//! request would begin. A dispatch adds the request's estimated work to its queue, its end corrects the estimate.

use std::collections::VecDeque;
use std::time::Duration;

/// How long a request is taken to last until it has ended, in seconds.
const ESTIMATED_SERVICE: f64 = 0.003;

/// What a request occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    /// Seats while it is served, at least 1.
    pub(crate) initial: u32,
    /// Seats of its aftermath (watchers being told), for `after`.
    pub(crate) last: u32,
    pub(crate) after: Duration,
}

impl Work {
    pub(crate) const ONE: Work = Work { initial: 1, last: 0, after: Duration::ZERO };

    /// Seats that must be free for it to begin.
    pub(crate) fn seats(&self) -> u32 {
        self.initial.max(self.last)
    }

    /// Estimated, in seat-seconds.
    fn amount(&self) -> f64 {
        f64::from(self.initial) * ESTIMATED_SERVICE + f64::from(self.last) * self.after.as_secs_f64()
    }
}

/// How a level shares out its seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Seats at a time; `None` for the exempt level.
    pub(crate) seats: Option<u32>,
    /// 0: what finds no seat is turned away.
    pub(crate) queues: usize,
    /// Queues that one flow is spread over, at most `queues`.
    pub(crate) hand: usize,
    /// Requests that may wait in one queue.
    pub(crate) queue_length: usize,
}

/// A request under way: given back with [`Level::release`].
#[derive(Debug)]
pub(crate) struct Slot {
    queue: Option<usize>,
    work: Work,
    since: Duration,
    /// Its aftermath is under way.
    ending: bool,
}

/// What becomes of a request that arrives.
#[derive(Debug)]
pub(crate) enum Arrival {
    Execute(Slot),
    /// In this queue; [`Level::release`] or [`Level::resize`] hand its ticket out.
    Wait(usize),
    Reject(Reason),
}

/// Why a request is turned away, in the words of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reason {
    QueueFull,
    ConcurrencyLimit,
    TimeOut,
    Cancelled,
}

impl Reason {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Reason::QueueFull => "queue-full",
            Reason::ConcurrencyLimit => "concurrency-limit",
            Reason::TimeOut => "time-out",
            Reason::Cancelled => "cancelled",
        }
    }
}

/// A request that waits, known by what its owner gave.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    pub(crate) ticket: T,
    pub(crate) work: Work,
}

#[derive(Debug)]
pub(crate) struct Queue<T> {
    pub(crate) waiting: VecDeque<Waiting<T>>,
    /// R at which its oldest request would begin.
    pub(crate) next: f64,
    pub(crate) executing: u32,
    pub(crate) seats: u32,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { waiting: VecDeque::new(), next: 0.0, executing: 0, seats: 0 }
    }
}

impl<T> Queue<T> {
    fn is_active(&self) -> bool {
        self.executing > 0 || !self.waiting.is_empty()
    }

    /// Estimated work that waits, in seat-seconds.
    pub(crate) fn waiting_work(&self) -> f64 {
        self.waiting.iter().map(|waiting| waiting.work.amount()).sum()
    }

    fn load(&self) -> f64 {
        self.waiting_work() + f64::from(self.seats) * ESTIMATED_SERVICE
    }
}

/// How many seats were wanted since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Demand {
    pub(crate) high_watermark: u32,
    pub(crate) average: f64,
    pub(crate) deviation: f64,
}

#[derive(Debug, Default)]
struct Integrator {
    since: Duration,
    at: Duration,
    high: u32,
    sum: f64,
    squares: f64,
}

impl Integrator {
    fn add(&mut self, now: Duration, demand: u32) {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        self.sum += f64::from(demand) * seconds;
        self.squares += f64::from(demand) * f64::from(demand) * seconds;
        self.at = now;
    }
}

/// The state. `T` is what a waiting request is known by.
#[derive(Debug)]
pub(crate) struct Level<T> {
    limits: Limits,
    queues: Vec<Queue<T>>,
    /// Requests and seats under way, of all queues.
    executing: u32,
    seats: u32,
    waiting: usize,
    waiting_seats: u32,
    active: u32,
    /// Virtual time, in seat-seconds, at `at`.
    r: f64,
    at: Duration,
    /// Where the search for the next queue goes on, so that equals take turns.
    robin: usize,
    demand: Integrator,
}

impl<T: PartialEq> Level<T> {
    pub(crate) fn new(limits: Limits) -> Self {
        let mut level = Level {
            limits,
            queues: Vec::new(),
            executing: 0,
            seats: 0,
            waiting: 0,
            waiting_seats: 0,
            active: 0,
            r: 0.0,
            at: Duration::ZERO,
            robin: 0,
            demand: Integrator::default(),
        };
        level.queues.resize_with(limits.queues, Queue::default);
        level
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn queues(&self) -> &[Queue<T>] {
        &self.queues
    }

    pub(crate) fn executing(&self) -> u32 {
        self.executing
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// A request of the flow with this hash arrives. It begins at once, waits under its ticket, or is turned away.
    pub(crate) fn arrive(&mut self, now: Duration, flow: u64, work: Work, ticket: impl FnOnce() -> T) -> Arrival {
        self.advance(now);
        if self.limits.seats.is_none() || self.limits.queues == 0 {
            if !self.fits(work) {
                return Arrival::Reject(Reason::ConcurrencyLimit);
            }
            return Arrival::Execute(self.begin(now, None, work));
        }
        let mut chosen: Option<(usize, f64)> = None;
        deal(flow, self.limits.queues, self.limits.hand, |card| {
            let load = self.queues[card].load();
            if chosen.is_none_or(|(_, least)| load < least) {
                chosen = Some((card, load));
            }
        });
        let queue = chosen.map_or(0, |(card, _)| card);
        if self.waiting == 0 && self.fits(work) {
            self.activate(queue);
            return Arrival::Execute(self.begin(now, Some(queue), work));
        }
        if self.queues[queue].waiting.len() >= self.limits.queue_length {
            return Arrival::Reject(Reason::QueueFull);
        }
        self.activate(queue);
        self.queues[queue].waiting.push_back(Waiting { ticket: ticket(), work });
        self.waiting += 1;
        self.waiting_seats += work.seats();
        self.note_demand();
        Arrival::Wait(queue)
    }

    /// A request has ended, or its aftermath has. Where a time is given, the slot is to be released again after it. Hands
    /// out the tickets of those that begin now.
    pub(crate) fn release(&mut self, now: Duration, slot: &mut Slot) -> (Option<Duration>, Vec<(T, Slot)>) {
        self.advance(now);
        let Slot { queue, work, since, ending } = *slot;
        let held = if ending { work.last } else { work.seats() };
        let kept = if ending || work.after.is_zero() { 0 } else { work.last };
        self.seats -= held - kept;
        if let Some(queue) = queue {
            let queue = &mut self.queues[queue];
            queue.seats -= held - kept;
            if !ending {
                // What it really took, instead of the estimate.
                let took = now.saturating_sub(since).as_secs_f64();
                queue.next += f64::from(work.initial) * (took - ESTIMATED_SERVICE);
            }
        }
        if kept > 0 {
            slot.ending = true;
            return (Some(work.after), self.dispatch(now));
        }
        self.executing -= 1;
        if let Some(queue) = queue {
            self.queues[queue].executing -= 1;
            self.deactivate(queue);
        }
        (None, self.dispatch(now))
    }

    /// A waiting request gives up. False if it does not wait any more: then its slot is on its way.
    pub(crate) fn withdraw(&mut self, now: Duration, queue: usize, ticket: &T) -> bool {
        self.advance(now);
        let Some(waiting) = self.queues.get_mut(queue).map(|queue| &mut queue.waiting) else { return false };
        let Some(index) = waiting.iter().position(|waiting| waiting.ticket == *ticket) else { return false };
        if let Some(gone) = waiting.remove(index) {
            self.waiting -= 1;
            self.waiting_seats -= gone.work.seats();
        }
        self.deactivate(queue);
        true
    }

    /// Takes over other limits. Queues that are no more dealt to are emptied in their turn.
    pub(crate) fn resize(&mut self, now: Duration, limits: Limits) -> Vec<(T, Slot)> {
        self.advance(now);
        self.limits = limits;
        if self.queues.len() < limits.queues {
            self.queues.resize_with(limits.queues, Queue::default);
        }
        while self.queues.len() > limits.queues && self.queues.last().is_some_and(|queue| !queue.is_active()) {
            self.queues.pop();
        }
        self.dispatch(now)
    }

    /// The demand since the last call.
    pub(crate) fn take_demand(&mut self, now: Duration) -> Demand {
        self.advance(now);
        let Integrator { since, high, sum, squares, .. } = self.demand;
        let seconds = now.saturating_sub(since).as_secs_f64();
        let current = self.seats + self.waiting_seats;
        self.demand = Integrator { since: now, at: now, high: current, sum: 0.0, squares: 0.0 };
        if seconds <= 0.0 {
            return Demand { high_watermark: high, average: f64::from(current), deviation: 0.0 };
        }
        let average = sum / seconds;
        let variance = (squares / seconds - average * average).max(0.0);
        Demand { high_watermark: high, average, deviation: variance.sqrt() }
    }

    /// Virtual time goes on as fast as one active queue is served.
    fn advance(&mut self, now: Duration) {
        let now = now.max(self.at);
        let seconds = (now - self.at).as_secs_f64();
        if let (Some(limit), 1..) = (self.limits.seats, self.active) {
            let wanted = (self.seats + self.waiting_seats).min(limit);
            self.r += seconds * f64::from(wanted) / f64::from(self.active);
        }
        self.demand.add(now, self.seats + self.waiting_seats);
        self.at = now;
    }

    fn note_demand(&mut self) {
        self.demand.high = self.demand.high.max(self.seats + self.waiting_seats);
    }

    /// Whether there are seats. A request that is wider than the whole level begins when it is alone.
    fn fits(&self, work: Work) -> bool {
        match self.limits.seats {
            None => true,
            Some(limit) if work.seats() > limit => self.seats == 0 && limit > 0,
            Some(limit) => self.seats + work.seats() <= limit,
        }
    }

    /// A queue that was idle has no claim to the past.
    fn activate(&mut self, queue: usize) {
        let queue = &mut self.queues[queue];
        if !queue.is_active() {
            queue.next = self.r;
            self.active += 1;
        }
    }

    fn deactivate(&mut self, queue: usize) {
        if !self.queues[queue].is_active() {
            self.active -= 1;
        }
    }

    fn begin(&mut self, now: Duration, queue: Option<usize>, work: Work) -> Slot {
        self.executing += 1;
        self.seats += work.seats();
        if let Some(queue) = queue {
            let queue = &mut self.queues[queue];
            queue.executing += 1;
            queue.seats += work.seats();
            queue.next += work.amount();
        }
        self.note_demand();
        Slot { queue, work, since: now, ending: false }
    }

    /// Begins what waits and fits, always that which would be done first in virtual time; while that does not fit,
    /// nothing narrower overtakes it.
    fn dispatch(&mut self, now: Duration) -> Vec<(T, Slot)> {
        let mut begun = Vec::new();
        while self.waiting > 0 {
            let count = self.queues.len();
            let mut first: Option<(usize, f64)> = None;
            for step in 1..=count {
                let index = (self.robin + step) % count;
                let Some(oldest) = self.queues[index].waiting.front() else { continue };
                let done = self.queues[index].next + oldest.work.amount();
                if first.is_none_or(|(_, least)| done < least) {
                    first = Some((index, done));
                }
            }
            let Some((index, _)) = first else { break };
            let fits = self.queues[index].waiting.front().is_some_and(|oldest| self.fits(oldest.work));
            if !fits {
                break;
            }
            let Some(Waiting { ticket, work }) = self.queues[index].waiting.pop_front() else { break };
            self.waiting -= 1;
            self.waiting_seats -= work.seats();
            self.robin = index;
            let slot = self.begin(now, Some(index), work);
            begun.push((ticket, slot));
        }
        begun
    }
}

/// Deals `hand` different cards of a deck of `deck`, always the same for a hash: two flows share few queues, so one that
/// floods its own leaves the other some.
pub(crate) fn deal(mut hash: u64, deck: usize, hand: usize, mut card: impl FnMut(usize)) {
    let mut dealt: [usize; MAX_HAND] = [0; MAX_HAND];
    for count in 0..hand.min(deck).min(MAX_HAND) {
        let left = (deck - count) as u64;
        let mut pick = usize::try_from(hash % left).unwrap_or_default();
        hash /= left;
        // The pick counts only cards that are not dealt yet; `dealt` is kept in ascending order.
        for known in &dealt[..count] {
            if pick >= *known {
                pick += 1;
            }
        }
        let place = dealt[..count].partition_point(|known| *known < pick);
        dealt.copy_within(place..count, place + 1);
        dealt[place] = pick;
        card(pick);
    }
}

/// The largest hand; upstream allows no more bits than a hash has, which bounds it below this for every deck above 8.
pub(crate) const MAX_HAND: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const QUEUED: Limits = Limits { seats: Some(4), queues: 16, hand: 4, queue_length: 50 };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn execute(arrival: Arrival) -> Slot {
        match arrival {
            Arrival::Execute(slot) => slot,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn seats_are_never_exceeded_and_what_waits_begins_in_order() {
        let mut level = Level::new(QUEUED);
        let mut slots: Vec<Slot> = (0..4).map(|n| execute(level.arrive(ms(0), 7, Work::ONE, || n))).collect();
        for n in 4..10 {
            assert!(matches!(level.arrive(ms(1), 7, Work::ONE, || n), Arrival::Wait(_)));
        }
        let mut order = Vec::new();
        let mut now = 2;
        while let Some(mut slot) = slots.pop() {
            let (again, begun) = level.release(ms(now), &mut slot);
            assert_eq!(again, None);
            for (ticket, slot) in begun {
                order.push(ticket);
                slots.push(slot);
            }
            assert!(level.executing() <= 4);
            now += 1;
        }
        order.sort_unstable();
        assert_eq!(order, [4, 5, 6, 7, 8, 9]);
        assert_eq!((level.executing(), level.waiting(), level.active, level.seats), (0, 0, 0, 0));
    }

    #[test]
    fn full_queues_and_levels_without_queues_turn_away() {
        let mut level = Level::new(Limits { seats: Some(1), queues: 1, hand: 1, queue_length: 2 });
        let _running = execute(level.arrive(ms(0), 0, Work::ONE, || 0));
        assert!(matches!(level.arrive(ms(0), 0, Work::ONE, || 1), Arrival::Wait(0)));
        assert!(matches!(level.arrive(ms(0), 0, Work::ONE, || 2), Arrival::Wait(0)));
        assert!(matches!(level.arrive(ms(0), 0, Work::ONE, || 3), Arrival::Reject(Reason::QueueFull)));
        let mut level = Level::new(Limits { seats: Some(1), queues: 0, hand: 0, queue_length: 0 });
        let _running = execute(level.arrive(ms(0), 0, Work::ONE, || 0));
        assert!(matches!(level.arrive(ms(0), 0, Work::ONE, || 1), Arrival::Reject(Reason::ConcurrencyLimit)));
        let mut exempt = Level::new(Limits { seats: None, queues: 0, hand: 0, queue_length: 0 });
        for n in 0..1000 {
            execute(exempt.arrive(ms(0), 0, Work::ONE, || n));
        }
        assert_eq!(exempt.take_demand(ms(1)).high_watermark, 1000);
    }

    /// Runs flows of always-waiting requests for a while; returns how many of each were done.
    fn contend(limits: Limits, flows: &[(u64, Work, u64)], offered: usize) -> BTreeMap<u64, u64> {
        let mut level: Level<(u64, u64)> = Level::new(limits);
        let mut done = BTreeMap::new();
        let mut running: Vec<(u64, Slot, u64)> = Vec::new();
        let service: BTreeMap<u64, u64> = flows.iter().map(|(hash, _, ms)| (*hash, *ms)).collect();
        let mut number = 0;
        for now in 0..4000 {
            for (hash, work, took) in flows {
                let waiting = level.queues().iter().flat_map(|q| &q.waiting).filter(|w| w.ticket.0 == *hash).count();
                for _ in waiting..offered {
                    number += 1;
                    if let Arrival::Execute(slot) = level.arrive(ms(now), *hash, *work, || (*hash, number)) {
                        running.push((*hash, slot, now + took));
                    }
                }
            }
            let (ended, others): (Vec<_>, Vec<_>) = running.into_iter().partition(|(_, _, end)| *end <= now);
            running = others;
            for (hash, mut slot, _) in ended {
                *done.entry(hash).or_default() += 1;
                for ((hash, _), slot) in level.release(ms(now), &mut slot).1 {
                    running.push((hash, slot, now + service[&hash]));
                }
            }
        }
        done
    }

    #[test]
    fn flows_share_by_the_seat_seconds_they_use() {
        let limits = Limits { seats: Some(4), queues: 64, hand: 1, queue_length: 100 };
        // Equal flows: equal shares.
        let done = contend(limits, &[(1, Work::ONE, 10), (2, Work::ONE, 10)], 20);
        let (a, b) = (done[&1] as f64, done[&2] as f64);
        assert!((a / b - 1.0).abs() < 0.05, "{done:?}");
        // A flow of requests that last three times as long gets a third of the requests.
        let done = contend(limits, &[(1, Work::ONE, 10), (2, Work::ONE, 30)], 20);
        let ratio = done[&1] as f64 / done[&2] as f64;
        assert!((2.5..3.5).contains(&ratio), "{done:?}");
        // So does one whose requests are wide.
        let wide = Work { initial: 2, ..Work::ONE };
        let done = contend(limits, &[(1, Work::ONE, 10), (2, wide, 10)], 20);
        let ratio = done[&1] as f64 / done[&2] as f64;
        assert!((1.6..2.4).contains(&ratio), "{done:?}");
    }

    #[test]
    fn a_flood_does_not_keep_others_waiting() {
        let mut level: Level<u32> = Level::new(QUEUED);
        let mut slots = Vec::new();
        for n in 0..150 {
            if let Arrival::Execute(slot) = level.arrive(ms(0), 11, Work::ONE, || n) {
                slots.push(slot);
            }
        }
        assert!(level.waiting() > 100);
        // A flow that shares not all of its queues with the flood.
        let polite = (12..).find(|hash| {
            let (mut theirs, mut own) = (Vec::new(), Vec::new());
            deal(11, 16, 4, |card| theirs.push(card));
            deal(*hash, 16, 4, |card| own.push(card));
            own.iter().any(|card| !theirs.contains(card))
        });
        assert!(matches!(level.arrive(ms(1), polite.unwrap(), Work::ONE, || 999), Arrival::Wait(_)));
        let mut before = 0;
        for step in 0.. {
            let mut slot = slots.remove(0);
            let begun = level.release(ms(2 + step), &mut slot).1;
            if begun.iter().any(|(ticket, _)| *ticket == 999) {
                break;
            }
            before += begun.len();
            slots.extend(begun.into_iter().map(|(_, slot)| slot));
        }
        assert!(before < 10, "{before} of the flood went before it");
    }

    #[test]
    fn wide_requests_wait_for_their_seats_and_are_not_overtaken() {
        let mut level: Level<u32> = Level::new(QUEUED);
        let mut first = execute(level.arrive(ms(0), 1, Work { initial: 3, ..Work::ONE }, || 0));
        assert!(matches!(level.arrive(ms(0), 1, Work { initial: 4, ..Work::ONE }, || 1), Arrival::Wait(_)));
        // One seat is free, but somebody waits.
        assert!(matches!(level.arrive(ms(0), 2, Work::ONE, || 2), Arrival::Wait(_)));
        let begun = level.release(ms(5), &mut first).1;
        assert!(!begun.is_empty() && level.seats <= 4);
        let mut level: Level<u32> = Level::new(QUEUED);
        // Wider than the level: alone, but not never.
        execute(level.arrive(ms(0), 1, Work { initial: 9, ..Work::ONE }, || 0));
        assert!(matches!(level.arrive(ms(0), 1, Work::ONE, || 1), Arrival::Wait(_)));
    }

    #[test]
    fn the_aftermath_holds_its_seats() {
        let mut level: Level<u32> = Level::new(QUEUED);
        let work = Work { initial: 1, last: 3, after: ms(15) };
        let mut slot = execute(level.arrive(ms(0), 1, work, || 0));
        assert_eq!(level.seats, 3);
        let (again, _) = level.release(ms(3), &mut slot);
        assert_eq!((again, level.seats, level.executing()), (Some(ms(15)), 3, 1));
        let (again, _) = level.release(ms(18), &mut slot);
        assert_eq!((again, level.seats, level.executing()), (None, 0, 0));
    }

    #[test]
    fn who_gives_up_leaves_no_trace() {
        let mut level: Level<u32> = Level::new(Limits { seats: Some(1), ..QUEUED });
        let mut running = execute(level.arrive(ms(0), 1, Work::ONE, || 0));
        let Arrival::Wait(queue) = level.arrive(ms(0), 1, Work::ONE, || 1) else { panic!("the seat is taken") };
        assert!(level.withdraw(ms(1), queue, &1));
        assert!(!level.withdraw(ms(1), queue, &1));
        assert!(level.release(ms(2), &mut running).1.is_empty());
        assert_eq!((level.waiting(), level.active, level.waiting_seats), (0, 0, 0));
    }

    #[test]
    fn other_limits_take_effect_at_once() {
        let mut level: Level<u32> = Level::new(Limits { seats: Some(1), ..QUEUED });
        let mut slots = vec![execute(level.arrive(ms(0), 1, Work::ONE, || 0))];
        for n in 1..6 {
            assert!(matches!(level.arrive(ms(0), n.into(), Work::ONE, || n), Arrival::Wait(_)));
        }
        let begun = level.resize(ms(1), Limits { seats: Some(3), queues: 2, hand: 1, queue_length: 5 });
        assert_eq!(begun.len(), 2);
        slots.extend(begun.into_iter().map(|(_, slot)| slot));
        while let Some(mut slot) = slots.pop() {
            slots.extend(level.release(ms(2), &mut slot).1.into_iter().map(|(_, slot)| slot));
        }
        assert_eq!((level.waiting(), level.executing(), level.active), (0, 0, 0));
        level.resize(ms(3), level.limits());
        assert_eq!(level.queues().len(), 2, "queues that are not dealt to go once they are empty");
    }

    #[test]
    fn hands_are_of_different_cards_of_the_deck() {
        for hash in (0..10_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let mut cards = Vec::new();
            deal(hash, 10, 6, |card| cards.push(card));
            cards.sort_unstable();
            cards.dedup();
            assert_eq!(cards.len(), 6);
            assert!(cards.iter().all(|card| *card < 10));
        }
    }

    #[test]
    fn demand_is_weighted_by_time() {
        let mut level: Level<u32> = Level::new(QUEUED);
        level.take_demand(ms(0));
        let mut slots: Vec<_> = (0..4).map(|n| execute(level.arrive(ms(0), 1, Work::ONE, || n))).collect();
        assert!(matches!(level.arrive(ms(0), 1, Work::ONE, || 4), Arrival::Wait(_)));
        for slot in &mut slots {
            level.release(ms(500), slot);
        }
        let demand = level.take_demand(ms(1000));
        assert_eq!(demand.high_watermark, 5);
        assert!((demand.average - 3.0).abs() < 1e-9 && (demand.deviation - 2.0).abs() < 1e-9, "{demand:?}");
    }
}
