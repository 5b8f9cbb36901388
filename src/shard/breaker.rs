//! Whether a target is to be dialled: circuit breakers.
//!
//! A [`Breaker`] is the state of one target, and [`Breakers`] those of all targets that have to be remembered: a breaker that is closed and
//! has nothing to hold against its target is no different from none, so a target is remembered from its first failure to its next success,
//! or until that is so long ago that it says nothing any more. They know no dials but by number, no sockets and no clock: what an attempt
//! came to, the directory says.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::config::BreakerConfig;
use crate::endpoint::{BreakerState, Endpoint};
use crate::id::DialId;
use crate::rng::Rng;
use crate::time::Timestamp;

/// What there is one breaker for: a target, and which of our names it is dialled by. What a target has against one of them it need not have
/// against another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Faced {
    pub(super) endpoint: Endpoint,
    /// As in the directory's keys: zero is the engine's own.
    pub(super) ours: [u8; 8],
}

/// What a breaker says to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    /// Go, as a probe of this round.
    Probe(u32),
    /// Not before then.
    Wait(Timestamp),
    /// Not before one of the probes that are under way has ended.
    Busy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Timestamp },
    HalfOpen { probes: u32, successes: u32 },
}

/// The circuit breaker of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Breaker {
    state: State,
    /// How many times it has opened since it was closed.
    trips: u32,
    /// How many times it was half-open: a probe of an earlier round says nothing about this one.
    round: u32,
}

impl Breaker {
    fn new() -> Self {
        Self { state: State::Closed { failures: 0 }, trips: 0, round: 0 }
    }

    fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether there is nothing to be remembered.
    fn is_clean(&self) -> bool {
        self.state == State::Closed { failures: 0 }
    }

    /// May the target be dialled?
    fn ask(&mut self, now: Timestamp, config: &BreakerConfig) -> Verdict {
        match &mut self.state {
            State::Closed { .. } => Verdict::Go,
            State::Open { until } if now < *until => Verdict::Wait(*until),
            State::Open { .. } => {
                self.round = self.round.wrapping_add(1);
                self.state = State::HalfOpen { probes: 1, successes: 0 };
                Verdict::Probe(self.round)
            }
            State::HalfOpen { probes, .. } if *probes < config.probes => {
                *probes += 1;
                Verdict::Probe(self.round)
            }
            State::HalfOpen { .. } => Verdict::Busy,
        }
    }

    /// An attempt has failed, and the target is to blame. `probe`: the round that it was a probe of. `longest`: the longest cool-down.
    fn failed(&mut self, probe: Option<u32>, now: Timestamp, longest: Duration, config: &BreakerConfig, rng: &mut Rng) {
        let opens = match &mut self.state {
            State::Closed { failures } => {
                *failures = failures.saturating_add(1);
                *failures >= config.failures
            }
            // What was begun before it opened says nothing new.
            State::Open { .. } => false,
            State::HalfOpen { .. } => probe == Some(self.round),
        };
        if opens {
            let doubled = config.cool_down.saturating_mul(1u32.checked_shl(self.trips).unwrap_or(u32::MAX)).min(longest);
            self.trips = self.trips.saturating_add(1).min(u32::BITS);
            let half = doubled / 2;
            self.state = State::Open { until: now + half + rng.duration_below(doubled - half + Duration::from_nanos(1)) };
        }
    }

    /// The target has proved to be alive. Whenever that is: an attempt from before it opened counts as well.
    fn succeeded(&mut self, probe: Option<u32>, config: &BreakerConfig) {
        let (probes, successes) = match self.state {
            State::Closed { .. } => (0, config.successes),
            State::Open { .. } => {
                self.round = self.round.wrapping_add(1);
                (0, 1)
            }
            State::HalfOpen { probes, successes } => (probes - u32::from(probe == Some(self.round)), successes + 1),
        };
        if successes >= config.successes {
            self.trips = 0;
            self.state = State::Closed { failures: 0 };
        } else {
            self.state = State::HalfOpen { probes, successes };
        }
    }

