//! Engines that say that they will go, in virtual time: who is told what, what goes on meanwhile, and when the others come back.

use std::time::Duration;

use super::actor::Mood;
use super::oracle::Told;
use super::scenarios::{META, config, nanos, pair, world};
use super::sim::{MILLI, SECOND, World, address};
use crate::config::{Config, Cores};
use crate::dial::Dial;
use crate::error::{CloseReason, DialError, HandshakeError, RequestError};
use crate::metrics::Counter;
use crate::notice::Notice;
use crate::shard::Control;
use crate::wire::{Goodbye, GoodbyeCode, Header, Kind, Refusal, RefusalCode};

const PERIOD: Duration = Duration::from_secs(3);
const DELAY: Duration = Duration::from_secs(5);
/// Longer than anything takes on its way, with the tick of the timers.
const SOON: u64 = 10 * MILLI;

fn notice() -> Notice {
    Notice::new(PERIOD).retry_after(DELAY).reason(9)
}

impl World {
    pub(super) fn land(&mut self, node: usize, notice: Notice) {
        self.control(node, 0, Control::Drain { notice });
    }

    fn notices(&self, node: usize) -> Vec<Notice> {
        self.told(node, |told| if let Told::GoingAway(notice) = told { Some(*notice) } else { None })
            .into_iter()
            .map(|(_, notice)| notice)
            .collect()
    }

    fn failed_dials(&self, node: usize) -> Vec<(u64, (DialError, Option<Duration>))> {
        self.told(node, |told| if let Told::DialFailed { error, retry_in } = told { Some((*error, *retry_in)) } else { None })
    }

    fn answers(&self, node: usize) -> Vec<Result<usize, RequestError>> {
        let responses = self.told(node, |told| if let Told::Response { result, .. } = told { Some(*result) } else { None });
        responses.into_iter().map(|(_, result)| result).collect()
    }
}

/// The first node has dialled the second, and dials it again whenever that ends.
fn follower(first: Config, second: Config) -> World {
    let mut world = world([first, second]);
    world.on(0, |actor, cx| actor.dial(cx, Dial::to(address(1))));
    assert!(world.run_until(SECOND, |world| world.peers(0).len() == 1 && world.peers(1).len() == 1));
    // A message, so that it is no first attempt any more.
    let peer = world.peer(1);
    world.on(1, move |actor, cx| assert!(actor.send(cx, peer, META, 10).is_ok()));
    world.run(SOON);
    world
}

const REFUSED: DialError = DialError::Handshake(HandshakeError::RefusedByPeer(RefusalCode::ShuttingDown));

#[test]
fn sim_peers_are_told_go_on_for_the_period_and_come_back_after_the_delay() {
    let mut world = follower(config(), config());
    let (near, far) = (world.peer(0), world.peer(1));
    world.land(1, notice());
    let begin = world.now;
    world.run(SOON);
    assert_eq!(world.notices(0), [notice()]);
    assert_eq!((world.count(1, Counter::NoticesSent), world.count(0, Counter::NoticesReceived)), (1, 1));
    assert_eq!((world.count(1, Counter::Landing), world.count(1, Counter::Peers)), (1, 1));
    // Until the period is over everything is as it was.
    world.run(nanos(PERIOD) - 100 * MILLI);
    world.on(0, move |actor, cx| {
        assert!(actor.send(cx, near, META, 100).is_ok());
        actor.request(cx, near, META, 100, Duration::from_secs(9));
    });
    world.on(1, move |actor, cx| assert!(actor.send(cx, far, META, 100).is_ok()));
    world.run(50 * MILLI);
    // A request is a message too.
    assert_eq!((world.messages(0), world.messages(1), world.answers(0).len()), (2, 2, 1));
    assert_eq!((world.closed(0), world.closed(1)), (vec![], vec![]));
    world.run(100 * MILLI);
    assert_eq!(world.closed(1).iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), [CloseReason::ShuttingDown]);
    let closed = world.closed(0);
    assert_eq!(closed[0].1, CloseReason::Goodbye(GoodbyeCode::ShuttingDown));
    assert!((nanos(PERIOD)..nanos(PERIOD) + SOON).contains(&(closed[0].0 - begin)));
    // Nobody comes before the delay is over, and then within as long again.
    world.run(closed[0].0 + nanos(DELAY) - world.now);
    assert_eq!(world.count(0, Counter::DialAttempts), 1);
    world.run(nanos(DELAY) + SOON);
    // Refused, and asked the same again.
    let refused = world.failed_dials(0);
    assert_eq!((world.count(0, Counter::DialAttempts), refused.len()), (2, 1));
    let (error, retry_in) = refused[0].1;
    assert!(error == REFUSED && retry_in.is_some_and(|wait| wait >= DELAY && wait <= 2 * DELAY), "{refused:?}");
    assert_eq!((world.count(0, Counter::DelaysHeeded), world.count(0, Counter::DelaysCut)), (2, 0));
    assert_eq!(world.count(1, Counter::HandshakeShuttingDown), 1);
    // A second notice says nothing.
    world.land(1, Notice::new(Duration::ZERO));
    world.run(SOON);
    assert_eq!(world.notices(0).len(), 1);
    for node in [0, 1] {
        world.shut_down(node);
    }
    world.run(30 * SECOND);
    world.check_baseline();
}

