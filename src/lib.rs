//! corecast: a thread-per-core, synchronous TCP messaging engine.
//!
//! A latency-sensitive node (a validator, a gossip or market-data relay, anything that talks to tens to tens of thousands of peers) embeds
//! this library. Each core is one thread, pinned if asked, with one event loop, its own peers and a cached clock. A message is encoded
//! once; a broadcast travels as one shared frame to every core, is appended there to one log, and leaves in one write per peer for
//! everything that the peer has missed.
//!
//! # Embedding
//!
//! ```
//! use corecast::{Admission, Config, Context, Dial, Engine, Handler, Identity, Message, PeerId, PeerInfo};
//!
//! const PRICE: u16 = 1;
//! const STOP: u16 = 2;
//!
//! /// Relays every price to all other peers.
//! struct Relay;
//!
//! impl Handler for Relay {
//!     type Command = ();
//!
//!     fn on_connected(&mut self, cx: &mut Context<'_>, peer: PeerId, info: &PeerInfo) {
//!         println!("{peer} is {} at {}", info.node, info.address);
//!         let _ = cx.send(peer, PRICE, b"42");
//!     }
//!
//!     fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
//!         match message.message_type() {
//!             PRICE => {
//!                 let Ok(frame) = cx.frame(PRICE, message.body) else { return };
//!                 // All or nothing; an error says which inbox was full.
//!                 let _ = cx.broadcast_except(&frame, peer);
//!             }
//!             STOP => cx.close(peer),
//!             _ => {}
//!         }
//!     }
//! }
//!
//! // In a program: Identity::load_or_generate("node.key")?, and the node ids of the others from its configuration.
//! let (ours, theirs) = (Identity::generate()?, Identity::generate()?);
//! let only_them = Admission::AllowList(vec![theirs.node_id()]);
//! let relay = Engine::start(Config::secure(ours, only_them).listen("127.0.0.1:0".parse()?), |_core| Relay)?;
//! let other = Engine::start(Config::secure(theirs, Admission::Open), |_core| Relay)?;
//! other.handle().dial(Dial::node(relay.node_id(), relay.local_addrs()[0]))?;
//! // ... run ...
//! other.shutdown();
//! relay.shutdown();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Three rings
//!
//! ```text
//! ring 0  pure    wire  proto  shard       no socket, thread, lock, clock or randomness of its own
//! ring 1  shim    reactor                  mio, sockets, threads, pinning; takes no decisions
//! ring 2  shell   engine  handle  handler  what a program embeds
//! ```
//!
//! The line without I/O runs around the *whole core*: a `Shard` is every peer of one core, their timers, limits and broadcasts. The reactor
//! moves bytes and tells the shard what happened. So the tests run many shards of many engines over faulty links in virtual time, in one
//! thread, from a seed, and the same seed gives the same run to the last byte.
//!
//! # The two flows
//!
//! ```text
//! in    kernel -> the core's receive buffer -> (records opened) -> FrameDecoder -> Peer::handle_frame
//!       -> Handler::on_message, payload still in the buffer
//!       -> Context::send -> the peer's outbox -> dirty list -> end of turn: (a record sealed) -> one write -> advance
//!
//! cast  Handle::broadcast -> one atomic increment and one queue operation for each core, one wake for each that sleeps
//!       -> core: appended once to the broadcast log of the frame's lane
//!       -> end of turn: for each peer one slice from its position to the log's end -> one write -> the position moves on
//! ```
//!
//! * **The broadcast log** makes a broadcast cost a core the same for one peer and for ten thousand: no outbox is touched, since each holds
//!   a *position*, and what lies between it and the end of the log is what the peer has to receive. Small frames stand next to each other,
//!   so everything that a peer missed is one slice. Large ones (from 4 KiB) are segments of the log by reference, so no per-peer reference
//!   counting is needed for them either. Only a direct send into the same lane writes the position down as a span, to keep the order.
//! * **Topics stay out of the log.** A publish puts the frame into each subscriber's own outbox, as a direct send does: slow subscribers of
//!   quiet topics keep nothing alive but what is theirs.
//! * **The outbox of an idle peer is a few positions.** Queues for direct sends are borrowed from the core's pool while there is something
//!   in them: an idle peer holds no buffer, and an echo writes into memory that is still in the cache.
//! * **An idle peer has some 400 bytes** on the heap in plaintext, what the directory knows of its connection included. What a write
//!   needs of a peer are 96 of them in a row; who the peer is, and what few peers have, stands elsewhere.
//! * **The receive buffer belongs to the core.** A peer keeps only the tail of an unfinished frame, in a buffer of the core's pool, and
//!   gives it back with the frame's end. Messages that come in pieces are put together in buffers of the same pool.
//! * **Votes pass bulk.** Each peer's outbox has lanes: control first, then high, normal and bulk by deficit round robin. Messages longer
//!   than a fragment are cut, and what has begun to leave is finished frame by frame, so a message that comes into an idle lane waits for
//!   one fragment. [`Lanes`] has the weights, the types' lanes, and what each lane does with a reader that is too slow.
//! * **The pool keeps no connections of its own.** [`Context::connect`] hands out what the directory knows to be established, whoever has
//!   dialled it, and has the rest dialled once for all who ask. Whether a pooled connection is idle is told by a flag that is looked at now
//!   and then, not by a time that is written with each message.
//! * **Acknowledgements are the core's business until a connection ends.** What is open then, and which ids were seen, goes to the
//!   directory as the connection's *ledger*, and comes with the grant of the next connection of that node and channel.
//! * **A record is sealed once, at the last moment**: when its peer is written to, out of what its outbox has by then, so lanes, times to
//!   live and conflation act on everything that is not in a record yet, and a broadcast costs one record for all that a peer has missed.
//!   What the kernel does not take of a record is kept as it is; the next is sealed when it has left.
//! * **Batching is natural.** Everything queued during a turn leaves together at its end: at once when the loop is idle, in large writes
//!   when it is busy. There is no linger timer.
//!
//! # Threads
//!
//! A core never takes a lock and never waits for another. Other threads and cores reach it through bounded queues under credit, in
//! messages and in bytes: a producer reserves on every core it means to reach before it pushes, so a call that goes to all cores happens
//! on all or on none. A latch says whether the core is awake, so a wake costs a syscall only when it sleeps. Core 0 also accepts and has
//! the directory: who is connected, who is to be dialled. It is on no message path.
//!
//! A core measures itself in memory of its own: counters ([`Counter`]), accounts of where its time goes, histograms ([`Measure`]).
//! Counters are published into atomics that only it writes, histograms are copied when somebody asks ([`Handle::histograms`]), and nothing
//! of it is per peer. Only a snapshot of peers is ([`Handle::peers`]). A handler's call that takes too long is named by a watchdog
//! ([`Metrics::handler_budget`]). [`Handle::prometheus_text`] has all of it as text; the feature `prometheus` serves it.
//!
//! # Promises
//!
//! * At most once per connection, never duplicated, never reordered within a lane of one sender to one peer (only a frame that takes the
//!   place of an older one of its key comes earlier than it was sent).
//! * Between a send into an idle high lane and its first byte in the kernel, one turn passes (more, where more peers wait than a turn
//!   writes to: [`Io::flush_peers`]) and that peer's socket takes at most one fragment, besides control frames. A high lane that has used
//!   up its weight in the round that is under way waits for the weights of the others. No lane starves.
//! * An acknowledged send ([`Context::send_acked`]): at least once across reconnects to the same node and channel, while this engine lives
//!   and until its deadline; one outcome, whatever happens. The receiver is handed it once, within the bounds of [`Acks`].
//! * Every message that did not leave has a typed error or a counted reason.
//! * No input from a peer panics, blocks, or makes memory pass its bound ([`Config::memory_bound`]). Every length is checked before
//!   anything is allocated, and memory grows with what arrives, not with what is announced.
//! * Every state in which something is waited for has a deadline.
//! * No log line per message, at any level.
//!
//! A panic in a handler costs the peer that the call was about (`HandlerPanicked`), and no other: the handler is made anew by its factory,
//! on the same core, and told what happened ([`Handler::on_panic`]). What [`Handler`] says of it in detail holds for each of its methods.
//! More panics than [`Restarts`] allows, and a panic in this crate itself, end the core: that is reported by [`Engine::shutdown`] and loses
//! no other core (core 0 also accepts and dials: without it the others keep their peers and get no new ones). Under `panic = "abort"` none
//! of this holds: the first panic ends the process.
//!
//! Whatever way a connection ends, everything that it had is given back: its descriptor, its slot, its buffers and what it took of every
//! budget, its timers, its place in every count. There is one place
//! where a peer is freed, and one for a handshake; debug builds check there that nothing is left.
//!
//! # Security
//!
//! Sessions are [Noise](https://noiseprotocol.org/noise.html) XK unless plaintext is asked for, and an engine does not start before it has
//! been given a key ([`Identity`]) and a word on who may connect ([`Admission`]). A node id *is* the node's public key, and a dial names
//! it.
//!
//! **Against whom.** Somebody who reads, changes, drops, delays, repeats and makes up whatever travels between nodes; who connects from as
//! many addresses as he has, speaks as much of the protocol as he likes, stops in the middle, or never reads; and, as a peer with a key of
//! his own that is allowed, does all of that after a handshake.
//!
//! **What is promised.**
//!
//! * Nobody but the node that was dialled can answer a dial, and a peer that is reported has proved that it has the secret key of its
//!   [`PeerInfo::node`] ([`PeerInfo::authenticated`]). An accepting node does not tell strangers its key.
//! * What peers say to each other can be read by nobody else, nor later by who steals both their keys: each session has keys of its own.
//!   The dialler's key is seen by nobody but the node that it dials.
//! * What is changed, repeated, left out, put elsewhere or cut off in a session ends it before the application sees any of it. Nothing
//!   from one session means anything in another, nor in another network, which the handshake is bound to, as it is to its own preamble.
//! * There is nothing to talk a node down to: a network has one suite, and a secure engine answers plaintext with a refusal.
//! * Strangers get no slot, no call into the application but [`Handler::authorize`], and no memory beyond a small fixed part, until they
//!   have proved who they are and the directory has agreed. How many there may be, from one address, from one subnet and in all, how fast
//!   they may come and for how long they may take is bounded ([`Addresses`], [`Limits::max_half_open`], [`Timeouts::handshake`]), and so
//!   is the time that a turn spends on them ([`Io::handshakes`]). An established peer never gives way to them.
//! * Secrets are wiped where they stood, when they have been used or are dropped, as far as they are this crate's (what a call leaves on
//!   the stack is not hunted down), and no formatting prints them. A key file that others can read, or have put there, is refused.
//!
//! **What is not.**
//!
//! * *Traffic analysis.* Who talks to whom, when, how much and how often is there to be seen: records are as long as what is in them, and
//!   are sent when it is said. Nor is it hidden that this is corecast: the preamble is in the clear.
//! * *Denial of service by whoever owns the wire*, or has more bandwidth than it does.
//! * `snow`, which runs the handshake, has not been audited formally; nor has this crate. `ring`, the ciphers and the hash, and
//!   `x25519-dalek` have seen more eyes. `snow` and `ring` do not wipe all that they compute on the way.
//! * *Forward secrecy of the dialler's first message*: it carries nothing. *Deniability*, and post-quantum secrecy: what is recorded today
//!   can be read by who breaks X25519 one day, unless the network has a secret ([`Noise::secret`]) that he does not know.
//! * *What a peer that is allowed says.* It is who it says it is; whether it is to be believed is the application's question.
//!
//! **Limits.** Each has a field, a default, and a counter that says how often it was met:
//!
//! | what | fields | default | at the limit |
//! |---|---|---|---|
//! | handshake, whole | [`Timeouts::handshake`], [`Timeouts::connect`] | 5 s, and 2 s to read why not | `handshake_timeout` |
//! | half-open connections | [`Limits::max_half_open`] | 256 | the oldest of the busiest subnet goes: `half_open_evicted` |
//! | ... of an address | [`Addresses::half_open_per_ip`] | 8 | `refused_ip_half_open` |
//! | handshakes of an address | [`Addresses::handshakes_per_ip`] | 4/s, 16 at once | `refused_ip_rate` |
//! | ... of a subnet | [`Addresses::handshakes_per_subnet`] | 64/s, 64 at once | `refused_subnet_rate` |
//! | connections of an address | [`Addresses::peers_per_ip`] | 64 | `refused_ip_peers` |
//! | ... of a subnet | [`Addresses::peers_per_subnet`] | 256 | `refused_subnet_peers` |
//! | addresses that are remembered | [`Addresses::table`] | 65,536 | `refused_table` |
//! | steps of handshakes in a turn | [`Io::handshakes`] | 8 | the next turn: `handshakes_deferred` |
//! | peers | [`Limits::max_peers`] | 1,024 | `handshake_full`; no start without the files: [`StartError::FileLimit`] |
//! | ... of a node | [`Limits::channels`] | 64 | `handshake_full` |
//! | who | [`Config::admission`], [`Handler::authorize`] | must be said | `handshake_not_allowed`, `closed_not_allowed` |
//! | message | [`Limits::max_message`], [`Limits::fragment`] | 1 MiB in 16 KiB | `violation_message_too_long` |
//! | what a peer has to receive | [`Limits::outbox_hard`] | 16 MiB | `sends_refused`, `closed_slow_hard_bound` |
//! | ... and reads under 64 KiB/s | [`Limits::outbox_soft`], `soft_grace` | 4 MiB for 5 s | `closed_slow_soft_mark` |
//! | sends in memory, whole engine | [`Limits::send_bytes`], `send_reserve` | 256 MiB, 64 KiB a peer | `sends_refused` |
//! | unfinished messages, each core | [`Limits::reassembly_bytes`], `..._reserve` | 128 MiB, 68 KiB a peer | `reassembly_waits` |
//! | unfinished frame or message | [`Timeouts::partial`] | 10 s and its length at 64 KiB/s | `closed_partial` |
//! | write without progress | [`Timeouts::write_stall`] | 10 s | `closed_slow_write_stall` |
//! | silence | [`Keepalive::interval`], `timeout`, [`Keepalive::adaptive`] | ping at 5 s, end at 15 s | `closed_unresponsive` |
//! | pings of a peer | [`Keepalive::max_pings_per_second`], `ping_burst` | 4/s, 8 at once | `violation_ping_flood` |
//! | messages and bytes of a peer, a second | [`Rates::receive`], [`Rates::send`] | none | [`WhenOver`]; `sends_rate_limited` |
//! | a peer in a turn | [`Io::read_budget`], [`Io::write_budget`] | 256 KiB each | the next turn |
//! | accepts, writing in a turn | [`Io::accepts`], [`Io::flush_peers`], [`Io::flush_time`] | 16; 512 peers, 1 ms | the next turn |
//! | time between dials | [`BackoffConfig`] | 50 ms to 30 s; 1 s if on the list | `dial_failures` |
//! | ... that the other side asks for | [`BackoffConfig::max_asked`] | 60 s | it counts as that: `delays_cut` |
//! | ... to a target that fails | [`BreakerConfig`] | 5 in a row: 1 s to 30 s | `breaker_opened`, `breaker_refused` |
//! | pooled connections | [`PoolConfig`] | 1,024 targets, 60 s idle | `closed_idle`, `pool_evicted`, `pool_refused` |
//! | panics of a core's handler | [`Restarts`] | 16 in 10 s | the core ends: [`ShutdownReport::panicked`]; `handler_panics` |
//! | events that are noted of a peer | [`Config::recorder`] | none | the oldest goes: [`FlightRecord::earlier`] |
//! | shutdown | [`Timeouts::drain`] | 5 s | [`ShutdownReport`] |
//!
//! **Keys.** Each session's keys are replaced every 4,096 records. A node's own key is replaced by hand: make the new one, have the others
//! allow both ([`Handle::allow`]), restart the node with the new one and have them dial that, then have them take back the old one
//! ([`Handle::disallow`], which cuts what it still has). A key that was stolen is taken back the same way, at once. A network secret is
//! replaced by restarting all nodes: between those with the old and those with the new there is no connection.
//!
//! **Plaintext** ([`Config::plaintext`]) protects nothing: whoever can reach the socket can read, change and claim anything. It has a
//! preamble of its own, and stays on loopback and on Unix-domain sockets unless a second flag says otherwise.
//!
//! **Unix-domain sockets** ([`Address`]) are reached by who may write to their file ([`Io::unix_mode`]: the user of this process), and the
//! kernel says whose process came ([`PeerInfo::credentials`]), which [`Handler::authorize`] can go by. The handshake is the same. Limits by
//! address do not hold there ([`Addresses`]).
//!
//! # Where this departs from common practice, and why
//!
//! * *The read budget of a peer is in bytes, not frames.* What was read is gone through to the end, because stopping in the middle would
//!   mean copying the rest aside; 256 KiB of the smallest frames take about a millisecond.
//! * *Actions run before the flush as well as after it*, so that other cores begin their part of a broadcast while this one writes.
//! * *A core that is behind takes nothing more in.* Broadcasts of more than half of `outbox_hard` in one turn are refused (`LogFull`), and
//!   so are more while some peer whose socket takes what it is given has that much unwritten; handles then see `InboxFull`. Only a peer
//!   whose socket is full is cut off at the hard bound: what the core has not got round to writing is not the peer's fault.
//! * *Endings wait.* Control messages overtake mail, except those that close a peer or the engine: what was queued before them goes first.
//! * *Deadlines are a timerfd on Linux*, not the poll's timeout, which starts and cancels a kernel timer around every sleep.
//! * *Broadcasts need no dirty peers.* After one, a sweep goes over all peers, looking at each and writing to it in one go; it may take
//!   several turns, and takes turns with the peers that direct sends made dirty.
//!
//! * *A frame that says how long it is of use, or what takes its place, is never in the log*: each peer may let go of it at another time.
//!   It goes to every peer by reference.
//! * *A large frame that several peers wait for by reference is charged to each of them.* That errs on the safe side: with the default
//!   `send_bytes`, about 250 peers of a core may wait for one publish of 1 MiB. Broadcasts without terms are in the log, and charged once.
//!
//! The wire protocol is specified byte by byte in `src/wire/WIRE.md`.
#![forbid(unsafe_code)]

