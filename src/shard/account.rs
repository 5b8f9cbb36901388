//! Reasons to counters, and the figures that are levels.

use std::cell::Cell;
use std::time::Duration;

use super::Shard;
use super::slots::Entry;
use crate::error::{CloseReason, DecodeError, HandshakeError, Slow, Violation};
use crate::handler::PeerInfo;
use crate::id::{NodeId, PeerId};
use crate::metrics::{Counter, Histograms, Measure, Stats};
use crate::wire::RefusalCode;

/// A peer, as it was when it was asked about.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerSnapshot {
    /// Its id.
    pub id: PeerId,
    /// What its handshake said.
    pub info: PeerInfo,
    /// Bytes that it has still to receive, and a few for keeping track of them: what `Limits::outbox_soft` and `outbox_hard` bound.
    pub queued_bytes: usize,
    /// The same by lane, without those few. What is in a sealed record that has begun to leave is not in it any more.
    pub lanes: LaneBytes,
    /// Whether its socket takes nothing for now.
    pub blocked: bool,
    /// Whether reading from it is paused: by the application, for lack of memory, or because it sends more than `Rates::receive` allows.
    pub paused: bool,
    /// Requests to it that have no response yet.
    pub pending_requests: usize,
    /// Topics that it is subscribed to here.
    pub subscriptions: usize,
    /// Smoothed round-trip time (RFC 6298), once a ping was answered. Pings go to silent peers alone ([`crate::Keepalive::interval`]): one
    /// that sends all the time, or pings first because its own interval is shorter, has none.
    pub rtt: Option<Duration>,
    /// How long its responses take, smoothed by the same formula, once a request to it was answered in time.
    pub response_time: Option<Duration>,
    /// How long it has been established.
    pub age: Duration,
    /// Why the last connection with its node ended, on whichever channel. `None`: there was none since the engine's start, or it has been
    /// forgotten, since only the last `Limits::max_peers` nodes are remembered; or core 0 has ended.
    pub last_reason: Option<CloseReason>,
}

/// Bytes that wait in each lane of a peer's outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneBytes {
    /// The engine's own frames: pings, acknowledgements, subscriptions.
    pub control: usize,
    /// See [`crate::Lane::High`].
    pub high: usize,
    /// See [`crate::Lane::Normal`].
    pub normal: usize,
    /// See [`crate::Lane::Bulk`].
    pub bulk: usize,
}

/// What one core answers about its peers. Core 0 also says why connections with nodes have ended, whichever core had them.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) peers: Vec<PeerSnapshot>,
    pub(crate) endings: Vec<(NodeId, CloseReason)>,
}

/// What the handler's sends have taken in a read batch that the driver looks at closely. Whoever sends has the clock.
#[derive(Debug, Default)]
pub(super) struct Encoding {
    on: bool,
    sends: Cell<u32>,
    spent: Cell<Duration>,
}

impl Stats {
    pub(super) fn count_close(&mut self, reason: CloseReason) {
        if let CloseReason::Violation(violation) = reason {
            self.count_violation(violation);
        }
        self.count(match reason {
            CloseReason::Requested => Counter::ClosedRequested,
            CloseReason::ShuttingDown => Counter::ClosedShuttingDown,
            CloseReason::Replaced => Counter::ClosedReplaced,
            CloseReason::Goodbye(_) => Counter::ClosedGoodbye,
            CloseReason::Eof => Counter::ClosedEof,
            CloseReason::Io(_) => Counter::ClosedIo,
            CloseReason::Violation(_) => Counter::ClosedViolation,
            CloseReason::SlowPeer(Slow::HardBound) => Counter::SlowHardBound,
            CloseReason::SlowPeer(Slow::SoftMark) => Counter::SlowSoftMark,
            CloseReason::SlowPeer(Slow::WriteStall) => Counter::SlowWriteStall,
            CloseReason::SlowPeer(Slow::LogFull) => Counter::SlowLogFull,
            CloseReason::Unresponsive => Counter::ClosedUnresponsive,
            CloseReason::PartialTimeout => Counter::ClosedPartial,
            CloseReason::PausedTooLong => Counter::ClosedPaused,
            CloseReason::NotAllowed => Counter::ClosedNotAllowed,
            CloseReason::HandlerPanicked => Counter::ClosedHandlerPanicked,
            CloseReason::RateLimited => Counter::ClosedRateLimited,
            CloseReason::Idle => Counter::ClosedIdle,
        });
    }

