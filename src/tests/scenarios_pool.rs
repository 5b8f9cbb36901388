//! Short stories of the connection pool and of circuit breakers: who is handed out, when one more is dialled, when none is.

use std::net::SocketAddr;
use std::time::Duration;

use super::keys::{dial_to, identity};
use super::oracle::Told;
use super::scenarios::{META, config, named, nanos, world};
use super::sim::{MILLI, SECOND, World, address};
use crate::config::{Admission, Config, Cores, Noise, Security};
use crate::dial::Dial;
use crate::endpoint::{BreakerState, Endpoint};
use crate::error::{CloseReason, DialError, SendError};
use crate::handler::Sent;
use crate::id::{NodeId, PeerId, Topic};
use crate::metrics::Counter;

use BreakerState::{Closed, HalfOpen, Open};

const REFUSED: DialError = DialError::Connect(std::io::ErrorKind::ConnectionRefused);

/// With a breaker that opens soon.
pub(super) fn strict() -> Config {
    let mut config = config();
    config.breaker.failures = 3;
    config.breaker.cool_down = Duration::from_millis(1000);
    config.breaker.max_cool_down = Duration::from_secs(4);
    config
}

/// With a pool that closes soon.
pub(super) fn hasty() -> Config {
    let mut config = config();
    config.pool.max_idle = Duration::from_secs(2);
    config
}

/// Nodes that encrypt, so that a target is a node at an address.
pub(super) fn sealed(config: Config) -> Config {
    Config { security: Security::Noise(Noise::new(identity(0))), admission: Some(Admission::Open), ..config }
}

type Answer = Result<PeerId, DialError>;

pub(super) fn answers(world: &World, node: usize) -> Vec<Answer> {
    let pooled = |told: &Told| if let Told::Pooled { result, .. } = told { Some(*result) } else { None };
    world.told(node, pooled).into_iter().map(|(_, result)| result).collect()
}

fn breakers(world: &World, node: usize) -> Vec<(u64, BreakerState)> {
    world.told(node, |told| if let Told::Breaker(state) = told { Some(*state) } else { None })
}

pub(super) fn states(world: &World, node: usize) -> Vec<BreakerState> {
    breakers(world, node).into_iter().map(|(_, state)| state).collect()
}

fn dial_errors(world: &World, node: usize) -> Vec<DialError> {
    let failed = |told: &Told| if let Told::DialFailed { error, .. } = told { Some(*error) } else { None };
    world.told(node, failed).into_iter().map(|(_, error)| error).collect()
}

/// Asks on a core, and says what comes within `patience`.
fn ask_within(world: &mut World, node: usize, core: usize, target: impl Into<Endpoint>, patience: u64) -> Answer {
    let (before, target) = (answers(world, node).len(), target.into());
    world.task(node, core, move |actor, cx| assert!(actor.connect(cx, target, false).is_ok()));
    assert!(world.run_until(patience, |world| answers(world, node).len() > before), "no answer");
    answers(world, node)[before]
}

pub(super) fn ask(world: &mut World, target: impl Into<Endpoint>) -> Answer {
    ask_within(world, 0, 0, target, 10 * SECOND)
}

pub(super) fn pin(world: &mut World, target: impl Into<Endpoint>) {
    let target = target.into();
    world.on(0, move |actor, cx| assert!(actor.connect(cx, target, true).is_ok()));
}

/// Nothing is left, and the pool says so as well.
pub(super) fn end(world: &mut World) {
    (0..world.nodes.len()).for_each(|node| world.shut_down(node));
    world.run(20 * SECOND);
    world.oracle.borrow().check_end();
    world.check_baseline();
}

fn pool_counts(world: &mut World) -> (u64, u64) {
    (world.count(0, Counter::PoolHits), world.count(0, Counter::PoolMisses))
}