mod address;
#[cfg(any(test, feature = "bench-internals"))]
#[doc(hidden)]
pub mod bench;
mod buffers;
mod codec;
mod config;
mod connect;
mod dial;
mod endpoint;
mod engine;
mod error;
mod flight;
#[cfg(any(test, feature = "fuzz-internals"))]
#[doc(hidden)]
pub mod fuzz;
mod handle;
mod handler;
mod id;
mod identity;
mod key_file;
mod memory_bound;
mod metrics;
mod notice;
mod pending;
mod proto;
mod rate;
mod reactor;
mod receipt;
mod rng;
#[cfg(feature = "prometheus")]
mod scrape;
mod shard;
#[cfg(test)]
mod tests;
mod time;
mod warning;
mod watchdog;
mod wheel;
mod wire;

pub use address::{Address, Credentials, ParseAddressError, UnixPath, UnixPathError};
pub use codec::{Bincode, BincodeSerde, Codec, CodecError, Typed};
pub use config::{
    Acks, AdaptiveKeepalive, Addresses, Admission, BackoffConfig, BreakerConfig, Cipher, Config, Cores, Io, Keepalive, LaneConfig, Lanes,
    Limits, Metrics, Noise, ParseSubnetError, PoolConfig, Rate, RateLimit, Rates, Restarts, Security, Spin, Subnet, Timeouts, WhenOver,
    WhenSlow,
};
pub use connect::{ConnectError, PendingPeer};
pub use dial::{Dial, ParseDialError};
pub use endpoint::{BreakerState, Endpoint};
pub use engine::{Engine, ShutdownReport};
pub use error::{
    AllowError, CloseReason, ConfigError, DecodeError, DialError, HandshakeError, Initiator, QueryError, RequestError, SendError, Slow,
    StartError, Violation,
};
pub use flight::{FlightEntry, FlightEvent, FlightRecord};
pub use handle::{Handle, Rejected, Response};
pub use handler::{
    AfterPanic, Backlog, Callback, Context, Direction, Handler, HandlerPanic, Message, PeerInfo, RateLimited, Responder, Sent, TimerId,
    TypedSendError,
};
pub use id::{DialId, NetworkId, NodeId, ParseIdError, PeerId, Topic};
pub use identity::{Identity, NetworkSecret};
pub use key_file::{KeyFileError, KeyFileProblem};
pub use metrics::{Counter, Histogram, Histograms, Measure, Stats, prometheus_text};
pub use notice::Notice;
pub use pending::{PendingReceipt, ReceiptError};
pub use proto::RequestTimeout;
pub use receipt::{AckFailure, AckId, Receipt, ReceiptId, Target};
#[cfg(feature = "prometheus")]
pub use scrape::{EndpointError, PrometheusEndpoint};
pub use shard::{LaneBytes, PeerSnapshot};
pub use time::Timestamp;
pub use warning::Warning;
pub use watchdog::Overrun;
pub use wire::{Frame, FrameError, GoodbyeCode, Kind as FrameKind, Lane, Meta, RefusalCode};

/// The README's example is compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
