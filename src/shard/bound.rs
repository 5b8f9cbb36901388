//! How much memory a core's own state may take, part by part. [`crate::Config::memory_bound`] adds the parts up.
//!
//! Vectors and slabs grow by doubling, so each entry is counted twice; a hash table that has just grown is half full, and the old one is
//! still there, so its entries are counted four times; five where entries come and go, since it may grow for the places of those that
//! have gone.

use super::acks::{ACK_LEN, OPEN, OPEN_SLOT};
use super::breaker::Breakers;
use super::cold::Cold;
use super::directory::Directory;
use super::endings::Endings;
use super::flush::RECLAIM_STEP;
use super::gate::{Gate, MAX_LEAVING};
use super::half_open::HalfOpen;
use super::idle::Watch;
use super::landing::Landing;
use super::mail::{Control, Mail};
use super::pool::Pool;
use super::receipts::{ANSWER, RUNNING};
use super::receive::{PARKED_READS, parked_read, parked_short_read};
use super::sealed::Scratch;
use super::slots::Entry;
use super::{Action, Deadline, Event};
use crate::address::{Address, Credentials, UnixPath};
use crate::buffers::{MEDIUM, SMALL};
use crate::config::{Config, Security};
use crate::dial::Dial;
use crate::endpoint::{BreakerState, Endpoint};
use crate::proto::{
    AWAITED_ID, Delivery, Exchange, LEDGER_ID, LOG_SPARE, LOST, OUTBOX_SPARE, PENDING_ID, REQUEST_BYTES, REQUESTS_SPARE, SESSION, Timers,
    WINDOW_ID, log_segments, reassembly_charge,
};
use crate::time::Timestamp;
use crate::wheel::TimerWheel;
use crate::wire::FrameDecoder;

const TIMER: usize = 2 * TimerWheel::<Deadline>::BYTES;
const EVENT: usize = 2 * size_of::<Event>();
const ACTION: usize = 2 * size_of::<Action>();
/// What is queued for another core, and there.
const CONTROL: usize = 4 * size_of::<(usize, Control)>();
/// The counts of references of a frame.
const FRAME_HEAD: usize = 2 * size_of::<usize>();
/// A thread that waits for a receipt, as its core knows it.
const WAITER: usize = 5 * 4 * size_of::<u64>();
/// Ready, a ping, a pong, a notice and a goodbye: queued whatever the budget says.
const CONTROL_FRAMES: usize = 256;

/// Broadcasts that some peer has still to receive, of one core.
pub(crate) fn broadcasts(config: &Config) -> usize {
    let limits = &config.limits;
    // What a turn appends beyond the cap before it is looked at: half of the hard bound, or one batch more; where messages end is noted
    // too, which is as much again for the smallest.
    let held = limits.log_bytes + RECLAIM_STEP + 2 * limits.outbox_hard;
    held + log_segments(held) + LOG_SPARE
}

/// Direct sends that are not written yet, whole engine: twice what is budgeted, since tails grow by doubling; and what each core keeps for
/// the next.
pub(crate) fn sends(config: &Config, slots: usize) -> usize {
    let limits = &config.limits;
    // Acknowledgements that the peer does not read may go beyond the budget that far.
    let control = CONTROL_FRAMES + config.acks.pending * ACK_LEN;
    let per_peer = 2 * (limits.send_reserve + control) + OUTBOX_SPARE;
    2 * limits.send_bytes + slots * per_peer + config.cores.count() * (limits.buffer_pool + limits.buffer_pool / 16)
}

/// Messages that have not arrived whole, whole engine; and for each core the one that its handler sees, and one that is moved to a larger
/// buffer.
pub(crate) fn reassembly(config: &Config, slots: usize) -> usize {
    let limits = &config.limits;
    let in_hand = 2 * reassembly_charge(limits.max_message);
    config.cores.count() * (limits.reassembly_bytes + in_hand) + slots * limits.reassembly_reserve
}