#[test]
fn sim_a_miss_is_dialled_and_a_hit_is_the_same_connection() {
    for encrypted in [false, true] {
        let make = |config: Config| if encrypted { sealed(config) } else { config };
        let mut world = world([make(config().cores(Cores::Unpinned(2))), make(config())]);
        let target = Endpoint::from(&dial_to(&world.nodes[0].config, 1));
        let first = ask(&mut world, &target).unwrap();
        assert_eq!(world.peers(0), [first]);
        // From either core, and, where that says whom it means, by its name alone.
        for core in [0, 1] {
            assert_eq!(ask_within(&mut world, 0, core, &target, SECOND), Ok(first));
        }
        if encrypted {
            let node = identity(1).node_id();
            assert_eq!(ask(&mut world, node), Ok(first));
            let other = Endpoint::from((node, address(7)));
            assert_eq!(ask(&mut world, other), Ok(first), "there is one connection to a node, wherever it is");
        }
        let hits = if encrypted { 4 } else { 2 };
        assert_eq!((pool_counts(&mut world), world.count(0, Counter::DialAttempts)), ((hits, 1), 1));
        assert_eq!((world.count(0, Counter::PoolTargets), dial_errors(&world, 0)), (1, vec![]));
        end(&mut world);
        assert_eq!(world.count(0, Counter::PoolTargets), 0);
    }
}

#[test]
fn sim_a_connection_that_the_other_side_or_the_application_made_is_a_hit_too() {
    let mut world = world([sealed(hasty()), sealed(hasty())]);
    world.dial(1, 0);
    world.run(SECOND);
    let peer = world.peer(0);
    let node = identity(1).node_id();
    assert_eq!(ask(&mut world, node), Ok(peer));
    assert_eq!(ask(&mut world, (node, address(1))), Ok(peer));
    // It is not the pool's to close.
    world.run(20 * SECOND);
    assert_eq!((world.closed(0), world.closed(1)), (vec![], vec![]));
    assert_eq!((pool_counts(&mut world), world.count(0, Counter::DialAttempts)), ((2, 0), 0));
    assert_eq!(world.count(0, Counter::PoolTargets), 0);
    // A node that is not connected, and of which nobody has said where it is.
    assert_eq!(ask(&mut world, identity(2).node_id()), Err(DialError::NoAddress));
    // Encrypted, an address alone says too little.
    assert_eq!(ask(&mut world, address(1)), Err(DialError::NodeRequired));
    assert_eq!(ask(&mut world, (identity(0).node_id(), address(0))), Err(DialError::SelfConnection));
    end(&mut world);
}

#[test]
fn sim_all_who_ask_meanwhile_wait_for_one_attempt() {
    let mut shared = config().cores(Cores::Unpinned(3));
    shared.pool.waiting_per_target = 12;
    let mut world = world([shared, config()]);
    for core in [0, 1, 2] {
        world.task(0, core, |actor, cx| (0..5).for_each(|_| assert!(actor.connect(cx, address(1), false).is_ok())));
    }
    world.run(SECOND);
    let answers = answers(&world, 0);
    let peer = world.peer(0);
    // What comes beyond the bound is refused at once.
    assert_eq!(answers[..3], [Err(DialError::PoolFull); 3]);
    assert_eq!(answers[3..], [Ok(peer); 12]);
    assert_eq!((pool_counts(&mut world), world.count(0, Counter::PoolRefused)), ((0, 15), 3));
    assert_eq!(world.count(0, Counter::DialAttempts), 1);
    // And so it is where it fails: all are told.
    world.nodes[1].listening = false;
    world.on(0, |actor, cx| (0..4).for_each(|_| assert!(actor.connect(cx, address(9), false).is_ok())));
    world.run(SECOND);
    assert_eq!(self::answers(&world, 0)[15..], [Err(REFUSED); 4]);
    assert_eq!((world.count(0, Counter::DialAttempts), world.count(0, Counter::PoolTargets)), (2, 1));
    end(&mut world);
}

#[test]
fn sim_calls_that_wait_are_bounded() {
    let mut few = config().cores(Cores::Unpinned(2));
    few.pool.waiting = 3;
    let mut world = world([few]);
    world.net.faults.lost_connect = 1000;
    // Those of one core's handler, and those of all.
    for core in [0, 1] {
        world.task(0, core, |actor, cx| {
            (1..=3).for_each(|node| assert!(actor.connect(cx, address(node), false).is_ok()));
            assert_eq!(actor.connect(cx, address(4), false), Err(SendError::TooManyConnects));
        });
        world.run(MILLI);
    }
    assert_eq!((answers(&world, 0), world.count(0, Counter::PoolRefused)), (vec![Err(DialError::PoolFull); 3], 5));
    assert_eq!(world.count(0, Counter::PoolTargets), 3);
    world.run(20 * SECOND);
    assert_eq!(answers(&world, 0)[3..], [Err(DialError::Connect(std::io::ErrorKind::TimedOut)); 3]);
    end(&mut world);
}

