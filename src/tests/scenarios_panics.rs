//! Handlers that panic, in virtual time: short stories with one outcome each, then in the middle of drawn worlds.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::acks::BY_HANDLER;
use super::oracle::Told;
use super::panics::Injected;
use super::run_seed_with;
use super::scenarios::{META, config, pair, world};
use super::sim::{MILLI, SECOND, World, address};
use crate::codec::{Codec, CodecError, Typed};
use crate::config::{Config, Cores, Restarts};
use crate::dial::Dial;
use crate::error::{CloseReason, RequestError};
use crate::handler::Callback;
use crate::metrics::Counter;
use crate::receipt::{AckFailure, Receipt, Target};
use crate::wire::{Frame, GoodbyeCode, Meta};

impl World {
    /// The next call of this kind panics, on whichever node.
    fn panic_next(&self, callback: Callback) {
        self.oracle.borrow_mut().panics.next = Some(callback);
    }

    fn panicked(&self, node: usize) -> Vec<Callback> {
        let told = self.told(node, |told| if let Told::Panicked(callback) = told { Some(*callback) } else { None });
        told.into_iter().map(|(_, callback)| callback).collect()
    }

    fn ends_of(&self, node: usize) -> Vec<CloseReason> {
        self.closed(node).into_iter().map(|(_, reason)| reason).collect()
    }

    fn receipts_of(&self, node: usize) -> Vec<Receipt> {
        let told = self.told(node, |told| if let Told::Receipt(receipt) = told { Some(receipt.clone()) } else { None });
        told.into_iter().map(|(_, receipt)| receipt).collect()
    }

    /// What a core's thread would end with: the panic that nobody catches.
    fn core_ends(&mut self, nanos: u64) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.run(nanos))).is_err()
    }

    fn levels(&mut self, node: usize) -> [u64; 4] {
        [Counter::Peers, Counter::ReassemblyBytes, Counter::PrivateBytes, Counter::Subscriptions].map(|level| self.count(node, level))
    }
}

/// Three nodes: the others have dialled the first, once.
fn trio(first: Config) -> World {
    let mut world = world([first, config(), config()]);
    for node in 1..3 {
        world.on(node, |actor, cx| actor.dial(cx, Dial::to(address(0)).once()));
        assert!(world.run_until(SECOND, |world| world.peers(0).len() == node && world.peers(node).len() == 1));
    }
    world
}

#[test]
fn sim_a_panic_over_a_message_costs_its_peer_and_no_other() {
    let mut world = trio(config());
    let [lost, kept] = world.peers(0)[..] else { panic!("two peers") };
    let to = world.peer(1);
    // What was sent to it before leaves first; what it sent after the message that was too much is dropped with it.
    world.on(0, move |actor, cx| assert!(actor.send(cx, lost, META, 100_000).is_ok()));
    world.panic_next(Callback::Message);
    world.on(1, move |actor, cx| (0..5).for_each(|_| assert!(actor.send(cx, to, META, 40_000).is_ok())));
    world.net.faults.capacity = (1 << 20, 1 << 20);
    assert!(world.run_until(SECOND, |world| world.ends_of(0).len() == 1 && world.ends_of(1).len() == 1));
    assert_eq!((world.panicked(0), world.messages(0)), (vec![Callback::Message], 1));
    assert_eq!(world.ends_of(0), [CloseReason::HandlerPanicked]);
    assert_eq!(world.ends_of(1), [CloseReason::Goodbye(GoodbyeCode::Closed)]);
    assert_eq!(world.messages(1), 1, "what was owed to it came");
    // The handler is told of the panic before it is told of the peer.
    let told = world.told(0, |told| match told {
        Told::Panicked(_) => Some(true),
        Told::Closed(_) => Some(false),
        _ => None,
    });
    assert_eq!(told.iter().map(|(_, panicked)| *panicked).collect::<Vec<_>>(), [true, false]);
    // The message came in pieces: its memory is free, and so is what was put aside.
    world.run(10 * SECOND);
    assert_eq!(world.levels(0), [1, 0, 0, 0]);
    let counters = [Counter::HandlerPanics, Counter::ClosedHandlerPanicked].map(|counter| world.count(0, counter));
    assert_eq!((world.peers(0), counters), (vec![kept], [1, 1]));
    let to = world.peer(2);
    world.on(2, move |actor, cx| assert!(actor.send(cx, to, META, 10).is_ok()));
    world.run(SECOND);
    assert_eq!(world.messages(0), 2);
}

