//! What threads and handlers can ask of a core besides sending.
//!
//! Set-up: engines with one core and two, and peers written by hand. Claim: commands reach the core that they are for, in order;
//! timers come once, not too soon, or not at all; a peer's value goes with the peer; while reading is paused nothing is delivered and
//! nothing is lost; and whoever sends to nobody, or too much, is told.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::node::{Node, Seen};
use common::raw::{Hello, data};
use common::{LIVENESS, NEVER, eventually, eventually_idle, loopback};
use corecast::{CloseReason, Config, Cores, Counter, Frame, FrameError, QueryError, SendError, Sent};

fn config() -> Config {
    let mut config = loopback();
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    config
}

#[test]
fn commands_reach_their_core_in_order() {
    const EACH: usize = 500;
    let node = Node::report(config().cores(Cores::Unpinned(3)));
    let (give, take) = channel();
    for number in 0..EACH {
        for core in 0..3 {
            let give = give.clone();
            let mut act: common::node::Act = Box::new(move |cx| give.send((core, cx.core(), cx.cores(), number)).unwrap());
            // A full inbox gives the command back.
            while let Err(refused) = node.handle().post(core, act) {
                assert_eq!(refused.reason, SendError::InboxFull { core });
                act = refused.value;
            }
        }
    }
    let mut next = [0; 3];
    for _ in 0..3 * EACH {
        let (meant, core, cores, number) = take.recv_timeout(LIVENESS).unwrap();
        assert_eq!((core, cores, number), (meant, 3, next[meant]));
        next[meant] += 1;
    }
    let Err(refused) = node.handle().post(3, Box::new(|_| ())) else { panic!("there is no core 3") };
    assert_eq!(refused.reason, SendError::NotConnected);
    node.finish();
}

#[test]
fn a_full_inbox_gives_back_what_it_does_not_take() {
    let mut config = config();
    config.limits.inbox_messages = 16;
    config.limits.max_message = 10_000;
    config.limits.inbox_bytes = 20_000;
    let mut node = Node::report(config);
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    // By number.
    let release = node.block(0);
    let frames: Vec<_> = (0..20u32).map(|number| node.handle().frame(1, &number.to_le_bytes()).unwrap()).collect();
    let results: Vec<_> = frames.iter().map(|frame| node.handle().send(peer, frame.clone())).collect();
    assert!(results[..16].iter().all(Result::is_ok));
    for (frame, result) in frames.iter().zip(&results).skip(16) {
        let refused = result.as_ref().unwrap_err();
        assert_eq!((refused.reason, refused.value.as_bytes()), (SendError::InboxFull { core: 0 }, frame.as_bytes()));
    }
    drop(release);
    (0..16u32).for_each(|number| raw.expect_data(1, &number.to_le_bytes()));
    // By bytes.
    node.run_when_there_is_room(0);
    let release = node.block(0);
    let large = node.handle().frame(2, &[2; 9000]).unwrap();
    node.handle().send_batch(peer, vec![large.clone(), large.clone()]).unwrap();
    let refused = node.handle().send_batch(peer, vec![large.clone()]).unwrap_err();
    assert_eq!((refused.reason, refused.value.len()), (SendError::InboxFull { core: 0 }, 1));
    assert_eq!(node.handle().send(peer, large).unwrap_err().reason, SendError::InboxFull { core: 0 });
    drop(release);
    raw.expect_data(2, &[2; 9000]);
    raw.expect_data(2, &[2; 9000]);
    drop(raw);
    node.finish();
}