    fn count_violation(&mut self, violation: Violation) {
        self.count(match violation {
            Violation::Decode(DecodeError::FrameTooLong { .. }) => Counter::ViolationFrameTooLong,
            Violation::Decode(DecodeError::UnknownKind { .. }) => Counter::ViolationUnknownKind,
            Violation::Decode(DecodeError::UnknownFlags { .. }) => Counter::ViolationUnknownFlags,
            Violation::Decode(DecodeError::WrongLane { .. }) => Counter::ViolationWrongLane,
            Violation::Decode(DecodeError::WrongLength { .. }) => Counter::ViolationWrongLength,
            Violation::MessageTooLong { .. } => Counter::ViolationMessageTooLong,
            Violation::UnexpectedFragment => Counter::ViolationUnexpectedFragment,
            Violation::Interleaved => Counter::ViolationInterleaved,
            Violation::FragmentOverrun => Counter::ViolationFragmentOverrun,
            Violation::FragmentShort => Counter::ViolationFragmentShort,
            Violation::UnsolicitedPong => Counter::ViolationUnsolicitedPong,
            Violation::UnsolicitedResponse => Counter::ViolationUnsolicitedResponse,
            Violation::PingFlood => Counter::ViolationPingFlood,
            Violation::UnexpectedReady => Counter::ViolationUnexpectedReady,
            Violation::ExpectedReady => Counter::ViolationExpectedReady,
            Violation::UnsolicitedAck => Counter::ViolationUnsolicitedAck,
            Violation::TooManySubscriptions => Counter::ViolationTooManySubscriptions,
            Violation::RecordNotAuthentic => Counter::ViolationRecordNotAuthentic,
            Violation::RecordTooShort => Counter::ViolationRecordTooShort,
            Violation::MalformedHello => Counter::ViolationMalformedHello,
        });
    }

    pub(super) fn count_handshake(&mut self, error: HandshakeError) {
        if let HandshakeError::Violation(violation) = error {
            self.count_violation(violation);
        }
        self.count(match error {
            HandshakeError::WrongMagic => Counter::HandshakeWrongMagic,
            HandshakeError::Refused(code) => match code {
                RefusalCode::Version => Counter::HandshakeVersion,
                RefusalCode::Suite => Counter::HandshakeSuite,
                RefusalCode::WrongNetwork => Counter::HandshakeWrongNetwork,
                RefusalCode::SelfConnection => Counter::HandshakeSelf,
                RefusalCode::Duplicate => Counter::HandshakeDuplicate,
                RefusalCode::Full => Counter::HandshakeFull,
                RefusalCode::ShuttingDown => Counter::HandshakeShuttingDown,
                RefusalCode::AuthFailed => Counter::HandshakeAuthFailed,
                RefusalCode::NotAllowed => Counter::HandshakeNotAllowed,
                RefusalCode::Malformed | RefusalCode::Unknown => Counter::HandshakeMalformed,
            },
            HandshakeError::RefusedByPeer(_) => Counter::HandshakeRefusedByPeer,
            HandshakeError::Goodbye(_) => Counter::HandshakeGoodbye,
            HandshakeError::Violation(_) => Counter::HandshakeViolation,
            HandshakeError::Timeout => Counter::HandshakeTimeout,
            HandshakeError::Eof => Counter::HandshakeEof,
            HandshakeError::Io(_) => Counter::HandshakeIo,
            HandshakeError::WrongNode => Counter::HandshakeWrongNode,
            HandshakeError::AuthFailed => Counter::HandshakeAuthFailed,
            HandshakeError::WeakKey => Counter::HandshakeWeakKey,
        });
    }
}

