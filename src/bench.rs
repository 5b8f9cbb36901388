//! What the benches drive of the inside: cores without sockets. Behind the feature `bench-internals`, no part of the API, and free to
//! change at any time.

mod mesh;

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::config::{Config, Subnet};
use crate::handler::{Context, Handler, Message};
use crate::id::{NodeId, PeerId, Topic};
use crate::proto::{Handshake, Logs, Outbox, Progress, QueuedPool, Slices};
use crate::rng::Rng;
use crate::shard::{Action, Payload, Shard, Shared, Supervised};
use crate::time::Timestamp;
use crate::wire::{Frame, Hello, Kind, Meta, control_frame};
pub use mesh::{Member, Mesh};

/// Longer than any bench.
const NEVER: Duration = Duration::from_secs(100 * 24 * 3600);
/// Virtual time of a turn.
const TURN: Duration = Duration::from_micros(1);

/// In which nothing happens but what the bench does, for so many peers.
fn config(peers: usize) -> Config {
    let mut config = Config::plaintext();
    config.limits.max_peers = peers.max(1);
    config.addresses.exempt = vec![Subnet::new([127, 0, 0, 1].into(), 32).expect("an address")];
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    assert_eq!(config.validate(), Ok(()));
    config
}

/// Returns every message.
struct Echo;

impl Handler for Echo {
    type Command = ();

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let sent = cx.send(peer, message.meta, message.body);
        assert!(sent.is_ok(), "{sent:?}");
    }
}

/// A core with established peers whose sockets take whatever they are offered.
pub struct Core {
    shard: Shard,
    handler: Supervised<Echo>,
    now: Timestamp,
    peers: Vec<(u32, PeerId)>,
}

impl Core {
    /// With so many peers.
    #[must_use]
    pub fn new(peers: usize) -> Self {
        let shared = Shared::new(Arc::new(config(peers)), &mut Rng::new(1));
        let mut core = Self::bare(0, shared.clone());
        core.settle_in(&shared, 0..peers, |_| false);
        core
    }

    fn bare(index: usize, shared: Shared) -> Self {
        let now = Timestamp::from_nanos(1_000_000_000);
        Self { shard: Shard::new(index, shared, 2, now), handler: Supervised::new(index, |_| Echo), now, peers: Vec::new() }
    }

    /// Peers with these numbers connect. `wait` is called while nothing moves, and says whether that may change.
    fn settle_in(&mut self, shared: &Shared, numbers: std::ops::Range<usize>, mut wait: impl FnMut(&mut Shard) -> bool) {
        let count = numbers.len();
        for number in numbers {
            self.begin();
            self.establish(shared, number, &mut wait);
            self.flush(usize::MAX);
            self.end();
        }
        self.peers = self.shard.peers().map(|peer| (peer.slot(), peer)).collect();
        assert_eq!(self.peers.len(), count);
    }