#[test]
fn sim_whatever_else_the_handler_was_to_be_told_is_told_to_the_next() {
    let mut world = pair(config(), config());
    let peer = world.peer(0);
    // A timer, a request and an acknowledged send of the old handler end with the new one.
    world.on(0, move |actor, cx| {
        assert!(cx.set_timer(Duration::from_millis(500), 77).is_some());
        actor.request(cx, peer, META, 100, Duration::from_secs(1));
        assert!(actor.send_acked(cx, Some(Target::Peer(peer)), META, 100, Duration::from_secs(1)).is_ok());
    });
    world.panic_next(Callback::Command);
    world.on(0, |_, cx| assert!(cx.set_timer(Duration::from_millis(600), 78).is_some()));
    world.run(2 * SECOND);
    assert_eq!((world.panicked(0), world.closed(0)), (vec![Callback::Command], vec![]), "no peer had to do with it");
    let timers = world.told(0, |told| if let Told::Timer(tag) = told { Some(*tag) } else { None });
    assert_eq!(timers.iter().map(|(_, tag)| *tag).collect::<Vec<_>>(), [77, 78]);
    let responses = world.told(0, |told| if let Told::Response { result, .. } = told { Some(*result) } else { None });
    assert!(matches!(responses[..], [(_, Ok(_))]), "{responses:?}");
    assert!(matches!(&world.receipts_of(0)[..], [receipt] if receipt.is_acked()));
    // Two events of one turn: the handler that is made over the first is told of the second.
    world.panic_next(Callback::Timer);
    let now = world.now;
    world.on(0, |_, cx| (80..83).for_each(|tag| assert!(cx.set_timer(Duration::from_millis(100), tag).is_some())));
    world.run(SECOND);
    let timers = world.told(0, |told| if let Told::Timer(tag) = told { Some(*tag) } else { None });
    assert_eq!(timers.iter().filter(|(at, _)| *at > now).map(|(_, tag)| *tag).collect::<Vec<_>>(), [80, 81, 82]);
    assert_eq!(world.panicked(0), [Callback::Command, Callback::Timer]);
}

#[test]
fn sim_a_node_that_cannot_be_judged_without_a_panic_is_refused_and_may_try_again() {
    let mut world = world([config(), config()]);
    world.panic_next(Callback::Authorize);
    world.dial(1, 0);
    world.run(100 * MILLI);
    let panics = (world.panicked(0), world.panicked(1));
    assert!(panics == (vec![Callback::Authorize], vec![]) || panics == (vec![], vec![Callback::Authorize]), "{panics:?}");
    let refused = [0, 1].map(|node| world.count(node, Counter::HandshakeNotAllowed)).iter().sum::<u64>();
    assert_eq!(refused, 1);
    assert!(world.run_until(60 * SECOND, |world| world.peers(0).len() == 1 && world.peers(1).len() == 1), "the next attempt is another");
}

#[test]
fn sim_a_panic_over_a_response_of_another_cores_peer_costs_that_peer() {
    let mut world = trio(config().cores(Cores::Unpinned(2)));
    let peer = *world.peers(0).iter().find(|peer| peer.core() == 1).expect("one on each core");
    world.panic_next(Callback::Response);
    world.on(0, move |actor, cx| assert!(actor.request(cx, peer, META, 100, Duration::from_secs(1)) > 0));
    assert!(world.run_until(SECOND, |world| world.ends_of(0) == [CloseReason::HandlerPanicked]));
    assert_eq!(world.panicked(0), [Callback::Response]);
    world.run(SECOND);
    assert_eq!(world.peers(0).len(), 1);
    // A request that ends because its peer does, and a handler that cannot take that.
    let peer = world.peer(0);
    world.panic_next(Callback::Response);
    world.on(0, move |actor, cx| {
        actor.request(cx, peer, META, 100, Duration::from_secs(1));
        cx.close(peer);
    });
    world.run(SECOND);
    let responses = world.told(0, |told| if let Told::Response { result, .. } = told { Some(*result) } else { None });
    assert_eq!(responses[1].1, Err(RequestError::PeerClosed));
    assert_eq!((world.panicked(0).len(), world.ends_of(0)), (2, vec![CloseReason::HandlerPanicked, CloseReason::Requested]));
}

