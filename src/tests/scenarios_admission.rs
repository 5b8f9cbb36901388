//! Short stories of who may be a peer: what the handler wants, the list, the addresses, and two nodes that dial each other.

use std::time::Duration;

use super::actor::Mood;
use super::keys::{dial_to, identity};
use super::oracle::Told;
use super::pace::Pace;
use super::pipe::{End, Faults, Read};
use super::scenarios::{META, config, named, raw_name, world};
use super::sim::{MILLI, SECOND, World, address};
use crate::config::{Admission, Config, Cores, Noise, Security};
use crate::dial::Dial;
use crate::error::{CloseReason, DialError};
use crate::handler::Direction;
use crate::id::NodeId;
use crate::metrics::Counter;
use crate::shard::Control;
use crate::wire::GoodbyeCode;

fn asked(world: &World, node: usize) -> Vec<(NodeId, Direction)> {
    let asked = |told: &Told| if let Told::Asked { node, direction } = told { Some((*node, *direction)) } else { None };
    world.told(node, asked).into_iter().map(|(_, asked)| asked).collect()
}

fn dial_errors(world: &World, node: usize) -> Vec<DialError> {
    let failed = |told: &Told| if let Told::DialFailed { error, .. } = told { Some(*error) } else { None };
    world.told(node, failed).into_iter().map(|(_, error)| error).collect()
}

#[test]
fn sim_the_handler_is_asked_once_on_either_side_and_refuses_before_anything_else_is_told() {
    let (dialler, acceptor) = (NodeId([1; 32]), NodeId([2; 32]));
    for unwilling in 0..3 {
        let mut world = world([named(1), named(2)]);
        // Nobody, the acceptor or the dialler does not want the other.
        match unwilling {
            1 => world.on(1, move |actor, _| actor.unwanted.push(dialler)),
            2 => world.on(0, move |actor, _| actor.unwanted.push(acceptor)),
            _ => {}
        }
        world.on(0, |actor, cx| actor.dial(cx, Dial::to(address(1)).once()));
        world.run(10 * SECOND);
        assert_eq!(asked(&world, 1), [(dialler, Direction::Accepted)], "{unwilling}");
        // A dialler that was refused never hears who that was.
        let by_dialler = if unwilling == 1 { vec![] } else { vec![(acceptor, Direction::Dialled)] };
        assert_eq!(asked(&world, 0), by_dialler, "{unwilling}");
        let refused = [world.count(0, Counter::HandshakeNotAllowed), world.count(1, Counter::HandshakeNotAllowed)];
        let (open, errors, counted) = match unwilling {
            0 => (1, vec![], [0, 0]),
            1 => (0, vec![DialError::NotAllowed], [0, 1]),
            _ => (0, vec![DialError::NotAllowed], [1, 0]),
        };
        assert_eq!((world.peers(0).len(), world.peers(1).len()), (open, open), "{unwilling}");
        assert_eq!((dial_errors(&world, 0), refused), (errors, counted), "{unwilling}");
        assert_eq!((world.count(0, Counter::HalfOpen), world.count(1, Counter::HalfOpen)), (0, 0));
        if unwilling > 0 {
            let others =
                |node| world.told(node, |told| (!matches!(told, Told::Asked { .. } | Told::DialFailed { .. })).then_some(())).len();
            assert_eq!((others(0), others(1)), (0, 0), "the application hears nothing else");
        }
    }
}

