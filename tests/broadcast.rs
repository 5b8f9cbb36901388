//! One message for everybody.
//!
//! Set-up: forty peers written by hand on one core and on four, and broadcasts from handles and from handlers, on every core, alone,
//! in batches, and with one peer left out. Claim: everybody who is meant gets everything, once, in the order in which it was sent,
//! also between broadcasts and direct sends; and where one core has no room, nobody gets anything and the frame comes back.

mod common;

use common::node::Node;
use common::raw::{Hello, Raw};
use common::{NEVER, loopback};
use corecast::{Config, Cores, Counter, Frame, Lane, Meta, PeerId, SendError};

const PEERS: u32 = 40;

fn config(cores: usize) -> Config {
    let mut config = loopback().cores(Cores::Unpinned(cores));
    config.keepalive.interval = NEVER;
    config.keepalive.timeout = 2 * NEVER;
    config
}

struct Crowd {
    node: Node,
    peers: Vec<(Raw, PeerId)>,
}

impl Crowd {
    fn gather(config: Config, peers: u32) -> Self {
        let cores = config.cores.clone();
        let mut node = Node::report(config);
        let peers: Vec<_> = (0..peers).map(|number| node.raw_peer(Hello::node(number))).collect();
        if let Cores::Unpinned(cores) = cores {
            for core in 0..cores {
                let here = peers.iter().filter(|(_, peer)| peer.core() == core).count();
                assert_eq!(here, peers.len() / cores, "core {core} has its share of the peers");
            }
        }
        Self { node, peers }
    }

    fn frame(&self, number: u32) -> Frame {
        self.node.handle().frame(1, &body(number)).unwrap()
    }

    /// Everybody finds these next, and nothing else before them.
    fn expect(&mut self, numbers: impl Iterator<Item = u32> + Clone) {
        for (raw, _) in &mut self.peers {
            numbers.clone().for_each(|number| raw.expect_data(1, &body(number)));
        }
    }

    /// Nobody has anything left to read: the next thing that everybody gets is this.
    fn expect_nothing_but_a_marker(&mut self) {
        let marker = self.node.handle().frame(77, b"marker").unwrap();
        self.node.handle().broadcast(marker).unwrap();
        self.peers.iter_mut().for_each(|(raw, _)| raw.expect_data(77, b"marker"));
    }

    fn leave(self) {
        drop(self.peers);
        self.node.finish();
    }
}

/// Some small, some over a fragment.
fn body(number: u32) -> Vec<u8> {
    let len = if number % 50 == 49 { 40_000 } else { number as usize % 300 };
    [&number.to_le_bytes()[..], &vec![number as u8; len]].concat()
}

#[test]
fn everybody_gets_every_broadcast_of_a_handle_once_and_in_order() {
    for cores in [1, 4] {
        let mut crowd = Crowd::gather(config(cores), PEERS);
        (0..200).for_each(|number| crowd.node.handle().broadcast(crowd.frame(number)).unwrap());
        crowd.expect(0..200);
        crowd.expect_nothing_but_a_marker();
        crowd.node.counts(Counter::Broadcasts, 201 * cores as u64);
        crowd.node.counts(Counter::MessagesSent, 201 * u64::from(PEERS));
        crowd.leave();
    }
}

#[test]
fn everybody_gets_every_broadcast_of_a_handler_from_whatever_core() {
    for cores in [1, 4] {
        let mut crowd = Crowd::gather(config(cores), PEERS);
        for core in 0..cores {
            let range = core as u32 * 100..(core as u32 + 1) * 100;
            let frames: Vec<_> = range.clone().map(|number| crowd.frame(number)).collect();
            crowd.node.run(core, move |cx| frames.iter().try_for_each(|frame| cx.broadcast(frame))).unwrap();
            crowd.expect(range);
        }
        crowd.expect_nothing_but_a_marker();
        crowd.leave();
    }
}

#[test]
fn a_batch_is_the_same_as_its_messages() {
    for cores in [1, 4] {
        let mut crowd = Crowd::gather(config(cores), PEERS);
        let batch: Vec<_> = (0..60).map(|number| crowd.frame(number)).collect();
        crowd.node.handle().broadcast_batch(batch).unwrap();
        crowd.expect(0..60);
        let batch: Vec<_> = (60..120).map(|number| crowd.frame(number)).collect();
        crowd.node.run(cores - 1, move |cx| cx.broadcast_batch(&batch)).unwrap();
        crowd.expect(60..120);
        crowd.node.handle().broadcast_batch(Vec::new()).unwrap();
        crowd.expect_nothing_but_a_marker();
        crowd.leave();
    }
}