#[test]
fn timers_come_once_in_order_and_not_too_soon() {
    let mut node = Node::report(config().cores(Cores::Unpinned(2)));
    let began = Instant::now();
    node.run(1, |cx| {
        for (after, tag) in [(60, 3), (20, 1), (40, 2), (0, 0)] {
            cx.set_timer(Duration::from_millis(after), tag).unwrap();
        }
    });
    for expected in 0..4 {
        let Seen::Timer { core, tag } = node.next() else { panic!("something else than a timer") };
        assert_eq!((core, tag), (1, expected));
        assert!(began.elapsed() >= Duration::from_millis(20 * expected), "timer {expected} came too soon");
    }
    node.counts(Counter::Timers, 0);
    assert!(node.leftovers().is_empty());
    node.finish();
}

#[test]
fn a_cancelled_timer_does_not_come() {
    let mut config = config();
    config.limits.max_timers = 2;
    let mut node = Node::report(config);
    let cancelled = node.run(0, |cx| {
        let first = cx.set_timer(Duration::from_millis(20), 1).unwrap();
        let second = cx.set_timer(Duration::from_millis(40), 2).unwrap();
        let third = cx.set_timer(Duration::ZERO, 3);
        assert!(third.is_none(), "two timers are the limit");
        let results = [cx.cancel_timer(first), cx.cancel_timer(first)];
        cx.set_timer(Duration::from_millis(60), 4).unwrap();
        (results, second)
    });
    assert_eq!(cancelled.0, [true, false]);
    for expected in [2, 4] {
        assert!(matches!(node.next(), Seen::Timer { tag, .. } if tag == expected));
    }
    let second = cancelled.1;
    assert!(!node.run(0, move |cx| cx.cancel_timer(second)), "it has come");
    assert!(node.run(0, |cx| cx.set_timer(NEVER, 5).is_some() && cx.set_timer(NEVER, 6).is_some()), "what has come makes room");
    assert!(node.leftovers().is_empty());
    node.engine.shutdown();
}

/// Counts how many of it are alive.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn a_peers_value_stays_with_it_and_goes_with_it() {
    let count = Arc::new(AtomicUsize::new(0));
    let mut config = config();
    config.timeouts.linger = Duration::from_millis(100);
    let mut node = Node::report(config);
    let (raw, peer) = node.raw_peer(Hello::node(1));
    let (other, other_peer) = node.raw_peer(Hello::node(2));
    for peer in [peer, other_peer] {
        let value = Alive::new(&count);
        assert!(node.run(0, move |cx| cx.set_user(peer, value)));
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
    assert!(node.run(0, move |cx| cx.user::<Alive>(peer).is_some() && cx.user::<u32>(peer).is_none()));
    // Another value, of another type, takes its place.
    assert!(node.run(0, move |cx| cx.set_user(other_peer, 7u32)));
    assert_eq!(count.load(Ordering::SeqCst), 1);
    node.run(0, move |cx| *cx.user_mut::<u32>(other_peer).unwrap() += 1);
    assert_eq!(node.run(0, move |cx| cx.user::<u32>(other_peer).copied()), Some(8));
    drop(raw);
    node.closed(peer);
    eventually("the value is dropped with its peer", || count.load(Ordering::SeqCst) == 0);
    let value = Alive::new(&count);
    assert!(!node.run(0, move |cx| cx.set_user(peer, value)), "no such peer");
    assert_eq!(count.load(Ordering::SeqCst), 0);
    assert!(node.run(0, move |cx| cx.user::<Alive>(peer).is_none() && cx.peer_info(peer).is_none()));
    // What is still there goes with the engine, whoever is still connected.
    let value = Alive::new(&count);
    assert!(node.run(0, move |cx| cx.set_user(other_peer, value)));
    drop(node);
    assert_eq!(count.load(Ordering::SeqCst), 0);
    drop(other);
}