/// Unfinished frames and input that was put aside, whole engine; and what each core keeps for the next.
pub(crate) fn input(config: &Config, slots: usize) -> usize {
    // The last one is what a peer whose reading is resumed has still to go through.
    let parked = (PARKED_READS + 1) * parked_read(config);
    let kept = config.limits.buffer_pool + config.limits.buffer_pool / SMALL * 2 * size_of::<Vec<u8>>();
    slots * parked_short_read(config) + config.cores.count() * (parked + kept)
}

/// What encryption takes, whole engine: the keys of each peer, the record that has begun to arrive and the one that has not left; and what
/// each core seals and opens into.
pub(crate) fn sessions(config: &Config, slots: usize) -> usize {
    match config.security {
        Security::Plaintext { .. } => 0,
        Security::Noise(_) => slots * (SESSION + 2 * MEDIUM) + config.cores.count() * Scratch::most(config.io.receive_buffer),
    }
}

/// Requests that wait for a response, of one core: in the peer's table, with a timer, and their end on its way to whoever asked.
pub(crate) fn requests(config: &Config) -> usize {
    config.limits.max_requests * (REQUEST_BYTES + TIMER + CONTROL + EVENT + ACTION)
}

/// Acknowledgements that the sends of one core may await or have: one broadcast to everybody always may.
pub(crate) fn answers(config: &Config) -> usize {
    config.acks.answers.max(config.limits.max_peers + config.limits.max_half_open)
}

/// Acknowledged sends that have no outcome yet, whole engine: their frames, their receipts, and each core's table of who still owes an
/// acknowledgement for what.
pub(crate) fn receipts(config: &Config) -> usize {
    let (cores, acks) = (config.cores.count(), &config.acks);
    // Each peer that owes an answer is in its own table, in the core's, and in the receipt; or the message is kept for its next connection;
    // and the answer is on its way, to the core that asked and to a thread.
    let answer = AWAITED_ID + OPEN_SLOT + ANSWER + 2 * size_of::<Delivery>() + CONTROL + ACTION;
    // Of the frames, as much again is over, and nobody has looked yet.
    let frames = 2 * (acks.bytes + acks.pending * (FRAME_HEAD + 2 * size_of::<Delivery>()));
    let tables = acks.pending * (RUNNING + cores * OPEN + (1 + cores) * TIMER + EVENT + ACTION + WAITER);
    cores * (frames + tables + answers(config) * answer)
}

/// What peers have sent that was to be acknowledged, whole engine: ids that are remembered, and those that the application has not
/// acknowledged, or panicked over; what ended connections have left of them; and on each core one window that is just growing.
pub(crate) fn exchanges(config: &Config, slots: usize) -> usize {
    let acks = &config.acks;
    let window = acks.window * WINDOW_ID;
    let pending = if acks.by_handler.is_empty() { 0 } else { acks.pending * PENDING_ID };
    let lost = 2 * LOST * size_of::<u64>();
    let left = Directory::LEDGER + acks.window * LEDGER_ID + lost;
    slots * (size_of::<Exchange>() + window + pending + lost) + config.limits.max_peers * left + config.cores.count() * window
}

/// The last events of a peer.
pub(crate) fn recorded(config: &Config) -> usize {
    super::recorder::bound(config)
}

/// A peer, beyond what it has to send and has begun to receive: its slot, timer, and places in the core's lists; and why
/// its node's last connection ended. The slot once more, for the room that another core has for it.
pub(crate) const PEER: usize = 3 * size_of::<Entry>()
    + 3 * size_of::<Cold>()
    + Cold::FEW
    + PATH
    + REQUESTS_SPARE
    + crate::proto::REASSEMBLY
    + Timers::BOXED
    + FrameDecoder::TAIL
    + Landing::ASKED
    + 2 * TimerWheel::<Deadline>::INDEX_BYTES
    // How it began and how it ends, its first message, and what the pool is told of it.
    + 4 * CONTROL
    + Endings::ENTRY
    + 4 * EVENT
    + 4 * ACTION
    + Watch::PEER
    + 2 * 8 * size_of::<u64>();