#[test]
fn sim_a_failing_target_opens_its_breaker_and_the_cool_down_grows() {
    let mut world = world([strict()]);
    for _ in 0..3 {
        assert_eq!(ask(&mut world, address(9)), Err(REFUSED));
    }
    let mut attempts = 3;
    for longest in [1, 2, 4, 4, 4] {
        let opened = breakers(&world, 0).last().copied().unwrap();
        assert_eq!(opened.1, Open);
        let Err(DialError::BreakerOpen { retry_in }) = ask(&mut world, address(9)) else { panic!("it is open") };
        let cool_down = opened.0 + nanos(retry_in) - opened.0;
        assert!((longest * SECOND / 2 - 10 * MILLI..=longest * SECOND).contains(&cool_down), "{retry_in:?} of {longest} s");
        assert_eq!(world.count(0, Counter::DialAttempts), attempts, "nothing was tried");
        world.run(nanos(retry_in) - 2 * MILLI);
        assert!(matches!(ask(&mut world, address(9)), Err(DialError::BreakerOpen { .. })));
        world.run(3 * MILLI);
        // The probe.
        assert_eq!(ask(&mut world, address(9)), Err(REFUSED));
        attempts += 1;
        assert_eq!(world.count(0, Counter::DialAttempts), attempts);
    }
    assert_eq!(states(&world, 0)[..5], [Open, HalfOpen, Open, HalfOpen, Open]);
    let counted = [Counter::BreakerOpened, Counter::BreakerHalfOpened, Counter::BreakerClosed, Counter::BreakerRefused];
    assert_eq!(counted.map(|counter| world.count(0, counter)), [6, 5, 0, 10]);
    // Dials to be made once are refused as well, and other targets are not.
    world.on(0, |actor, cx| {
        actor.dial(cx, Dial::to(address(9)).channel(5).once());
        actor.dial(cx, Dial::to(address(8)).once());
    });
    world.run(10 * MILLI);
    assert!(matches!(dial_errors(&world, 0)[..], [DialError::BreakerOpen { .. }, REFUSED]), "{:?}", dial_errors(&world, 0));
    end(&mut world);
}

#[test]
fn sim_the_first_message_closes_the_breaker_and_resets_the_backoff_and_a_mere_connection_does_not() {
    let mut patient = strict();
    patient.backoff.max = Duration::from_millis(50);
    let mut world = world([patient, config()]);
    world.nodes[1].listening = false;
    world.on(0, |actor, cx| actor.dial(cx, Dial::to(address(1))));
    assert!(world.run_until(20 * SECOND, |world| states(world, 0) == [Open, HalfOpen, Open]));
    world.nodes[1].listening = true;
    assert!(world.run_until(20 * SECOND, |world| world.peers(1).len() == 1));
    assert_eq!(states(&world, 0), [Open, HalfOpen, Open, HalfOpen]);
    world.run(SECOND);
    assert_eq!(states(&world, 0).len(), 4, "it has only accepted");
    let peer = world.peer(1);
    world.on(1, move |actor, cx| assert_eq!(actor.send(cx, peer, META, 10), Ok(Sent::Queued)));
    world.run(10 * MILLI);
    assert_eq!(states(&world, 0)[4..], [Closed]);
    assert_eq!((world.count(0, Counter::BreakerClosed), world.count(0, Counter::BreakerTargets)), (1, 0));
    // Of each attempt it was told when the next comes, and none came before that.
    assert_eq!(world.count(0, Counter::BreakerDelayed), 0, "the wait was the later of backoff and breaker");
    end(&mut world);
}

#[test]
fn sim_an_answer_to_a_ping_is_proof_as_well_and_who_accepts_and_hangs_up_is_not_believed() {
    let mut world = world([strict(), config()]);
    world.on(0, |actor, cx| actor.dial(cx, Dial::to(address(1))));
    // It accepts, and ends each connection before it has said anything.
    for round in 1..=3 {
        assert!(world.run_until(20 * SECOND, |world| world.peers(1).len() == 1));
        let peer = world.peer(1);
        world.on(1, move |_, cx| cx.close(peer));
        world.run(100 * MILLI);
        assert_eq!(states(&world, 0).len(), usize::from(round == 3), "round {round}");
    }
    assert_eq!((dial_errors(&world, 0), world.count(0, Counter::BreakerOpened)), (vec![], 1));
    assert!(world.run_until(20 * SECOND, |world| world.peers(1).len() == 1));
    assert_eq!(states(&world, 0), [Open, HalfOpen]);
    // A silent application is alive all the same.
    world.run(nanos(world.nodes[0].config.keepalive.interval) + 100 * MILLI);
    assert_eq!((states(&world, 0), world.messages(0)), (vec![Open, HalfOpen, Closed], 0));
    end(&mut world);
}