#[test]
fn sim_a_landing_engine_lets_nobody_in_and_dials_nobody() {
    let mut world = world([config(), config()]);
    world.nodes[1].listening = false;
    world.on(0, |actor, cx| actor.dial(cx, Dial::to(address(1))));
    world.run(SECOND);
    let (_, (_, retry_in)) = world.failed_dials(0)[0];
    assert!(retry_in.is_some());
    world.land(0, notice());
    world.run(SOON);
    assert_eq!(world.failed_dials(0).last().unwrap().1, (DialError::ShuttingDown, None), "the dial that waited has ended");
    world.on(0, |actor, cx| actor.dial(cx, Dial::to(address(1)).once()));
    world.run(SOON);
    assert_eq!(world.failed_dials(0).last().unwrap().1, (DialError::ShuttingDown, None));
    let attempts = world.count(0, Counter::DialAttempts);
    // Who connects is refused without being asked anything, and told how long it is until the end, and the delay.
    let end = world.net.connect(world.now, 0);
    world.run(SECOND);
    let said = world.raw_read(end);
    let refusal = Refusal::decode(said.first_chunk().expect("a refusal"));
    assert_eq!((said.len(), refusal.code), (16, RefusalCode::ShuttingDown));
    let most = (PERIOD + DELAY).as_millis() as u32;
    assert!((most - 100..most).contains(&refusal.delay_ms), "{} ms", refusal.delay_ms);
    // So it stays after the period.
    world.run(2 * nanos(PERIOD));
    let end = world.net.connect(world.now, 0);
    world.run(SECOND);
    let refusal = Refusal::decode(world.raw_read(end).first_chunk().expect("a refusal"));
    assert_eq!(refusal, Refusal { code: RefusalCode::ShuttingDown, delay_ms: DELAY.as_millis() as u32 });
    assert_eq!((world.count(0, Counter::DialAttempts), world.count(0, Counter::HandshakeShuttingDown)), (attempts, 2));
    assert_eq!(world.count(0, Counter::Established), 0);
    world.shut_down(0);
    world.shut_down(1);
    world.run(30 * SECOND);
    world.check_baseline();
}

#[test]
fn sim_who_is_in_a_handshake_is_sent_away_with_the_delay() {
    let mut world = world([config()]);
    // Of a peer that is in the middle of its handshake, and one that has not begun.
    let (shaking, silent) = (world.greet(0, 77, 1), world.net.connect(world.now, 0));
    world.run(SOON);
    world.land(0, notice());
    world.run(SECOND);
    let goodbye = world.raw_read(shaking);
    let delay_ms = Goodbye::decode(*goodbye.last_chunk().expect("a goodbye")).delay_ms;
    assert_eq!(goodbye[..8], Header::control(Kind::Goodbye).encode());
    let refusal = Refusal::decode(world.raw_read(silent).first_chunk().expect("a refusal"));
    for said in [delay_ms, refusal.delay_ms] {
        assert_eq!(said, (PERIOD + DELAY).as_millis() as u32);
    }
    assert_eq!(world.count(0, Counter::Established), 0);
}

#[test]
fn sim_a_peer_that_does_not_understand_it_hears_of_it_with_the_goodbye() {
    let mut world = world([config()]);
    let (end, _) = world.raw_peer(0);
    world.land(0, notice());
    world.run(nanos(PERIOD) - MILLI);
    assert_eq!(world.raw_read(end), [0; 0]);
    assert_eq!(world.count(0, Counter::NoticesSent), 0);
    world.run(SOON);
    let said = world.raw_read(end);
    let goodbye = Goodbye::decode(*said.last_chunk().expect("a goodbye"));
    assert_eq!(goodbye, Goodbye { code: GoodbyeCode::ShuttingDown, detail: 0, delay_ms: DELAY.as_millis() as u32 });
}