#[test]
fn the_excepted_peer_gets_all_but_the_exceptions() {
    for cores in [1, 4] {
        let mut crowd = Crowd::gather(config(cores), PEERS);
        let excepted = crowd.peers.last().unwrap().1;
        for number in 0..100 {
            let frame = crowd.frame(number);
            match number % 4 {
                0 => crowd.node.handle().broadcast(frame).unwrap(),
                1 => crowd.node.handle().broadcast_except(frame, excepted).unwrap(),
                // From its own core and from another: what the same sender sends keeps its order.
                2 => crowd.node.run(excepted.core(), move |cx| cx.broadcast_except(&frame, excepted)).unwrap(),
                _ => crowd.node.run(excepted.core(), move |cx| cx.broadcast(&frame)).unwrap(),
            }
            for (raw, peer) in &mut crowd.peers {
                if *peer != excepted || number % 4 == 0 || number % 4 == 3 {
                    raw.expect_data(1, &body(number));
                }
            }
        }
        let frame = crowd.frame(7);
        crowd.node.run(0, move |cx| cx.broadcast_except(&frame, excepted)).unwrap();
        for (raw, peer) in &mut crowd.peers {
            if *peer != excepted {
                raw.expect_data(1, &body(7));
            }
        }
        crowd.expect_nothing_but_a_marker();
        crowd.leave();
    }
}

#[test]
fn broadcasts_and_direct_sends_of_one_sender_keep_their_order() {
    for cores in [1, 2] {
        let mut crowd = Crowd::gather(config(cores), 6);
        for core in 0..cores {
            let own: Vec<PeerId> = crowd.peers.iter().map(|(_, peer)| *peer).filter(|peer| peer.core() == core).collect();
            let frames: Vec<_> = (0..120).map(|number| crowd.frame(number)).collect();
            let targets = own.clone();
            crowd.node.run(core, move |cx| {
                for (number, frame) in frames.iter().enumerate() {
                    match number % 5 {
                        0 | 1 => cx.broadcast(frame).unwrap(),
                        2 => targets.iter().for_each(|&peer| assert!(cx.send(peer, 1, &body(number as u32)).is_ok())),
                        3 => targets.iter().for_each(|&peer| assert!(cx.send_frame(peer, frame).is_ok())),
                        _ => cx.broadcast_except(frame, targets[0]).unwrap(),
                    }
                }
            });
            for (raw, peer) in &mut crowd.peers {
                for number in 0..120 {
                    let meant = match number % 5 {
                        0 | 1 => true,
                        2 | 3 => own.contains(peer),
                        _ => *peer != own[0],
                    };
                    if meant {
                        raw.expect_data(1, &body(number));
                    }
                }
            }
        }
        crowd.expect_nothing_but_a_marker();
        crowd.leave();
    }
}

#[test]
fn within_each_lane_the_order_holds_and_the_lane_is_told() {
    let mut crowd = Crowd::gather(config(2), 4);
    for number in 0..90 {
        let lane = Lane::ALL[number as usize % 3];
        let frame = crowd.node.handle().frame(Meta::new(1).lane(lane), &body(number)).unwrap();
        crowd.node.handle().broadcast(frame).unwrap();
    }
    for (raw, _) in &mut crowd.peers {
        let mut next = [0u32, 1, 2];
        for _ in 0..90 {
            let (_, lane, got) = raw.message().unwrap();
            let next = &mut next[usize::from(lane) - 1];
            assert!(got == body(*next), "lane {lane}, message {next}");
            *next += 3;
        }
    }
    crowd.expect_nothing_but_a_marker();
    crowd.leave();
}

#[test]
fn where_one_core_has_no_room_nobody_gets_anything() {
    const ROOM: usize = 16;
    let mut config = config(4);
    config.limits.inbox_messages = ROOM;
    let mut crowd = Crowd::gather(config, 8);
    let handle = crowd.node.handle();
    for full in 0..4 {
        let release = crowd.node.block(full);
        // The blocked core does not take these.
        (0..ROOM).for_each(|_| handle.post(full, Box::new(|_| ())).unwrap_or_else(|refused| panic!("{}", refused.reason)));
        let Err(refused) = handle.post(full, Box::new(|_| ())) else { panic!("more than {ROOM} commands were taken") };
        assert_eq!(refused.reason, SendError::InboxFull { core: full });
        let refused = handle.broadcast(crowd.frame(1)).unwrap_err();
        assert_eq!(refused.reason, SendError::InboxFull { core: full });
        assert_eq!(refused.value.as_bytes(), crowd.frame(1).as_bytes(), "the frame comes back");
        let refused = handle.broadcast_batch(vec![crowd.frame(1), crowd.frame(2)]).unwrap_err();
        assert_eq!((refused.reason, refused.value.len()), (SendError::InboxFull { core: full }, 2));
        let refused = handle.broadcast_except(crowd.frame(1), crowd.peers[0].1).unwrap_err();
        assert_eq!(refused.reason, SendError::InboxFull { core: full });
        let refused = handle.send(crowd.peers.iter().find(|(_, peer)| peer.core() == full).unwrap().1, crowd.frame(1)).unwrap_err();
        assert_eq!(refused.reason, SendError::InboxFull { core: full });
        // The others have not lost the room that was reserved and given back.
        for core in (0..4).filter(|&core| core != full) {
            let release = crowd.node.block(core);
            (0..ROOM).for_each(|_| handle.post(core, Box::new(|_| ())).unwrap_or_else(|refused| panic!("{}", refused.reason)));
            drop(release);
            crowd.node.run_when_there_is_room(core);
        }
        drop(release);
        crowd.node.run_when_there_is_room(full);
        // The room is there again, and the first thing that anybody gets is this.
        crowd.expect_nothing_but_a_marker();
    }
    crowd.leave();
}

