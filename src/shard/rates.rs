//! Peers that send, or are sent, more than they may: [`crate::Rates`].
//!
//! Off by default, and then there is no table here and nothing to look up: one branch for each frame and for each send. Else the core has
//! a table of its own, by slot, so that a peer without limits is no larger: two pairs of buckets for each, about 250 bytes.
//!
//! **A delayed peer** ([`WhenOver::Delay`]) is not read. The frame that was too much is put aside as it came, with all that came after
//! it, and given again when the bucket has enough for it; it costs once. Reading goes on in steps of [`STEP`], and each read is short, so
//! that what is put aside and taken up again stays small however fast the peer sends. Its own deadlines move by the time that it was not
//! read. Its pings wait behind what it has sent, so this side gives the sign of life unasked: see [`Shard::reassure`].
//!
//! **A dropped message** ([`WhenOver::Drop`]) is judged by the same rules as one that is taken: dropping hides no violation. Of one in
//! pieces, nothing is kept but how much is still to come (`Discard`); that has no deadline, because nothing waits for it.
//!
//! **What is sent** costs when it is queued, so what a lane drops later has cost too.

use std::time::Duration;

use super::slots::Mark;
use super::{Deadline, Event, Payload, Shard};
use crate::config::{Config, RateLimit, Rates, WhenOver};
use crate::error::{SendError, Violation};
use crate::flight::FlightEvent;
use crate::handler::RateLimited;
use crate::id::PeerId;
use crate::metrics::Counter;
use crate::proto::Timer;
use crate::rate::TokenBucket;
use crate::time::Timestamp;
use crate::wheel::TimerKey;
use crate::wire::{Frame, FrameRef, HEADER_LEN, Header, Kind, Lane};

/// A delayed peer is read again after so long at the soonest, if its bucket is not full before: a look at it costs a few microseconds, so
/// that a thousand of them take less than a tenth of a core.
const STEP: Duration = Duration::from_millis(25);
/// Most that is read at a time from a peer that is near its limit: what is put aside again and again is no more than this and a frame.
const SHORT_READ: usize = 4096;

/// Memory of a peer's limits.
pub(super) const PEER: usize = size_of::<Limits>();

/// What something costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    messages: u32,
    bytes: u32,
}

impl Cost {
    const fn new(messages: u32, bytes: usize) -> Self {
        Self { messages, bytes: if bytes > u32::MAX as usize { u32::MAX } else { bytes as u32 } }
    }

