//! Hostile peers that are established and break the rules of frames, or keep to them beyond all measure.
//!
//! Set-up: an engine with its defaults and well-behaved peers at it (`canary`); peers written by hand with valid keys of their own. Claim:
//! what is forbidden ends the connection under the number of its rule, before anything is allocated for it; what is allowed but absurd is
//! borne or bounded; the good peers notice nothing, somebody new gets in, and nothing is left.

#[path = "common/canary.rs"]
mod canary;
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use canary::{Canary, heap};
use common::{NEVER, Wire, eventually, eventually_stats};
use corecast::{Bincode, BincodeSerde, Config, Context, Counter, Engine, Handler, Message, PeerId, Typed};
use corecast_attacks::frames::{self, byte_by_byte, empty_messages, forbidden, halves, made_up_ids, pings, topics_without_end};
use corecast_attacks::wire::data;
use corecast_attacks::{Failure, Peer, Scale, Sources, Target, Who};

fn both(attack: impl Fn(Canary)) {
    attack(Canary::secure(|_| {}));
    attack(Canary::plaintext(|_| {}));
}

fn dial(canary: &Canary, number: u64) -> Peer {
    Peer::dial(&canary.target(), &Who::numbered(number, Sources::everywhere().next())).unwrap()
}

#[test]
fn what_is_forbidden_is_answered_with_the_number_of_its_rule() {
    both(|canary| {
        let sources = Sources::everywhere();
        let all = forbidden();
        for (index, (what, bytes, rule)) in all.iter().enumerate() {
            let told = frames::say(&canary.target(), &Who::numbered(500 + index as u64, sources.next()), bytes);
            assert!(matches!(told, Ok(Failure::Goodbye(5, number)) if number == *rule), "{what}: {told:?}, not rule {rule}");
        }
        canary.counts(Counter::ClosedViolation, all.len() as u64);
        assert!(canary.memory_more() < 1 << 20, "nothing is allocated for what is only announced");
        canary.finish();
    });
}

#[test]
fn a_message_before_ready_is_out_of_order() {
    both(|canary| {
        let who = Who::numbered(500, Sources::everywhere().next());
        let mut peer =
            Peer::greet(corecast_attacks::Link::connect(who.source, canary.target().address).unwrap(), &canary.target(), &who).unwrap();
        peer.send(&data(1, b"too early")).unwrap();
        assert!(matches!(peer.farewell(), Failure::Goodbye(5, 15)));
        canary.counts(Counter::ViolationExpectedReady, 1);
        canary.counts(Counter::HandshakeViolation, 1);
        drop(peer);
        canary.finish();
    });
}

#[test]
fn a_million_pings_are_cut_off_after_a_few() {
    both(|canary| {
        let mut peer = dial(&canary, 500);
        let (_, told) = pings(&mut peer, 1_000_000);
        assert!(matches!(told, Failure::Goodbye(5, 13) | Failure::Ended(_)), "{told:?}");
        canary.counts(Counter::ViolationPingFlood, 1);
        drop(peer);
        canary.finish();
    });
}

#[test]
fn a_million_empty_messages_are_borne() {
    let flood = |canary: Canary, count: u64| {
        let mut peer = dial(&canary, 500);
        let before = canary.count(Counter::MessagesReceived);
        for _ in 0..10 {
            empty_messages(&mut peer, 3, count / 10).unwrap();
            let back = peer.bytes(count as usize / 10 * 8).unwrap();
            assert!(back.chunks_exact(8).all(|message| message == data(3, b"")), "each comes back");
        }
        eventually_stats(&canary.server.handle(), "they count as messages", |stats| stats.get(Counter::MessagesReceived) >= before + count);
        peer.leave();
        canary.finish();
    };
    flood(Canary::plaintext(|_| {}), 1_000_000);
    flood(Canary::secure(|_| {}), 1_000_000);
}

#[test]
fn one_byte_in_each_segment_is_slow_and_nothing_else() {
    both(|canary| {
        let mut peer = dial(&canary, 500);
        for len in [0, 1, 100] {
            byte_by_byte(&mut peer, &data(4, &vec![len as u8; len])).unwrap();
            assert_eq!(peer.message().unwrap(), (4, vec![len as u8; len]));
        }
        peer.leave();
        canary.finish();
    });
}

#[test]
fn half_a_frame_from_500_connections_runs_into_its_deadline() {
    let attack = |canary: Canary| {
        let (mut held, report) = halves(&canary.target(), &Scale::new(500, 1));
        assert_eq!((held.len(), report.established), (500, 500), "{report}");
        canary.counts(Counter::ClosedPartial, 500);
        assert!(held.iter_mut().all(|peer| matches!(peer.farewell(), Failure::Goodbye(0, 0))));
        canary.sings();
        drop(held);
        canary.finish();
    };
    attack(Canary::secure(|config| config.timeouts.partial = Duration::from_secs(3)));
    attack(Canary::plaintext(|config| config.timeouts.partial = Duration::from_secs(3)));
}

