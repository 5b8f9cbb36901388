//! Short stories of who may be a peer: what the handler wants, the list, the addresses, and two nodes that dial each other.

use super::oracle::Told;
use super::scenarios::{named, world};
use super::sim::{SECOND, World, address};
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
