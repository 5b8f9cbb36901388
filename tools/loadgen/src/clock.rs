//! The clock of a run: `CLOCK_MONOTONIC`, as a number.
//!
//! Not `std::time::Instant`, because a timestamp travels in a payload and may be compared in another process of the same machine.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on the machine's monotonic clock.
#[inline]
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Seconds since 1970, to say when something was measured. Never subtracted from the other clock.
pub(crate) fn wall_s() -> f64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
