//! What a core counts.
//!
//! A core counts in plain integers of its own and publishes them, all at once, into atomics that only it writes: before it sleeps, and
//! every few milliseconds while it does not. Reading takes no lock and disturbs no core. The set of counters is fixed; none is per peer.

mod exposition;
mod histogram;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

pub use exposition::prometheus_text;
pub use histogram::{Histogram, Histograms, Measure};

use crate::watchdog::Overrun;

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal),* $(,)?) => {
        /// One figure of [`Stats`]. All only grow, except where "now" is said: see [`Counter::is_level`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum Counter {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Counter {
            /// Every counter, in a fixed order.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant,)*];

            /// The name under which it is printed.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Counter::$variant => $name,)* }
            }

            /// What it counts, in the words of its documentation.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Counter::$variant => concat!($($doc),*).trim_ascii(),)* }
            }
        }

        const COUNTERS: usize = [$(Counter::$variant,)*].len();
    };
}

counters! {
    /// Messages that were handed to the application.
    MessagesReceived = "messages_received",
    /// Messages whose last byte the kernel took, each once per peer it went to.
    MessagesSent = "messages_sent",
    /// Messages that were accepted for a peer and dropped because it ended.
    MessagesDropped = "messages_dropped",
    /// Messages that were dropped because their time to live was up before they began to leave.
    MessagesExpired = "messages_expired",
    /// The oldest messages of a lane, dropped because their peer is slow: `WhenSlow::DropOldest`, or `Conflate` with too many keys.
    DroppedOldest = "dropped_oldest",
    /// New messages of a lane, not taken because their peer is slow: `WhenSlow::DropNewest`.
    DroppedNewest = "dropped_newest",
    /// Messages whose place a newer one of the same key took: `WhenSlow::Conflate`.
    Conflated = "conflated",
    /// Bytes read from sockets of established peers.
    BytesReceived = "bytes_received",
    /// Bytes that the kernel took from established peers' outboxes.
    BytesSent = "bytes_sent",
    /// Frames that were appended to this core's broadcast log.
    Broadcasts = "broadcasts",
    /// Broadcasts from this core that were refused.
    BroadcastsRefused = "broadcasts_refused",
    /// Frames that were published on a topic and taken by this core, whoever has subscribed.
    Publishes = "publishes",
    /// Publishes from this core that were refused.
    PublishesRefused = "publishes_refused",
    /// Published messages that were queued for a subscriber of this core, each once for each of them.
    Deliveries = "deliveries",
    /// Subscribers that a publish has passed by: they take only shorter messages, or the core had no memory left for them; and peers that a
    /// publish or a broadcast has passed by because of `rates.send`.
    DeliveriesRefused = "deliveries_refused",
    /// This side's own subscribing and unsubscribing at peers of this core that was refused.
    SubscriptionsRefused = "subscriptions_refused",
    /// Sends and responses to peers of this core that were refused, and broadcasts to those of them that take only shorter messages.
    SendsRefused = "sends_refused",
    /// Sends, requests, responses and subscriptions to peers of this core that were refused because of `rates.send`, and peers that were
    /// passed by because of it. They are among `sends_refused`, `subscriptions_refused` and `deliveries_refused` as well.
    SendsRateLimited = "sends_rate_limited",
    /// Messages from peers that were dropped because of `rates.receive`: `WhenOver::Drop`.
    RateLimitedMessages = "rate_limited_messages",
    /// Bytes of the frames of messages that were dropped because of `rates.receive`.
    RateLimitedBytes = "rate_limited_bytes",
    /// Times that reading from a peer was put off because of `rates.receive`: `WhenOver::Delay`.
    RateDelays = "rate_delays",
    /// What handles had for this core, and what this core had for single peers of others, for which an inbox had no room.
    InboxRefused = "inbox_refused",
    /// Requests that were sent to peers of this core.
    RequestsSent = "requests_sent",
    /// Requests whose deadline came before a response.
    RequestsTimedOut = "requests_timed_out",
    /// Responses to requests that nobody waits for any more.
    LateResponses = "late_responses",
    /// Messages to be acknowledged that were queued for peers of this core, each once per peer. Repetitions are not among them.
    AckedSent = "acked_sent",
    /// Messages that were sent again on a new connection, because the old one ended before they were acknowledged.
    AckedResent = "acked_resent",
    /// Acknowledged sends and broadcasts from this core that were refused.
    AckedRefused = "acked_refused",
    /// Acknowledgements that came from peers of this core.
    AcksReceived = "acks_received",
    /// Acknowledgements of what is not awaited any more.
    LateAcks = "late_acks",
    /// Acknowledgements that were queued for peers of this core.
    AcksSent = "acks_sent",
    /// Messages that came again and were not handed to the application again.
    DuplicatesSuppressed = "duplicates_suppressed",
    /// Messages that were neither handed over nor acknowledged, because the application owes that peer `acks.pending` acknowledgements.
    AckedDropped = "acked_dropped",
    /// Acknowledged sends of this core whose deadline came before every answer.
    ReceiptsExpired = "receipts_expired",
    /// Ledgers of ended connections that were given up because more had ended than are kept.
    LedgersEvicted = "ledgers_evicted",
    /// Peers that were told that this engine will go: see `Handle::drain`. Those that do not understand it are not among them.
    NoticesSent = "notices_sent",
    /// Words of peers that they will go.
    NoticesReceived = "notices_received",
    /// Dials that wait because the other side has asked for that.
    DelaysHeeded = "delays_heeded",
    /// Dials that wait for `backoff.max_asked` because the other side has asked for longer. They are among `delays_heeded` as well.
    DelaysCut = "delays_cut",
    /// Pings that were sent.
    PingsSent = "pings_sent",
    /// Reads that were put off because the memory for unfinished messages was used up.
    ReassemblyWaits = "reassembly_waits",
    /// Buffers for unfinished frames and messages that were memory used before.
    BufferHits = "buffer_hits",
    /// Buffers for unfinished frames and messages that had to be allocated.
    BufferMisses = "buffer_misses",
    /// Peers whose part of the broadcast log was copied to set the log free.
    LogEvacuations = "log_evacuations",
    /// Connections taken from a listener.
    Accepted = "accepted",
    /// Connections that were closed at once because `limits.max_half_open` were in their handshake and none of them could give way.
    RefusedHalfOpen = "refused_half_open",
    /// Half-open connections that were closed to make room for a newer one: the oldest of the busiest subnet.
    HalfOpenEvicted = "half_open_evicted",
    /// Connections that were closed at once because their address had `addresses.half_open_per_ip` in their handshake.
    RefusedIpHalfOpen = "refused_ip_half_open",
    /// Connections that were closed at once because their address began more than `addresses.handshakes_per_ip`.
    RefusedIpRate = "refused_ip_rate",
    /// Connections that were closed at once because their subnet began more than `addresses.handshakes_per_subnet`.
    RefusedSubnetRate = "refused_subnet_rate",
    /// Connections that were closed at once because their address had `addresses.peers_per_ip`.
    RefusedIpPeers = "refused_ip_peers",
    /// Connections that were closed at once because their subnet had `addresses.peers_per_subnet`.
    RefusedSubnetPeers = "refused_subnet_peers",
    /// Connections that were closed at once because `addresses.table` was full of others.
    RefusedTable = "refused_table",
    /// Steps of handshakes that were put off to a later turn: `io.handshakes`.
    HandshakesDeferred = "handshakes_deferred",
    /// Times that accepting stopped because the process had no file descriptor left.
    AcceptPauses = "accept_pauses",
    /// Errors of accept, other than a lack of file descriptors.
    AcceptErrors = "accept_errors",
    /// Peers that were established.
    Established = "established",
    /// Connection attempts that were started.
    DialAttempts = "dial_attempts",
    /// Connection attempts that did not end in a peer.
    DialFailures = "dial_failures",
    /// Times that a target's circuit breaker opened: it was not to be dialled for a while.
    BreakerOpened = "breaker_opened",
    /// Times that a target's circuit breaker let probes through.
    BreakerHalfOpened = "breaker_half_opened",
    /// Times that a target's circuit breaker closed: it was back.
    BreakerClosed = "breaker_closed",
    /// Dials to be made once, and connects of the pool, that failed because the target's breaker was open.
    BreakerRefused = "breaker_refused",
    /// Attempts of dials that are kept up that were put off because the target's breaker was open.
    BreakerDelayed = "breaker_delayed",
    /// Targets with failures that were forgotten, or not remembered, because `breaker.targets` were.
    BreakerForgotten = "breaker_forgotten",
    /// Connects that an established connection was there for.
    PoolHits = "pool_hits",
    /// Connects that had to wait for a connection, or failed.
    PoolMisses = "pool_misses",
    /// Connects that were refused: `pool.waiting`, `pool.waiting_per_target` or `pool.max_targets`.
    PoolRefused = "pool_refused",
    /// Targets whose connections were closed to make room for another target: `pool.max_targets`.
    PoolEvicted = "pool_evicted",
    /// Handshakes refused: not this protocol.
    HandshakeWrongMagic = "handshake_wrong_magic",
    /// Handshakes refused: version.
    HandshakeVersion = "handshake_version",
    /// Handshakes refused: suite.
    HandshakeSuite = "handshake_suite",
    /// Handshakes refused: malformed.
    HandshakeMalformed = "handshake_malformed",
    /// Handshakes refused: another network.
    HandshakeWrongNetwork = "handshake_wrong_network",
    /// Handshakes refused: this very node.
    HandshakeSelf = "handshake_self_connection",
    /// Handshakes refused: connected already.
    HandshakeDuplicate = "handshake_duplicate",
    /// Handshakes refused: no room for another peer.
    HandshakeFull = "handshake_full",
    /// Handshakes refused: shutting down.
    HandshakeShuttingDown = "handshake_shutting_down",
    /// Handshakes refused: the node is not on the allow-list, or `Handler::authorize` did not want it.
    HandshakeNotAllowed = "handshake_not_allowed",
    /// Handshakes ended: something did not decrypt.
    HandshakeAuthFailed = "handshake_auth_failed",
    /// Handshakes ended: a key that makes every shared secret zero.
    HandshakeWeakKey = "handshake_weak_key",
    /// Handshakes ended: another node answered than was dialled.
    HandshakeWrongNode = "handshake_wrong_node",
    /// Handshakes ended: refused by the other side.
    HandshakeRefusedByPeer = "handshake_refused_by_peer",
    /// Handshakes ended: taken back by the other side.
    HandshakeGoodbye = "handshake_goodbye",
    /// Handshakes ended: a rule was broken.
    HandshakeViolation = "handshake_violation",
    /// Handshakes ended: too slow.
    HandshakeTimeout = "handshake_timeout",
    /// Handshakes ended: the other side closed.
    HandshakeEof = "handshake_eof",
    /// Handshakes ended: network or kernel.
    HandshakeIo = "handshake_io",
    /// Peers ended: by the application.
    ClosedRequested = "closed_requested",
    /// Peers ended: shutdown.
    ClosedShuttingDown = "closed_shutting_down",
    /// Peers ended: replaced by a newer connection.
    ClosedReplaced = "closed_replaced",
    /// Peers ended: goodbye of the other side.
    ClosedGoodbye = "closed_goodbye",
    /// Peers ended: closed by the other side without goodbye.
    ClosedEof = "closed_eof",
    /// Peers ended: network or kernel.
    ClosedIo = "closed_io",
    /// Peers ended: a rule was broken. See the counters `violation_*`.
    ClosedViolation = "closed_violation",
    /// Peers ended: more than `limits.outbox_hard` to receive.
    SlowHardBound = "closed_slow_hard_bound",
    /// Peers ended: over `limits.outbox_soft` for too long.
    SlowSoftMark = "closed_slow_soft_mark",
    /// Peers ended: the kernel took nothing for `timeouts.write_stall`.
    SlowWriteStall = "closed_slow_write_stall",
    /// Peers ended: kept the oldest part of a full broadcast log.
    SlowLogFull = "closed_slow_log_full",
    /// Peers ended: nothing received for `keepalive.timeout`, or for as long as `keepalive.adaptive` says.
    ClosedUnresponsive = "closed_unresponsive",
    /// Peers ended: a frame or message was not finished in time.
    ClosedPartial = "closed_partial",
    /// Peers ended: reading was paused for too long.
    ClosedPaused = "closed_paused",
    /// Peers ended: taken off the allow-list.
    ClosedNotAllowed = "closed_not_allowed",
    /// Peers ended: the handler panicked in a call about them.
    ClosedHandlerPanicked = "closed_handler_panicked",
    /// Peers ended: sent more than `rates.receive` allows: `WhenOver::Disconnect`.
    ClosedRateLimited = "closed_rate_limited",
    /// Peers ended: by the pool, `pool.max_idle` or `pool.max_targets`.
    ClosedIdle = "closed_idle",
    /// Rule 1 of the protocol broken: a length over 32,768.
    ViolationFrameTooLong = "violation_frame_too_long",
    /// Rule 2 of the protocol broken: an unknown kind.
    ViolationUnknownKind = "violation_unknown_kind",
    /// Rule 3 of the protocol broken: an unknown flag.
    ViolationUnknownFlags = "violation_unknown_flags",
    /// Rule 4 of the protocol broken: a frame in the wrong lane.
    ViolationWrongLane = "violation_wrong_lane",
    /// Rule 5 of the protocol broken: a length that its kind cannot have.
    ViolationWrongLength = "violation_wrong_length",
    /// Rule 6 of the protocol broken: a message longer than `limits.max_message`.
    ViolationMessageTooLong = "violation_message_too_long",
    /// Rule 7 of the protocol broken: a fragment of a message that had not begun.
    ViolationUnexpectedFragment = "violation_unexpected_fragment",
    /// Rule 8 of the protocol broken: a message in a lane before the last one there had ended.
    ViolationInterleaved = "violation_interleaved",
    /// Rule 9 of the protocol broken: more bytes than its first fragment announced.
    ViolationFragmentOverrun = "violation_fragment_overrun",
    /// Rule 10 of the protocol broken: fewer bytes than announced, or an empty fragment.
    ViolationFragmentShort = "violation_fragment_short",
    /// Rule 11 of the protocol broken: a pong that answers no ping.
    ViolationUnsolicitedPong = "violation_unsolicited_pong",
    /// Rule 12 of the protocol broken: a response to no request.
    ViolationUnsolicitedResponse = "violation_unsolicited_response",
    /// Rule 13 of the protocol broken: more pings than allowed.
    ViolationPingFlood = "violation_ping_flood",
    /// Rule 14 of the protocol broken: a second `Ready`.
    ViolationUnexpectedReady = "violation_unexpected_ready",
    /// Rule 15 of the protocol broken: another frame than `Ready`.
    ViolationExpectedReady = "violation_expected_ready",
    /// Rule 16 of the protocol broken: more acknowledgements than messages that asked for one.
    ViolationUnsolicitedAck = "violation_unsolicited_ack",
    /// Rule 17 of the protocol broken: a topic more than `limits.subscriptions`.
    ViolationTooManySubscriptions = "violation_too_many_subscriptions",
    /// Rule 18 of the protocol broken: a record that does not decrypt.
    ViolationRecordNotAuthentic = "violation_record_not_authentic",
    /// Rule 19 of the protocol broken: a record too short to hold anything.
    ViolationRecordTooShort = "violation_record_too_short",
    /// Rule 20 of the protocol broken: a hello that cannot be.
    ViolationMalformedHello = "violation_malformed_hello",
    /// Panics of the application's code on this core: in a method of its handler, or when something of its was dropped.
    HandlerPanics = "handler_panics",
    /// Turns of the loop.
    Turns = "turns",
    /// Times that the core went to sleep.
    Sleeps = "sleeps",
    /// Calls of the handler that ran for longer than `metrics.handler_budget`. See [`Stats::last_overrun`].
    HandlerOverruns = "handler_overruns",
    /// Processor time of the core's thread, nanoseconds.
    CpuNanos = "cpu_ns",
    /// Time that the core spent asking the kernel what is ready while there was work, nanoseconds. All `time_*` are zero where
    /// `Metrics::time` is off.
    TimePoll = "time_poll_ns",
    /// Time that the core waited for work, asleep or looking for it, nanoseconds.
    TimeIdle = "time_idle_ns",
    /// Time spent on what came from other cores, handles and listeners, commands' handlers among it, nanoseconds.
    TimeInbox = "time_inbox_ns",
    /// Time spent reading sockets, and on handshakes, nanoseconds. What reading, decoding, handler and encoding take
    /// together is exact; it is divided among them by one read batch in 64, so that one slow call may be found in all four.
    TimeRead = "time_read_ns",
    /// Time spent decrypting and decoding what was read, nanoseconds.
    TimeDecode = "time_decode_ns",
    /// Time spent in the handler for what was read, nanoseconds.
    TimeHandler = "time_handler_ns",
    /// Time spent encoding and queueing what the handler has sent meanwhile, nanoseconds.
    TimeEncode = "time_encode_ns",
    /// Time spent on timers, on what the application is told outside of reading, and on connecting and closing, nanoseconds.
    TimeEvents = "time_events_ns",
    /// Time spent writing to sockets, encryption among it, nanoseconds.
    TimeWrite = "time_write_ns",
    /// Established peers now.
    Peers = "peers",
    /// Cores that let nobody more in now, because the engine was told to go: `Handle::drain`.
    Landing = "landing",
    /// Connections in their handshake now.
    HalfOpen = "half_open",
    /// Targets that the pool has connections to, waits for, or has pinned, now.
    PoolTargets = "pool_targets",
    /// Targets whose last attempts have failed, now.
    BreakerTargets = "breaker_targets",
    /// Topics that peers of this core are subscribed to now, each once for each peer.
    Subscriptions = "subscriptions",
    /// Bytes of the broadcast log in memory now.
    LogBytes = "log_bytes",
    /// Bytes queued for single peers in memory now.
    PrivateBytes = "private_bytes",
    /// Bytes taken from the budget for unfinished messages now.
    ReassemblyBytes = "reassembly_bytes",
    /// Bytes of buffers for what has not arrived whole, lent out or kept, now.
    BufferBytes = "buffer_bytes",
    /// Bytes of memory for what is to be sent, kept for the next or lent and not fitted to what is in it, now.
    OutboxPoolBytes = "outbox_pool_bytes",
    /// Requests to peers of this core that wait for a response now.
    PendingRequests = "pending_requests",
    /// Timers set now.
    Timers = "timers",
    /// Acknowledged sends of this core that have no outcome yet, now.
    Receipts = "receipts",
    /// Bytes of the frames of acknowledged sends that have no outcome yet, now.
    ReceiptBytes = "receipt_bytes",
}