#[test]
fn sim_a_message_that_the_handler_panicked_over_is_not_acknowledged_and_costs_one_connection() {
    for meta in [META, Meta::new(BY_HANDLER)] {
        let mut world = world([config(), config()]);
        world.dial(1, 0);
        assert!(world.run_until(SECOND, |world| world.peers(0).len() == 1 && world.peers(1).len() == 1));
        let to = world.peer(1);
        world.panic_next(Callback::Message);
        world.on(1, move |actor, cx| {
            assert!(actor.send_acked(cx, Some(Target::Peer(to)), meta, 100, Duration::from_secs(30)).is_ok());
        });
        assert!(world.run_until(SECOND, |world| world.ends_of(0) == [CloseReason::HandlerPanicked]));
        // The dial goes on; on the new connection it comes again, and other messages do.
        assert!(world.run_until(5 * SECOND, |world| world.peers(1).len() == 1));
        assert!(world.run_until(5 * SECOND, |world| world.count(0, Counter::DuplicatesSuppressed) == 1));
        let to = world.peer(1);
        world.on(1, move |actor, cx| {
            assert!(actor.send_acked(cx, Some(Target::Peer(to)), META, 100, Duration::from_secs(5)).is_ok());
        });
        world.run(40 * SECOND);
        let receipts = world.receipts_of(1);
        let outcomes: Vec<_> = receipts.iter().map(|receipt| (receipt.is_acked(), receipt.failed().iter().map(|it| it.1).next())).collect();
        assert_eq!(outcomes, [(true, None), (false, Some(AckFailure::Expired))]);
        assert_eq!((world.messages(0), world.panicked(0).len(), world.peers(0).len()), (2, 1, 1));
    }
}

#[test]
fn sim_more_panics_than_allowed_within_the_time_end_the_core() {
    let mut configured = config();
    configured.restarts = Restarts { most: 3, within: Duration::from_secs(10) };
    let mut world = world([configured]);
    let panic_at = |world: &mut World, at: u64| {
        world.run((at * SECOND).saturating_sub(world.now));
        world.panic_next(Callback::Command);
        world.task(0, 0, |_, _| {});
        world.core_ends(MILLI)
    };
    for at in [1, 2, 3] {
        assert!(!panic_at(&mut world, at), "{at}");
    }
    // The first is forgotten, so there may be one more; and then not.
    assert!(!panic_at(&mut world, 11));
    assert!(panic_at(&mut world, 11));
    assert_eq!((world.panicked(0).len(), world.count(0, Counter::HandlerPanics)), (4, 5));
    // None at all.
    let mut configured = config();
    configured.restarts.most = 0;
    let mut world = self::world([configured]);
    assert!(panic_at(&mut world, 1));
}

#[test]
fn sim_a_panic_of_the_core_itself_ends_it_although_a_handler_called() {
    let mut world = pair(config(), config());
    world.task(0, 0, |_, cx| cx.shard.enter(|_| resume_unwind(Box::new(Injected))));
    assert!(world.core_ends(MILLI));
    assert_eq!((world.panicked(0), world.closed(0)), (vec![], vec![]));
}

/// Cannot be encoded without a panic.
struct Unspeakable;

impl Typed for Unspeakable {
    const TYPE: u16 = 7;
    type Codec = Self;
}

impl Codec<Self> for Unspeakable {
    fn encode(_: &Self, _: &mut Vec<u8>) -> Result<(), CodecError> {
        resume_unwind(Box::new(Injected));
    }

    fn decode(_: &[u8]) -> Result<Self, CodecError> {
        Err(CodecError::Decode)
    }
}

#[test]
fn sim_a_codec_that_panics_is_the_applications_and_no_core_ends_over_it() {
    let mut world = pair(config(), config());
    let peer = world.peer(0);
    world.on(0, move |actor, cx| {
        actor.oracle.borrow_mut().panics.begin(actor.engine, actor.core, Callback::Command, None);
        let _ = cx.send_typed(peer, &Unspeakable);
    });
    assert!(!world.core_ends(SECOND), "it was taken for a panic of the core");
    assert_eq!((world.count(0, Counter::HandlerPanics), world.peers(0)), (1, vec![peer]));
}