#[test]
fn sim_a_shutdown_cuts_the_period_short_and_says_the_delay() {
    let mut world = follower(config(), config());
    world.land(1, notice());
    world.run(SECOND);
    world.shut_down(1);
    world.run(SOON);
    let closed = world.closed(0);
    assert_eq!(closed[0].1, CloseReason::Goodbye(GoodbyeCode::ShuttingDown));
    world.run(closed[0].0 + nanos(DELAY) - world.now);
    assert_eq!(world.count(0, Counter::DialAttempts), 1);
    world.run(nanos(DELAY) + SECOND);
    assert!(world.count(0, Counter::DialAttempts) > 1);
    world.shut_down(0);
    world.run(30 * SECOND);
    world.check_baseline();
}

#[test]
fn sim_who_leaves_early_stays_away_until_the_period_and_the_delay_are_over() {
    let mut world = follower(config(), config());
    let peer = world.peer(0);
    world.land(1, notice());
    world.run(SECOND);
    // It has gone elsewhere.
    world.on(0, move |_, cx| cx.close(peer));
    world.run(SOON);
    assert_eq!((world.count(1, Counter::Peers), world.count(1, Counter::ClosedGoodbye)), (0, 1));
    assert!(world.nodes[1].cores[0].shard.has_landed());
    let end = nanos(PERIOD) - SECOND + nanos(DELAY);
    world.run(end - 2 * SOON);
    assert_eq!(world.count(0, Counter::DialAttempts), 1);
    world.run(end + SOON);
    assert_eq!(world.count(0, Counter::DialAttempts), 2);
}

#[test]
fn sim_nobody_is_sent_away_for_longer_than_it_allows() {
    let mut careful = config();
    careful.backoff.max_asked = Duration::from_secs(2);
    let mut world = follower(careful, config());
    world.land(1, Notice::new(Duration::ZERO).retry_after(Duration::from_secs(1 << 20)));
    world.run(2 * SECOND);
    assert_eq!((world.count(0, Counter::DialAttempts), world.closed(0).len()), (1, 1));
    world.run(2 * SECOND + SOON);
    assert_eq!((world.count(0, Counter::DialAttempts), world.count(0, Counter::DelaysCut)), (2, 2));
}

#[test]
fn sim_where_no_delay_is_said_a_shutdown_is_as_ever() {
    let mut world = follower(config(), config());
    world.shut_down(1);
    world.run(2 * SECOND);
    assert!(world.count(0, Counter::DialAttempts) > 1, "within a second");
    assert_eq!((world.notices(0).len(), world.count(0, Counter::DelaysHeeded)), (0, 0));
}

/// Thirty nodes have dialled one of three cores.
#[test]
fn sim_a_crowd_that_was_sent_away_together_does_not_come_back_together() {
    const CROWD: usize = 30;
    let mut world = world([config().cores(Cores::Unpinned(3))]);
    for node in 1..=CROWD {
        assert_eq!(world.add_node(config(), &Mood::quiet()), node);
        world.on(node, |actor, cx| actor.dial(cx, Dial::to(address(0))));
    }
    assert!(world.run_until(SECOND, |world| world.peers(0).len() == CROWD));
    world.run(SOON);
    world.land(0, notice());
    world.run(nanos(PERIOD) / 2);
    assert_eq!(world.count(0, Counter::NoticesSent), CROWD as u64);
    assert_eq!(world.count(0, Counter::Landing), 3, "every core lands");
    assert!((1..=CROWD).all(|node| world.notices(node).len() == 1 && world.closed(node).is_empty()));
    world.run(nanos(PERIOD) / 2 + SOON);
    assert!(world.nodes[0].cores.iter().all(|core| core.shard.has_landed()));
    let gone = world.now;
    world.run(2 * nanos(DELAY) + SOON);
    let mut back: Vec<u64> = (1..=CROWD).map(|node| world.failed_dials(node)[0].0 - gone).collect();
    back.sort_unstable();
    assert!(back[0] + 3 * SOON >= nanos(DELAY), "the first after {:?}", Duration::from_nanos(back[0]));
    // Over five seconds: not many in any of its tenths.
    let most = back.iter().map(|&at| back.iter().filter(|&&other| (at..at + SECOND / 2).contains(&other)).count()).max();
    assert!(most <= Some(CROWD / 3), "{most:?} of {CROWD} come back within half a second");
    assert!(back[CROWD - 1] - back[0] > nanos(DELAY) / 2);
}

#[test]
fn sim_both_sides_may_go_at_once() {
    let mut world = pair(config(), config());
    world.land(0, notice());
    world.land(1, notice());
    world.run(nanos(PERIOD) + SECOND);
    assert_eq!((world.notices(0).len(), world.notices(1).len()), (1, 1));
    assert_eq!((world.closed(0).len(), world.closed(1).len()), (1, 1));
    world.check_baseline();
}
