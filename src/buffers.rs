//! Memory for what has not arrived whole.
//!
//! A [`BufferPool`] belongs to a core. It lends buffers of three sizes to the core's peers: for the tail of an unfinished frame, for input
//! that was put aside because its peer is not read for now, and for messages that come in pieces. A peer that is between frames has none.
//! What is given back last serves first, so a buffer that is lent is one that is still in the cache; a stream of long messages is written
//! into memory that has its pages already.
//!
//! The pool knows sizes only, not whose a buffer is. How much may be lent is decided by those who borrow; how much is kept while nobody
//! needs it is `limits.buffer_pool`.

use crate::wire::{CORRELATION_LEN, DEFAULT_FRAGMENT, HEADER_LEN, MAX_FRAME_PAYLOAD, TOTAL_LEN};

/// The tail of most frames that a read ends in the middle of.
pub(crate) const SMALL: usize = 4 << 10;
/// Two frames of the longest kind: one that is finished and put aside, and what was read after it.
pub(crate) const MEDIUM: usize = 68 << 10;
/// The longest message that the default configuration allows, with its headers.
pub(crate) const LARGE: usize = (1 << 20) + (4 << 10);
const CLASSES: [usize; 3] = [SMALL, MEDIUM, LARGE];

/// The longest record of an encrypted session: its length, and as much as that can say.
const SEALED_RECORD: usize = 2 + 65_535;
/// `Limits::max_message`, as it is by default.
const DEFAULT_MESSAGE: usize = 1 << 20;

const _: () = assert!(2 * (HEADER_LEN + MAX_FRAME_PAYLOAD) <= MEDIUM && SEALED_RECORD <= MEDIUM);
const _: () = assert!(DEFAULT_MESSAGE + TOTAL_LEN + CORRELATION_LEN + (DEFAULT_MESSAGE / DEFAULT_FRAGMENT + 1) * HEADER_LEN <= LARGE);