/// Where it has the shorter interval, this side hears from it before it would ping it, and never does.
#[test]
fn sim_a_ping_of_the_other_side_is_proof_as_well() {
    let mut eager = config();
    eager.keepalive.interval = strict().keepalive.interval / 2;
    let mut world = world([strict(), eager]);
    world.nodes[1].listening = false;
    world.on(0, |actor, cx| actor.dial(cx, Dial::to(address(1))));
    assert!(world.run_until(20 * SECOND, |world| states(world, 0) == [Open]));
    world.nodes[1].listening = true;
    assert!(world.run_until(20 * SECOND, |world| world.peers(0).len() == 1));
    assert_eq!(states(&world, 0), [Open, HalfOpen]);
    world.run(nanos(world.nodes[1].config.keepalive.interval) + 100 * MILLI);
    assert_eq!((states(&world, 0), world.messages(0)), (vec![Open, HalfOpen, Closed], 0));
    world.run(60 * SECOND);
    assert_eq!((world.count(0, Counter::PingsSent), world.peers(0).len()), (0, 1));
    end(&mut world);
}

#[test]
fn sim_half_open_it_lets_so_many_probes_through_and_each_has_its_time() {
    let mut tight = strict();
    tight.breaker.probe_timeout = Duration::from_millis(300);
    tight.breaker.probes = 2;
    tight.breaker.max_cool_down = Duration::from_secs(1);
    tight.backoff.max = Duration::from_millis(50);
    let mut world = world([tight, config()]);
    world.nodes[1].listening = false;
    // Six channels of one target share its breaker.
    world.on(0, |actor, cx| (0..6).for_each(|channel| actor.dial(cx, Dial::to(address(1)).channel(channel))));
    world.run(500 * MILLI);
    assert_eq!((states(&world, 0), world.count(0, Counter::DialAttempts)), (vec![Open], 6));
    // Nobody answers any more, not even with a refusal.
    world.net.faults.lost_connect = 1000;
    assert!(world.run_until(SECOND, |world| states(world, 0).len() == 2));
    world.run(200 * MILLI);
    assert_eq!(world.count(0, Counter::DialAttempts), 8, "two probes, and the others wait");
    // Two failed before it opened, and had been told of an earlier attempt.
    assert_eq!(world.count(0, Counter::BreakerDelayed), 2 + 4);
    assert_eq!(dial_errors(&world, 0).iter().filter(|error| matches!(error, DialError::BreakerOpen { .. })).count(), 2 + 4);
    // One that is to be made once does not wait.
    world.on(0, |actor, cx| actor.dial(cx, Dial::to(address(1)).channel(9).once()));
    assert!(matches!(dial_errors(&world, 0).last(), Some(DialError::BreakerOpen { .. })));
    // Their time is up long before that of a connect.
    world.run(150 * MILLI);
    assert_eq!(states(&world, 0), [Open, HalfOpen, Open]);
    assert_eq!(dial_errors(&world, 0).iter().filter(|error| **error == DialError::Connect(std::io::ErrorKind::TimedOut)).count(), 2);
    // It is back: the probes' success lets the others through.
    (world.net.faults.lost_connect, world.nodes[1].listening) = (0, true);
    assert!(world.run_until(20 * SECOND, |world| !world.peers(1).is_empty()));
    let peers = world.peers(1);
    assert!(peers.len() <= 2);
    world.on(1, move |actor, cx| peers.iter().for_each(|&peer| assert!(actor.send(cx, peer, META, 10).is_ok())));
    world.run(200 * MILLI);
    assert_eq!((states(&world, 0).last(), world.peers(1).len()), (Some(&Closed), 6));
    end(&mut world);
}

