//! How much other threads may have queued for a core.
//!
//! A producer reserves before it pushes, on every core that it means to reach, and gives back what it has reserved if one of them refuses.
//! So a call that goes to all cores happens on all or on none, and a push that follows a reservation cannot fail.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::error::SendError;

/// Bits of the word that count bytes; the rest count messages.
const BYTE_BITS: u32 = 40;
const BYTE_MASK: u64 = (1 << BYTE_BITS) - 1;

/// The room of one queue, in messages and bytes, in one word: both are taken together or not at all.
#[derive(Debug)]
pub(crate) struct Credit {
    /// Producers on all cores write it, so it shares its cache line with nothing.
    used: CachePadded<AtomicU64>,
    max_messages: u64,
    max_bytes: u64,
    /// Nobody takes anything out any more.
    closed: AtomicBool,
}

impl Credit {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        let (max_messages, max_bytes) = (max_messages as u64, max_bytes as u64);
        assert!(max_messages < 1 << (64 - BYTE_BITS) && max_bytes <= BYTE_MASK, "validate() keeps both within the word");
        Self { used: CachePadded::new(AtomicU64::new(0)), max_messages, max_bytes, closed: AtomicBool::new(false) }
    }

    /// Takes room for one message of so many bytes; says whether there was.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let more = |used: u64| {
            let fits = used >> BYTE_BITS < self.max_messages && bytes <= self.max_bytes.saturating_sub(used & BYTE_MASK);
            fits.then(|| used + (1 << BYTE_BITS) + bytes)
        };
        // The queue that is pushed to afterwards orders the data; this word only counts.
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// The same for mail to `core`, whose credit this is. Says why there is no room.
    pub(crate) fn take(&self, core: usize, bytes: usize) -> Result<(), SendError> {
        if self.is_closed() {
            Err(SendError::Stopped)
        } else if self.reserve(bytes) {
            Ok(())
        } else {
            Err(SendError::InboxFull { core })
        }
    }

    /// Gives the room of one message back: it was taken out of the queue, or never put in.
    pub(crate) fn release(&self, bytes: usize) {
        // Release, so that whoever reserves this slot again pushes after the pop that freed it.
        self.used.fetch_sub((1 << BYTE_BITS) + bytes as u64, Ordering::Release);
    }

    /// The core has ended: broadcasts leave it out.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Messages and bytes in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> (usize, usize) {
        let used = self.used.load(Ordering::Relaxed);
        ((used >> BYTE_BITS) as usize, (used & BYTE_MASK) as usize)
    }
}

/// Reserves on every credit given, or on none. On refusal says which one refused.
pub(crate) fn reserve_all<'a>(credits: impl Iterator<Item = (usize, &'a Credit)> + Clone, bytes: usize) -> Result<(), usize> {
    for (position, (core, credit)) in credits.clone().enumerate() {
        if !credit.reserve(bytes) {
            credits.take(position).for_each(|(_, reserved)| reserved.release(bytes));
            return Err(core);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_bytes_are_bounded_together() {
        let credit = Credit::new(2, 100);
        assert!(credit.reserve(60));
        assert!(!credit.reserve(41));
        assert!(credit.reserve(40));
        assert!(!credit.reserve(0), "two messages are in use");
        credit.release(60);
        assert_eq!(credit.used(), (1, 40));
        assert!(credit.reserve(60));
    }

    #[test]
    fn a_refusal_gives_everything_back() {
        let credits = [Credit::new(4, 100), Credit::new(4, 100), Credit::new(4, 10), Credit::new(4, 100)];
        assert_eq!(reserve_all(credits.iter().enumerate(), 50), Err(2));
        assert!(credits.iter().all(|credit| credit.used() == (0, 0)));
        assert_eq!(reserve_all(credits.iter().enumerate(), 10), Ok(()));
        assert!(credits.iter().all(|credit| credit.used() == (1, 10)));
    }
}
