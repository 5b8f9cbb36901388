//! The atomics of the latch, in one place so that its model can put others there.

pub(super) use std::sync::atomic::{AtomicBool, Ordering};
