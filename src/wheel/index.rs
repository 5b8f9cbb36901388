//! The wheel itself: deadlines of what has a number, one each, and nothing of what they are for.
//!
//! # How it works
//!
//! Time is counted in ticks of 1 ms since the origin. A tick's number is read in base 64; a timer hangs at the level of the highest
//! digit in which its tick differs from the wheel's own, in the slot that this digit names:
//!
//! ```text
//!     level 0    64 slots of 1 tick          this 64 ms
//!     level 1    64 slots of 64 ticks        this 4.1 s
//!     level 2    64 slots of 4 096 ticks     this 4.4 min
//!     level 3    64 slots of 262 144 ticks   the next 4.6 h; a ring, its farthest slot also holds all that is later still
//! ```
//!
//! When the wheel reaches the start of a slot above level 0, the slot *cascades*: its timers are placed again, on lower levels (those
//! that were too far away may go round level 3 once more). So a timer is moved at most three times, plus once for every 4.6 h.
//!
//! Two facts make the search short. All timers of a level lie before all timers of the next one, so the lowest occupied level has the
//! next slot; and a bitmap per level says which of its slots are occupied, so that slot is one instruction away. Nothing is ever
//! done per tick: a jump of hours costs the timers it passes and no more.

use std::time::Duration;

use crate::time::Timestamp;

/// The wheel's resolution: a timer fires less than this after its deadline, never before it.
pub(super) const TICK: Duration = Duration::from_millis(1);

pub(super) const TICK_NANOS: u64 = TICK.as_nanos() as u64;
const LEVELS: usize = 4;
const SLOT_BITS: usize = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const TOP: usize = LEVELS - 1;

// A slot is a bit of a u64, and a list's number (level and slot) is a u8.
const _: () = assert!(SLOTS == u64::BITS as usize && LEVELS * SLOTS == 1 << u8::BITS);

/// The head of an empty list, and the neighbours of what hangs in none.
const NIL: u32 = u32::MAX;

/// Where a timer hangs.
#[derive(Clone, Copy, Debug)]
struct Hook {
    /// The first tick at which it may fire; above that, in eight bits, the list it hangs in: `level * SLOTS + slot`.
    tick_and_list: u64,
    /// Neighbours in the list, which is a ring: the head's `previous` is the tail.
    previous: u32,
    next: u32,
}

const TICK_BITS: u32 = u64::BITS - u8::BITS;
const _: () = assert!(u64::MAX / TICK_NANOS < 1 << TICK_BITS);

impl Hook {
    const LOOSE: Self = Self { tick_and_list: 0, previous: NIL, next: NIL };

    fn tick(self) -> u64 {
        self.tick_and_list & ((1 << TICK_BITS) - 1)
    }

    fn list(self) -> u8 {
        (self.tick_and_list >> TICK_BITS) as u8
    }

    fn hang(&mut self, tick: u64, list: u8) {
        self.tick_and_list = tick | u64::from(list) << TICK_BITS;
    }
}

/// This bit tells the two kinds of numbers apart; the rest is an index. Each kind is counted from zero.
pub(super) const KEYED: u32 = 1 << (u32::BITS - 1);

/// See the module. Memory follows the highest index there ever was of either kind, and is used again without allocation.
#[derive(Debug)]
pub(super) struct IndexWheel {
    /// By kind and index.
    hooks: [Vec<Hook>; 2],
    heads: [u32; LEVELS * SLOTS],
    /// Bit `slot` of word `level`: that list has timers.
    occupied: [u64; LEVELS],
    /// The tick up to which slots were emptied: `elapsed <= tick_at(now)`, and `elapsed <= tick` for every timer.
    elapsed: u64,
    /// The latest time seen.
    now: Timestamp,
    len: usize,
}

impl IndexWheel {
    /// Memory of one timer.
    pub(super) const BYTES: usize = size_of::<Hook>();

    /// A wheel without timers.
    pub(super) fn new(now: Timestamp) -> Self {
        Self { hooks: [Vec::new(), Vec::new()], heads: [NIL; LEVELS * SLOTS], occupied: [0; LEVELS], elapsed: tick_at(now), now, len: 0 }
    }

    /// How many timers there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Sets a number's timer, in place of the deadline that it had, if it had one: the number comes out of
    /// [`pop_expired`](Self::pop_expired) at `deadline`, or less than 1 ms later.
    ///
    /// A deadline that is not after the latest time seen fires at the next call, also while a caller is draining: rearm a timer to a
    /// later time than that of the turn, or the drain does not end.
    pub(super) fn set(&mut self, index: u32, deadline: Timestamp) {
        assert_ne!(index, NIL, "fewer than 2^31 - 1 timers of each kind");
        let mut tick = deadline.as_nanos().div_ceil(TICK_NANOS);
        if deadline <= self.now {
            // Due already: not to be kept for what is left of the running tick.
            tick = tick.min(tick_at(self.now));
        }
        let (kind, at) = place_of(index);
        if at >= self.hooks[kind].len() {
            self.hooks[kind].resize(at + 1, Hook::LOOSE);
        } else {
            self.clear(index);
        }
        self.len += 1;
        self.place(index, tick.max(self.elapsed));
    }