    fn add(self, other: Self) -> Self {
        Self { messages: self.messages.saturating_add(other.messages), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// One direction of one peer: both buckets, or what there is of them.
#[derive(Debug)]
struct Buckets {
    messages: Option<TokenBucket>,
    bytes: Option<TokenBucket>,
}

impl Buckets {
    fn new(limit: Option<RateLimit>) -> Self {
        let limit = limit.unwrap_or_default();
        let bucket = |rate: crate::config::Rate| TokenBucket::new(rate.per_second, rate.burst);
        Self { messages: limit.messages.map(bucket), bytes: limit.bytes.map(bucket) }
    }

    /// What there is, with what is to be taken from it.
    fn each(&mut self, cost: Cost) -> impl Iterator<Item = (&mut TokenBucket, u32)> {
        [(&mut self.messages, cost.messages), (&mut self.bytes, cost.bytes)]
            .into_iter()
            .filter_map(|(bucket, cost)| Some((bucket.as_mut()?, cost)))
    }

    /// No more than a full bucket has: what is within the other limits must pass some time.
    fn cap(&self, cost: Cost) -> Cost {
        let cap = |bucket: &Option<TokenBucket>, cost: u32| bucket.as_ref().map_or(cost, |bucket| cost.min(bucket.burst()));
        Cost { messages: cap(&self.messages, cost.messages), bytes: cap(&self.bytes, cost.bytes) }
    }

    /// From both, or from none.
    fn take(&mut self, now: Timestamp, cost: Cost) -> bool {
        if self.messages.as_mut().is_some_and(|bucket| !bucket.take(now, cost.messages)) {
            return false;
        }
        let taken = self.bytes.as_mut().is_none_or(|bucket| bucket.take(now, cost.bytes));
        if let Some(bucket) = self.messages.as_mut().filter(|_| !taken) {
            bucket.give_back(cost.messages);
        }
        taken
    }

    /// When `take` would do it; the end of time where it never will.
    fn ready_at(&mut self, now: Timestamp, cost: Cost) -> Timestamp {
        self.each(cost).map(|(bucket, cost)| bucket.ready_at(now, cost)).max().unwrap_or(now)
    }

    /// The same, and for as long as is of use: until the bucket that is waited for is full, but not for longer than a step.
    fn worth_waiting(&mut self, now: Timestamp, cost: Cost) -> Timestamp {
        let buckets = self.each(cost).map(|(bucket, cost)| (bucket.ready_at(now, cost), bucket.ready_at(now, bucket.burst())));
        buckets.max().map_or(now, |(ready, full)| ready.max(full.min(now + STEP)))
    }
}

/// What is still to come of a message that is dropped.
#[derive(Clone, Copy, Debug)]
struct Discard {
    message_type: u16,
    missing: usize,
}

/// One peer's limits.
#[derive(Debug)]
struct Limits {
    receive: Buckets,
    send: Buckets,
    /// When reading goes on, or when what was dropped is reported.
    timer: Option<TimerKey>,
    delayed_since: Timestamp,
    /// It was delayed since it was pinged last.
    was_delayed: bool,
    discards: [Option<Discard>; Lane::ALL.len()],
    /// Dropped and not reported yet.
    dropped: RateLimited,
}

/// The limits of a core's peers.
#[derive(Debug)]
pub(super) struct Table {
    rates: Rates,
    /// By slot; of those that are free, what their last peer left.
    peers: Vec<Limits>,
    /// Whom the last broadcast has passed by, in order.
    passed_by: Vec<u32>,
    /// What the frame that was judged last costs, if anything.
    judged: Option<Cost>,
}

impl Table {
    pub(super) fn new(config: &Config) -> Option<Box<Self>> {
        let rates = config.rates.clone()?;
        Some(Box::new(Self { rates, peers: Vec::new(), passed_by: Vec::new(), judged: None }))
    }

    fn at(&mut self, slot: u32) -> &mut Limits {
        &mut self.peers[slot as usize]
    }

    /// What a frame that came costs. Nothing where it is the engine's own.
    fn received(&self, header: Header) -> Option<Cost> {
        let messages = match header.kind {
            Kind::Data | Kind::Request | Kind::Response | Kind::Acked => self.rates.cost(header.message_type),
            Kind::Fragment => 0,
            // The application is told of these, too.
            Kind::Subscribe | Kind::Unsubscribe | Kind::GoAway => self.rates.subscribe,
            Kind::Ready | Kind::Ping | Kind::Pong | Kind::Goodbye | Kind::Ack => return None,
        };
        Some(Cost::new(messages, HEADER_LEN + header.len as usize))
    }
}

/// What is to become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    /// Nothing: it was counted.
    Drop,
    /// It is to be put aside; the peer is not read any more.
    Wait,
    /// The peer is to be cut off.
    End,
}

impl Shard {
    /// A peer begins, with full buckets.
    pub(super) fn begin_rates(&mut self, slot: u32) {
        let now = self.now;
        let Some(table) = &mut self.rates else { return };
        let fresh = |rates: &Rates| Limits {
            receive: Buckets::new(rates.receive),
            send: Buckets::new(rates.send),
            timer: None,
            delayed_since: now,
            was_delayed: false,
            discards: [None; Lane::ALL.len()],
            dropped: RateLimited::default(),
        };
        while table.peers.len() <= slot as usize {
            table.peers.push(fresh(&table.rates));
        }
        table.peers[slot as usize] = fresh(&table.rates);
    }

    /// A peer ends: gives its timer back, and says what was dropped and not reported.
    pub(super) fn end_rates(&mut self, slot: u32) {
        let Some(table) = &mut self.rates else { return };
        if let Some(timer) = table.at(slot).timer.take() {
            self.wheel.cancel(timer);
        }
        self.report_dropped(slot);
        self.slots.at_mut(slot).marks.clear(Mark::Delayed);
    }

    /// What is to become of a frame that came.
    pub(super) fn judge(&mut self, slot: u32, frame: FrameRef<'_>) -> Result<Verdict, Violation> {
        let now = self.now;
        let Some(table) = &mut self.rates else { return Ok(Verdict::Take) };
        table.judged = table.received(frame.header);
        let Some(cost) = table.judged else { return Ok(Verdict::Take) };
        if frame.header.lane.is_some_and(|lane| table.at(slot).discards[lane.index()].is_some()) {
            return self.discard(slot, frame).map(|()| Verdict::Drop);
        }
        let receive = &mut table.peers[slot as usize].receive;
        let cost = receive.cap(cost);
        if receive.take(now, cost) {
            return Ok(Verdict::Take);
        }
        match table.rates.when_over {
            WhenOver::Delay => {
                self.delay(slot, cost);
                Ok(Verdict::Wait)
            }
            WhenOver::Disconnect => Ok(Verdict::End),
            WhenOver::Drop if frame.header.kind.is_control() => {
                receive.each(cost).for_each(|(bucket, cost)| bucket.drain(now, cost));
                Ok(Verdict::Take)
            }
            WhenOver::Drop => self.drop_message(slot, frame),
        }
    }

    /// The frame that was judged last could not be taken for another reason: it comes again, and costs then.
    pub(super) fn take_back(&mut self, slot: u32) {
        let Some(table) = &mut self.rates else { return };
        if let Some(cost) = table.judged.take() {
            let receive = &mut table.at(slot).receive;
            let cost = receive.cap(cost);
            receive.each(cost).for_each(|(bucket, cost)| bucket.give_back(cost));
        }
    }

    /// Puts reading off until the peer's bucket has room again.
    fn delay(&mut self, slot: u32, cost: Cost) {
        let (now, peer) = (self.now, self.slots.id(slot));
        let Some(table) = &mut self.rates else { return };
        let limits = table.at(slot);
        // Not in this turn, or a drain of the wheel would not end.
        let at = limits.receive.worth_waiting(now, cost).max(now + Duration::from_millis(1));
        limits.timer = Some(self.wheel.insert(at, Deadline::Rated(peer)));
        (limits.delayed_since, limits.was_delayed) = (now, true);
        self.stats.count(Counter::RateDelays);
        self.record(slot, FlightEvent::Delayed);
        let entry = self.slots.at_mut(slot);
        entry.marks.set(Mark::Delayed);
        entry.peer.keepalive.forget_sample();
        entry.peer.timers.clear(Timer::PartialFrame);
        entry.peer.timers.clear(Timer::PartialMessage);
        self.rearm(slot);
    }

    /// A peer's timer has come: it is read again, or what was dropped is reported.
    pub(super) fn rate_timeout(&mut self, peer: PeerId) {
        let slot = peer.slot();
        let (Some(table), Some(entry)) = (&mut self.rates, self.slots.find_mut(peer)) else { return };
        let limits = table.at(slot);
        limits.timer = None;
        if entry.marks.clear(Mark::Delayed) {
            entry.peer.postpone_partial(self.now - limits.delayed_since);
            self.go_on_reading(slot);
        } else {
            self.report_dropped(slot);
        }
    }

    /// A message that begins over the limit, or runs into it.
    fn drop_message(&mut self, slot: u32, frame: FrameRef<'_>) -> Result<Verdict, Violation> {
        let header = frame.header;
        let lane = header.lane.unwrap_or_default();
        let peer = &mut self.slots.at_mut(slot).peer;
        if header.kind != Kind::Fragment {
            let missing = peer.missing(frame, &self.shared.config)?;
            self.count_dropped(slot, 1, HEADER_LEN + frame.payload.len());
            self.set_discard(slot, lane, (missing > 0).then_some(Discard { message_type: header.message_type, missing }));
            return Ok(Verdict::Drop);
        }
        let Some((message_type, missing)) = peer.abandon_message(lane, &mut self.budget, &mut self.buffers) else {
            // One that had not begun: what takes it says so.
            return Ok(Verdict::Take);
        };
        self.feed_starved();
        self.count_dropped(slot, 1, 0);
        self.set_discard(slot, lane, Some(Discard { message_type, missing }));
        self.discard(slot, frame).map(|()| Verdict::Drop)
    }

    /// One more frame in a lane whose message is dropped.
    fn discard(&mut self, slot: u32, frame: FrameRef<'_>) -> Result<(), Violation> {
        let header = frame.header;
        let lane = header.lane.unwrap_or_default();
        let discard = self.rates.as_mut().and_then(|table| table.at(slot).discards[lane.index()]);
        let Some(Discard { message_type, missing }) = discard else { return Ok(()) };
        if header.kind != Kind::Fragment {
            return Err(Violation::Interleaved);
        }
        if header.message_type != message_type {
            return Err(Violation::UnexpectedFragment);
        }
        let missing = missing.checked_sub(frame.payload.len()).ok_or(Violation::FragmentOverrun)?;
        if frame.payload.is_empty() || (missing == 0) == header.more {
            return Err(Violation::FragmentShort);
        }
        self.set_discard(slot, lane, (missing > 0).then_some(Discard { message_type, missing }));
        self.count_dropped(slot, 0, HEADER_LEN + frame.payload.len());
        Ok(())
    }

    fn set_discard(&mut self, slot: u32, lane: Lane, discard: Option<Discard>) {
        if let Some(table) = &mut self.rates {
            table.at(slot).discards[lane.index()] = discard;
        }
    }

    fn count_dropped(&mut self, slot: u32, messages: u64, bytes: usize) {
        self.stats.add(Counter::RateLimitedMessages, messages);
        self.stats.add(Counter::RateLimitedBytes, bytes as u64);
        self.record_dropped(slot, Counter::RateLimitedMessages, messages);
        let peer = self.slots.id(slot);
        let Some(table) = &mut self.rates else { return };
        let report = table.rates.report;
        let limits = table.at(slot);
        limits.dropped.messages += messages;
        limits.dropped.bytes += bytes as u64;
        if let (Some(after), None) = (report, limits.timer) {
            limits.timer = Some(self.wheel.insert(self.now + after, Deadline::Rated(peer)));
        }
    }

    /// Tells the application what was dropped, where it wants to know.
    fn report_dropped(&mut self, slot: u32) {
        let peer = self.slots.id(slot);
        let Some(table) = &mut self.rates else { return };
        let is_asked_for = table.rates.report.is_some();
        let dropped = std::mem::take(&mut table.at(slot).dropped);
        if is_asked_for && dropped != RateLimited::default() {
            self.events.push_back(Event::RateLimited { peer, dropped });
        }
    }

    /// Most that is to be read from a peer at a time.
    #[cold]
    pub(super) fn rated_read(&mut self, slot: u32) -> usize {
        let now = self.now;
        let Some(table) = self.rates.as_mut().filter(|table| table.rates.when_over == WhenOver::Delay) else { return usize::MAX };
        let mut buckets = table.at(slot).receive.each(Cost::default());
        if buckets.any(|(bucket, _)| bucket.tokens(now) < bucket.burst() / 2) { SHORT_READ } else { usize::MAX }
    }

    /// A peer that is delayed, or was since this was looked at last, cannot tell that this side lives: the pongs to its pings are late by
    /// all that it has sent before them. So it is pinged from here, whatever came from it.
    pub(super) fn reassure(&mut self, slot: u32) {
        let keepalive = &self.shared.config.keepalive;
        // As often as it needs, and not so often that they are a flood where it has not read for that long.
        let period = keepalive.interval.max(keepalive.timeout / 3);
        let Some(table) = &mut self.rates else { return };
        let limits = table.at(slot);
        let entry = self.slots.at_mut(slot);
        if !limits.was_delayed || !entry.peer.timers.is_due(Timer::Keepalive, self.now) {
            return;
        }
        limits.was_delayed = entry.marks.has(Mark::Delayed);
        entry.peer.timers.set(Timer::Keepalive, self.now + period);
        if !entry.blocked {
            let bytes = entry.peer.reassure(&mut self.pool);
            self.stats.count(Counter::PingsSent);
            self.record_control(slot, Kind::Ping, HEADER_LEN + 8);
            self.control_queued(slot, bytes);
        }
    }

    /// What these messages cost together.
    pub(super) fn cost_of<'a>(&self, payloads: impl Iterator<Item = Payload<'a>>) -> Cost {
        let (Some(table), cut) = (&self.rates, self.shared.config.limits.fragment) else { return Cost::default() };
        let one = |payload: Payload<'_>| Cost::new(table.rates.cost(payload.meta().message_type), payload.wire_len(cut));
        payloads.map(one).fold(Cost::default(), Cost::add)
    }

    /// What asking a peer for a topic costs, or taking it back.
    pub(super) fn cost_of_subscribing(&self, bytes: usize) -> Cost {
        self.rates.as_ref().map_or(Cost::default(), |table| Cost::new(table.rates.subscribe, bytes))
    }

    /// Takes what sending to a peer of this core costs, or says when that will be possible. `at_once`: a batch, which may be more than a
    /// bucket ever has; a single message is not, whatever headers it has.
    #[cold]
    pub(super) fn charge(&mut self, peer: PeerId, cost: Cost, at_once: bool) -> Result<(), SendError> {
        let now = self.now;
        // Whoever is not there is not there, whatever it costs.
        let (Some(table), Some(_)) = (&mut self.rates, self.slots.find(peer)) else { return Ok(()) };
        let send = &mut table.at(peer.slot()).send;
        let cost = if at_once { cost } else { send.cap(cost) };
        if send.take(now, cost) {
            return Ok(());
        }
        let ready = send.ready_at(now, cost);
        // The bucket says so where it never will.
        let retry_in = if ready >= Timestamp::END { Duration::MAX } else { ready - now };
        Err(SendError::RateLimited { retry_in })
    }

    /// The same, where it is counted as a send that was refused.
    pub(super) fn charge_send(&mut self, peer: PeerId, cost: Cost, messages: u64) -> Result<(), SendError> {
        self.charge(peer, cost, messages > 1).inspect_err(|_| {
            self.stats.add(Counter::SendsRefused, messages);
            self.stats.add(Counter::SendsRateLimited, messages);
        })
    }

    /// The same, for one message.
    #[cold]
    pub(super) fn charge_one(&mut self, peer: PeerId, payload: Payload<'_>) -> Result<(), SendError> {
        self.charge_send(peer, self.cost_of(std::iter::once(payload)), 1)
    }

    /// What was charged was not sent.
    #[cold]
    pub(super) fn refund(&mut self, peer: PeerId, cost: Cost) {
        if let (Some(table), Some(_)) = (&mut self.rates, self.slots.find(peer)) {
            table.at(peer.slot()).send.each(cost).for_each(|(bucket, cost)| bucket.give_back(cost));
        }
    }

    /// Charges every peer that a broadcast goes to. Those for whom it is too much are noted: see [`Shard::pass_by_all`].
    #[cold]
    pub(super) fn charge_all(&mut self, frame: &Frame, except: Option<PeerId>) {
        let (now, body, lane) = (self.now, frame.body_len(), frame.lane());
        let cost = self.cost_of(std::iter::once(Payload::Frame(frame)));
        let Some(table) = &mut self.rates else { return };
        let mut over = std::mem::take(&mut table.passed_by);
        over.clear();
        for (slot, entry) in self.slots.iter() {
            if !entry.is_established() || (entry.max_message as usize) < body || Some(self.slots.id(slot)) == except {
                continue;
            }
            let send = &mut table.peers[slot as usize].send;
            if !send.take(now, send.cap(cost)) {
                over.push(slot);
            }
        }
        for &slot in &over {
            self.with_outbox(slot, |outbox, logs, pool| outbox.settle_lane(logs, pool, lane));
        }
        if let Some(table) = &mut self.rates {
            table.passed_by = over;
        }
    }

    /// The broadcast is in the log of this lane: those for whom it was too much go on behind it, which is counted.
    #[cold]
    pub(super) fn pass_by_all(&mut self, lane: Lane) {
        let Some(table) = &mut self.rates else { return };
        let over = std::mem::take(&mut table.passed_by);
        self.stats.add(Counter::SendsRateLimited, over.len() as u64);
        for &slot in &over {
            self.slots.at_mut(slot).peer.outbox.skip_to_end(&self.logs, lane);
            self.pass_by(self.slots.id(slot));
        }
        if let Some(table) = &mut self.rates {
            table.passed_by = over;
        }
    }

    /// Whom the last broadcast has passed by, in order.
    pub(super) fn passed_by(&self) -> &[u32] {
        self.rates.as_ref().map_or(&[], |table| &table.passed_by)
    }

    /// Panics where a delayed peer has nothing that ends it, or a timer is nobody's.
    #[cfg(test)]
    pub(super) fn assert_rates(&self) {
        let Some(table) = &self.rates else { return };
        for (slot, entry) in self.slots.iter() {
            let limits = &table.peers[slot as usize];
            assert!(
                !entry.marks.has(Mark::Delayed) || (entry.is_established() && limits.timer.is_some()),
                "slot {slot} is delayed for ever"
            );
            assert!(entry.is_established() || limits.timer.is_none(), "slot {slot} has ended, and its timer has not");
        }
        let timers = table.peers.iter().filter(|limits| limits.timer.is_some()).count();
        assert!(timers <= self.slots.established(), "{timers} timers of limits");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rate;

    const SECOND: Duration = Duration::from_secs(1);

    fn both(messages: (u32, u32), bytes: (u32, u32)) -> Buckets {
        let rate = |(per_second, burst)| Some(Rate { per_second, burst });
        Buckets::new(Some(RateLimit { messages: rate(messages), bytes: rate(bytes) }))
    }

    #[test]
    fn both_buckets_pay_or_none_does() {
        let now = Timestamp::from_nanos(0);
        let mut buckets = both((1, 3), (10, 100));
        assert!(buckets.take(now, Cost::new(1, 90)));
        assert!(!buckets.take(now, Cost::new(1, 11)), "too many bytes");
        assert!(buckets.take(now, Cost::new(2, 10)), "and the message was not paid for");
        assert_eq!(buckets.ready_at(now, Cost::new(1, 30)), now + 3 * SECOND);
        assert_eq!(buckets.ready_at(now, Cost::new(0, 0)), now);
        assert_eq!(buckets.ready_at(now, Cost::new(4, 0)), Timestamp::END);
        assert_eq!(buckets.cap(Cost::new(4, 200)), Cost::new(3, 100));
    }

    #[test]
    fn one_waits_for_what_is_needed_and_for_a_step_where_that_is_sooner_than_a_full_bucket() {
        let now = Timestamp::from_nanos(0);
        let mut slow = both((1, 10), (1, u32::MAX));
        assert!(slow.take(now, Cost::new(10, 0)));
        assert_eq!(slow.worth_waiting(now, Cost::new(1, 0)), now + SECOND, "longer than a step");
        let mut fast = both((1000, 1000), (1, u32::MAX));
        assert!(fast.take(now, Cost::new(1000, 0)));
        assert_eq!(fast.worth_waiting(now, Cost::new(1, 0)), now + STEP, "a step's worth");
        let mut small = both((1000, 5), (1, u32::MAX));
        assert!(small.take(now, Cost::new(5, 0)));
        assert_eq!(small.worth_waiting(now, Cost::new(1, 0)), now + SECOND / 200, "no longer than it fills");
    }

    #[test]
    fn without_a_limit_everything_passes() {
        let mut none = Buckets::new(None);
        assert!((0..100).all(|_| none.take(Timestamp::ORIGIN, Cost::new(u32::MAX, usize::MAX))));
        assert_eq!(none.cap(Cost::new(7, 8)), Cost::new(7, 8));
    }

    #[test]
    fn the_documented_memory_is_what_it_takes() {
        assert!((200..=260).contains(&PEER), "{PEER} bytes");
    }
}