#[test]
fn sim_the_oldest_stranger_gives_way_to_a_newer_one_and_a_peer_does_not() {
    let mut guarded = config().cores(Cores::Unpinned(2));
    guarded.addresses.exempt = Vec::new();
    guarded.limits.max_half_open = 3;
    let mut world = world([guarded]);
    // All from one subnet, and on both cores.
    let (peer, _) = world.raw_peer(0);
    let strangers: Vec<End> = (0..6)
        .map(|_| {
            let end = world.net.connect(world.now, 0);
            world.run(10 * MILLI);
            end
        })
        .collect();
    let is_closed = |world: &mut World, end| matches!(world.net.read(world.now, end, 1), Read::Eof);
    let closed: Vec<bool> = strangers.iter().map(|end| is_closed(&mut world, *end)).collect();
    assert_eq!(closed, [true, true, true, false, false, false]);
    assert_eq!((world.count(0, Counter::HalfOpenEvicted), world.count(0, Counter::RefusedHalfOpen)), (3, 0));
    // Whoever gets on with it gets in.
    let (newcomer, _) = world.raw_peer(0);
    assert_eq!((world.count(0, Counter::HalfOpenEvicted), world.count(0, Counter::HalfOpen)), (4, 2));
    assert!(!is_closed(&mut world, peer) && !is_closed(&mut world, newcomer));
    assert_eq!(world.peers(0).len(), 2);
    world.run(20 * SECOND);
    assert_eq!((world.count(0, Counter::HandshakeTimeout), world.count(0, Counter::HalfOpen)), (2, 0));
}

#[test]
fn sim_one_that_gives_way_while_the_directory_is_asked_leaves_nothing() {
    let mut guarded = config().cores(Cores::Unpinned(2));
    guarded.addresses.exempt = Vec::new();
    guarded.limits.max_half_open = 1;
    let mut evicted = 0;
    for seed in 0..200 {
        let mut world = World::new(seed, Faults::none(), Pace { mail: 5 * MILLI, ..Pace::prompt() });
        world.add_node(guarded.clone(), &Mood::quiet());
        let ends: Vec<End> = (0..4)
            .map(|link| {
                world.run(world.rng.clone().below(8 * MILLI));
                world.connect_as(0, link, 1)
            })
            .collect();
        world.run(SECOND);
        assert!(world.count(0, Counter::HalfOpen) <= 1, "seed {seed}");
        evicted += world.count(0, Counter::HalfOpenEvicted);
        ends.iter().for_each(|end| world.net.close(world.now, *end));
        world.run(30 * SECOND);
        world.check_baseline();
    }
    assert!(evicted > 300, "{evicted}");
}

/// Encrypted, with the key that the simulator gives each node.
fn secure() -> Config {
    Config { security: Security::Noise(Noise::new(identity(0))), ..config() }
}

/// The same, and only these nodes may be peers.
fn listing(nodes: &[usize]) -> Config {
    let list = nodes.iter().map(|&node| identity(node).node_id()).collect();
    Config { admission: Some(Admission::AllowList(list)), ..secure() }
}

impl World {
    pub(super) fn allow(&mut self, node: usize, other: usize) {
        assert!(self.nodes[node].shared.listed.reserve());
        self.control(node, 0, Control::Allow { node: identity(other).node_id() });
    }

    pub(super) fn disallow(&mut self, node: usize, other: usize) {
        self.control(node, 0, Control::Disallow { node: identity(other).node_id() });
    }

    fn reasons(&self, node: usize) -> Vec<CloseReason> {
        self.closed(node).into_iter().map(|(_, reason)| reason).collect()
    }

    /// How the dials of a node have failed, and whether they go on.
    fn failures(&self, node: usize) -> Vec<(DialError, bool)> {
        let failed = |told: &Told| if let Told::DialFailed { error, retry_in } = told { Some((*error, retry_in.is_some())) } else { None };
        self.told(node, failed).into_iter().map(|(_, failed)| failed).collect()
    }
}