#[test]
fn while_reading_is_paused_nothing_comes_and_afterwards_everything() {
    const ALL: u32 = 300;
    let mut node = Node::report(config());
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    let (mut other, other_peer) = node.raw_peer(Hello::node(2));
    node.run(0, move |cx| cx.pause_read(peer));
    let body = |number: u32| [&number.to_le_bytes()[..], &vec![number as u8; number as usize * 31 % 20_000]].concat();
    let sender = std::thread::spawn(move || {
        (0..ALL).for_each(|number| raw.send(&data(1, &body(number)[..body(number).len().min(20_000)])));
        raw
    });
    // The other peer is not concerned, and what it sends shows that turns go by.
    for number in 0..20u32 {
        other.send(&data(2, &number.to_le_bytes()));
        assert_eq!(node.message(other_peer).1, number.to_le_bytes());
    }
    assert!(node.leftovers().is_empty(), "the paused peer was read");
    assert!(node.handle().peers(LIVENESS).unwrap().iter().any(|snapshot| snapshot.id == peer && snapshot.paused));
    // Stop and go, now and then in the middle of a batch.
    let mut next = 0;
    while next < ALL {
        node.run(0, move |cx| cx.resume_read(peer));
        let (_, got) = node.message(peer);
        assert!(got == body(next), "message {next}");
        next += 1;
        if next % 40 == 0 {
            node.run(0, move |cx| cx.pause_read(peer));
            for seen in node.leftovers() {
                let Seen::Message { body: got, .. } = seen else { panic!("{seen:?}") };
                assert!(got == body(next), "message {next}");
                next += 1;
            }
        }
    }
    node.run(0, move |cx| cx.resume_read(peer));
    drop(sender.join().unwrap());
    assert_eq!(node.closed(peer), CloseReason::Eof);
    drop(other);
    node.finish();
}

/// Pauses its peer after each message; a timer goes on.
struct Stutter(std::sync::mpsc::Sender<u32>);

impl corecast::Handler for Stutter {
    type Command = ();

    fn on_message(&mut self, cx: &mut corecast::Context<'_>, peer: corecast::PeerId, message: corecast::Message<'_>) {
        self.0.send(u32::from_le_bytes(message.body.try_into().unwrap())).unwrap();
        cx.pause_read(peer);
        cx.set_timer(Duration::from_millis(1), peer.to_u64()).unwrap();
    }

    fn on_timer(&mut self, cx: &mut corecast::Context<'_>, tag: u64) {
        let paused = cx.peers().find(|peer| peer.to_u64() == tag);
        paused.into_iter().for_each(|peer| cx.resume_read(peer));
    }
}

#[test]
fn a_pause_in_the_middle_of_a_batch_takes_effect_with_the_next_message() {
    let (give, take) = channel();
    let engine = corecast::Engine::start(config(), move |_| Stutter(give.clone())).unwrap();
    let mut raw = common::raw::Raw::establish(engine.local_addrs()[0], Hello::node(1));
    // All in one piece, the last one cut.
    let bytes: Vec<u8> = (0..200u32).flat_map(|number| data(1, &number.to_le_bytes())).collect();
    raw.send(&bytes[..bytes.len() - 3]);
    (0..100).for_each(|number| assert_eq!(take.recv_timeout(LIVENESS), Ok(number)));
    raw.send(&bytes[bytes.len() - 3..]);
    (100..200).for_each(|number| assert_eq!(take.recv_timeout(LIVENESS), Ok(number)));
    drop(raw);
    eventually_idle(&engine.handle());
    engine.shutdown();
}

#[test]
fn a_pause_has_an_end() {
    let mut config = config();
    config.timeouts.pause = Duration::from_millis(150);
    let mut node = Node::report(config);
    let (mut raw, peer) = node.raw_peer(Hello::node(1));
    let (mut resumed, resumed_peer) = node.raw_peer(Hello::node(2));
    node.run(0, move |cx| {
        cx.pause_read(peer);
        cx.pause_read(resumed_peer);
        cx.resume_read(resumed_peer);
    });
    raw.send(&data(1, b"never read"));
    assert_eq!(node.closed(peer), CloseReason::PausedTooLong);
    raw.expect_goodbye(0, 0);
    node.counts(Counter::ClosedPaused, 1);
    resumed.send(&data(1, b"read"));
    assert_eq!(node.message(resumed_peer).1, b"read");
    drop((raw, resumed));
    node.finish();
}

