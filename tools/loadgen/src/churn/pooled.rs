//! The guests' own errands: connections to the server that their engine's pool makes, hands out again, and closes when they are idle.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use corecast::{Context, DialError, Endpoint, PeerId};

use super::guests::{Seen, more};
use crate::security::Target;

/// Type of their messages.
pub(super) const ERRAND: u16 = 4;
/// Errands come in bursts, so that there is a pause in which their connection is idle: of so many looks, so many have one.
const BURST: u64 = 50;
const OF: u64 = 150;

/// Whom the pool is asked for.
pub(super) struct Errands {
    target: Endpoint,
    looks: u64,
}

impl Errands {
    /// How long the pool keeps what is idle.
    pub(super) const IDLE: Duration = Duration::from_millis(300);

    pub(super) fn to(target: &Target) -> Self {
        Self { target: Endpoint::from(&target.dial()), looks: 0 }
    }

    /// Asks for a connection, every now and then.
    pub(super) fn look(&mut self, cx: &mut Context<'_>, seen: &Seen) {
        self.looks += 1;
        if self.looks % OF < BURST {
            more(&seen.asked);
            if cx.connect(&self.target, self.looks).is_err() {
                more(&seen.wrong);
            }
        }
    }

    /// What the pool has answered.
    pub(super) fn found(&self, cx: &mut Context<'_>, seen: &Seen, result: Result<PeerId, DialError>) {
        match result {
            // It may be on its way out by now: then it is asked for again at the next look.
            Ok(peer) if cx.send(peer, ERRAND, b"errand").is_ok() => _ = seen.errands.fetch_add(1, Relaxed),
            Ok(_) => {}
            Err(_) => more(&seen.wrong),
        }
    }
}
