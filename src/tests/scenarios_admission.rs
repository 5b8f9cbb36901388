//! Short stories of who may be a peer: what the handler wants, the list, the addresses, and two nodes that dial each other.

use super::actor::Mood;
use super::oracle::Told;
use super::pace::Pace;
use super::pipe::{End, Faults, Read};
use super::scenarios::{config, named, world};
use super::sim::{MILLI, SECOND, World, address};
use crate::config::Cores;
use crate::dial::Dial;
use crate::error::DialError;
use crate::handler::Direction;
use crate::id::NodeId;
use crate::metrics::Counter;

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
        evicted += world.count(0, Counter::HalfOpenEvicted);
        ends.iter().for_each(|end| world.net.close(world.now, *end));
        world.run(30 * SECOND);
        world.check_baseline();
    }
    assert!(evicted > 300, "{evicted}");
}