#[test]
fn sim_who_is_taken_off_the_list_is_cut_at_once_and_stays_out_until_he_is_on_it_again() {
    let mut world = world([listing(&[1, 2]).cores(Cores::Unpinned(2)), secure(), secure(), secure()]);
    for other in 1..4 {
        world.dial(other, 0);
    }
    world.run(SECOND);
    assert_eq!([0, 1, 2, 3].map(|node| world.peers(node).len()), [2, 1, 1, 0]);
    assert!(world.count(0, Counter::HandshakeNotAllowed) >= 1);
    assert_eq!(world.failures(3)[0], (DialError::NotAllowed, true));
    let stays = world.peer(2);
    world.disallow(0, 1);
    let begin = world.now;
    assert!(world.run_until(SECOND, |world| world.peers(1).is_empty()), "cut within a second");
    assert_eq!((world.reasons(0), world.closed(0)[0].0 - begin < 10 * MILLI), (vec![CloseReason::NotAllowed], true));
    assert_eq!(world.reasons(1), [CloseReason::Goodbye(GoodbyeCode::NotAllowed)]);
    // It goes on dialling, in vain, and nobody else is disturbed.
    let refused = world.count(0, Counter::HandshakeNotAllowed);
    world.run(60 * SECOND);
    assert_eq!((world.peers(0).len(), world.peer(2), world.count(0, Counter::ClosedNotAllowed)), (1, stays, 1));
    assert!(world.count(0, Counter::HandshakeNotAllowed) > refused + 2);
    assert!(world.failures(1).iter().all(|failure| *failure == (DialError::NotAllowed, true)));
    world.allow(0, 1);
    world.run(40 * SECOND);
    assert_eq!([0, 1, 2, 3].map(|node| world.peers(node).len()), [2, 1, 1, 0]);
}

#[test]
fn sim_dials_to_who_is_not_on_the_list_fail_and_those_to_who_is_taken_off_end() {
    // Node 2 does not listen; connecting to it is under way, or the next attempt is waited for.
    for (target, after) in [(1, SECOND), (2, 0), (2, 300 * MILLI)] {
        let mut world = world([listing(&[1, 2]), secure(), secure(), secure()]);
        world.net.faults.latency = (20 * MILLI, 20 * MILLI);
        world.nodes[2].listening = false;
        world.dial(0, 3);
        world.run(SECOND);
        assert_eq!(world.failures(0), [(DialError::NotAllowed, false)]);
        assert_eq!(world.count(0, Counter::DialAttempts), 0);
        world.dial(0, target);
        world.run(after);
        world.run_until(SECOND, |world| target == 1 || after == 0 || world.count(0, Counter::HalfOpen) == 0);
        world.disallow(0, target);
        world.run(5 * MILLI);
        let (attempts, failed) = (world.count(0, Counter::DialAttempts), world.failures(0));
        assert_eq!(failed.last(), Some(&(DialError::NotAllowed, false)), "{target} after {after}");
        assert_eq!(failed.iter().filter(|(_, goes_on)| !goes_on).count(), 2, "once");
        assert_eq!((world.peers(0), world.count(0, Counter::HalfOpen)), (vec![], 0));
        world.run(60 * SECOND);
        assert_eq!(world.count(0, Counter::DialAttempts), attempts, "nobody dials any more");
        world.shut_down(0);
        world.shut_down(1);
        world.run(10 * SECOND);
        world.check_baseline();
    }
}

#[test]
fn sim_a_node_is_taken_off_the_list_at_any_moment_and_nothing_is_left_of_it() {
    let (mut cut, mut refused) = (0, 0);
    for seed in 0..150 {
        let faults = Faults { latency: (MILLI, 3 * MILLI), ..Faults::none() };
        let mut world = World::new(seed, faults, Pace { mail: 4 * MILLI, ..Pace::prompt() });
        world.oracle.borrow_mut().records_told = true;
        world.add_node(listing(&[1]).cores(Cores::Unpinned(3)), &Mood::quiet());
        world.add_node(secure().cores(Cores::Unpinned(2)), &Mood::quiet());
        // From both sides, on two channels, so that some replace each other and some wait for the end of another.
        for channel in 0..2 {
            let dials = [dial_to(&world.nodes[0].config, 1), dial_to(&world.nodes[0].config, 0)];
            for (node, dial) in dials.into_iter().enumerate() {
                world.task(node, 0, move |actor, cx| actor.dial(cx, dial.channel(channel)));
            }
        }
        world.run(world.rng.clone().below(60 * MILLI));
        world.disallow(0, 1);
        world.run(SECOND);
        assert_eq!((world.peers(0), world.peers(1)), (vec![], vec![]), "seed {seed}");
        let ended = world.failures(0).into_iter().filter(|(_, goes_on)| !goes_on).count();
        assert_eq!(ended, 2, "seed {seed}: both dials have ended");
        cut += world.count(0, Counter::ClosedNotAllowed);
        refused += world.count(0, Counter::HandshakeNotAllowed);
        for node in 0..2 {
            world.shut_down(node);
        }
        world.run(20 * SECOND);
        world.oracle.borrow().check_end();
        world.check_baseline();
    }
    assert!(cut > 100 && refused > 100, "{cut} cut, {refused} refused");
}

