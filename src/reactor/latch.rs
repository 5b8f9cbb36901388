//! Whether a core is awake.
//!
//! A producer that has pushed needs to wake the core only if it sleeps or is about to. The latch is one flag, "awake", and both ends only
//! ever swap it. Swaps of one flag have one order that all threads agree on, so either the core's swap to "asleep" comes first, and the
//! producer finds it and wakes; or the producer's comes first, and the core, looking at its queues once more after its own swap, finds what
//! was pushed before. Plain loads and stores have no such order, and lose wakeups. `tests/latch_loom.rs` tries every interleaving.

use super::sync::{AtomicBool, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct Latch {
    awake: AtomicBool,
}

impl Latch {
    /// A core that runs.
    pub(crate) fn new() -> Self {
        Self { awake: AtomicBool::new(true) }
    }

    /// After a push: whether the core has to be woken.
    pub(crate) fn notify(&self) -> bool {
        !self.awake.swap(true, Ordering::AcqRel)
    }

    /// The core's last act before it looks at its queues once more and then sleeps.
    pub(crate) fn fall_asleep(&self) {
        self.awake.swap(false, Ordering::AcqRel);
    }

    /// The core runs again.
    pub(crate) fn wake_up(&self) {
        self.awake.swap(true, Ordering::AcqRel);
    }
}
