//! One core under arbitrary operations.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Chunks, pair};
use crate::address::Address;
use crate::config::{Admission, Config, Noise, Rate, RateLimit, Rates, Security, WhenOver};
use crate::handler::{Context, Handler, Message, Responder};
use crate::id::{PeerId, Topic};
use crate::identity::Identity;
use crate::notice::Notice;
use crate::proto::{Handshake, Progress, Session, Slices};
use crate::rng::Rng;
use crate::shard::{Action, Control, Payload, Shard, Shared, Supervised};
use crate::time::Timestamp;
use crate::wire::{GoAway, Kind, Lane, Meta, control_frame};

/// Answers everything.
struct Answers;

impl Handler for Answers {
    type Command = ();

    fn on_message(&mut self, cx: &mut Context<'_>, peer: PeerId, message: Message<'_>) {
        let _ = cx.send(peer, message.meta, message.body);
    }

    fn on_request(&mut self, cx: &mut Context<'_>, _: PeerId, request: Message<'_>, responder: Responder) {
        let _ = cx.respond(responder, request.meta, request.body);
    }
}

/// A core with one peer, which says what the input says.
struct World {
    shard: Shard,
    handler: Supervised<Answers>,
    now: Timestamp,
    /// The peer's slot, while there is one; its handshake, and then its session.
    slot: Option<u32>,
    id: Option<PeerId>,
    session: Session,
}

/// How much may be said, where that is limited: a little, so that the limit is met.
fn rates(when_over: WhenOver) -> Rates {
    let limit = RateLimit { messages: Some(Rate { per_second: 100, burst: 100 }), bytes: Some(Rate { per_second: 1000, burst: 6000 }) };
    Rates { receive: Some(limit), send: Some(limit), when_over, subscribe: 10, report: Some(Duration::from_secs(1)), ..Rates::default() }
}

fn config(noise: bool, when_over: Option<WhenOver>) -> Config {
    let mut config = Config::plaintext();
    if noise {
        config.security = Security::Noise(Noise::new(Identity::from_secret([2; 32])));
        config.admission = Some(Admission::Open);
    }
    config.network = super::NETWORK;
    config.limits.max_message = 5000;
    config.limits.outbox_hard = 20_000;
    config.limits.send_reserve = 2000;
    config.limits.outbox_soft = 5000;
    config.limits.log_bytes = 1 << 20;
    config.limits.reassembly_bytes = 1 << 20;
    config.limits.subscriptions = 4;
    config.recorder = 5;
    config.addresses.exempt = vec!["127.0.0.0/8".parse().expect("a subnet")];
    config.rates = when_over.map(rates);
    assert_eq!(config.validate(), Ok(()));
    config
}

impl World {
    fn new(noise: bool, when_over: Option<WhenOver>) -> Self {
        let now = Timestamp::from_nanos(1_000_000_000);
        let shared = Shared::new(Arc::new(config(noise, when_over)), &mut Rng::new(1));
        let mut world = Self {
            shard: Shard::new(0, shared, 2, now),
            handler: Supervised::new(0, |_| Answers),
            now,
            slot: None,
            id: None,
            session: Session::Plaintext,
        };
        world.establish(noise);
        world
    }

    fn establish(&mut self, noise: bool) {
        let [mut dialler, _]: [Handshake; 2] = pair(noise);
        let address = Address::from(SocketAddr::from(([127, 0, 0, 1], 1)));
        self.begin(Duration::ZERO);
        let ticket = self.shard.admit(&address).expect("the address is exempt");
        let half = self.shard.handle_accepted(address, ticket, &[4; 32]);
        while self.slot.is_none() {
            let there = dialler.output().len().min(self.shard.half_wanted(half));
            if there > 0 {
                self.shard.handle_half_read(&mut self.handler, half, &dialler.output()[..there]);
                dialler.advance(there);
            }
            self.settle();
            if self.slot.is_some() {
                break;
            }
            let back = self.shard.half_output(half).len().min(dialler.wanted());
            if back > 0 {
                let told = dialler.handle_bytes(&self.shard.half_output(half)[..back]);
                self.shard.half_advance(half, back);
                if let Ok(Progress::Ask(theirs)) = told {
                    dialler.grant(theirs.channel);
                }
            }
            assert!(there + back > 0, "the handshake does not go on");
        }
        self.session = dialler.take_session(&mut crate::buffers::BufferPool::new(0));
        self.id = self.shard.peers().next();
        self.end();
    }

    fn begin(&mut self, later: Duration) {
        self.now = self.now + later;
        self.shard.begin_turn(self.now, self.now);
    }

    fn settle(&mut self) {
        self.shard.settle(&mut self.handler);
        while let Some(action) = self.shard.poll_action() {
            match action {
                Action::Promote { slot, .. } => self.slot = Some(slot),
                Action::Close { .. } => self.slot = None,
                _ => {}
            }
        }
    }