#[test]
fn whoever_asked_hears_that_a_message_was_refused_later() {
    let mut node = Node::report(config().cores(Cores::Unpinned(2)));
    let (mut raw, peer) = node.raw_peer(Hello { max_message: 100, ..Hello::node(1) });
    let frame = |len: usize| Frame::new(1, &vec![0; len]).unwrap();
    let failed = |node: &mut Node, tag| {
        node.wait("a refused send", |seen| match seen {
            Seen::SendFailed { core, peer, tag: of, reason } if *of == tag => Some((*core, *peer, *reason)),
            _ => None,
        })
    };
    node.handle().send_notify(peer, frame(100), 1).unwrap();
    raw.expect_data(1, &[0; 100]);
    node.handle().send_notify(peer, frame(101), 2).unwrap();
    assert_eq!(failed(&mut node, 2), (peer.core(), peer, SendError::TooLong { len: 101, max: 100 }));
    // Who did not ask is only counted.
    node.handle().send(peer, frame(101)).unwrap();
    node.counts(Counter::SendsRefused, 2);
    drop(raw);
    node.closed(peer);
    eventually_idle(&node.handle());
    node.handle().send_notify(peer, frame(1), 3).unwrap();
    assert_eq!(failed(&mut node, 3), (peer.core(), peer, SendError::NotConnected));
    node.handle().send_batch(peer, vec![frame(1), frame(1)]).unwrap();
    node.counts(Counter::SendsRefused, 5);
    assert!(node.leftovers().is_empty());
    node.finish();
}

#[test]
fn an_id_whose_peer_is_gone_means_nobody() {
    let mut node = Node::report(config().cores(Cores::Unpinned(2)));
    let (raw, old) = node.raw_peer(Hello::node(1));
    drop(raw);
    node.closed(old);
    eventually_idle(&node.handle());
    // Whoever has its slot now is not meant.
    let mut others: Vec<_> = (2..6).map(|number| node.raw_peer(Hello::node(number)).0).collect();
    let core = old.core();
    assert_eq!(node.run(core, move |cx| cx.send(old, 1, b"x")), Err(SendError::NotConnected));
    let frame = node.handle().frame(1, b"x").unwrap();
    let batch = vec![frame.clone(); 3];
    assert_eq!(node.run(core, move |cx| cx.send_batch(old, &batch)), Err(SendError::NotConnected));
    // Another core can only say that it has passed it on.
    assert_eq!(node.run(1 - core, move |cx| cx.send(old, 1, b"x")), Ok(Sent::Forwarded));
    node.handle().send(old, frame).unwrap();
    node.counts(Counter::SendsRefused, 1 + 3 + 1 + 1);
    node.run(core, move |cx| {
        cx.close(old);
        cx.pause_read(old);
        cx.resume_read(old);
    });
    node.handle().close(old).unwrap();
    let marker = node.handle().frame(9, b"marker").unwrap();
    node.handle().broadcast(marker).unwrap();
    others.iter_mut().for_each(|raw| raw.expect_data(9, b"marker"));
    drop(others);
    node.finish();
}