    /// A probe has ended and says nothing. Says whether there is room for another.
    fn probe_ended(&mut self, probe: u32) -> bool {
        match &mut self.state {
            State::HalfOpen { probes, .. } if probe == self.round => {
                *probes -= 1;
                true
            }
            _ => false,
        }
    }
}

#[derive(Debug)]
struct Entry {
    breaker: Breaker,
    /// Its place in `Breakers::order`.
    place: (bool, u64),
    touched: Timestamp,
    /// Dials that wait for the end of a probe.
    blocked: Vec<DialId>,
}

impl Entry {
    /// Not while there are probes, each of which has an end.
    fn expires(&self, config: &BreakerConfig) -> Timestamp {
        match self.breaker.state {
            State::Open { until } => until.max(self.touched) + config.expire,
            State::HalfOpen { probes: 1.., .. } => Timestamp::END,
            _ => self.touched + config.expire,
        }
    }
}

/// The breakers of all targets that have to be remembered.
#[derive(Debug)]
pub(super) struct Breakers {
    config: BreakerConfig,
    entries: HashMap<Faced, Entry>,
    /// Those whose breaker is closed, then the others; each by when it was last touched.
    order: BTreeMap<(bool, u64), Faced>,
    next: u64,
}

/// What a failure has led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) changed: Option<BreakerState>,
    /// A target had to be forgotten for this one, or this one is not remembered.
    pub(super) forgotten: bool,
}

impl Breakers {
    /// Memory of one target: in the table, in a tree whose nodes are half full at the worst, and the list of those that wait.
    pub(super) const TARGET: usize = 5 * size_of::<(Faced, Entry)>() + 2 * size_of::<((bool, u64), Faced)>() + 32;

    pub(super) fn new(config: BreakerConfig) -> Self {
        Self { config, entries: HashMap::new(), order: BTreeMap::new(), next: 0 }
    }

    /// Changes what is remembered of a target, and puts it at the end of the order. Returns the state that it has come into, if it is
    /// another.
    fn change<R>(&mut self, target: &Faced, now: Timestamp, act: impl FnOnce(&mut Breaker) -> R) -> Option<(R, Option<BreakerState>)> {
        let entry = self.entries.get_mut(target)?;
        let before = entry.breaker;
        let result = act(&mut entry.breaker);
        if entry.breaker == before {
            return Some((result, None));
        }
        let (is, was) = (entry.breaker.state(), before.state());
        self.order.remove(&entry.place);
        if entry.breaker.is_clean() && entry.blocked.is_empty() {
            self.entries.remove(target);
        } else {
            self.next += 1;
            entry.place = (is != BreakerState::Closed, self.next);
            entry.touched = now;
            self.order.insert(entry.place, target.clone());
        }
        Some((result, (is != was).then_some(is)))
    }

    /// May this target be dialled?
    pub(super) fn ask(&mut self, target: &Faced, now: Timestamp) -> (Verdict, Option<BreakerState>) {
        let config = self.config;
        self.change(target, now, |breaker| breaker.ask(now, &config)).unwrap_or((Verdict::Go, None))
    }

    /// Until when this target is not to be dialled, where its breaker is open.
    pub(super) fn open_until(&self, target: &Faced, now: Timestamp) -> Option<Timestamp> {
        match self.entries.get(target)?.breaker.state {
            State::Open { until } => Some(until).filter(|&until| now < until),
            _ => None,
        }
    }

    /// The same, and where all probes are under way: until the latest end of those.
    pub(super) fn refuses_until(&self, target: &Faced, now: Timestamp) -> Option<Timestamp> {
        match self.entries.get(target)?.breaker.state {
            State::HalfOpen { probes, .. } => (probes >= self.config.probes).then(|| now + self.config.probe_timeout),
            _ => self.open_until(target, now),
        }
    }