#[test]
fn sim_a_probe_that_proves_itself_too_late_closes_the_breaker_all_the_same() {
    let mut tight = strict();
    tight.breaker.probe_timeout = Duration::from_millis(300);
    let mut world = world([tight, config()]);
    world.nodes[1].listening = false;
    (0..3).for_each(|_| assert_eq!(ask(&mut world, address(1)), Err(REFUSED)));
    world.nodes[1].listening = true;
    world.run(SECOND);
    let peer = ask(&mut world, address(1)).unwrap();
    world.run(400 * MILLI);
    assert_eq!((states(&world, 0), world.peers(0)), (vec![Open, HalfOpen, Open], vec![peer]));
    // The connection is there, whatever is thought of its target.
    assert_eq!(ask(&mut world, address(1)), Ok(peer));
    let back = world.peer(1);
    world.on(1, move |actor, cx| assert_eq!(actor.send(cx, back, META, 10), Ok(Sent::Queued)));
    world.run(100 * MILLI);
    assert_eq!(states(&world, 0), [Open, HalfOpen, Open, Closed]);
    end(&mut world);
}

#[test]
fn sim_local_errors_do_not_count() {
    // Not on our list: neither the dial nor the handshake.
    let mut listed = sealed(strict());
    listed.admission = Some(Admission::AllowList(vec![identity(0).node_id()]));
    let mut world = world([listed, sealed(config())]);
    for _ in 0..5 {
        world.on(0, |actor, cx| actor.dial(cx, Dial::node(identity(1).node_id(), address(1)).once()));
        assert_eq!(ask(&mut world, (identity(1).node_id(), address(1))), Err(DialError::NotAllowed));
        // Cancelled in the middle.
        world.on(0, |actor, cx| {
            actor.dial(cx, Dial::node(identity(0).node_id(), address(1)).once());
            cx.cancel_dial(actor.pop_dial().unwrap());
        });
    }
    world.run(SECOND);
    assert_eq!((states(&world, 0), world.count(0, Counter::BreakerTargets)), (vec![], 0));
    end(&mut world);
    // No descriptor, or no such source address, as the driver reports it; an unwanted node; and the application's own ends.
    let mut world = self::world([strict(), config()]);
    for kind in [std::io::ErrorKind::AddrNotAvailable, std::io::Error::from_raw_os_error(24).kind()] {
        world.nodes[1].listening = false;
        for _ in 0..5 {
            world.net.refusal = kind;
            assert_eq!(ask(&mut world, address(1)), Err(DialError::Connect(kind)));
        }
    }
    world.nodes[1].listening = true;
    for _ in 0..5 {
        let peer = ask(&mut world, address(1)).unwrap();
        world.on(0, move |_, cx| cx.close(peer));
        world.run(10 * MILLI);
    }
    assert_eq!((states(&world, 0), world.count(0, Counter::BreakerTargets)), (vec![], 0));
    end(&mut world);
}

#[test]
fn sim_what_is_held_against_a_target_expires() {
    let mut short = strict();
    short.breaker.expire = Duration::from_secs(10);
    short.breaker.targets = 2;
    let mut world = world([short]);
    for _ in 0..3 {
        // Each time it is the first.
        (0..2).for_each(|_| assert_eq!(ask(&mut world, address(9)), Err(REFUSED)));
        assert_eq!(world.count(0, Counter::BreakerTargets), 1);
        world.run(13 * SECOND);
        assert_eq!((world.count(0, Counter::BreakerTargets), world.count(0, Counter::Timers)), (0, 0));
    }
    assert_eq!(states(&world, 0), []);
    // The table has its bound.
    for node in 5..10 {
        assert_eq!(ask(&mut world, address(node)), Err(REFUSED));
    }
    assert_eq!((world.count(0, Counter::BreakerTargets), world.count(0, Counter::BreakerForgotten)), (2, 3));
    end(&mut world);
}

#[test]
fn sim_nodes_on_the_list_cool_down_no_longer_than_their_backoff() {
    let mut listed = sealed(strict());
    listed.admission = Some(Admission::AllowList(vec![identity(1).node_id()]));
    listed.backoff.max_allowed = Duration::from_millis(200);
    let mut world = world([listed]);
    world.on(0, |actor, cx| actor.dial(cx, Dial::node(identity(1).node_id(), address(1))));
    world.run(10 * SECOND);
    let attempts = world.count(0, Counter::DialAttempts);
    assert!(attempts > 40 && states(&world, 0).len() > 40, "{attempts} attempts");
    end(&mut world);
}