#[test]
fn where_another_core_has_no_room_a_handler_is_told_so_too() {
    const ROOM: usize = 16;
    let mut config = config(2);
    config.limits.inbox_messages = ROOM;
    let mut crowd = Crowd::gather(config, 4);
    let release = crowd.node.block(1);
    // Mail between cores has its own room: as many broadcasts go through to it as it has, and then none to anyone.
    let frames: Vec<_> = (0..ROOM as u32 + 3).map(|number| crowd.frame(number)).collect();
    let outcome = crowd.node.run(0, move |cx| frames.iter().map(|frame| cx.broadcast(frame)).collect::<Vec<_>>());
    assert!(outcome[..ROOM].iter().all(Result::is_ok), "{outcome:?}");
    assert!(outcome[ROOM..].iter().all(|result| *result == Err(SendError::InboxFull { core: 1 })), "{outcome:?}");
    crowd.node.counts(Counter::BroadcastsRefused, 3);
    let batch = vec![crowd.frame(1); 2];
    let refused = crowd.node.run(0, move |cx| cx.broadcast_batch(&batch));
    assert_eq!(refused, Err(SendError::InboxFull { core: 1 }));
    drop(release);
    crowd.expect(0..ROOM as u32);
    crowd.expect_nothing_but_a_marker();
    crowd.leave();
}

#[test]
fn a_message_over_the_limit_is_refused_for_all() {
    let mut config = config(2);
    config.limits.max_message = 1000;
    let mut crowd = Crowd::gather(config, 4);
    assert!(crowd.node.handle().frame(1, &[0; 1001]).is_err());
    let frame = Frame::new(1, &[0; 1001]).unwrap();
    let too_long = SendError::TooLong { len: 1001, max: 1000 };
    assert_eq!(crowd.node.handle().broadcast(frame.clone()).unwrap_err().reason, too_long);
    assert_eq!(crowd.node.handle().broadcast_batch(vec![crowd.frame(1), frame.clone()]).unwrap_err().reason, too_long);
    let small = crowd.frame(2);
    let refused = crowd.node.run(1, move |cx| [cx.broadcast(&frame), cx.broadcast_batch(&[small, frame])]);
    assert_eq!(refused, [Err(too_long); 2]);
    crowd.expect_nothing_but_a_marker();
    crowd.leave();
}

#[test]
fn a_turn_can_broadcast_half_of_what_a_peer_may_have_to_receive() {
    let mut config = config(1);
    config.limits.max_message = 16 << 10;
    config.limits.outbox_hard = 64 << 10;
    config.limits.outbox_soft = 64 << 10;
    let mut crowd = Crowd::gather(config, 2);
    let frame = crowd.node.handle().frame(1, &[5; 8184]).unwrap();
    let outcome = crowd.node.run(0, move |cx| (0..6).map(|_| cx.broadcast(&frame)).collect::<Vec<_>>());
    assert_eq!(outcome, [Ok(()), Ok(()), Ok(()), Ok(()), Err(SendError::LogFull), Err(SendError::LogFull)]);
    crowd.node.counts(Counter::BroadcastsRefused, 2);
    for (raw, _) in &mut crowd.peers {
        (0..4).for_each(|_| raw.expect_data(1, &[5; 8184]));
    }
    crowd.expect_nothing_but_a_marker();
    crowd.leave();
}

#[test]
fn whoever_comes_between_broadcasts_gets_those_that_follow() {
    let mut crowd = Crowd::gather(config(4), 4);
    for number in 0..12 {
        crowd.node.handle().broadcast(crowd.frame(number)).unwrap();
        crowd.expect(number..number + 1);
        let newcomer = crowd.node.raw_peer(Hello::node(1000 + number));
        crowd.peers.push(newcomer);
        // And one goes.
        drop(crowd.peers.remove(0));
    }
    crowd.node.counts(Counter::Peers, 4);
    crowd.expect_nothing_but_a_marker();
    crowd.leave();
}
