//! Stories about lanes: what is in front of what, counted in bytes, in virtual time.

use super::MICRO;
use super::pipe::End;
use super::scenarios::{META, config, world};
use super::sim::{SECOND, World};
use crate::config::Config;
use crate::id::PeerId;
use crate::metrics::Counter;
use crate::wire::{HEADER_LEN, Header, Kind, Lane, Meta};

const FRAGMENT: usize = 16 << 10;
const VOTE: u16 = 77;
const VOTE_LEN: usize = HEADER_LEN + 100;

/// Messages of up to 16 MiB and an outbox for two of them.
fn large() -> Config {
    let mut config = config();
    config.limits.max_message = 16 << 20;
    config.limits.outbox_hard = (32 << 20) + (64 << 10);
    config.limits.outbox_soft = config.limits.outbox_hard;
    config.limits.log_bytes = 2 * config.limits.outbox_hard;
    config
}

/// Two nodes with so much room between them, and a tap at the first one's end.
fn tapped(config: &Config, capacity: (usize, usize)) -> (World, PeerId, End) {
    let mut world = world([config.clone(), config.clone()]);
    world.net.faults.capacity = capacity;
    world.dial(0, 1);
    assert!(world.run_until(SECOND, |world| world.peers(0).len() == 1 && world.peers(1).len() == 1));
    let peer = world.peer(0);
    let end = world.oracle.borrow().end(world.nodes[0].engine, peer).expect("a peer has an end");
    world.taps.insert(end, Vec::new());
    (world, peer, end)
}

impl World {
    /// Bytes that the kernel has taken at a tapped end.
    fn tapped(&self, end: End) -> usize {
        self.taps[&end].iter().map(|taken| taken.bytes.len()).sum()
    }

    /// The frames in what the kernel has taken at a tapped end: header, and where it stands.
    fn frames(&self, end: End) -> Vec<(Header, usize)> {
        let stream: Vec<u8> = self.taps[&end].iter().flat_map(|taken| taken.bytes.iter().copied()).collect();
        let mut frames = Vec::new();
        let mut at = 0;
        while let Some(head) = stream.get(at..).and_then(|rest| rest.first_chunk::<HEADER_LEN>()) {
            frames.push((Header::decode(*head).expect("the engine encoded it"), at));
            at += HEADER_LEN + frames[frames.len() - 1].0.len as usize;
        }
        frames
    }

    /// The turn in which the kernel took the byte at this place.
    fn turn_of(&self, end: End, place: usize) -> u64 {
        let mut at = 0;
        let taken = self.taps[&end].iter().find(|taken| {
            at += taken.bytes.len();
            at > place
        });
        taken.expect("it was taken").turn
    }
}

/// A vote: where the stream stood when it was pushed, in which turn that was, and whether the socket took what it was given.
struct Pushed {
    at: usize,
    turn: u64,
    open: bool,
}

#[test]
fn sim_a_vote_waits_for_one_turn_and_one_fragment() {
    for seed in 0..6 {
        let (mut world, peer, end) = tapped(&large(), (30_000, 200_000));
        world.rng = crate::rng::Rng::new(seed);
        // A kernel that takes odd amounts.
        world.net.faults.short_write = 200;
        world.on(0, move |actor, cx| {
            actor.send(cx, peer, META.lane(Lane::Bulk), 8 << 20).unwrap();
        });
        let mut pushed = Vec::new();
        while world.nodes[0].cores[0].shard.queued_bytes(peer) > 100_000 {
            let pause = world.rng.below(5_000);
            world.run(pause * MICRO);
            let at = world.tapped(end);
            let open = !world.nodes[0].cores[0].shard.is_blocked(peer);
            world.on(0, move |actor, cx| {
                actor.send(cx, peer, Meta::new(VOTE).lane(Lane::High), VOTE_LEN - HEADER_LEN).unwrap();
            });
            pushed.push(Pushed { at, turn: world.count(0, Counter::Turns), open });
        }
        world.run(10 * SECOND);
        let frames = world.frames(end);
        let votes: Vec<usize> = frames.iter().filter(|(header, _)| header.message_type == VOTE).map(|(_, at)| *at).collect();
        assert_eq!(votes.len(), pushed.len());
        assert!(pushed.len() > 10, "seed {seed}: the large message was gone too soon");
        for (&place, vote) in votes.iter().zip(&pushed) {
            // Votes that were pushed before it go first.
            let earlier = votes.iter().filter(|&&earlier| earlier < place && earlier + VOTE_LEN > vote.at);
            let passed = place - vote.at - earlier.map(|&earlier| earlier + VOTE_LEN - vote.at.max(earlier)).sum::<usize>();
            assert!(passed <= HEADER_LEN + FRAGMENT, "seed {seed}: the socket took {passed} bytes before the vote");
            let turns = world.turn_of(end, place) - vote.turn;
            assert!(turns == 0 || !vote.open || passed > 0, "seed {seed}: {turns} turns passed, and the socket was open");
        }
        assert_eq!(world.messages(1), 1 + votes.len());
    }
}

#[test]
fn sim_bulk_has_its_share_while_the_high_lane_never_ends() {
    let (mut world, peer, end) = tapped(&large(), (50_000, 50_000));
    let fill = move |world: &mut World, lane: Lane, len: usize| {
        world.on(0, move |actor, cx| {
            actor.send(cx, peer, META.lane(lane), len).unwrap();
        });
    };
    fill(&mut world, Lane::Bulk, 4 << 20);
    fill(&mut world, Lane::Normal, 8 << 20);
    // The high lane always has at least a megabyte to go, so strict lanes would let nothing else pass.
    let mut given = 0;
    while world.tapped(end) < 12 << 20 {
        while given < world.tapped(end) + (4 << 20) {
            fill(&mut world, Lane::High, 1 << 20);
            given += 1 << 20;
        }
        world.run(MICRO * 1000);
    }
    let mut sent = [0usize; 3];
    let frames = world.frames(end);
    let first = frames.iter().position(|(header, _)| header.lane == Some(Lane::High)).expect("the high lane has sent");
    for (header, _) in frames[first..].iter().filter(|(header, _)| header.kind != Kind::Ready) {
        if let Some(lane) = header.lane {
            sent[lane.index()] += HEADER_LEN + header.len as usize;
        }
    }
    // 16 to 4 to 1, to within the round that is under way.
    let round = 21 * (FRAGMENT + HEADER_LEN);
    let all: usize = sent.iter().sum();
    for (lane, weight) in [16, 4, 1].into_iter().enumerate() {
        let share = all * weight / 21;
        assert!(sent[lane].abs_diff(share) <= 2 * round, "lane {lane} sent {} of {all}, its share is {share}", sent[lane]);
    }
}