/// A record that is announced and does not come is what a frame is.
#[test]
fn half_a_record_runs_into_the_same_deadline() {
    let canary = Canary::secure(|config| config.timeouts.partial = Duration::from_millis(300));
    let mut peer = dial(&canary, 500);
    let record = peer.seal(&data(1, &[0; 1000]));
    peer.link.send(&record[..500]).unwrap();
    canary.counts(Counter::ClosedPartial, 1);
    assert!(matches!(peer.farewell(), Failure::Goodbye(0, 0)));
    drop(peer);
    canary.finish();
}

#[test]
fn made_up_ids_and_topics_are_bounded() {
    // What an ended connection leaves is kept for a while, with a timer.
    let tune = |config: &mut Config| config.acks.retain = Duration::from_millis(10);
    for canary in [Canary::secure as fn(fn(&mut Config)) -> Canary, Canary::plaintext] {
        let canary = canary(tune);
        let mut peer = dial(&canary, 500);
        made_up_ids(&mut peer, 3000).unwrap();
        eventually_stats(&canary.server.handle(), "each is acknowledged", |stats| stats.get(Counter::AcksSent) == 3000);
        drop(peer);
        let mut peer = dial(&canary, 501);
        let told = topics_without_end(&mut peer, 2000);
        assert!(matches!(told, Failure::Goodbye(5, 17) | Failure::Ended(_)), "{told:?}");
        canary.counts(Counter::ViolationTooManySubscriptions, 1);
        drop(peer);
        canary.finish();
    }
}

#[derive(bincode::Encode, bincode::Decode)]
struct Block {
    transactions: Vec<Vec<u8>>,
    names: Vec<String>,
}

impl Typed for Block {
    const TYPE: u16 = 1;
    type Codec = Bincode;
}

#[derive(serde::Serialize, serde::Deserialize)]
struct SerdeBlock {
    transactions: Vec<Vec<u8>>,
    names: Vec<String>,
}

impl Typed for SerdeBlock {
    const TYPE: u16 = 2;
    type Codec = BincodeSerde;
}

/// Decodes what comes, in both ways.
struct Decoder {
    good: Arc<AtomicU64>,
    bad: Arc<AtomicU64>,
}

impl Handler for Decoder {
    type Command = ();

    fn on_message(&mut self, _: &mut Context<'_>, _: PeerId, message: Message<'_>) {
        let decoded = match message.message_type() {
            Block::TYPE => message.decode::<Block>().map(drop),
            _ => message.decode::<SerdeBlock>().map(drop),
        };
        (if decoded.is_ok() { &self.good } else { &self.bad }).fetch_add(1, Ordering::Relaxed);
    }
}

/// Lengths that are claimed, nothing behind them, text that is none, more than there should be.
fn bombs() -> Vec<Vec<u8>> {
    let mut bombs = vec![
        vec![0xFF; 9],
        vec![0xFD; 9],
        [&[0xFD][..], &(1_u64 << 30).to_le_bytes()].concat(),
        [&(1_u64 << 30).to_le_bytes()[..], &[0]].concat(),
        u64::MAX.to_le_bytes().to_vec(),
        [&2_u64.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat(),
        [&0_u64.to_le_bytes()[..], &1_u64.to_le_bytes(), &2_u64.to_le_bytes(), &[0xC3, 0x28]].concat(),
        [&0_u64.to_le_bytes()[..], &0_u64.to_le_bytes(), &[0]].concat(),
        Vec::new(),
    ];
    // Millions of empty lists, in as many bytes as there are.
    bombs.push([&(60_000_u64).to_le_bytes()[..], &vec![0; 32_000]].concat());
    bombs
}

#[test]
fn payloads_that_claim_too_much_are_errors_and_no_more() {
    let _alone = canary::alone();
    for wire in Wire::BOTH {
        let (good, bad) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (goods, bads) = (Arc::clone(&good), Arc::clone(&bad));
        let mut config = wire.listening();
        config.keepalive.timeout = NEVER;
        let engine = Engine::start(config, move |_| Decoder { good: Arc::clone(&goods), bad: Arc::clone(&bads) }).unwrap();
        let target = match wire {
            Wire::Plaintext => Target::plaintext(engine.local_addrs()[0]),
            Wire::Noise => Target::secure(engine.local_addrs()[0], engine.node_id().0),
        };
        let mut peer = Peer::dial(&target, &Who::numbered(1, [127, 0, 0, 1].into())).unwrap();
        let before = heap::live();
        heap::peak_beyond(before);
        for message_type in [Block::TYPE, SerdeBlock::TYPE] {
            bombs().iter().for_each(|bomb| peer.send(&data(message_type, bomb)).unwrap());
            peer.send(&data(message_type, &[0; 16])).unwrap();
        }
        eventually("all are seen", || good.load(Ordering::Relaxed) + bad.load(Ordering::Relaxed) == 2 * (bombs().len() as u64 + 1));
        assert_eq!(good.load(Ordering::Relaxed), 2, "two empty lists are a block");
        let most = heap::peak_beyond(before);
        assert!(most < 8 << 20, "{most} bytes: nothing is allocated for what is only claimed");
        peer.leave();
        assert!(engine.shutdown().drained);
    }
}
