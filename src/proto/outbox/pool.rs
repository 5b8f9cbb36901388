//! The memory of outboxes that have something queued, lent to one peer after the other.

use super::queue::Queued;

/// Boxes for peers that have something queued, shared by the peers of a core.
///
/// Last in, first out: in an echo the box that a reply is written into is the one that has just been emptied, and is in the cache.
#[derive(Debug)]
pub(crate) struct QueuedPool {
    #[expect(clippy::vec_box, reason = "a peer takes the box itself, not its contents")]
    pub(super) free: Vec<Box<Queued>>,
    /// Bytes of memory of the free ones, and of those that were lent and have still the room that they had then: so what peers have beyond
    /// what they were sent is bounded, whoever has it.
    kept: usize,
    /// Most that is kept. When more peers than this is enough for have something queued at once, some of them allocate.
    most_kept: usize,
}

impl QueuedPool {
    /// Keeps up to so many bytes.
    pub(crate) fn new(most_kept: usize) -> Self {
        Self { free: Vec::new(), kept: 0, most_kept }
    }

    /// Bytes of memory that are kept, or were lent and not fitted.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    pub(super) fn take(&mut self) -> Box<Queued> {
        let Some(mut queued) = self.free.pop() else { return Box::default() };
        queued.lent = queued.footprint();
        queued
    }

    /// What was lent has become the peer's own.
    pub(super) fn forget(&mut self, lent: &mut usize) {
        self.kept -= std::mem::take(lent);
    }

    pub(super) fn give_back(&mut self, mut queued: Box<Queued>) {
        debug_assert!(queued.is_empty());
        self.forget(&mut queued.lent);
        queued.shrink();
        let footprint = queued.footprint();
        if self.kept + footprint <= self.most_kept {
            self.kept += footprint;
            self.free.push(queued);
        }
    }
}