#[test]
fn what_is_longer_than_either_side_takes_is_refused() {
    let mut config = config();
    config.limits.max_message = 1000;
    let mut node = Node::report(config);
    let (mut large, large_peer) = node.raw_peer(Hello::node(1));
    let (mut small, small_peer) = node.raw_peer(Hello { max_message: 10, ..Hello::node(2) });
    let results = node.run(0, move |cx| {
        [(large_peer, 1000), (large_peer, 1001), (small_peer, 10), (small_peer, 11)].map(|(peer, len)| cx.send(peer, 1, &vec![5; len]))
    });
    let too_long = |len, max| Err(SendError::TooLong { len, max });
    assert_eq!(results, [Ok(Sent::Queued), too_long(1001, 1000), Ok(Sent::Queued), too_long(11, 10)]);
    large.expect_data(1, &[5; 1000]);
    small.expect_data(1, &[5; 10]);
    assert_eq!(node.handle().frame(1, &[0; 1001]).unwrap_err(), FrameError::TooLong { len: 1001, max: 1000 });
    let frames = [Frame::new(1, &[1; 5]).unwrap(), Frame::new(1, &[1; 11]).unwrap()];
    assert_eq!(node.run(0, move |cx| cx.send_batch(small_peer, &frames)), too_long(11, 10));
    node.run(0, move |cx| cx.send(small_peer, 2, b"none of it")).unwrap();
    small.expect_data(2, b"none of it");
    drop((large, small));
    node.finish();
}

#[test]
fn a_broadcast_longer_than_one_peer_takes_leaves_the_others_alone() {
    let mut config = config();
    config.limits.max_message = 1000;
    let mut node = Node::report(config);
    let (mut large, _) = node.raw_peer(Hello::node(1));
    let (mut small, _) = node.raw_peer(Hello { max_message: 10, ..Hello::node(2) });
    for len in [10, 11, 1000, 3] {
        node.handle().broadcast(node.handle().frame(len as u16, &vec![5; len]).unwrap()).unwrap();
    }
    for len in [10, 11, 1000, 3] {
        large.expect_data(len as u16, &vec![5; len]);
    }
    // Never more than it said that it takes; what that was is counted.
    node.counts(Counter::SendsRefused, 2);
    small.expect_data(10, &[5; 10]);
    small.expect_data(3, &[5; 3]);
    drop((large, small));
    node.finish();
}

#[test]
fn the_list_of_peers_is_whole_and_says_when_it_cannot_be() {
    let mut node = Node::report(config().cores(Cores::Unpinned(2)));
    let mut raws = Vec::new();
    let mut ids = Vec::new();
    for number in 0..6 {
        let (raw, id) = node.raw_peer(Hello::node(number));
        raws.push(raw);
        ids.push(id);
    }
    let mut listed: Vec<_> = node.handle().peers(LIVENESS).unwrap().iter().map(|peer| peer.id).collect();
    listed.sort_unstable();
    ids.sort_unstable();
    assert_eq!(listed, ids);
    let of_core = node.run(1, |cx| cx.peers().collect::<Vec<_>>());
    assert_eq!(of_core.len(), 3);
    assert!(of_core.iter().all(|peer| peer.core() == 1 && ids.contains(peer)));
    let release = node.block(1);
    assert_eq!(node.handle().peers(Duration::from_millis(20)).unwrap_err(), QueryError::TimedOut);
    drop(release);
    assert_eq!(node.handle().peers(LIVENESS).unwrap().len(), 6);
    drop(raws);
    node.finish();
}

#[test]
fn a_handle_outlives_its_engine_and_says_so() {
    let node = Node::report(config());
    let (handle, copy) = (node.handle(), node.handle());
    let frame = handle.frame(1, b"x").unwrap();
    node.finish();
    assert_eq!(handle.broadcast(frame.clone()).unwrap_err().reason, SendError::Stopped);
    assert_eq!(handle.broadcast_batch(vec![frame]).unwrap_err().reason, SendError::Stopped);
    let Err(refused) = copy.post(0, Box::new(|_| ())) else { panic!("nobody takes this") };
    assert_eq!(refused.reason, SendError::Stopped);
    assert_eq!(
        copy.dial(corecast::Dial::to(corecast::Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1))))),
        Err(SendError::Stopped)
    );
    assert_eq!(handle.peers(LIVENESS).unwrap_err(), QueryError::Stopped);
    // The figures stay readable.
    assert!(handle.stats().get(Counter::Turns) > 0);
}