#[test]
fn sim_idle_connections_are_closed_and_pings_are_no_use() {
    let mut pinging = hasty();
    pinging.keepalive.interval = Duration::from_millis(300);
    let mut world = world([pinging, config()]);
    let peer = ask(&mut world, address(1)).unwrap();
    let begin = world.now;
    // In use: something goes, something comes, something is handed out.
    for step in 0..12 {
        world.run(SECOND);
        let other = world.peer(1);
        match step % 3 {
            0 => world.on(0, move |actor, cx| assert_eq!(actor.send(cx, peer, META, 10), Ok(Sent::Queued))),
            1 => world.on(1, move |actor, cx| assert_eq!(actor.send(cx, other, META, 10), Ok(Sent::Queued))),
            _ => assert_eq!(ask(&mut world, address(1)), Ok(peer)),
        }
    }
    assert_eq!((world.closed(0), world.peers(0)), (vec![], vec![peer]));
    let last = world.now;
    world.run(20 * SECOND);
    let closed = world.closed(0);
    assert_eq!(closed.iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), [CloseReason::Idle]);
    assert!((2 * SECOND..=2600 * MILLI).contains(&(closed[0].0 - last)), "{} ms", (closed[0].0 - last) / MILLI);
    assert!(begin < last && world.count(0, Counter::PingsSent) > 3, "it was pinged to the end");
    let counted = [Counter::ClosedIdle, Counter::PoolTargets, Counter::Timers].map(|counter| world.count(0, counter));
    assert_eq!(counted, [1, 0, 0]);
    // The next one who asks gets a new one.
    let again = ask(&mut world, address(1)).unwrap();
    assert!(again != peer && world.count(0, Counter::PoolMisses) == 2);
    end(&mut world);
}

#[test]
fn sim_what_waits_for_an_answer_or_has_subscribed_is_in_use() {
    let mut world = world([hasty(), config()]);
    let peer = ask(&mut world, address(1)).unwrap();
    world.run(10 * MILLI);
    // A request that is not answered.
    world.on(1, |actor, _| actor.mood.answer = [0, 0, 0]);
    let long = Duration::from_secs(10);
    world.on(0, move |actor, cx| _ = actor.request(cx, peer, META, 100, long));
    world.run(9 * SECOND);
    assert_eq!(world.closed(0), []);
    world.run(SECOND);
    world.on(0, move |_, cx| assert_eq!(cx.subscribe(peer, Topic(1)), Ok(())));
    world.run(20 * SECOND);
    assert_eq!(world.closed(0), []);
    world.on(0, move |_, cx| assert_eq!(cx.unsubscribe(peer, Topic(1)), Ok(())));
    world.run(4 * SECOND);
    assert_eq!(world.closed(0).len(), 1);
    end(&mut world);
}

#[test]
fn sim_who_asks_while_an_idle_connection_is_closed_gets_a_new_one_after_it() {
    let mut world = world([hasty(), config()]);
    let peer = ask(&mut world, address(1)).unwrap();
    assert!(world.run_until(5 * SECOND, |world| world.closed(0).len() == 1));
    let again = ask(&mut world, address(1)).unwrap();
    assert!(again != peer && world.peers(0) == [again]);
    assert_eq!(world.count(0, Counter::PoolMisses), 2);
    end(&mut world);
}

#[test]
fn sim_a_pinned_target_stays_connected_and_is_dialled_again_until_it_is_unpinned() {
    for encrypted in [false, true] {
        let make = |config: Config| if encrypted { sealed(config) } else { config };
        let mut keen = make(hasty());
        keen.backoff.max = Duration::from_millis(200);
        keen.breaker.cool_down = Duration::from_millis(100);
        let mut world = world([keen, make(config())]);
        let target = Endpoint::from(&dial_to(&world.nodes[0].config, 1));
        pin(&mut world, &target);
        world.run(30 * SECOND);
        assert_eq!((answers(&world, 0), world.closed(0)), (vec![Ok(world.peer(0))], vec![]));
        // However it ends, it comes back.
        for round in 0..4 {
            let (mine, theirs) = (world.peer(0), world.peer(1));
            match round % 2 {
                0 => world.on(1, move |_, cx| cx.close(theirs)),
                _ => world.on(0, move |_, cx| cx.close(mine)),
            }
            world.run(4 * SECOND);
            assert_ne!(world.peer(0), mine);
        }
        // Also after a long time in which nobody listens.
        world.nodes[1].listening = false;
        let theirs = world.peer(1);
        world.on(1, move |_, cx| cx.close(theirs));
        world.run(20 * SECOND);
        assert!(world.peers(0).is_empty() && world.count(0, Counter::BreakerOpened) > 0);
        world.nodes[1].listening = true;
        world.run(35 * SECOND);
        let peer = world.peer(0);
        assert_eq!(ask(&mut world, &target), Ok(peer));
        world.on(0, move |actor, cx| {
            assert_eq!(actor.unpin_all(cx), 0);
        });
        world.run(10 * SECOND);
        assert_eq!((world.peers(0), world.closed(0).last().map(|(_, reason)| *reason)), (vec![], Some(CloseReason::Idle)));
        let attempts = world.count(0, Counter::DialAttempts);
        world.run(60 * SECOND);
        assert_eq!((world.count(0, Counter::DialAttempts), world.count(0, Counter::PoolTargets)), (attempts, 0));
        end(&mut world);
    }
}

