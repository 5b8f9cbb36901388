//! A hierarchical timing wheel: all timers of one core.
//!
//! Scheme 7 of Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987): insert, cancel and expire in O(1) amortised,
//! for any number of timers. The wheel owns the timers and their order. It must not know what a timer is for: whoever pops it is told by
//! its value; or by its index, where it was set for one. Each index has one timer, and that needs neither value nor key.

mod index;

use std::num::NonZeroU32;

use slab::Slab;

use crate::time::Timestamp;
use index::{IndexWheel, KEYED};

/// Names a timer from its insertion on. Once the timer has fired or was cancelled, its key is stale and names nothing.
///
/// The generation is the wheel's count of insertions, modulo 2^32 - 1: a key kept for four billion insertions could name a stranger.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct TimerKey {
    index: u32,
    generation: NonZeroU32,
}

struct Timer<T> {
    generation: NonZeroU32,
    value: T,
}

/// What a timer was set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired<T> {
    Index(u32),
    Value(T),
}

/// Timers of one core, ordered by deadline to a resolution of 1 ms.
///
/// Drive it with [`pop_expired`](Self::pop_expired) until that has none, then sleep until [`next_deadline`](Self::next_deadline).
/// Memory follows the most timers there ever were at once, and is used again without allocation.
pub(crate) struct TimerWheel<T> {
    /// Those with values.
    timers: Slab<Timer<T>>,
    wheel: IndexWheel,
    generation: NonZeroU32,
}

impl<T> TimerWheel<T> {
    /// Memory of one timer with a value, and of one for an index.
    pub(crate) const BYTES: usize = size_of::<Timer<T>>() + size_of::<usize>() + Self::INDEX_BYTES;
    pub(crate) const INDEX_BYTES: usize = IndexWheel::BYTES;