    /// A handshake with a peer that is not there.
    fn establish(&mut self, shared: &Shared, number: usize, mut wait: impl FnMut(&mut Shard) -> bool) {
        let mut node = [0xEE; 32];
        node[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let hello =
            Hello { network: shared.config.network, node: NodeId(node), instance: 1, features: 0, max_message: 1 << 20, channel: 0 };
        let mut dialler = Handshake::dialled(None, hello, None);
        dialler.begin().expect("plaintext has no keys to be weak");
        let address = Address::from(SocketAddr::from(([127, 0, 0, 1], 1)));
        // What core 0 gives out for a connection that it has accepted.
        let ticket = shared.places.accept_any();
        let half = self.shard.handle_accepted(address, ticket, &[0; 32]);
        loop {
            let there = dialler.output().len().min(self.shard.half_wanted(half));
            if there > 0 {
                self.shard.handle_half_read(&mut self.handler, half, &dialler.output()[..there]);
                dialler.advance(there);
            }
            self.shard.settle(&mut self.handler);
            while let Some(action) = self.shard.poll_action() {
                if matches!(action, Action::Promote { .. }) {
                    return;
                }
            }
            let back = self.shard.half_output(half).len().min(dialler.wanted());
            if back > 0 {
                let progress = dialler.handle_bytes(&self.shard.half_output(half)[..back]);
                self.shard.half_advance(half, back);
                if let Ok(Progress::Ask(theirs)) = progress {
                    dialler.grant(theirs.channel);
                }
            }
            assert!(there + back > 0 || wait(&mut self.shard), "the handshake does not go on");
        }
    }

    /// A turn begins.
    pub fn begin(&mut self) {
        self.now = self.now + TURN;
        self.shard.begin_turn(self.now, self.now);
    }

    /// The turn is over.
    pub fn end(&mut self) {
        self.shard.handle_timeouts();
        self.shard.settle(&mut self.handler);
        while self.shard.poll_action().is_some() {}
        self.shard.finish_turn();
    }

    /// To every peer.
    pub fn broadcast(&mut self, frame: &Frame) {
        let sent = self.shard.broadcast(frame, None);
        assert!(sent.is_ok(), "{sent:?}");
    }

    /// To every peer that has subscribed to a topic.
    pub fn publish(&mut self, topic: Topic, frame: &Frame) {
        let sent = self.shard.publish(topic, frame);
        assert!(sent.is_ok(), "{sent:?}");
    }

    /// A peer subscribes to a topic.
    pub fn subscribe(&mut self, peer: usize, topic: Topic) {
        self.receive(peer, &Self::subscription(topic, true));
    }

    /// What a peer says that wants a topic, or does not want it any more.
    #[must_use]
    pub fn subscription(topic: Topic, wanted: bool) -> [u8; 16] {
        control_frame(if wanted { Kind::Subscribe } else { Kind::Unsubscribe }, topic.0.to_le_bytes())
    }

    /// An encoded message to one peer.
    pub fn send_frame(&mut self, peer: usize, frame: &Frame) {
        let sent = self.shard.send(self.peers[peer].1, Payload::Frame(frame));
        assert!(sent.is_ok(), "{sent:?}");
    }

    /// To one peer, of those from 0.
    pub fn send(&mut self, peer: usize, meta: Meta, body: &[u8]) {
        let sent = self.shard.send(self.peers[peer].1, Payload::data(meta, body));
        assert!(sent.is_ok(), "{sent:?}");
    }

    /// Bytes come from a peer; what is a message among them is sent back.
    pub fn receive(&mut self, peer: usize, bytes: &[u8]) {
        self.shard.handle_read(&mut self.handler, self.peers[peer].0, bytes);
    }

    /// Writes everything, at most so many bytes in one write. Returns the bytes.
    pub fn flush(&mut self, most: usize) -> usize {
        let mut written = 0;
        while self.shard.is_dirty() {
            self.shard.begin_flush();
            while let Some(slot) = self.shard.pop_dirty() {
                written += self.write(slot, most);
            }
        }
        written
    }

    fn write(&mut self, slot: u32, most: usize) -> usize {
        let taken = match self.shard.contiguous(slot) {
            Some(bytes) => black_box(&bytes[..bytes.len().min(most)]).len(),
            None => {
                let mut slices = Slices::new(most);
                self.shard.gather(slot, &mut slices);
                black_box(slices.as_slice());
                slices.bytes()
            }
        };
        self.shard.advance(slot, taken, false);
        taken
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("peers", &self.peers.len()).finish_non_exhaustive()
    }
}

/// What one peer has still to receive, without a core: for what no part of the API does in a turn of its own.
pub struct Backlog {
    logs: Logs,
    pool: QueuedPool,
    outbox: Outbox,
    now: Timestamp,
}

impl Backlog {
    /// Nothing yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a bench says what it makes")]
    pub fn new() -> Self {
        let logs = Logs::new();
        let outbox = Outbox::new(&logs);
        Self { logs, pool: QueuedPool::new(8 << 20), outbox, now: Timestamp::ORIGIN }
    }

    /// A frame that takes the place of the one that has its key. Says whether there was one.
    pub fn conflate(&mut self, frame: &Frame) -> bool {
        self.outbox.push_conflated(&self.logs, &mut self.pool, frame, self.now).1.messages > 0
    }

    /// Drops everything. Returns the messages.
    pub fn clear(&mut self) -> u64 {
        let dropped = self.outbox.clear(&self.logs, &mut self.pool).messages;
        self.outbox = Outbox::new(&self.logs);
        dropped
    }
}

impl std::fmt::Debug for Backlog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backlog").field("claimed", &self.outbox.claimed(&self.logs)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasts_and_direct_sends_take_turns_when_a_flush_has_room_for_one() {
        const BUSY: usize = 20;
        let mut core = Core::new(BUSY + 1);
        let quiet = core.peers[BUSY].0;
        let frame = Frame::new(1, b"for all").unwrap();
        let mut turns = 0;
        let served = (0..10 * BUSY).any(|turn| {
            core.begin();
            (0..BUSY).for_each(|peer| core.send(peer, Meta::new(2), b"always something"));
            if turn == 0 {
                core.broadcast(&frame);
            }
            core.shard.begin_flush();
            let slot = core.shard.pop_dirty().expect("somebody always has something");
            core.write(slot, usize::MAX);
            core.end();
            turns = turn;
            slot == quiet
        });
        assert!(served, "the peer that only broadcasts are for waits for ever");
        assert!(turns <= 2 * (BUSY + 1), "{turns} turns");
    }
}