#[test]
fn sim_what_cannot_be_pinned_is_not() {
    let mut listed = sealed(config());
    listed.admission = Some(Admission::AllowList(vec![identity(1).node_id()]));
    let mut world = world([listed, sealed(config())]);
    pin(&mut world, (identity(2).node_id(), address(2)));
    pin(&mut world, address(1));
    // Of this one it is not known where it is; but if it comes, it stays.
    pin(&mut world, identity(1).node_id());
    world.run(SECOND);
    assert_eq!(answers(&world, 0), [Err(DialError::NotAllowed), Err(DialError::NodeRequired), Err(DialError::NoAddress)]);
    assert_eq!((world.count(0, Counter::PoolTargets), world.count(0, Counter::PoolRefused)), (1, 2));
    // One that is taken off the list is not dialled any more.
    pin(&mut world, (identity(1).node_id(), address(1)));
    world.run(SECOND);
    assert_eq!(world.peers(0).len(), 1);
    world.disallow(0, 1);
    world.run(5 * SECOND);
    assert_eq!((world.peers(0).len(), world.count(0, Counter::PoolTargets)), (0, 0));
    end(&mut world);
}

#[test]
fn sim_one_more_channel_is_opened_when_all_that_there_are_have_much_to_receive_and_they_take_turns() {
    let mut wide = hasty();
    wide.pool.max_channels = 3;
    wide.limits.outbox_soft = 50_000;
    let mut world = world([wide, config()]);
    world.net.faults.capacity = (10_000, 10_000);
    let first = ask(&mut world, address(1)).unwrap();
    (0..10).for_each(|_| assert_eq!(ask(&mut world, address(1)), Ok(first)));
    world.run(10 * MILLI);
    // Its reader stops, and it has more than enough.
    let stop = |world: &mut World| {
        for peer in world.peers(1) {
            world.on(1, move |_, cx| cx.pause_read(peer));
        }
    };
    let fill = move |world: &mut World, peer: PeerId| {
        world.on(0, move |actor, cx| assert_eq!(actor.send(cx, peer, META, 200_000), Ok(Sent::Backpressure)));
    };
    stop(&mut world);
    fill(&mut world, first);
    assert_eq!(ask(&mut world, address(1)), Ok(first), "what there is, at once");
    world.run(100 * MILLI);
    let second = ask(&mut world, address(1)).unwrap();
    assert!(second != first && world.peers(0).len() == 2);
    (0..5).for_each(|_| assert_eq!(ask(&mut world, address(1)), Ok(second), "the other has much to receive"));
    stop(&mut world);
    fill(&mut world, second);
    (0..2).for_each(|_| _ = ask(&mut world, address(1)));
    world.run(100 * MILLI);
    assert_eq!(world.peers(0).len(), 3);
    let third = ask(&mut world, address(1)).unwrap();
    assert!(third != first && third != second);
    fill(&mut world, third);
    stop(&mut world);
    // No more than three; now they take turns.
    let turns: Vec<PeerId> = (0..6).map(|_| ask(&mut world, address(1)).unwrap()).collect();
    world.run(100 * MILLI);
    assert_eq!((world.peers(0).len(), world.count(0, Counter::DialAttempts)), (3, 3));
    assert!(turns[..3] == turns[3..] && (0..3).all(|at| turns[at] != turns[(at + 1) % 3]), "{turns:?}");
    // They are read on, drained, and idle out.
    for peer in world.peers(1) {
        world.on(1, move |actor, cx| actor.resume(cx, peer));
    }
    world.run(30 * SECOND);
    assert_eq!((world.peers(0).len(), world.count(0, Counter::ClosedIdle)), (0, 3));
    end(&mut world);
}