impl Counter {
    /// Whether it says how much there is now, instead of how often something has happened.
    #[must_use]
    pub fn is_level(self) -> bool {
        self.description().split(|letter: char| !letter.is_alphanumeric()).any(|word| word == "now")
    }
}

/// A reading of the counters of one core, or of all of them together.
#[derive(Clone, PartialEq, Eq)]
pub struct Stats {
    values: [u64; COUNTERS],
    last_overrun: Option<Overrun>,
}

impl Default for Stats {
    fn default() -> Self {
        Self { values: [0; COUNTERS], last_overrun: None }
    }
}

impl Stats {
    /// One figure.
    #[must_use]
    #[inline]
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }

    /// Every figure, in the order of [`Counter::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL.iter().map(|&counter| (counter, self.get(counter)))
    }

    /// The part of the buffers for unfinished frames and messages that were memory used before, 0 to 1; `None` before the first. Well
    /// under 1 in steady work: raise `Limits::buffer_pool`.
    #[must_use]
    pub fn buffer_hit_rate(&self) -> Option<f64> {
        let (hits, misses) = (self.get(Counter::BufferHits), self.get(Counter::BufferMisses));
        (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64)
    }

    /// Bytes of memory that messages have now, in either direction: broadcast logs, what is queued for single peers, what has not arrived
    /// whole, the pools of both, and the frames of acknowledged sends. A large frame that several peers wait for counts for each. What
    /// peers, dials and addresses take besides is in [`crate::Config::memory_bound`] alone.
    #[must_use]
    pub fn memory_held(&self) -> u64 {
        let holders = [Counter::LogBytes, Counter::PrivateBytes, Counter::OutboxPoolBytes, Counter::BufferBytes, Counter::ReceiptBytes];
        holders.iter().map(|&holder| self.get(holder)).sum()
    }

    /// The last call of a handler that ran for longer than [`crate::Metrics::handler_budget`]; `None` where there was none, or none is set.
    #[must_use]
    pub fn last_overrun(&self) -> Option<Overrun> {
        self.last_overrun
    }

    pub(crate) fn set_last_overrun(&mut self, last: Option<Overrun>) {
        self.last_overrun = last;
    }

    #[inline]
    pub(crate) fn add(&mut self, counter: Counter, more: u64) {
        self.values[counter as usize] += more;
    }

    #[inline]
    pub(crate) fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    #[inline]
    pub(crate) fn set(&mut self, counter: Counter, value: u64) {
        self.values[counter as usize] = value;
    }

    /// Adds another core's figures.
    pub(crate) fn merge(&mut self, other: &Stats) {
        for (mine, theirs) in self.values.iter_mut().zip(other.values) {
            *mine += theirs;
        }
        self.last_overrun = [self.last_overrun, other.last_overrun].into_iter().flatten().max_by_key(|overrun| overrun.at);
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().filter(|&(_, value)| value != 0).map(|(counter, value)| (counter.name(), value))).finish()
    }
}

/// Where a core publishes its counters.
#[derive(Debug)]
pub(crate) struct Published {
    values: [AtomicU64; COUNTERS],
}

impl Published {
    pub(crate) fn new() -> Self {
        Self { values: [const { AtomicU64::new(0) }; COUNTERS] }
    }

    pub(crate) fn publish(&self, stats: &Stats) {
        for (published, &value) in self.values.iter().zip(&stats.values) {
            // Each figure stands for itself; nothing is ordered by them.
            published.store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self) -> Stats {
        Stats { values: std::array::from_fn(|index| self.values[index].load(Ordering::Relaxed)), last_overrun: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_in_snake_case() {
        let mut names: Vec<_> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COUNTERS);
    }
}