impl Shard {
    /// The counters, with the levels as they are now.
    pub(crate) fn stats(&mut self) -> &Stats {
        let (pooled, failing) = self.directory.as_ref().map_or((0, 0), |directory| directory.targets());
        for (counter, level) in [
            (Counter::PoolTargets, pooled),
            (Counter::BreakerTargets, failing),
            (Counter::Peers, self.slots.established()),
            (Counter::Landing, usize::from(self.landing.has_begun())),
            (Counter::HalfOpen, self.half_open.len()),
            (Counter::Subscriptions, self.topics.len()),
            (Counter::LogBytes, self.logs.held()),
            (Counter::PrivateBytes, self.sends.used()),
            (Counter::ReassemblyBytes, self.budget.used()),
            (Counter::BufferBytes, self.buffers.held()),
            (Counter::Timers, self.wheel.len()),
            (Counter::PendingRequests, self.requests),
            (Counter::OutboxPoolBytes, self.pool.kept()),
            (Counter::Receipts, self.receipts.len()),
            (Counter::ReceiptBytes, self.receipts.bytes()),
        ] {
            self.stats.set(counter, level as u64);
        }
        let (hits, misses) = self.buffers.taken();
        self.stats.set(Counter::BufferHits, hits);
        self.stats.set(Counter::BufferMisses, misses);
        &self.stats
    }

    /// The driver counts here what only it sees.
    pub(crate) fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    /// What sends take is to be noted from here on.
    pub(crate) fn begin_encoding(&mut self) {
        self.encoding = Encoding { on: true, ..Encoding::default() };
    }

    /// How many there were since, and how long they took.
    pub(crate) fn end_encoding(&mut self) -> (u32, Duration) {
        self.encoding.on = false;
        (self.encoding.sends.get(), self.encoding.spent.get())
    }

    #[inline]
    pub(crate) fn notes_encoding(&self) -> bool {
        self.encoding.on
    }

    /// A send took so long.
    pub(crate) fn note_encoding(&self, took: Duration) {
        self.encoding.sends.set(self.encoding.sends.get() + 1);
        self.encoding.spent.set(self.encoding.spent.get() + took);
    }

    /// Records a value, where histograms are kept. The driver records here what only it sees.
    #[inline]
    pub(crate) fn measure(&mut self, measure: Measure, value: u64) {
        if let Some(histograms) = &mut self.histograms {
            histograms.record(measure, value);
        }
    }

    /// A copy of the histograms; nothing in them where they are off.
    pub(crate) fn histograms(&self) -> Box<Histograms> {
        self.histograms.clone().unwrap_or_default()
    }

    /// The established peers, as they are now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let established = self.slots.iter().filter(|(_, entry)| entry.is_established());
        let lanes = |entry: &Entry| {
            let [control, high, normal, bulk] = entry.peer.outbox.waiting(&self.logs);
            LaneBytes { control, high, normal, bulk }
        };
        let peers = established
            .map(|(slot, entry)| PeerSnapshot {
                id: self.slots.id(slot),
                info: self.slots.info(slot),
                queued_bytes: entry.peer.outbox.claimed(&self.logs),
                lanes: lanes(entry),
                blocked: entry.blocked,
                paused: entry.marks.is_halted(),
                pending_requests: entry.peer.pending_requests(),
                subscriptions: self.slots.cold(slot).subscriptions().map_or(0, |subscriptions| subscriptions.theirs.len()),
                rtt: entry.peer.keepalive.rtt(),
                response_time: entry.peer.response_time(),
                age: self.now - self.slots.cold(slot).established_at,
                last_reason: None,
            })
            .collect();
        let endings = self.endings.iter().flat_map(|endings| endings.iter()).collect();
        Snapshot { peers, endings }
    }
}