#[test]
fn sim_the_pool_has_so_many_targets_and_the_one_asked_for_longest_ago_gives_way() {
    let mut small = config();
    small.pool.max_targets = 2;
    let mut world = world([small, config(), config(), config(), config()]);
    let target = |node: usize| -> SocketAddr { address(node) };
    let first = ask(&mut world, target(1)).unwrap();
    let second = ask(&mut world, target(2)).unwrap();
    assert_eq!(ask(&mut world, target(1)), Ok(first));
    let third = ask(&mut world, target(3)).unwrap();
    world.run(100 * MILLI);
    assert_eq!(world.closed(0).iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), [CloseReason::Idle]);
    assert_eq!((world.peers(0), world.count(0, Counter::PoolEvicted)), (vec![first, third], 1));
    assert!(!world.peers(0).contains(&second));
    // Neither what is pinned nor what is being dialled gives way.
    pin(&mut world, target(1));
    pin(&mut world, target(3));
    world.run(10 * MILLI);
    assert_eq!(ask(&mut world, target(4)), Err(DialError::PoolFull));
    assert_eq!((world.count(0, Counter::PoolRefused), world.count(0, Counter::PoolTargets)), (1, 2));
    end(&mut world);
}

#[test]
fn sim_both_sides_may_connect_at_the_same_time() {
    for first in [0, 1] {
        let mut world = world([sealed(hasty()), sealed(hasty())]);
        for node in [first, 1 - first] {
            let target = Endpoint::from(&dial_to(&world.nodes[node].config, 1 - node));
            world.task(node, 0, move |actor, cx| assert!(actor.connect(cx, target, false).is_ok()));
        }
        world.run(SECOND);
        assert_eq!((answers(&world, 0), answers(&world, 1)), (vec![Ok(world.peer(0))], vec![Ok(world.peer(1))]));
        // It is idle for whichever side has dialled it.
        world.run(10 * SECOND);
        assert!(world.peers(0).is_empty() && world.peers(1).is_empty());
        end(&mut world);
    }
}

#[test]
fn sim_an_address_that_is_a_node_that_has_dialled_is_its_connection_or_a_duplicate() {
    // In plaintext, by the address alone, nobody knows who will answer there.
    for smaller in [true, false] {
        let mut world = world([named(if smaller { 1 } else { 3 }), named(2)]);
        world.dial(1, 0);
        world.run(SECOND);
        let before = world.peer(0);
        let answer = ask(&mut world, address(1));
        world.run(SECOND);
        let peer = world.peer(0);
        if smaller {
            // What the smaller one has dialled takes the other's place.
            assert!(answer == Ok(peer) && peer != before);
        } else {
            assert_eq!((answer, peer), (Err(DialError::Duplicate), before));
            assert_eq!(world.count(0, Counter::DialAttempts), 5, "it might have been on its way");
        }
        assert_eq!(ask(&mut world, NodeId([2; 32])), Ok(peer), "by its name it is known");
        end(&mut world);
    }
}

#[test]
fn sim_a_shutdown_answers_whoever_waits() {
    let mut world = world([config().cores(Cores::Unpinned(2))]);
    world.net.faults.lost_connect = 1000;
    for core in [0, 1] {
        world.task(0, core, |actor, cx| assert!(actor.connect(cx, address(1), false).is_ok()));
    }
    pin(&mut world, address(2));
    world.run(100 * MILLI);
    assert_eq!(answers(&world, 0), []);
    end(&mut world);
    assert_eq!(answers(&world, 0), [Err(DialError::ShuttingDown); 3]);
}

#[test]
fn sim_a_dial_of_the_same_node_that_fails_elsewhere_is_no_answer() {
    let mut world = world([sealed(config()), sealed(config())]);
    let node = identity(1).node_id();
    // Nobody is there, which is known before the handshake at the right address is over.
    world.on(0, move |actor, cx| actor.dial(cx, Dial::node(node, address(7)).once()));
    let peer = ask(&mut world, (node, address(1))).unwrap();
    assert_eq!(world.peers(0), [peer]);
    assert_eq!(world.count(0, Counter::DialFailures), 1);
    // Nor is that it is taken back.
    world.on(0, move |_, cx| cx.close(peer));
    world.run(SECOND);
    world.on(0, move |actor, cx| {
        actor.dial(cx, Dial::node(node, address(7)));
        assert!(actor.connect(cx, (node, address(1)), false).is_ok());
        cx.cancel_dial(actor.pop_dial().unwrap());
    });
    assert!(world.run_until(10 * SECOND, |world| answers(world, 0).len() == 2));
    assert_eq!(answers(&world, 0)[1], Ok(world.peer(0)));
    end(&mut world);
}