#[test]
fn sim_what_a_closing_peer_is_still_owed_is_not_sent_to_who_is_taken_off_the_list() {
    for taken_off in [false, true] {
        // In plaintext, so that the test can be the peer. No engine would be started with that.
        let name = raw_name(0);
        let mut world = world([Config { admission: Some(Admission::AllowList(vec![name])), ..config() }]);
        world.net.faults.capacity = (10_000, 10_000);
        let (end, peer) = world.raw_peer(0);
        world.on(0, move |actor, cx| {
            assert!(actor.send(cx, peer, META, 100_000).is_ok());
            cx.close(peer);
        });
        world.run(100 * MILLI);
        if taken_off {
            world.control(0, 0, Control::Disallow { node: name });
        }
        let mut got = 0;
        for _ in 0..400 {
            world.run(MILLI);
            got += world.raw_read(end).len();
        }
        assert_eq!(got > 100_000, !taken_off, "{got} bytes");
        assert_eq!((world.reasons(0), world.count(0, Counter::ClosedNotAllowed)), (vec![CloseReason::Requested], 0));
        let is_over = matches!(world.net.read(world.now, end, 1), Read::Eof | Read::Failed(_));
        assert!(is_over, "{taken_off}");
    }
}

#[test]
fn sim_who_is_on_the_list_is_dialled_more_often() {
    let attempts = |config: Config| {
        let mut world = world([config, secure()]);
        world.nodes[1].listening = false;
        world.dial(0, 1);
        world.run(120 * SECOND);
        world.count(0, Counter::DialAttempts)
    };
    let (listed, open) = (attempts(listing(&[1])), attempts(secure()));
    // Half a second and half a minute on the average, once the wait has grown.
    assert!((150..400).contains(&listed) && (8..40).contains(&open), "{listed} {open}");
}

#[test]
fn sim_dials_that_cannot_lead_anywhere_fail_before_anything_is_tried() {
    let other = identity(7);
    let own = NodeId([1; 32]);
    let cases = [
        (secure(), Dial::to(address(1)), DialError::NodeRequired),
        (secure(), Dial::node(identity(0).node_id(), address(1)), DialError::SelfConnection),
        (secure(), Dial::node(other.node_id(), address(1)).identity(other.clone()), DialError::SelfConnection),
        (named(1), Dial::node(own, address(1)), DialError::SelfConnection),
        (listing(&[1]), Dial::node(other.node_id(), address(1)), DialError::NotAllowed),
        (listing(&[0]), Dial::node(identity(0).node_id(), address(1)), DialError::SelfConnection),
    ];
    for (config, dial, error) in cases {
        let mut world = world([config, secure()]);
        world.on(0, move |actor, cx| actor.dial(cx, dial));
        world.run(SECOND);
        assert_eq!((world.failures(0), world.count(0, Counter::DialAttempts)), (vec![(error, false)], 0));
    }
}