/// What a peer may send and be sent, where that is limited: its buckets, its timer, its place among those that are passed by.
pub(crate) fn rates(config: &Config, slots: usize) -> usize {
    if config.rates.is_some() { slots * (2 * super::rates::PEER + TIMER + EVENT + 2 * size_of::<u32>()) } else { 0 }
}

/// Connections in their handshake, and those that others have taken the places of.
pub(crate) fn half_open(config: &Config) -> usize {
    config.limits.max_half_open + MAX_LEAVING
}

/// What the handshakes of so many connections have on the heap, with Noise: `snow`'s state with the ciphers and keys of both directions, or
/// the two ciphers that come of it. 3.1 KiB were measured (snow 0.10).
pub(crate) fn handshakes(config: &Config, connections: usize) -> usize {
    const HANDSHAKE: usize = 4 << 10;
    match config.security {
        Security::Plaintext { .. } => 0,
        Security::Noise(_) => connections * HANDSHAKE,
    }
}

/// A connection in its handshake.
pub(crate) const HALF_OPEN: usize = 2 * size_of::<HalfOpen>() + size_of::<Credentials>() + TIMER + CONTROL + 4 * ACTION;

/// The same, accepted: it may be told to give way.
pub(crate) const ACCEPTED: usize = HALF_OPEN + Gate::HALF_OPEN + CONTROL;

/// An address, or a subnet, from which there are or were connections.
pub(crate) const ADDRESS: usize = Gate::ENTRY;

/// A connection, as the directory knows it.
pub(crate) const GRANT: usize = Directory::GRANT + 2 * CONTROL;

/// A dial: as the directory knows it, its timer, and the attempt that is under way.
pub(crate) const DIAL: usize =
    4 * Directory::DIAL + TIMER + HALF_OPEN + EVENT + 2 * CONTROL + size_of::<Dial>() + size_of::<Address>() + PATH;

/// A path, with its counts of references. Whoever may outlive the others that have it counts one of its own: a dial, the peer that it has
/// led to, what the pool and the breakers know of a target (by what it is found and what was said of it last). Accepted connections share
/// their listener's.
const PATH: usize = UnixPath::MAX + 2 * size_of::<usize>();

/// A target, on its way to the pool.
const ENDPOINT: usize = size_of::<Endpoint>() + PATH;

/// A breaker's new state, on its way to the application.
const CHANGED: usize = size_of::<(Endpoint, BreakerState)>() + PATH;

/// What is held against targets, whole engine.
pub(crate) fn breakers(config: &Config) -> usize {
    if config.breaker.failures == 0 { 0 } else { config.breaker.targets * (Breakers::TARGET + 2 * PATH + CHANGED) }
}

/// The connection pool: its targets, whole engine; and calls that wait, in the pool and as each core's handler is to be answered.
pub(crate) fn pool(config: &Config) -> usize {
    let (pool, cores) = (&config.pool, config.cores.count());
    let targets = pool.max_targets * (Pool::TARGET + 2 * PATH + usize::from(pool.max_channels) * Pool::CHANNEL);
    targets + pool.waiting * (Pool::WAITER + CONTROL + ACTION) + cores * pool.waiting * (CONTROL + EVENT + ENDPOINT)
}

/// A topic that a peer is subscribed to here, and one that this side is at the peer: see `Limits::subscriptions`.
pub(crate) const SUBSCRIPTION: usize = 90 + 60;

/// A timer of the handler's.
pub(crate) const USER_TIMER: usize = TIMER + EVENT;

/// When a handler panicked.
pub(crate) const RESTART: usize = 2 * size_of::<Timestamp>();

/// A message on its way to another core: queued here, and there.
pub(crate) const MAIL: usize = 2 * size_of::<(usize, Mail)>() + size_of::<Mail>() + size_of::<usize>() + FRAME_HEAD;