    /// An attempt has failed, and the target is to blame.
    pub(super) fn failed(&mut self, target: &Faced, probe: Option<u32>, longest: Duration, now: Timestamp, rng: &mut Rng) -> Failed {
        let config = self.config;
        if config.failures == 0 {
            return Failed::default();
        }
        let mut forgotten = false;
        if !self.entries.contains_key(target) {
            if self.entries.len() >= config.targets {
                forgotten = true;
                if !self.forget_oldest_closed() {
                    return Failed { changed: None, forgotten };
                }
            }
            self.next += 1;
            let place = (false, self.next);
            self.order.insert(place, target.clone());
            self.entries.insert(target.clone(), Entry { breaker: Breaker::new(), place, touched: now, blocked: Vec::new() });
        }
        let longest = longest.min(config.max_cool_down);
        let changed = self.change(target, now, |breaker| breaker.failed(probe, now, longest, &config, rng));
        Failed { changed: changed.and_then(|((), changed)| changed), forgotten }
    }

    fn forget_oldest_closed(&mut self) -> bool {
        let Some(oldest) = self.order.first_entry().filter(|oldest| !oldest.key().0) else { return false };
        self.entries.remove(&oldest.remove());
        true
    }

    /// The target has proved to be alive.
    pub(super) fn succeeded(&mut self, target: &Faced, probe: Option<u32>, now: Timestamp) -> Option<BreakerState> {
        let config = self.config;
        self.change(target, now, |breaker| breaker.succeeded(probe, &config))?.1
    }

    /// A probe has ended and says nothing. Says whether there is room for another.
    pub(super) fn probe_ended(&mut self, target: &Faced, probe: u32, now: Timestamp) -> bool {
        self.change(target, now, |breaker| breaker.probe_ended(probe)).is_some_and(|(room, _)| room)
    }

    /// The dial waits for the end of a probe.
    pub(super) fn block(&mut self, target: &Faced, dial: DialId) {
        if let Some(entry) = self.entries.get_mut(target)
            && !entry.blocked.contains(&dial)
        {
            entry.blocked.push(dial);
        }
    }

    /// The dials that waited for the end of a probe.
    pub(super) fn take_blocked(&mut self, target: &Faced) -> Vec<DialId> {
        let Some(entry) = self.entries.get_mut(target) else { return Vec::new() };
        let blocked = std::mem::take(&mut entry.blocked);
        if entry.breaker.is_clean() {
            self.order.remove(&entry.place);
            self.entries.remove(target);
        }
        blocked
    }

    /// The dial does not wait any more.
    pub(super) fn unblock(&mut self, target: &Faced, dial: DialId) {
        if let Some(entry) = self.entries.get_mut(target) {
            entry.blocked.retain(|blocked| *blocked != dial);
        }
    }

    /// How often they are to be looked through, while there are any.
    pub(super) fn sweep_interval(&self) -> Option<Duration> {
        (!self.entries.is_empty()).then(|| (self.config.expire / 4).max(Duration::from_millis(1)))
    }

