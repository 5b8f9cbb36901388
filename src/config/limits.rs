//! Bounds on messages, peers and memory. What they mean together is checked by `Config::validate`.

use std::time::Duration;

use crate::buffers::MEDIUM;
use crate::wire::DEFAULT_FRAGMENT;

/// Bounds on messages, peers and memory. At each of them something happens that the field says, and it is counted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Established peers, whole engine. Default 1,024. One more is refused (`Full`). An engine whose process may not open this many files,
    /// `max_half_open` and 64 others, does not start ([`crate::StartError::FileLimit`]).
    pub max_peers: usize,
    /// Channels that a node may have here: connections beside each other, numbered from 0. Default 64, at most 65,536. One with a higher
    /// number is refused (`Full`), whoever dialled: otherwise one key could take every place, and everything that each peer has of its own.
    pub channels: usize,
    /// Accepted connections whose handshake is not finished, whole engine. Default 256: five seconds of 50 new peers a second. For one
    /// more the oldest of the subnet that has most of them is closed (`half_open_evicted`); where all are from exempt addresses
    /// ([`crate::Addresses::exempt`]), or 32 are on their way out already, that one is closed as soon as it is accepted
    /// (`refused_half_open`). Choosing looks at all of them, 3 ns each.
    pub max_half_open: usize,
    /// Longest message body, bytes, both directions. Default 1 MiB, ceiling 16 MiB. A longer one is refused before it is sent; a peer that
    /// announces one is cut off before anything is allocated.
    pub max_message: usize,
    /// Where long messages are cut, in bytes after the header, 1 KiB to 32 KiB. Default 16 KiB: smaller lets urgent lanes in sooner,
    /// larger costs fewer headers. What is encoded with [`crate::Frame::new`], which knows no configuration, is cut at 16 KiB.
    pub fragment: usize,
    /// Most that a peer may have still to receive, bytes. Default 16 MiB. A send that would pass it is refused (`OutboxFull`); a
    /// peer that a broadcast or a publish takes over it is cut off (`SlowPeer(HardBound)`). At least twice the longest message.
    pub outbox_hard: usize,
    /// From here on a send answers `Backpressure`, and `on_drained` follows when the peer is below half of it again. Default 4 MiB. A
    /// peer that stays over it for `soft_grace` and drains slower than `min_drain_rate` is cut off (`SlowPeer(SoftMark)`); where
    /// lanes drop what it is too slow for ([`crate::WhenSlow`]), that happens here instead.
    pub outbox_soft: usize,
    /// See `outbox_soft`. Default 5 s.
    pub soft_grace: Duration,
    /// See `outbox_soft`. Bytes a second. Default 64 KiB/s.
    pub min_drain_rate: usize,
    /// Memory of each core for broadcasts that some peer has still to receive, bytes. Default 64 MiB, at least twice `outbox_hard`. At
    /// the cap the peers that hold the oldest part have what they need copied, where it is little (64 KiB; where lanes drop,
    /// `outbox_soft`) and `send_bytes` has room for it, or are cut off (`SlowPeer(LogFull)`).
    pub log_bytes: usize,
    /// Memory for direct sends and publishes that are not yet written, beyond what each peer has of its own (`send_reserve`), whole engine,
    /// bytes. Default 256 MiB, divided evenly among the cores. A send that would pass it is refused (`OutboxFull`); a publish cuts off the
    /// subscribers whose sockets are full, and passes by those for whom there is none left then (see [`crate::Context::publish`]); a
    /// peer is cut off (`SlowPeer(HardBound)`) where only the note of what it is left out of would pass it.
    pub send_bytes: usize,
    /// Memory that each peer has of its own for direct sends that are not yet written, bytes. Default 64 KiB: small and medium messages
    /// go to everybody, however much others have hoarded. At most `outbox_hard`.
    pub send_reserve: usize,
    /// Memory of each core for messages that have not arrived whole, beyond what each peer has of its own (`reassembly_reserve`), bytes.
    /// Default 128 MiB. Over it, reading from the peer that began one more is paused until there is room, for at most `Timeouts::pause`.
    /// A message is charged the buffer that it will need at the end: up to 4 KiB, up to 68 KiB, its length up to 257 KiB, 1 MiB + 4 KiB, or
    /// its length.
    pub reassembly_bytes: usize,
    /// Memory that each peer has of its own for messages that have not arrived whole, bytes. Default 68 KiB, one message up to that
    /// length: who begins no longer ones is never paused because others do. At most `reassembly_bytes`.
    pub reassembly_reserve: usize,
    /// Memory that each core keeps when nobody needs it, bytes: for unfinished frames and messages, and as much again for what is to be
    /// sent. Default 8 MiB, so that seven messages of 1 MiB at a time are received into memory that has its pages already. Beyond it memory
    /// goes back to the allocator, and comes from there again (`buffer_misses`).
    pub buffer_pool: usize,
    /// Requests that wait for a response, per peer. Default 1,024. One more is refused (`TooManyRequests`).
    pub pending_requests: usize,
    /// Topics that a peer may be subscribed to here, and this side at a peer, at a time. Default 1,024. One more asked for by this side is
    /// refused (`TooManySubscriptions`); a peer that subscribes to one more is cut off, as a violation of the same name. Both sides are
    /// taken to allow the same, so give it the same value on both. Each costs 45 to 60 bytes here, 90 at the worst, so that 1,024
    /// peers with 1,024 topics each take no more than 90 MiB. 0 to 1,048,576; zero: no topics.
    pub subscriptions: usize,
    /// Requests that wait for a response, to all peers of a core. Default 65,536. One more is refused (`TooManyRequests`).
    pub max_requests: usize,
    /// Commands that handles may have queued for a core. Default 4,096. One more is refused (`InboxFull`).
    pub inbox_messages: usize,
    /// Bytes of frames that may be queued for a core. Default 64 MiB. One more is refused (`InboxFull`).
    pub inbox_bytes: usize,
    /// Dials that the engine is asked to keep up at a time. Default 65,536. One more fails (`Full`).
    pub max_dials: usize,
    /// Timers that a core's handler may have set. Default 65,536. One more is not set (`None`).
    pub max_timers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_peers: 1024,
            channels: 64,
            max_half_open: 256,
            max_message: 1 << 20,
            fragment: DEFAULT_FRAGMENT,
            outbox_hard: 16 << 20,
            outbox_soft: 4 << 20,
            soft_grace: Duration::from_secs(5),
            min_drain_rate: 64 << 10,
            log_bytes: 64 << 20,
            send_bytes: 256 << 20,
            send_reserve: 64 << 10,
            reassembly_bytes: 128 << 20,
            reassembly_reserve: MEDIUM,
            buffer_pool: 8 << 20,
            pending_requests: 1024,
            subscriptions: 1024,
            max_requests: 1 << 16,
            inbox_messages: 4096,
            inbox_bytes: 64 << 20,
            max_dials: 1 << 16,
            max_timers: 1 << 16,
        }
    }
}