#[test]
fn sim_a_panic_of_the_core_that_a_handler_caught_is_not_forgotten() {
    let mut world = pair(config(), config());
    world.task(0, 0, |_, cx| {
        let caught = catch_unwind(AssertUnwindSafe(|| cx.shard.enter(|_| resume_unwind(Box::new(Injected)))));
        assert!(caught.is_err());
        // What was called in between went well, which mends nothing.
        cx.shard.enter(|_| {});
    });
    world.run(MILLI);
    // One that would cost no more than the handler.
    world.panic_next(Callback::Command);
    world.task(0, 0, |_, _| {});
    assert!(world.core_ends(MILLI));
    assert_eq!((world.panicked(0), world.closed(0)), (vec![], vec![]));
}

#[test]
fn sim_a_core_whose_handler_wants_it_ends() {
    let mut world = pair(config(), config());
    // That is what actors want of panics that nobody has meant.
    world.task(0, 0, |_, _| resume_unwind(Box::new("this panic is part of the test")));
    assert!(world.core_ends(MILLI));
}

/// Panics when it is dropped, without a word.
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        resume_unwind(Box::new(Injected));
    }
}

#[test]
fn sim_values_that_panic_when_they_are_dropped_cost_nothing() {
    let mut world = pair(config(), config());
    let peer = world.peer(0);
    world.on(0, move |_, cx| {
        assert!(cx.set_user(peer, Brittle));
        cx.close(peer);
    });
    world.run(10 * SECOND);
    assert_eq!((world.ends_of(0), world.panicked(0)), (vec![CloseReason::Requested], vec![]));
    assert_eq!((world.count(0, Counter::HandlerPanics), world.levels(0)), (1, [0; 4]));
    // Where it is dropped in a call, it is that call that panics.
    let mut world = pair(config(), config());
    let peer = world.peer(0);
    world.on(0, move |actor, cx| {
        assert!(cx.set_user(peer, Brittle));
        actor.oracle.borrow_mut().panics.begin(actor.engine, actor.core, Callback::Command, None);
        cx.set_user(peer, 7);
    });
    world.run(SECOND);
    assert_eq!((world.panicked(0), world.peers(0)), (vec![Callback::Command], vec![peer]));
    let kept = move |cx: &crate::handler::Context<'_>| cx.user::<i32>(peer).copied();
    world.on(0, move |_, cx| assert_eq!(kept(cx), Some(7)));
}

#[test]
fn sim_a_panic_in_the_middle_of_a_broadcast_or_a_shutdown_leaves_everything_in_order() {
    for callback in [Callback::Connected, Callback::Closed, Callback::Message] {
        let mut world = trio(config());
        let from = world.peer(1);
        world.on(0, |actor, cx| {
            let body = actor.body(100_000);
            let frame: Frame = cx.frame(META, &body).unwrap();
            assert!(actor.broadcast(cx, &[frame], None).is_ok());
        });
        world.on(1, move |actor, cx| assert!(actor.send(cx, from, META, 100_000).is_ok()));
        world.panic_next(callback);
        (0..3).for_each(|node| world.shut_down(node));
        world.run(30 * SECOND);
        assert!(world.nodes.iter().flat_map(|node| &node.cores).all(|core| core.shard.is_shut_down()));
        world.oracle.borrow().check_end();
        world.check_baseline();
    }
}

#[test]
fn sim_drawn_worlds_in_which_handlers_panic_keep_every_promise() {
    let (mut panicked, mut panics) = (BTreeSet::new(), 0);
    for seed in 0..60 {
        let outcome = run_seed_with(seed, [20, 100, 500, 2000][seed as usize % 4]);
        panicked.extend(outcome.panicked);
        panics += outcome.stats.get(Counter::HandlerPanics);
    }
    // `on_start` has no reason to panic there, and nobody sends with a tag that the oracle knows.
    assert!(panicked.len() >= 14 && panics > 1000, "{panics} panics in {panicked:?}");
}

#[test]
fn sim_panics_are_the_same_in_every_run_of_a_seed() {
    for seed in 0..4 {
        assert_eq!(run_seed_with(seed, 300), run_seed_with(seed, 300), "seed {seed}");
    }
}
