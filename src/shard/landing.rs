//! Going, and hearing of others that go.
//!
//! An engine that is told to go *lands*: it takes in nobody more and dials nobody, its peers are told and go on as before for a period, and
//! whoever is still there at its end is told goodbye. Core 0 decides when that is; each core does it for its own. A peer that says the same
//! of itself is reported to the application, and what it has asked for is kept until its connection ends, where this side has dialled it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::mail::Control;
use super::parting::{Asked, Parting, Why};
use super::supervised::{Call, Supervised};
use super::{Deadline, Shard};
use crate::error::CloseReason;
use crate::handler::{Callback, Handler};
use crate::id::PeerId;
use crate::metrics::Counter;
use crate::notice::{Notice, millis};
use crate::time::Timestamp;
use crate::wheel::TimerKey;
use crate::wire::{GoAway, Goodbye, GoodbyeCode, Kind};

/// This engine's own going.
#[derive(Clone, Copy, Debug)]
struct Own {
    notice: Notice,
    /// When the period ends.
    at: Timestamp,
    timer: Option<TimerKey>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Landing {
    own: Option<Own>,
    /// What peers that this side dialled have asked for, and why they are closed: by slot, and only where there is something to say. At
    /// most as many as there are slots.
    asked: BTreeMap<u32, Asked>,
}

impl Landing {
    /// Memory for one peer: a tree's nodes are half empty at the worst.
    pub(super) const ASKED: usize = 3 * size_of::<(u32, Asked)>();

    /// Whether nobody more is to come.
    pub(super) fn has_begun(&self) -> bool {
        self.own.is_some()
    }

    /// How long whoever is turned away now is asked to stay away; zero: it is not said.
    pub(super) fn delay_ms(&self, now: Timestamp) -> u32 {
        match self.own {
            Some(Own { notice, at, .. }) if !notice.retry_after.is_zero() => millis(notice.retry_after.saturating_add(at - now)),
            _ => 0,
        }
    }

    #[cfg(test)]
    pub(super) fn asked(&self) -> usize {
        self.asked.len()
    }
}

impl Shard {
    /// The engine is told to go. On core 0: the first time counts.
    pub(super) fn begin_landing(&mut self, notice: Notice) {
        if self.landing.has_begun() || self.shutting_down {
            return;
        }
        let notice = notice.rounded();
        let at = self.now + notice.period;
        for core in (0..self.cores()).filter(|&core| core != self.core) {
            self.out.control(core, Control::Land { notice, at });
        }
        self.land(notice, at);
    }

    /// Takes in nobody more, and tells the peers of this core.
    pub(super) fn land(&mut self, notice: Notice, at: Timestamp) {
        if self.landing.has_begun() || self.shutting_down {
            return;
        }
        // Strictly later than now, or a drain of the wheel would not end.
        let timer = self.wheel.insert(at.max(self.now + Duration::from_millis(1)), Deadline::Landed);
        self.landing.own = Some(Own { notice, at, timer: Some(timer) });
        self.with_directory(|directory, means| directory.close(means));
        self.withdraw_all();
        let frame = notice.frame(at - self.now).encode();
        let told: Vec<u32> = self.slots.iter().filter(|(_, entry)| entry.is_established()).map(|(slot, _)| slot).collect();
        for slot in told {
            if self.slots.cold(slot).takes_notice {
                self.stats.count(Counter::NoticesSent);
                self.record_control(slot, Kind::GoAway, frame.len());
                self.with_outbox(slot, |outbox, _, pool| outbox.push_control(pool, &frame));
                self.mark_dirty(slot);
            }
        }
    }

    /// The handshakes that are under way lead nowhere.
    pub(super) fn withdraw_all(&mut self) {
        let halves: Vec<u32> = self.half_open.iter().map(|(index, _)| index as u32).collect();
        for half in halves {
            self.withdraw_half(half, GoodbyeCode::ShuttingDown);
        }
    }

    /// The period is over.
    pub(super) fn landed(&mut self) {
        if let Some(own) = &mut self.landing.own {
            own.timer = None;
        }
        self.close_all();
    }

    pub(super) fn close_all(&mut self) {
        let peers: Vec<u32> = self.slots.iter().map(|(slot, _)| slot).collect();
        for slot in peers {
            self.close(slot, CloseReason::ShuttingDown);
        }
    }

    /// The engine shuts down, whatever is left of the period.
    pub(super) fn end_landing(&mut self) {
        if let Some(own) = &mut self.landing.own {
            own.at = self.now;
            if let Some(timer) = own.timer.take() {
                self.wheel.cancel(timer);
            }
        }
    }

    /// Whether this core has told everybody to go, and all have gone.
    pub(crate) fn has_landed(&self) -> bool {
        self.landing.has_begun() && self.slots.is_empty()
    }

    /// A peer says that it will go.
    pub(super) fn handle_go_away<H: Handler>(&mut self, handler: &mut Supervised<H>, peer: PeerId, frame: GoAway) {
        self.stats.count(Counter::NoticesReceived);
        let notice = Notice::of_frame(frame);
        if self.slots.cold(peer.slot()).dial.is_some() {
            let from = Some(self.now + notice.period);
            self.landing.asked.insert(peer.slot(), Asked { why: Why::Passing, delay: notice.retry_after, from });
        }
        handler.call(self, || Call::of(Callback::GoingAway, peer), |handler, cx| handler.on_going_away(cx, peer, notice));
    }

    /// A peer says goodbye. One that asks for no delay does not take back what it has asked for before.
    pub(super) fn note_goodbye(&mut self, slot: u32, goodbye: Goodbye) {
        if goodbye.delay_ms > 0 && self.slots.cold(slot).dial.is_some() {
            let delay = Duration::from_millis(u64::from(goodbye.delay_ms));
            self.landing.asked.insert(slot, Asked { why: Why::Passing, delay, from: None });
        }
    }

    /// An established peer is being closed: why that is matters when it is dialled again.
    pub(super) fn note_reason(&mut self, slot: u32, reason: CloseReason) {
        let why = Why::from(reason);
        if why != Why::Passing && self.slots.cold(slot).dial.is_some() {
            self.landing.asked.entry(slot).or_default().why = why;
        }
    }

    /// A peer is over: what the directory should know of it.
    pub(super) fn take_parting(&mut self, slot: u32) -> Parting {
        self.landing.asked.remove(&slot).map_or(Parting::default(), |asked| asked.parting(self.now))
    }
}