    /// Forgets what is so long ago that it says nothing any more.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        let (entries, config) = (&mut self.entries, &self.config);
        self.order.retain(|_, target| {
            let expired = entries.get(target).is_none_or(|entry| entry.expires(config) <= now);
            if expired {
                entries.remove(target);
            }
            !expired
        });
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }

    /// Targets that are remembered.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    const MS: Duration = Duration::from_millis(1);

    fn config() -> BreakerConfig {
        BreakerConfig { failures: 3, cool_down: 100 * MS, max_cool_down: 1000 * MS, targets: 4, ..BreakerConfig::default() }
    }

    fn target(number: u8) -> Faced {
        let endpoint = Endpoint { node: Some(NodeId([number; 32])), address: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into()) };
        Faced { endpoint, ours: [0; 8] }
    }

    /// Breakers, a clock and a seed.
    struct Bench {
        breakers: Breakers,
        now: Timestamp,
        rng: Rng,
    }

    impl Bench {
        fn new(config: BreakerConfig) -> Self {
            Self { breakers: Breakers::new(config), now: Timestamp::from_nanos(1), rng: Rng::new(1) }
        }

        fn fail(&mut self, number: u8, probe: Option<u32>) -> Failed {
            self.breakers.failed(&target(number), probe, Duration::MAX, self.now, &mut self.rng)
        }

        fn succeed(&mut self, number: u8, probe: Option<u32>) -> Option<BreakerState> {
            self.breakers.succeeded(&target(number), probe, self.now)
        }

        fn ask(&mut self, number: u8) -> (Verdict, Option<BreakerState>) {
            self.breakers.ask(&target(number), self.now)
        }

        /// Opens it, and says for how long.
        fn open(&mut self, number: u8) -> Duration {
            while self.fail(number, None).changed != Some(BreakerState::Open) {}
            self.cool_down(number)
        }

        fn cool_down(&self, number: u8) -> Duration {
            self.breakers.open_until(&target(number), self.now).expect("it is open") - self.now
        }

        /// Waits until it is half-open, and is its first probe.
        fn probe(&mut self, number: u8) -> u32 {
            self.now = self.now + self.cool_down(number);
            match self.ask(number) {
                (Verdict::Probe(round), Some(BreakerState::HalfOpen)) => round,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not_let_it() {
        let mut bench = Bench::new(config());
        for _ in 0..10 {
            assert_eq!((bench.fail(1, None), bench.fail(1, None)), (Failed::default(), Failed::default()));
            assert_eq!(bench.ask(1), (Verdict::Go, None));
            assert_eq!(bench.succeed(1, None), None);
            assert_eq!(bench.breakers.len(), 0, "there is nothing to be held against it");
        }
        let wait = bench.open(1);
        assert!((50 * MS..=100 * MS).contains(&wait), "{wait:?}");
        assert_eq!(bench.ask(1), (Verdict::Wait(bench.now + wait), None));
        // What fails meanwhile was begun before, and does not make it longer.
        assert_eq!(bench.fail(1, None), Failed::default());
        assert_eq!(bench.cool_down(1), wait);
        assert_eq!(bench.ask(2), (Verdict::Go, None), "another target is another's affair");
        let by_another = Faced { ours: [1; 8], ..target(1) };
        assert_eq!(bench.breakers.ask(&by_another, bench.now), (Verdict::Go, None), "and so is another name of ours");
    }

    #[test]
    fn the_cool_down_doubles_up_to_its_longest_and_begins_anew_after_a_success() {
        let mut bench = Bench::new(config());
        let mut wait = bench.open(1);
        for longest in [100, 200, 400, 800, 1000, 1000, 1000] {
            assert!((longest / 2 * MS..=longest * MS).contains(&wait), "{wait:?} of {longest} ms");
            let round = bench.probe(1);
            assert_eq!(bench.fail(1, Some(round)).changed, Some(BreakerState::Open));
            wait = bench.cool_down(1);
        }
        let round = bench.probe(1);
        assert_eq!(bench.succeed(1, Some(round)), Some(BreakerState::Closed));
        let again = bench.open(1);
        assert!(again <= 100 * MS, "{again:?}");
    }

    #[test]
    fn cool_downs_are_spread() {
        let drawn: Vec<Duration> = (0..1000u32)
            .map(|seed| {
                let mut bench = Bench { rng: Rng::new(seed.into()), ..Bench::new(config()) };
                bench.open(1)
            })
            .collect();
        assert!(drawn.iter().all(|wait| (50 * MS..=100 * MS).contains(wait)));
        let mean = drawn.iter().sum::<Duration>() / 1000;
        assert!((73 * MS..=77 * MS).contains(&mean), "{mean:?}");
    }

    #[test]
    fn half_open_it_lets_so_many_probes_through_and_closes_after_so_many_successes() {
        let mut bench = Bench::new(BreakerConfig { probes: 2, successes: 2, ..config() });
        bench.open(1);
        let round = bench.probe(1);
        assert_eq!(bench.ask(1), (Verdict::Probe(round), None));
        assert_eq!(bench.ask(1), (Verdict::Busy, None));
        // One that comes to nothing makes room, and one of another round does not.
        assert!(!bench.breakers.probe_ended(&target(1), round - 1, bench.now));
        assert!(bench.breakers.probe_ended(&target(1), round, bench.now));
        assert_eq!(bench.ask(1), (Verdict::Probe(round), None));
        assert_eq!(bench.succeed(1, Some(round)), None);
        assert_eq!((bench.ask(1), bench.ask(1)), ((Verdict::Probe(round), None), (Verdict::Busy, None)));
        assert_eq!(bench.succeed(1, Some(round)), Some(BreakerState::Closed));
        assert_eq!(bench.breakers.len(), 0);
    }

    #[test]
    fn what_was_begun_before_does_not_open_it_again_and_a_late_success_closes_it() {
        let mut bench = Bench::new(config());
        bench.open(1);
        let round = bench.probe(1);
        assert_eq!(bench.fail(1, None), Failed::default(), "it was no probe");
        assert_eq!(bench.fail(1, Some(round)).changed, Some(BreakerState::Open));
        // The one that was given up answers after all.
        assert_eq!(bench.succeed(1, None), Some(BreakerState::Closed));
        let mut bench = Bench::new(BreakerConfig { successes: 2, ..config() });
        bench.open(1);
        assert_eq!(bench.succeed(1, None), Some(BreakerState::HalfOpen));
        assert_eq!(bench.succeed(1, None), Some(BreakerState::Closed));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_oldest_closed_first() {
        let mut bench = Bench::new(config());
        bench.open(1);
        (2..=4).for_each(|number| assert_eq!(bench.fail(number, None), Failed::default()));
        bench.fail(2, None);
        // The third is the oldest that is closed.
        assert_eq!(bench.fail(5, None), Failed { changed: None, forgotten: true });
        assert!(bench.breakers.len() == 4 && !bench.breakers.entries.contains_key(&target(3)));
        [2, 4, 5].into_iter().for_each(|number| _ = bench.open(number));
        // Nobody who is open is forgotten.
        for _ in 0..5 {
            assert_eq!(bench.fail(6, None), Failed { changed: None, forgotten: true });
        }
        assert_eq!((bench.ask(6), bench.breakers.len()), ((Verdict::Go, None), 4));
        assert_eq!(bench.breakers.order.len(), 4);
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let mut bench = Bench::new(BreakerConfig { expire: 1000 * MS, ..config() });
        bench.fail(1, None);
        let wait = bench.open(2);
        bench.now = bench.now + 999 * MS;
        bench.breakers.sweep(bench.now);
        assert_eq!(bench.breakers.len(), 2);
        bench.now = bench.now + MS;
        bench.breakers.sweep(bench.now);
        assert_eq!(bench.breakers.len(), 1, "the one that is open counts from the end of its cool-down");
        bench.now = bench.now + wait;
        // A probe is not forgotten.
        assert!(matches!(bench.ask(2).0, Verdict::Probe(_)));
        bench.now = bench.now + 5000 * MS;
        bench.breakers.sweep(bench.now);
        assert_eq!(bench.breakers.len(), 1);
        assert!(bench.breakers.probe_ended(&target(2), 1, bench.now));
        bench.now = bench.now + 1000 * MS;
        bench.breakers.sweep(bench.now);
        assert_eq!((bench.breakers.len(), bench.breakers.order.len(), bench.breakers.sweep_interval()), (0, 0, None));
    }

    #[test]
    fn without_a_threshold_there_are_none() {
        let mut bench = Bench::new(BreakerConfig { failures: 0, ..config() });
        (0..100).for_each(|_| assert_eq!(bench.fail(1, None), Failed::default()));
        assert_eq!((bench.ask(1), bench.breakers.len()), ((Verdict::Go, None), 0));
    }
}