    /// Takes a number's timer out before it fires. Returns whether there was one.
    pub(super) fn clear(&mut self, index: u32) -> bool {
        let (kind, at) = place_of(index);
        let hangs = self.hooks[kind].get(at).is_some_and(|hook| hook.next != NIL);
        if hangs {
            self.unlink(index);
        }
        hangs
    }

    /// Takes out one timer whose deadline has come, tick by tick in order (within a tick in no promised order); none when there is
    /// none left. A `now` before one already seen is allowed and fires nothing new.
    ///
    /// O(1) amortised; a single call may have to cascade a slot, which is linear in the timers of that slot.
    pub(super) fn pop_expired(&mut self, now: Timestamp) -> Option<u32> {
        self.now = self.now.max(now);
        let limit = tick_at(now);
        while let Some((list, tick)) = self.next_slot() {
            if tick > limit {
                break;
            }
            self.elapsed = tick;
            if level_of(list) == 0 {
                let index = self.heads[usize::from(list)];
                self.unlink(index);
                return Some(index);
            }
            self.cascade(list);
        }
        // No slot starts before or at the limit, so none is passed over. Time that goes backwards does not take the wheel along.
        self.elapsed = self.elapsed.max(limit);
        None
    }

    /// When to call [`pop_expired`](Self::pop_expired) next; none without timers. O(levels).
    ///
    /// Never after the time at which a timer can fire, and exactly that time once the next timer has come down to level 0. Before
    /// that it may be the time of a cascade: a caller that sleeps until here wakes at most three times for nothing for a timer of up
    /// to 4.6 h (once a level), and once more for each further 4.6 h. Not after the latest time seen where a timer is due already.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let (_, tick) = self.next_slot()?;
        Some(Timestamp::from_nanos(tick.saturating_mul(TICK_NANOS)))
    }

    fn hook(&self, index: u32) -> Hook {
        let (kind, at) = place_of(index);
        self.hooks[kind][at]
    }

    fn hook_mut(&mut self, index: u32) -> &mut Hook {
        let (kind, at) = place_of(index);
        &mut self.hooks[kind][at]
    }

    /// The occupied slot that starts first, as a list, and the tick at which it starts.
    fn next_slot(&self) -> Option<(u8, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let shift = level * SLOT_BITS;
        let block = self.elapsed >> shift;
        // Count from the wheel's own slot on: below the top no occupied slot is behind it, at the top those behind are the next round.
        let ahead = self.occupied[level].rotate_right(slot_of(block) as u32).trailing_zeros();
        let block = block + u64::from(ahead);
        Some((list_of(level, slot_of(block)), block << shift))
    }

    /// Hangs a timer where its tick belongs, seen from `elapsed`.
    fn place(&mut self, index: u32, tick: u64) {
        debug_assert!(tick >= self.elapsed);
        // The highest digit that differs; the lowest where none does, which is the slot that is popped next.
        let level = (((tick ^ self.elapsed) | 1).ilog2() as usize / SLOT_BITS).min(TOP);
        let shift = level * SLOT_BITS;
        // One round less one slot: any farther and the ring would come back to the wheel's own slot, which has passed.
        let farthest = (self.elapsed >> shift) + (SLOTS as u64 - 1);
        let list = list_of(level, slot_of((tick >> shift).min(farthest)));
        self.hook_mut(index).hang(tick, list);
        self.link(index, list);
    }

    /// Places all timers of a list again. The wheel stands at the start of the slot, so none comes back to it.
    fn cascade(&mut self, list: u8) {
        let mut index = self.heads[usize::from(list)];
        let tail = self.hook(index).previous;
        self.empty(list);
        loop {
            let hook = self.hook(index);
            let next = hook.next;
            self.place(index, hook.tick());
            debug_assert_ne!(self.hook(index).list(), list);
            if index == tail {
                break;
            }
            index = next;
        }
    }

    /// Appends to a list.
    fn link(&mut self, index: u32, list: u8) {
        let head = self.heads[usize::from(list)];
        let (previous, next) = if head == NIL {
            self.heads[usize::from(list)] = index;
            self.occupied[level_of(list)] |= bit_of(list);
            (index, index)
        } else {
            let tail = std::mem::replace(&mut self.hook_mut(head).previous, index);
            self.hook_mut(tail).next = index;
            (tail, head)
        };
        let hook = self.hook_mut(index);
        hook.previous = previous;
        hook.next = next;
    }

    /// Takes out of the list it hangs in.
    fn unlink(&mut self, index: u32) {
        let hook = std::mem::replace(self.hook_mut(index), Hook::LOOSE);
        let Hook { previous, next, .. } = hook;
        let list = hook.list();
        self.len -= 1;
        if next == index {
            self.empty(list);
            return;
        }
        self.hook_mut(previous).next = next;
        self.hook_mut(next).previous = previous;
        let head = &mut self.heads[usize::from(list)];
        if *head == index {
            *head = next;
        }
    }

    /// Forgets a list, whose timers are about to go elsewhere.
    fn empty(&mut self, list: u8) {
        self.heads[usize::from(list)] = NIL;
        self.occupied[level_of(list)] &= !bit_of(list);
    }

    /// Panics where the structure contradicts itself.
    #[cfg(test)]
    pub(super) fn invariants(&self) {
        assert!(self.elapsed <= tick_at(self.now));
        let mut seen = 0;
        for (list, &head) in (0..=u8::MAX).zip(&self.heads) {
            let (level, shift) = (level_of(list), level_of(list) * SLOT_BITS);
            assert_eq!(head != NIL, self.occupied[level] & bit_of(list) != 0, "bitmap of list {list}");
            if head == NIL {
                continue;
            }
            // How many slots of this level lie ahead; on level 0 the wheel's own slot is the one being popped.
            let own = self.elapsed >> shift;
            let ahead = (u64::from(list) + SLOTS as u64 - slot_of(own) as u64) % SLOTS as u64;
            assert!(ahead > 0 || level == 0, "list {list} has passed");
            let mut index = head;
            loop {
                let hook = self.hook(index);
                let tick = hook.tick();
                assert_eq!(hook.list(), list);
                assert_eq!(self.hook(hook.next).previous, index);
                if level < TOP {
                    assert_eq!(tick >> shift, own + ahead, "tick {tick} in list {list}");
                    assert_eq!(tick >> shift >> SLOT_BITS, own >> SLOT_BITS, "level {level} reaches beyond its round");
                } else {
                    assert!(tick >> shift >= own + ahead, "tick {tick} in list {list}");
                    assert_ne!(tick >> shift, own, "tick {tick} belongs below the top");
                }
                seen += 1;
                index = hook.next;
                if index == head {
                    break;
                }
            }
        }
        assert_eq!(seen, self.len());
        assert_eq!(seen, self.hooks.iter().flatten().filter(|hook| hook.next != NIL).count());
    }
}