#[test]
fn sim_one_engine_may_be_several_nodes_to_another() {
    let mut world = world([secure(), secure()]);
    let target = dial_to(&world.nodes[0].config, 1);
    for name in [8, 9] {
        let dial = target.clone().identity(identity(name));
        world.on(0, move |actor, cx| actor.dial(cx, dial));
    }
    world.dial(0, 1);
    // The same once more is a duplicate, whatever the name.
    for dial in [target.clone(), target.identity(identity(9))] {
        world.on(0, move |actor, cx| actor.dial(cx, dial));
    }
    world.run(SECOND);
    let named = |told: &Told| if let Told::Connected { info } = told { Some(info.node) } else { None };
    let mut names: Vec<_> = world.told(1, named).into_iter().map(|(_, name)| name).collect();
    let mut expected = [0, 8, 9].map(|name| identity(name).node_id());
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!((names, world.peers(0).len()), (expected.to_vec(), 3));
    assert_eq!(world.failures(0), [(DialError::Duplicate, false); 2]);
}

/// The directions in which two nodes have their connections on some channels, after both have dialled the other on each of them at about
/// the same time. Exactly one for each, and the same on both sides.
fn dial_each_other(seed: u64, configs: [Config; 2], channels: u16, once: bool, apart: Duration) -> Vec<Direction> {
    let faults = Faults { latency: (MILLI, 1 + seed % 20 * MILLI + MILLI), ..Faults::none() };
    let mut world = World::new(seed, faults, Pace { mail: (1 + seed % 7) * MILLI, ..Pace::prompt() });
    world.oracle.borrow_mut().records_told = true;
    for config in configs {
        world.add_node(config, &Mood::quiet());
    }
    let dials = [1, 0].map(|target| dial_to(&world.nodes[0].config, target));
    for channel in 0..channels {
        for (node, dial) in dials.iter().enumerate() {
            let dial = if once { dial.clone().once() } else { dial.clone() };
            let after = if apart.is_zero() { 0 } else { world.rng.below(apart.as_nanos() as u64) };
            world.task_in(after, node, 0, move |actor, cx| actor.dial(cx, dial.channel(channel)));
        }
    }
    world.run(20 * SECOND);
    assert_eq!((world.peers(0).len(), world.peers(1).len()), (channels.into(), channels.into()), "seed {seed}");
    // One for each node and channel, and each is the same connection on both sides.
    world.oracle.borrow().check_agreement();
    let mut last = vec![Direction::Dialled; channels.into()];
    let connected = |told: &Told| if let Told::Connected { info } = told { Some((info.channel, info.direction)) } else { None };
    for (_, (channel, direction)) in world.told(0, connected) {
        last[usize::from(channel)] = direction;
    }
    last
}

#[test]
fn sim_two_that_dial_each_other_at_once_have_one_connection_and_the_smaller_has_dialled_it() {
    for seed in 0..200 {
        let cores = Cores::Unpinned(1 + seed as usize % 3);
        let (small, large) = (named(1).cores(cores.clone()), named(2).cores(cores.clone()));
        let (first, configs) = if seed % 2 == 0 { (Direction::Dialled, [small, large]) } else { (Direction::Accepted, [large, small]) };
        for once in [false, true] {
            // At the very same instant, and while the other's is in any stage.
            for apart in [Duration::ZERO, Duration::from_millis(80)] {
                assert_eq!(dial_each_other(seed, configs.clone(), 3, once, apart), [first; 3], "seed {seed}, {once}, {apart:?}");
            }
        }
        // Encrypted, the order of what the two say is another one.
        let secure = secure().cores(cores);
        let first = if identity(0).node_id() < identity(1).node_id() { Direction::Dialled } else { Direction::Accepted };
        for apart in [Duration::ZERO, Duration::from_millis(80)] {
            let found = dial_each_other(seed, [secure.clone(), secure.clone()], 2, seed % 4 < 2, apart);
            assert_eq!(found, [first; 2], "seed {seed}, {apart:?}");
        }
    }
}