    /// A wheel without timers.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { timers: Slab::new(), wheel: IndexWheel::new(now), generation: NonZeroU32::MIN }
    }

    /// How many timers there are.
    pub(crate) fn len(&self) -> usize {
        self.wheel.len()
    }

    /// Whether there are no timers.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.wheel.len() == 0
    }

    /// Sets the timer of an index, in place of the one that it had: see [`IndexWheel::set`].
    pub(crate) fn set(&mut self, index: u32, deadline: Timestamp) {
        self.wheel.set(index, deadline);
    }

    /// Takes the timer of an index out, if it has one.
    pub(crate) fn clear(&mut self, index: u32) {
        self.wheel.clear(index);
    }

    /// Adds a timer: `value` comes out of [`pop_expired`](Self::pop_expired) at `deadline`, or less than 1 ms later. See
    /// [`IndexWheel::set`].
    pub(crate) fn insert(&mut self, deadline: Timestamp, value: T) -> TimerKey {
        let generation = self.generation;
        self.generation = generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let index = self.timers.insert(Timer { generation, value }) as u32;
        self.wheel.set(index | KEYED, deadline);
        TimerKey { index, generation }
    }

    /// Takes a timer out before it fires. A stale key has no effect: the timer it named has fired or was cancelled.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> Option<T> {
        if self.timers.get(key.index as usize)?.generation != key.generation {
            return None;
        }
        self.wheel.clear(key.index | KEYED);
        Some(self.timers.remove(key.index as usize).value)
    }

    /// Takes out one timer whose deadline has come: see [`IndexWheel::pop_expired`].
    pub(crate) fn pop_expired(&mut self, now: Timestamp) -> Option<Expired<T>> {
        let index = self.wheel.pop_expired(now)?;
        Some(if index & KEYED == 0 { Expired::Index(index) } else { Expired::Value(self.timers.remove((index & !KEYED) as usize).value) })
    }

    /// When to call [`pop_expired`](Self::pop_expired) next: see [`IndexWheel::next_deadline`].
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.wheel.next_deadline()
    }

    /// Panics where the structure contradicts itself.
    #[cfg(test)]
    fn invariants(&self) {
        self.wheel.invariants();
        assert!(self.wheel.len() >= self.timers.len());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::index::{TICK, TICK_NANOS, tick_at};
    use super::*;
    use crate::rng::Rng;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn ms(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * TICK_NANOS)
    }

    fn pop<T>(wheel: &mut TimerWheel<T>, now: Timestamp) -> Option<T> {
        wheel.pop_expired(now).map(|expired| match expired {
            Expired::Value(value) => value,
            Expired::Index(index) => panic!("nothing was set for {index}"),
        })
    }

    fn drain<T>(wheel: &mut TimerWheel<T>, now: Timestamp) -> Vec<T> {
        let fired = std::iter::from_fn(|| pop(wheel, now)).collect();
        wheel.invariants();
        fired
    }

    #[test]
    fn is_small() {
        assert_eq!((size_of::<Timer<u64>>(), TimerWheel::<u64>::BYTES), (16, 40));
        assert_eq!(size_of::<Option<TimerKey>>(), 8);
    }

    #[test]
    fn fires_at_its_deadline_and_never_before() {
        for distance in [0, 1, 2, 63, 64, 65, 4095, 4096, 4097, 262_143, 262_144, 16_777_215, 16_777_216, 100_000_000] {
            for start in [0, 1, 63, 64, 4095, 262_143, 262_144, 16_777_215, 16_777_216, 123_456_789] {
                let mut wheel = TimerWheel::new(ms(start));
                wheel.insert(ms(start + distance), ());
                wheel.invariants();
                if distance > 0 {
                    assert!(drain(&mut wheel, ms(start + distance - 1)).is_empty(), "{distance} from {start}");
                }
                assert_eq!(drain(&mut wheel, ms(start + distance)).len(), 1, "{distance} from {start}");
                assert_eq!(wheel.next_deadline(), None);
            }
        }
    }

    #[test]
    fn a_deadline_within_a_tick_waits_for_the_next() {
        let mut wheel = TimerWheel::new(ms(10));
        wheel.insert(Timestamp::from_nanos(10_000_001), ());
        assert_eq!(wheel.next_deadline(), Some(ms(11)));
        assert_eq!(pop(&mut wheel, Timestamp::from_nanos(10_999_999)), None);
        assert_eq!(pop(&mut wheel, ms(11)), Some(()));
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_call() {
        let now = Timestamp::from_nanos(10_700_000);
        let mut wheel = TimerWheel::new(now);
        for past in [0, 9_999_999, 10_000_000, 10_500_000, 10_700_000] {
            wheel.insert(Timestamp::from_nanos(past), past);
            assert!(wheel.next_deadline().unwrap() <= now);
            assert_eq!(drain(&mut wheel, now), [past]);
        }
        wheel.insert(Timestamp::from_nanos(10_700_001), 1);
        assert!(drain(&mut wheel, now).is_empty());
    }

    #[test]
    fn a_deadline_inserted_while_draining_keeps_its_place() {
        let mut wheel = TimerWheel::new(ms(0));
        wheel.insert(ms(10), 10);
        wheel.insert(ms(5000), 5000);
        assert_eq!(pop(&mut wheel, ms(6000)), Some(10));
        // The wheel itself stands at 10: these are due, before and after what is left, and the last is not due.
        for tick in [4, 4999, 5001, 6001] {
            wheel.insert(ms(tick), tick);
        }
        wheel.invariants();
        assert_eq!(drain(&mut wheel, ms(6000)), [4, 4999, 5000, 5001]);
        assert_eq!(wheel.next_deadline(), Some(ms(6001)));
    }

    #[test]
    fn a_stale_key_is_harmless() {
        let mut wheel = TimerWheel::new(ms(0));
        let cancelled = wheel.insert(ms(5), 'a');
        assert_eq!(wheel.cancel(cancelled), Some('a'));
        assert_eq!(wheel.cancel(cancelled), None);
        let fired = wheel.insert(ms(5), 'b');
        assert_eq!(fired.index, cancelled.index);
        assert_eq!(wheel.cancel(cancelled), None);
        assert_eq!(pop(&mut wheel, ms(5)), Some('b'));
        let living = wheel.insert(ms(9), 'c');
        assert_eq!(wheel.cancel(fired), None);
        assert_eq!(wheel.cancel(living), Some('c'));
        assert!(wheel.is_empty());
    }

    #[test]
    fn indices_and_values_have_timers_side_by_side() {
        let mut wheel = TimerWheel::new(ms(0));
        let key = wheel.insert(ms(20), 'a');
        for (index, at) in [(0, 5), (7, 10), (0, 30)] {
            wheel.set(index, ms(at));
        }
        wheel.insert(ms(10), 'b');
        assert_eq!(wheel.len(), 4);
        let mut fired: Vec<_> = std::iter::from_fn(|| wheel.pop_expired(ms(15))).collect();
        fired.sort_by_key(|expired| matches!(expired, Expired::Value(_)));
        assert_eq!(fired, [Expired::Index(7), Expired::Value('b')]);
        wheel.clear(0);
        wheel.clear(99);
        assert_eq!((wheel.cancel(key), wheel.len()), (Some('a'), 0));
    }

    #[test]
    fn generations_wrap_without_zero() {
        let mut wheel = TimerWheel::new(ms(0));
        wheel.generation = NonZeroU32::MAX;
        let last = wheel.insert(ms(1), 'a');
        let first = wheel.insert(ms(1), 'b');
        assert_eq!((last.generation, first.generation), (NonZeroU32::MAX, NonZeroU32::MIN));
        assert_eq!((wheel.cancel(first), wheel.cancel(last)), (Some('b'), Some('a')));
    }

    #[test]
    fn time_that_goes_backwards_fires_nothing() {
        let mut wheel = TimerWheel::new(ms(100));
        wheel.insert(ms(200), ());
        wheel.insert(ms(300), ());
        // At 260 the other one has come down to level 0: from an earlier block its slot would mean another tick.
        assert_eq!(drain(&mut wheel, ms(260)).len(), 1);
        assert!(drain(&mut wheel, ms(50)).is_empty());
        assert!(drain(&mut wheel, ms(299)).is_empty());
        assert_eq!(drain(&mut wheel, ms(300)).len(), 1);
    }

    #[test]
    fn a_jump_costs_the_timers_and_not_the_ticks() {
        // One visit for each of the 10^13 ticks of centuries would not end before the test runner's patience does.
        let mut wheel = TimerWheel::new(ms(0));
        let century = ms(0) + 36_500 * DAY;
        assert!(drain(&mut wheel, century).is_empty());
        for later in [TICK, HOUR, 6 * HOUR, DAY, 30 * DAY] {
            wheel.insert(century + later, later);
        }
        let centuries = ms(0) + 3 * 36_500 * DAY;
        assert_eq!(drain(&mut wheel, centuries), [TICK, HOUR, 6 * HOUR, DAY, 30 * DAY]);
        wheel.insert(centuries + 36_500 * DAY, DAY);
        assert!(drain(&mut wheel, centuries + 36_499 * DAY).is_empty());
        assert_eq!(drain(&mut wheel, centuries + 36_500 * DAY), [DAY]);
    }

    #[test]
    fn the_end_of_time_is_a_deadline_too() {
        let mut wheel = TimerWheel::new(ms(0));
        let key = wheel.insert(Timestamp::from_nanos(u64::MAX), ());
        assert!(wheel.next_deadline().is_some());
        assert!(drain(&mut wheel, ms(0) + 1000 * DAY).is_empty());
        assert_eq!(wheel.cancel(key), Some(()));
    }

    #[test]
    fn sleeping_until_next_deadline_wakes_once_a_level() {
        for seed in 0..2000 {
            let mut rng = Rng::new(seed);
            let start = ms(rng.below(1 << 30));
            let mut wheel = TimerWheel::new(start);
            // Every magnitude, not only the largest.
            let bits = rng.below(32);
            let distance = rng.below(1 << bits);
            let deadline = start + Duration::from_millis(distance);
            wheel.insert(deadline, ());
            let mut wakes = 0;
            while !wheel.is_empty() {
                let next = wheel.next_deadline().unwrap();
                assert!(next <= deadline, "seed {seed}");
                wakes += 1;
                if wheel.pop_expired(next).is_some() {
                    assert_eq!(next, deadline, "seed {seed}");
                }
                wheel.invariants();
            }
            let rounds = distance / (63 << 18);
            assert!(wakes <= 4 + rounds, "seed {seed}: {wakes} wakes for {distance} ms");
        }
    }

    #[test]
    fn steady_use_does_not_allocate() {
        let mut wheel = TimerWheel::new(ms(0));
        let mut rng = Rng::new(1);
        let mut keys: Vec<TimerKey> = (0..1000).map(|n| wheel.insert(ms(n), n)).collect();
        let capacity = wheel.timers.capacity();
        for now in 0..20_000 {
            for fired in drain(&mut wheel, ms(now)) {
                keys[fired as usize] = wheel.insert(ms(now + 1 + rng.below(10_000)), fired);
            }
            let other = rng.below(1000);
            assert_eq!(wheel.cancel(keys[other as usize]), Some(other));
            keys[other as usize] = wheel.insert(ms(now + 1 + rng.below(10_000)), other);
        }
        assert_eq!(wheel.len(), 1000);
        assert_eq!(wheel.timers.capacity(), capacity);
    }

    /// The wheel beside a sorted map that does the same in the obvious way.
    struct Model {
        rng: Rng,
        wheel: TimerWheel<u64>,
        now: Timestamp,
        next_id: u64,
        living: BTreeMap<u64, Entry>,
        /// The same by deadline.
        order: BTreeMap<(Timestamp, u64), ()>,
        stale: Vec<TimerKey>,
        /// The tick of the last timer that was popped and was not late at its insertion.
        last_tick: u64,
    }

    struct Entry {
        key: TimerKey,
        deadline: Timestamp,
        late: bool,
    }

    impl Model {
        fn new(seed: u64) -> Self {
            let mut rng = Rng::new(seed);
            let bits = rng.below(58);
            let now = Timestamp::from_nanos(rng.below(1 << bits));
            let wheel = TimerWheel::new(now);
            Self { rng, wheel, now, next_id: 0, living: BTreeMap::new(), order: BTreeMap::new(), stale: Vec::new(), last_tick: 0 }
        }

        /// From below a tick up to `2^bits` ns, each magnitude as likely as the others, to the nanosecond or on a tick.
        fn distance(&mut self, bits: u64) -> Duration {
            let bits = 17 + self.rng.below(bits - 16);
            let nanos = self.rng.below(1 << bits);
            Duration::from_nanos(if self.rng.chance(1, 2) { nanos } else { nanos / TICK_NANOS * TICK_NANOS })
        }

        fn insert(&mut self) {
            let distance = self.distance(50);
            let deadline = if self.rng.chance(1, 10) {
                Timestamp::from_nanos(self.now.as_nanos().saturating_sub(distance.as_nanos() as u64))
            } else {
                self.now + distance
            };
            let id = self.next_id;
            self.next_id += 1;
            let key = self.wheel.insert(deadline, id);
            self.living.insert(id, Entry { key, deadline, late: deadline <= self.now });
            self.order.insert((deadline, id), ());
        }

        fn cancel(&mut self) {
            let from = self.rng.below(self.next_id.max(1));
            if let Some((&id, _)) = self.living.range(from..).next() {
                let entry = self.forget(id);
                assert_eq!(self.wheel.cancel(entry.key), Some(id));
            }
            if !self.stale.is_empty() {
                let key = self.stale[self.rng.below(self.stale.len() as u64) as usize];
                assert_eq!(self.wheel.cancel(key), None);
            }
        }

        fn forget(&mut self, id: u64) -> Entry {
            let entry = self.living.remove(&id).expect("popped or cancelled twice");
            self.order.remove(&(entry.deadline, id));
            self.stale.push(entry.key);
            entry
        }

        fn pop(&mut self) -> bool {
            let Some(id) = pop(&mut self.wheel, self.now) else { return false };
            let entry = self.forget(id);
            assert!(entry.deadline <= self.now, "fired before its deadline");
            if !entry.late {
                let tick = entry.deadline.as_nanos().div_ceil(TICK_NANOS);
                assert!(tick >= self.last_tick, "ticks out of order");
                self.last_tick = tick;
            }
            true
        }

        /// Pops all there is; inserts and cancels in between, as handlers do.
        fn drain(&mut self) {
            while self.pop() {
                match self.rng.below(8) {
                    0 => self.insert(),
                    1 => self.cancel(),
                    _ => {}
                }
            }
            let tick = ms(tick_at(self.now));
            if let Some((&(deadline, _), ())) = self.order.first_key_value() {
                assert!(deadline > tick, "not fired a tick after its deadline");
            }
            assert!(self.living.values().all(|entry| !entry.late), "late and not fired");
        }

        fn advance(&mut self) {
            // 2^50 ns are 13 days, 2^36 ns are 69 s.
            self.now = match self.rng.below(64) {
                // As a reactor does.
                0..50 => self.wheel.next_deadline().map_or(self.now, |next| next.max(self.now)),
                50..63 => self.now + self.distance(36),
                _ => self.now + self.distance(50),
            };
        }

        fn check(&self) {
            self.wheel.invariants();
            assert_eq!(self.wheel.len(), self.living.len());
            assert_eq!(self.wheel.is_empty(), self.living.is_empty());
            match (self.wheel.next_deadline(), self.order.first_key_value()) {
                (None, None) => {}
                (Some(next), Some((&(first, _), ()))) => {
                    let tick = ms(first.as_nanos().div_ceil(TICK_NANOS));
                    assert!(next <= tick.max(self.now), "{next:?} sleeps past {first:?}");
                    // A cascade's time lies ahead, or the caller would spin; only what is due already lies behind.
                    assert!(next > ms(tick_at(self.now)) || self.living.values().any(|entry| entry.late) || first <= self.now);
                }
                (next, first) => panic!("{next:?} where the first is {first:?}"),
            }
        }

        fn run(&mut self, steps: u32) {
            for _ in 0..steps {
                match self.rng.below(16) {
                    0..8 => self.insert(),
                    8..11 => self.cancel(),
                    11..13 => drop(self.pop()),
                    _ => {
                        self.advance();
                        self.drain();
                    }
                }
                self.check();
            }
            // All fire in the end, and nothing stays behind.
            self.now = self.now + 30 * DAY;
            while self.pop() {}
            self.check();
            assert!(self.wheel.is_empty() && self.wheel.timers.is_empty());
            assert_eq!((self.wheel.len(), self.wheel.next_deadline()), (0, None));
        }
    }

    #[test]
    fn agrees_with_a_sorted_map() {
        for seed in 0..40 {
            // The harness shows what was printed where the test fails: the last line is the seed.
            println!("seed {seed}");
            Model::new(seed).run(1500);
        }
    }

    #[test]
    fn agrees_with_a_sorted_map_when_crowded() {
        // Most timers within one second: long lists, and cancels from the head, the middle and the tail.
        for seed in 0..10 {
            println!("seed {seed}");
            let mut model = Model::new(seed);
            for _ in 0..3000 {
                let deadline = model.now + model.rng.duration_below(Duration::from_millis(900));
                let id = model.next_id;
                model.next_id += 1;
                let key = model.wheel.insert(deadline, id);
                model.living.insert(id, Entry { key, deadline, late: deadline <= model.now });
                model.order.insert((deadline, id), ());
            }
            for _ in 0..1000 {
                model.cancel();
            }
            model.check();
            while !model.living.is_empty() {
                model.now = model.wheel.next_deadline().unwrap().max(model.now);
                while model.pop() {}
                model.check();
            }
            model.run(200);
        }
    }
}