fn place_of(index: u32) -> (usize, usize) {
    (usize::from(index & KEYED != 0), (index & !KEYED) as usize)
}

/// The last tick that has begun at `now`.
pub(super) fn tick_at(now: Timestamp) -> u64 {
    now.as_nanos() / TICK_NANOS
}

fn slot_of(block: u64) -> usize {
    block as usize % SLOTS
}

fn list_of(level: usize, slot: usize) -> u8 {
    (level * SLOTS + slot) as u8
}

fn level_of(list: u8) -> usize {
    usize::from(list) / SLOTS
}

fn bit_of(list: u8) -> u64 {
    1 << (usize::from(list) % SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn ms(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * TICK_NANOS)
    }

    /// There is one for each peer.
    #[test]
    fn is_small() {
        assert_eq!(IndexWheel::BYTES, 16);
    }

    /// What the wheel does with time is looked at with timers that have values.
    #[test]
    fn a_number_has_one_deadline_the_last_that_was_set() {
        let (mut rng, mut wheel) = (Rng::new(1), IndexWheel::new(ms(0)));
        let mut model = std::collections::BTreeMap::new();
        for now in 0..20_000 {
            let number = rng.below(50) as u32 | if rng.chance(1, 2) { KEYED } else { 0 };
            if rng.chance(1, 3) {
                assert_eq!(wheel.clear(number), model.remove(&number).is_some());
            } else {
                let bits = rng.below(20);
                let at = now + rng.below(1 << bits);
                wheel.set(number, ms(at));
                model.insert(number, at);
            }
            while let Some(number) = wheel.pop_expired(ms(now)) {
                assert!(model.remove(&number).is_some_and(|at| at <= now));
            }
            wheel.invariants();
            assert!(model.values().all(|&at| at > now));
            assert_eq!(wheel.len(), model.len());
        }
        assert!(!wheel.clear(1000) && wheel.hooks.iter().all(|hooks| hooks.len() == 50));
    }
}