/// How large the buffer is that is lent for so many bytes: the smallest class that holds them. Above the middle class it is made to
/// measure, and not kept, where the largest would be four times too large or is too small.
pub(crate) const fn capacity_for(size: usize) -> usize {
    if size <= SMALL {
        SMALL
    } else if size <= MEDIUM {
        MEDIUM
    } else if size > LARGE / 4 && size <= LARGE {
        LARGE
    } else {
        size
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    /// By class.
    free: [Vec<Vec<u8>>; CLASSES.len()],
    /// Bytes of the free ones, and how many they may be.
    kept: usize,
    most_kept: usize,
    /// Bytes of those that are lent out.
    lent: usize,
    hits: u64,
    misses: u64,
}

impl BufferPool {
    /// Keeps up to so many bytes while nobody needs them.
    pub(crate) fn new(most_kept: usize) -> Self {
        Self { most_kept, ..Self::default() }
    }

    /// Bytes of memory, lent out or not.
    pub(crate) fn held(&self) -> usize {
        self.kept + self.lent
    }

    /// Bytes that are lent out.
    #[cfg(test)]
    pub(crate) fn lent(&self) -> usize {
        self.lent
    }

    /// Buffers that were lent from the pool, and those that had to be allocated.
    pub(crate) fn taken(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    /// An empty buffer with room for so many bytes. It must not grow by itself: see [`BufferPool::extend`].
    #[cold]
    pub(crate) fn take(&mut self, size: usize) -> Vec<u8> {
        let capacity = capacity_for(size);
        self.lent += capacity;
        if let Some(buffer) = class_of(capacity).and_then(|class| self.free[class].pop()) {
            self.kept -= capacity;
            self.hits += 1;
            return buffer;
        }
        self.misses += 1;
        Vec::with_capacity(capacity)
    }

    /// Takes a buffer back. One that never had room is none.
    #[cold]
    pub(crate) fn give_back(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        self.lent -= capacity;
        if let Some(class) = class_of(capacity)
            && self.make_room(class, capacity)
        {
            buffer.clear();
            self.kept += capacity;
            self.free[class].push(buffer);
        }
    }

    /// Appends to a buffer, which becomes a larger one where it has to.
    #[cold]
    pub(crate) fn extend(&mut self, buffer: &mut Vec<u8>, bytes: &[u8]) {
        self.grow(buffer, buffer.len() + bytes.len());
        buffer.extend_from_slice(bytes);
    }

    /// Makes sure that a buffer has room for so many bytes in all.
    pub(crate) fn grow(&mut self, buffer: &mut Vec<u8>, size: usize) {
        if size > buffer.capacity() {
            let mut larger = self.take(size);
            larger.extend_from_slice(buffer);
            self.give_back(std::mem::replace(buffer, larger));
        }
    }

    /// Whether one more of a class can be kept. Where the bound is reached, the class that keeps the most gives way: one burst of one kind
    /// must not keep the memory from what is used now.
    fn make_room(&mut self, class: usize, capacity: usize) -> bool {
        let kept = |free: &[Vec<Vec<u8>>], class: usize| free[class].len() * CLASSES[class];
        while self.kept + capacity > self.most_kept {
            let most = (0..CLASSES.len()).max_by_key(|&other| kept(&self.free, other)).unwrap_or(class);
            if kept(&self.free, most) <= kept(&self.free, class) {
                return false;
            }
            self.free[most].pop();
            self.kept -= CLASSES[most];
        }
        true
    }
}

fn class_of(capacity: usize) -> Option<usize> {
    CLASSES.iter().position(|&class| class == capacity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_of_the_smallest_class_that_fits_or_made_to_measure() {
        assert_eq!([1, SMALL, SMALL + 1, MEDIUM].map(capacity_for), [SMALL, SMALL, MEDIUM, MEDIUM]);
        assert_eq!(
            [MEDIUM + 1, LARGE / 4, LARGE / 4 + 1, LARGE, LARGE + 1].map(capacity_for),
            [MEDIUM + 1, LARGE / 4, LARGE, LARGE, LARGE + 1]
        );
        let mut pool = BufferPool::new(8 << 20);
        for size in [1, 5000, 100_000, 1 << 20, 2 << 20] {
            let buffer = pool.take(size);
            assert_eq!((buffer.capacity(), pool.lent()), (capacity_for(size), capacity_for(size)));
            pool.give_back(buffer);
        }
        assert_eq!((pool.lent(), pool.held()), (0, SMALL + MEDIUM + LARGE), "what was made to measure is not kept");
    }

    #[test]
    fn the_last_one_given_back_is_the_next_one_lent() {
        let mut pool = BufferPool::new(8 << 20);
        let buffers = [pool.take(1), pool.take(1)];
        let last = buffers[1].as_ptr();
        buffers.into_iter().for_each(|buffer| pool.give_back(buffer));
        let again = pool.take(1);
        assert_eq!((again.as_ptr(), again.len(), pool.taken()), (last, 0, (1, 2)));
        pool.give_back(again);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_class_that_keeps_the_most_gives_way() {
        let mut pool = BufferPool::new(LARGE + 10 * SMALL);
        let small: Vec<_> = (0..500).map(|_| pool.take(1)).collect();
        let large = [pool.take(LARGE), pool.take(LARGE)];
        assert_eq!(pool.held(), 500 * SMALL + 2 * LARGE);
        small.into_iter().for_each(|buffer| pool.give_back(buffer));
        assert_eq!(pool.held() - pool.lent(), LARGE + 10 * SMALL, "no more than it may");
        large.into_iter().for_each(|buffer| pool.give_back(buffer));
        assert_eq!((pool.lent(), pool.free.each_ref().map(Vec::len)), (0, [10, 0, 1]));
        pool.give_back(Vec::new());
        assert_eq!(pool.held(), LARGE + 10 * SMALL);
    }

    #[test]
    fn a_buffer_grows_class_by_class_and_keeps_what_is_in_it() {
        let mut pool = BufferPool::new(0);
        let mut buffer = Vec::new();
        let mut capacities = Vec::new();
        for number in 0..300_u32 {
            pool.extend(&mut buffer, &[number as u8; 1000]);
            capacities.push(buffer.capacity());
        }
        capacities.dedup();
        assert_eq!(capacities[..2], [SMALL, MEDIUM]);
        assert!(buffer.chunks(1000).enumerate().all(|(number, chunk)| chunk == [number as u8; 1000]));
        assert_eq!(pool.lent(), buffer.capacity());
        pool.give_back(buffer);
        assert_eq!(pool.held(), 0);
    }
}
