//! The memory of outboxes that have something queued, lent to one peer after the other.

use super::queue::Queued;

/// Boxes for peers that have something queued, shared by the peers of a core.
///
/// Last in, first out: in an echo the box that a reply is written into is the one that has just been emptied, and is in the cache.
#[derive(Debug, Default)]
pub(crate) struct QueuedPool {
    #[expect(clippy::vec_box, reason = "a peer takes the box itself, not its contents")]
    pub(super) free: Vec<Box<Queued>>,
    kept: usize,
}

impl QueuedPool {
    /// Memory that is kept, bytes. When more peers than this is enough for have something queued at once, some of them allocate.
    const KEPT: usize = 8 << 20;

    pub(super) fn take(&mut self) -> Box<Queued> {
        let queued = self.free.pop().unwrap_or_default();
        self.kept -= queued.footprint().min(self.kept);
        queued
    }

    pub(super) fn give_back(&mut self, mut queued: Box<Queued>) {
        debug_assert!(queued.is_empty());
        queued.shrink();
        let footprint = queued.footprint();
        if self.kept + footprint <= Self::KEPT {
            self.kept += footprint;
            self.free.push(queued);
        }
    }
}