    fn end(&mut self) {
        self.shard.handle_timeouts();
        self.settle();
        self.shard.finish_turn();
        #[cfg(test)]
        self.shard.assert_invariants();
    }

    /// What the peer says, as frames: sealed where they have to be.
    fn say(&mut self, bytes: &[u8]) {
        let Some(slot) = self.slot.filter(|&slot| self.shard.wants_read(slot)) else { return };
        let mut record = vec![0; bytes.len() + 18];
        let said = match &mut self.session {
            Session::Noise(session) if !bytes.is_empty() => {
                let len = session.seal(bytes, &mut record);
                session.advance(&record[..len], len, &mut crate::buffers::BufferPool::new(0));
                &record[..len]
            }
            _ => bytes,
        };
        if !said.is_empty() {
            self.shard.handle_read(&mut self.handler, slot, said);
        }
    }

    /// The same, but not sealed.
    fn say_raw(&mut self, bytes: &[u8]) {
        if let Some(slot) = self.slot.filter(|&slot| self.shard.wants_read(slot) && !bytes.is_empty()) {
            self.shard.handle_read(&mut self.handler, slot, bytes);
        }
    }

    /// The socket takes at most so many bytes of each write.
    fn flush(&mut self, most: usize) {
        self.shard.begin_flush();
        while let Some(slot) = self.shard.pop_dirty() {
            if self.shard.is_sealed(slot) {
                let len = self.shard.seal(slot).len();
                let taken = len.min(most);
                self.shard.advance_sealed(slot, taken, taken < len, true);
                continue;
            }
            let mut slices = Slices::new(1 << 16);
            self.shard.gather(slot, &mut slices);
            let (len, taken) = (slices.bytes(), slices.bytes().min(most));
            self.shard.advance(slot, taken, taken < len);
        }
    }

    /// One operation, with what follows it in the input.
    fn act(&mut self, operation: u8, chunks: &mut Chunks<'_>) {
        let bytes = chunks.next(64);
        let number = bytes.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        let meta = Meta::new(number as u16).lane([Lane::High, Lane::Normal, Lane::Bulk][usize::from(operation / 16) % 3]);
        let topic = Topic(number % 6);
        match (operation % 16, self.id) {
            (0..=3, _) => self.say(bytes),
            (4, _) => self.say_raw(bytes),
            (5, _) => self.say(&control_frame(Kind::Ping, number.to_le_bytes())),
            (6, _) => self.say(&control_frame(Kind::Subscribe, topic.0.to_le_bytes())),
            (7, Some(peer)) => drop(self.shard.send(peer, Payload::data(meta, bytes))),
            (8, Some(peer)) => drop(self.shard.send(peer, Payload::data(meta, &vec![operation; number as usize % 5000]))),
            (9, _) => {
                let Ok(frame) = self.shard.frame(meta, bytes) else { return };
                let _ = self.shard.broadcast(&frame, None);
            }
            (10, _) => {
                let Ok(frame) = self.shard.frame(meta, bytes) else { return };
                let _ = self.shard.publish(topic, &frame);
            }
            (11, Some(peer)) => self.shard.pause_read(peer),
            (12, Some(peer)) => self.shard.resume_read(peer),
            (13, _) => self.flush(number as usize % 3000),
            (14, _) => {
                self.end();
                self.begin(Duration::from_millis(number % 20_000));
                if let Some(slot) = self.slot.filter(|_| operation & 0x80 != 0) {
                    self.shard.handle_writable(slot);
                }
            }
            (_, Some(peer)) if operation == 0xFF => self.shard.close_peer(peer),
            (_, _) if operation == 0xEF => {
                let notice = Notice::new(Duration::from_millis(number % 20_000)).retry_after(Duration::from_millis(number >> 16));
                self.shard.handle_control(Control::Drain { notice });
            }
            (_, _) if operation == 0xDF => {
                let away = GoAway { within_ms: number as u32, delay_ms: (number >> 32) as u32, reason: operation.into() };
                self.say(&away.encode());
            }
            _ => {}
        }
        self.settle();
    }
}

/// A peer says, and a core is asked for, what the input says, in virtual time; its own checks hold after every turn.
pub fn shard(data: &[u8]) {
    let [how, rest @ ..] = data else { return };
    let when_over = [None, Some(WhenOver::Delay), Some(WhenOver::Drop), Some(WhenOver::Disconnect)][usize::from(how >> 1 & 3)];
    let mut world = World::new(how & 1 != 0, when_over);
    let mut chunks = Chunks::new(rest);
    world.begin(Duration::ZERO);
    for _ in 0..200 {
        let &[operation] = chunks.next(1) else { break };
        world.act(operation, &mut chunks);
    }
    world.end();
    // Whatever was said, it has an end.
    for _ in 0..60 {
        world.begin(Duration::from_secs(20));
        world.flush(usize::MAX);
        world.end();
    }
    assert_eq!(world.slot, None, "a peer that says nothing any more is gone after a few minutes");
}
