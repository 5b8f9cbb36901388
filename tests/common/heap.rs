//! The heap of a test's process: how many bytes are live, how many were at most, and how often each thread has asked for some.
//!
//! Unlike what the kernel says is resident, it does not depend on what the allocator keeps of what was freed, nor on where it has put it.
//! The system's allocator does the work. The test that has this module has its allocator.

#![allow(dead_code, reason = "each test file is a crate of its own and uses a part")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Initialised without an allocation and never dropped, so the allocator may use it at any time.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Bytes that are live.
pub(crate) fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Bytes that were live at most since the last look, beyond `baseline`.
pub(crate) fn peak_beyond(baseline: usize) -> usize {
    PEAK.swap(live(), Ordering::Relaxed).saturating_sub(baseline)
}

/// How often the calling thread has asked for memory. A reallocation counts; giving back does not.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

fn more(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

fn less(bytes: usize) {
    LIVE.fetch_sub(bytes, Ordering::Relaxed);
}

fn asked() {
    ALLOCATIONS.with(|count| count.set(count.get() + 1));
}

struct Counting;

// SAFETY: every call goes to `System` with the arguments that it came with, and its answer is returned; counting touches only atomics and a
// `Cell` of the calling thread, which neither allocate nor unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        asked();
        more(layout.size());
        // SAFETY: the caller keeps the promises of `GlobalAlloc::alloc`, which are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        asked();
        more(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        asked();
        if size >= layout.size() {
            more(size - layout.size());
        } else {
            less(layout.size() - size);
        }
        // SAFETY: as in `alloc`; `block` came from `System`, since every block does.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        less(layout.size());
        // SAFETY: as in `realloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
