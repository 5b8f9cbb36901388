//! Short stories about readers that stop and go on, in virtual time: what each policy leaves out, what it never does, and who is told.
//!
//! The reader that stops is a raw end with a narrow kernel, so that it is known to the byte what arrives. Beside it stands a node that
//! reads.

use std::sync::Arc;
use std::time::Duration;

use super::actor::Actor;
use super::oracle::{Item, Told, word};
use super::pipe::End;
use super::scenarios::{META, config, pair};
use super::scenarios_topics::{TOPIC, subscribe, subscription};
use super::sim::{MILLI, SECOND, World};
use crate::config::{Config, WhenSlow};
use crate::error::{CloseReason, SendError, Slow};
use crate::handler::{Backlog, Context};
use crate::id::PeerId;
use crate::metrics::Counter;
use crate::wire::{Frame, HEADER_LEN, Header, Kind, Lane};

pub(super) const SOFT: usize = 40_000;
const HARD: usize = 200_000;
const FRAGMENT: usize = 1024;
/// Longer than any story.
const LONG: Duration = Duration::from_secs(3600);

const POLICIES: [WhenSlow; 4] = [WhenSlow::Disconnect, WhenSlow::DropOldest, WhenSlow::DropNewest, WhenSlow::Conflate];

/// The ways in which a message comes to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Send,
    Batch,
    Broadcast,
    /// A broadcast of a frame that has a time to live, or a key.
    Apart,
    Publish,
}

const WAYS: [Way; 5] = [Way::Send, Way::Batch, Way::Broadcast, Way::Apart, Way::Publish];

/// Nothing but what a story is about ends a peer.
pub(super) fn slow_config(when: WhenSlow) -> Config {
    let mut config = config();
    for lane in [&mut config.lanes.high, &mut config.lanes.normal, &mut config.lanes.bulk] {
        lane.when_slow = when;
    }
    config.limits.max_message = 50_000;
    config.limits.fragment = FRAGMENT;
    config.limits.outbox_hard = HARD;
    config.limits.outbox_soft = SOFT;
    config.limits.soft_grace = LONG;
    config.limits.min_drain_rate = 0;
    config.timeouts.write_stall = LONG;
    config.keepalive.interval = LONG;
    config.keepalive.timeout = 2 * LONG;
    config
}

/// What the raw end has read.
pub(super) struct Reader {
    pub(super) end: End,
    pub(super) peer: PeerId,
    stream: Vec<u8>,
}

impl Reader {
    /// A raw peer of the first node, with so much room before it.
    pub(super) fn new(world: &mut World, capacity: usize) -> Self {
        world.net.faults.capacity = (capacity, capacity);
        let (end, peer) = world.raw_peer(0);
        Self { end, peer, stream: Vec::new() }
    }

    pub(super) fn read(&mut self, world: &mut World) {
        self.stream.extend(world.raw_read(self.end));
    }

    /// Reads until nothing more comes.
    pub(super) fn go_on(&mut self, world: &mut World) {
        let mut before = usize::MAX;
        while before != self.stream.len() {
            before = self.stream.len();
            self.read(world);
            world.run(3 * MILLI);
            self.read(world);
        }
    }

    /// The messages that have come whole, by the number in front of each, and the kind of the last control frame.
    pub(super) fn messages(&self) -> (Vec<u64>, Option<Kind>) {
        let (mut numbers, mut told, mut at) = (Vec::new(), None, 0);
        let mut begun: Option<u64> = None;
        while let Some(head) = self.stream.get(at..).and_then(|rest| rest.first_chunk::<HEADER_LEN>()) {
            let header = Header::decode(*head).expect("the engine encoded it");
            let Some(payload) = self.stream.get(at + HEADER_LEN..at + HEADER_LEN + header.len as usize) else { break };
            at += HEADER_LEN + header.len as usize;
            match (header.kind, begun) {
                (Kind::Data, None) => begun = Some(word(payload, if header.more { 4 } else { 0 })),
                (Kind::Fragment, Some(_)) => {}
                (kind, None) => told = Some(kind),
                other => panic!("{other:?}: a message was cut in two"),
            }
            if !header.more
                && let Some(number) = begun.take()
            {
                numbers.push(number);
            }
        }
        (numbers, told)
    }

    /// The numbers of the messages that have come whole, from this one on and counted from it.
    pub(super) fn since(&self, base: u64) -> Vec<u64> {
        self.messages().0.iter().filter_map(|number| number.checked_sub(base)).collect()
    }
}

impl World {
    /// A number that is smaller than that of every message to come: these follow without a gap.
    pub(super) fn base(&self) -> u64 {
        self.oracle.borrow_mut().next_id() + 1
    }

    /// What the first node's handler was told of the peer's slowness.
    pub(super) fn slowness(&self, peer: PeerId) -> Vec<(u64, Option<Backlog>)> {
        let oracle = self.oracle.borrow();
        let of_peer = oracle.told.iter().filter(|(_, engine, of, _)| *engine == self.nodes[0].engine && *of == Some(peer));
        let told = of_peer.filter_map(|(at, _, _, told)| match told {
            Told::Slow(backlog) => Some((*at, Some(*backlog))),
            Told::Drained => Some((*at, None)),
            _ => None,
        });
        told.collect()
    }

    /// Dropped as oldest, dropped as newest, conflated, expired.
    pub(super) fn dropped(&mut self) -> [u64; 4] {
        [Counter::DroppedOldest, Counter::DroppedNewest, Counter::Conflated, Counter::MessagesExpired].map(|counter| self.count(0, counter))
    }
}

/// A frame whose body begins with its number.
pub(super) fn frame(actor: &mut Actor, cx: &Context<'_>, len: usize) -> Frame {
    let body = actor.body(len);
    cx.frame(META, &body).expect("within the limits")
}

pub(super) fn send(actor: &mut Actor, cx: &mut Context<'_>, peer: PeerId, frame: &Frame) -> Result<(), SendError> {
    let result = cx.send_frame(peer, frame);
    actor.taken(peer, &result, frame.meta(), Item::sent(frame));
    result.map(drop)
}

fn send_batch(actor: &mut Actor, cx: &mut Context<'_>, peer: PeerId, frames: &[Frame]) -> Result<(), SendError> {
    let result = cx.send_batch(peer, frames);
    frames.iter().for_each(|frame| actor.taken(peer, &result, frame.meta(), Item::sent(frame)));
    result.map(drop)
}

/// One message of each length, by one way, to the raw peer and the other one; where they conflate, the key is the one given.
fn give(world: &mut World, way: Way, when: WhenSlow, peers: [PeerId; 2], messages: &[(usize, u64)]) {
    let messages = messages.to_vec();
    world.on(0, move |actor, cx| {
        let frames: Vec<Frame> = messages
            .iter()
            .map(|&(len, key)| match (frame(actor, cx, len), way) {
                (frame, _) if when == WhenSlow::Conflate => frame.with_key(key),
                (frame, Way::Apart) => frame.with_ttl(LONG),
                (frame, _) => frame,
            })
            .collect();
        let mut refused = 0;
        for frame in &frames {
            match way {
                Way::Send => peers.into_iter().for_each(|peer| refused += u64::from(send(actor, cx, peer, frame).is_err())),
                Way::Batch => {}
                Way::Broadcast | Way::Apart => assert_eq!(actor.broadcast(cx, std::slice::from_ref(frame), None), Ok(())),
                Way::Publish => assert_eq!(actor.publish(cx, TOPIC, frame), Ok(())),
            }
        }
        if way == Way::Batch {
            peers.into_iter().for_each(|peer| refused += u64::from(send_batch(actor, cx, peer, &frames).is_err()));
        }
        assert!(refused == 0 || when == WhenSlow::DropNewest, "{refused} were refused");
    });
}

/// A node that reads, and a raw peer that does not; both subscribe.
fn stopped(when: WhenSlow, capacity: usize, change: impl FnOnce(&mut Config)) -> (World, [PeerId; 2], Reader) {
    let mut config = slow_config(when);
    change(&mut config);
    let other = Config { limits: config.limits.clone(), keepalive: config.keepalive, ..super::scenarios::config() };
    let mut world = pair(config, other);
    let fast = subscribe(&mut world);
    let reader = Reader::new(&mut world, capacity);
    world.raw_write(reader.end, &subscription(TOPIC.0));
    world.run(2 * MILLI);
    let peers = [reader.peer, fast];
    (world, peers, reader)
}

/// What is left of these keys where each takes the place of the last one of the same, from the first that has not begun.
fn conflated(keys: &[u64], begun: usize) -> Vec<u64> {
    let mut left: Vec<(u64, u64)> = Vec::new();
    for (number, &key) in keys.iter().enumerate().skip(begun) {
        match left.iter_mut().find(|(_, other)| *other == key) {
            Some(place) => place.0 = number as u64,
            None => left.push((number as u64, key)),
        }
    }
    left.into_iter().map(|(number, _)| number).collect()
}

/// The first message is long and half of it leaves; 120 follow that do not all fit.
#[test]
fn sim_a_reader_that_stops_and_goes_on_gets_exactly_what_the_policy_says() {
    const COUNT: usize = 121;
    const STEP: usize = 5;
    // Fifteen keys, none twice in one step: the other one takes a step at once, and so misses nothing.
    let keys: Vec<u64> = (0..COUNT as u64).map(|number| number % 5 * 3 + number / 30 % 3).collect();
    for (when, way) in POLICIES.into_iter().flat_map(|when| WAYS.map(|way| (when, way))) {
        // The kernel's room ends in a frame, and between two fragments.
        for capacity in [10_000, 10 * (HEADER_LEN + FRAGMENT)] {
            let story = format!("{when:?} by {way:?} into {capacity}");
            let (mut world, peers, mut reader) = stopped(when, capacity, |_| ());
            let base = world.base();
            give(&mut world, way, when, peers, &[(20_000, keys[0])]);
            for number in (1..COUNT).step_by(STEP) {
                world.run(MILLI);
                let messages: Vec<_> = keys[number..number + STEP].iter().map(|&key| (1000, key)).collect();
                give(&mut world, way, when, peers, &messages);
            }
            assert!(when == WhenSlow::Disconnect || world.nodes[0].cores[0].shard.queued_bytes(peers[0]) <= SOFT, "{story}");
            world.run(MILLI);
            let resumed = world.now;
            reader.go_on(&mut world);
            let got = reader.since(base);
            assert_eq!(got[0], 0, "{story}: what has begun is finished");
            let missing = (COUNT - got.len()) as u64;
            let fits = (SOFT - 10_000) / (1008 + 72)..=SOFT / 1008;
            match when {
                WhenSlow::Disconnect => {
                    assert_eq!(got, (0..COUNT as u64).collect::<Vec<_>>(), "{story}");
                    assert_eq!(world.dropped(), [0; 4], "{story}");
                }
                WhenSlow::DropOldest => {
                    let first = COUNT as u64 - got.len() as u64 + 1;
                    assert_eq!(got[1..], (first..COUNT as u64).collect::<Vec<_>>(), "{story}: the oldest are gone");
                    assert_eq!(world.dropped(), [missing, 0, 0, 0], "{story}");
                    // What had begun was 10 KB, and at times a quarter goes at once.
                    assert!((SOFT * 3 / 4 - 12_000) / 1080 <= got.len() && got.len() <= *fits.end(), "{story}: {}", got.len());
                }
                WhenSlow::DropNewest => {
                    assert_eq!(got, (0..got.len() as u64).collect::<Vec<_>>(), "{story}: the newest are gone");
                    assert_eq!(world.dropped(), [0, missing, 0, 0], "{story}");
                    assert!((fits.start() - STEP..=*fits.end()).contains(&got.len()), "{story}: {}", got.len());
                }
                WhenSlow::Conflate => {
                    assert_eq!(got[1..], conflated(&keys, 1), "{story}: the last of each, at the place of the first");
                    assert_eq!(world.dropped(), [0, 0, missing, 0], "{story}");
                }
            }
            let refused = if matches!(way, Way::Send | Way::Batch) { world.dropped()[1] } else { 0 };
            assert_eq!(world.count(0, Counter::SendsRefused), refused, "{story}");
            assert_eq!(world.messages(1), COUNT, "{story}: the other one has them all");
            check_reports(&world, peers[0], resumed, when, missing, &story);
            // From here on all is as before.
            let base = world.base();
            give(&mut world, way, when, peers, &[(1000, 1), (1000, 2)]);
            reader.go_on(&mut world);
            assert_eq!(reader.since(base), [0, 1], "{story}");
            assert_eq!((world.closed(0), world.closed(1)), (vec![], vec![]), "{story}");
            assert_eq!([Counter::PrivateBytes, Counter::LogBytes].map(|level| world.count(0, level)), [0, 0], "{story}");
        }
    }
}

/// Over the mark once, and below it once the reader has gone on, with all that was dropped in between.
#[track_caller]
fn check_reports(world: &World, peer: PeerId, resumed: u64, when: WhenSlow, missing: u64, story: &str) {
    let told = world.slowness(peer);
    if when == WhenSlow::Conflate {
        // So few keys are never over the mark.
        return assert_eq!(told, [], "{story}");
    }
    let (_, Some(first)) = told[0] else { panic!("{story}: {told:?}") };
    assert!(first.bytes + 5 * 1080 >= SOFT && first.dropped == 0, "{story}: {told:?}");
    assert!(first.age >= Duration::from_millis(4) && first.age <= Duration::from_millis(40), "{story}: {told:?}");
    let dropped: u64 = told.iter().filter_map(|(_, report)| report.map(|report| report.dropped)).sum();
    assert_eq!(dropped, missing, "{story}: {told:?}");
    let (at, last) = told[told.len() - 1];
    assert!(last.is_none() && at >= resumed, "{story}: {told:?}");
    assert_eq!(told.len(), if missing > 0 { 3 } else { 2 }, "{story}: {told:?}");
}

#[test]
fn sim_whoever_takes_what_he_is_given_loses_nothing_though_this_core_is_behind() {
    for (when, way) in POLICIES.into_iter().flat_map(|when| WAYS.map(|way| (when, way))) {
        let (mut world, peers, mut reader) = stopped(when, 1 << 20, |_| ());
        let base = world.base();
        world.pace.write_budget = 33_000;
        // Twice the soft mark in one turn, and again while the most of it is not written. No key comes twice.
        let messages: Vec<_> = (0..80).map(|number| (1000, number)).collect();
        give(&mut world, way, when, peers, &messages);
        let messages: Vec<_> = (80..120).map(|number| (1000, number)).collect();
        give(&mut world, way, when, peers, &messages);
        assert!(world.nodes[0].cores[0].shard.queued_bytes(peers[0]) > SOFT);
        reader.go_on(&mut world);
        assert_eq!(reader.since(base), (0..120).collect::<Vec<_>>(), "{when:?} by {way:?}");
        assert_eq!((world.dropped(), world.count(0, Counter::SendsRefused)), ([0; 4], 0), "{when:?} by {way:?}");
        assert_eq!((world.messages(1), world.closed(0)), (120, vec![]));
    }
}

#[test]
fn sim_a_reader_whose_oldest_are_dropped_does_not_keep_the_log() {
    let (mut world, peers, mut reader) = stopped(WhenSlow::DropOldest, 10_000, |_| ());
    let base = world.base();
    for number in 0..4000 {
        give(&mut world, Way::Broadcast, WhenSlow::DropOldest, peers, &[(1000, 0)]);
        world.run(MILLI);
        let held = world.count(0, Counter::LogBytes);
        // Two segments, and the step at which the log is looked at.
        assert!(held <= 3 * (256 << 10) + 16_000, "{held} bytes after {number}");
    }
    assert_eq!((world.count(0, Counter::LogEvacuations), world.closed(0)), (0, vec![]));
    let resumed = world.now;
    reader.go_on(&mut world);
    let got = reader.since(base);
    assert_eq!(got[got.len() - 1], 3999);
    let missing = 4000 - got.len() as u64;
    assert_eq!((world.dropped(), world.messages(1)), ([missing, 0, 0, 0], 4000));
    check_reports(&world, peers[0], resumed, WhenSlow::DropOldest, missing, "4,000");
}

/// Sends for so long to a reader that takes 6 KB every 200 ms, then 12 s to one that takes nothing.
fn trickle(when: WhenSlow) -> (World, PeerId, u64) {
    let (mut world, peers, mut reader) = stopped(when, 10_000, |config| {
        config.limits.soft_grace = Duration::from_secs(1);
        config.limits.min_drain_rate = 64 << 10;
        config.timeouts.write_stall = Duration::from_secs(10);
    });
    for round in 0..260 {
        if round < 140 && round % 2 == 0 && world.closed(0).is_empty() {
            reader.read(&mut world);
        }
        for _ in 0..10 {
            give(&mut world, Way::Broadcast, when, peers, &[(1000, 0)]);
            world.run(10 * MILLI);
        }
    }
    assert_eq!(world.messages(1), 2600, "the other one has them all");
    (world, peers[0], 138 * 100 * MILLI)
}

#[test]
fn sim_where_dropping_keeps_a_reader_under_the_mark_only_the_write_stall_ends_it() {
    for when in [WhenSlow::DropOldest, WhenSlow::DropNewest] {
        let (begin, (world, peer, stopped)) = (0, trickle(when));
        let closed = world.closed(0);
        assert_eq!((closed.len(), closed[0].1), (1, CloseReason::SlowPeer(Slow::WriteStall)), "{when:?}");
        assert!(closed[0].0 - begin >= stopped + 9 * SECOND, "{when:?}: cut off at {}", closed[0].0);
        let reports: Vec<_> = world.slowness(peer).into_iter().filter_map(|(_, report)| report).collect();
        assert!(reports.len() >= 20 && reports[1..reports.len() - 1].iter().all(|report| report.dropped > 0), "{when:?}: {reports:?}");
    }
    // Who drops nothing is cut off after the grace time.
    let (world, _, stopped) = trickle(WhenSlow::Disconnect);
    let closed = world.closed(0);
    assert_eq!((closed.len(), closed[0].1), (1, CloseReason::SlowPeer(Slow::SoftMark)));
    assert!(closed[0].0 < stopped / 2);
}

#[test]
fn sim_a_message_makes_room_in_its_own_lane_and_in_less_urgent_ones_only() {
    let lanes = |config: &mut Config| {
        config.lanes.normal.when_slow = WhenSlow::Disconnect;
        config.lanes.bulk.when_slow = WhenSlow::DropOldest;
    };
    let fill = |world: &mut World, peer: PeerId, lane: Lane, count: usize| {
        world.on(0, move |actor, cx| {
            for _ in 0..count {
                let body = actor.body(1000);
                let frame = cx.frame(META.lane(lane), &body).unwrap();
                assert_eq!(send(actor, cx, peer, &frame), Ok(()));
            }
        });
    };
    let (mut world, [slow, _], mut reader) = stopped(WhenSlow::DropOldest, 10_000, lanes);
    let base = world.base();
    fill(&mut world, slow, Lane::Bulk, 40);
    // Past the hard bound, but for what bulk gives up.
    fill(&mut world, slow, Lane::Normal, 180);
    reader.go_on(&mut world);
    let got = reader.since(base);
    let normal: Vec<u64> = got.iter().copied().filter(|&number| number >= 40).collect();
    assert_eq!(normal, (40..220).collect::<Vec<_>>(), "what is not to be dropped is there");
    assert_eq!(world.dropped(), [220 - got.len() as u64, 0, 0, 0]);
    assert!(got.len() < 200);
    // The other way round: bulk finds the connection full and costs nobody else anything.
    let (mut world, [slow, _], mut reader) = stopped(WhenSlow::DropOldest, 10_000, lanes);
    let base = world.base();
    fill(&mut world, slow, Lane::Normal, 50);
    fill(&mut world, slow, Lane::High, 10);
    fill(&mut world, slow, Lane::Bulk, 10);
    reader.go_on(&mut world);
    let mut got = reader.since(base);
    got.sort_unstable();
    // Of the high lane, which finds it full too, and of bulk, the newest is left; of normal all.
    assert_eq!(got, (0..50).chain([59, 69]).collect::<Vec<_>>());
    assert_eq!(world.dropped(), [18, 0, 0, 0]);
}

/// Publishes in the bulk lane until the peer is cut off; says how many it was before.
fn bulk_until_closed(when_high: WhenSlow) -> u64 {
    let (mut world, [slow, _], _reader) = stopped(WhenSlow::Disconnect, 10_000, |config| config.lanes.high.when_slow = when_high);
    world.on(0, move |actor, cx| {
        for _ in 0..38 {
            let body = actor.body(1000);
            let frame = cx.frame(META.lane(Lane::High), &body).unwrap();
            assert_eq!(send(actor, cx, slow, &frame), Ok(()));
        }
    });
    let mut taken = 0;
    while world.closed(0).is_empty() {
        world.on(0, |actor, cx| {
            let body = actor.body(1000);
            let frame = cx.frame(META.lane(Lane::Bulk), &body).unwrap();
            assert_eq!(actor.publish(cx, TOPIC, &frame), Ok(()));
        });
        world.run(MILLI);
        taken += 1;
    }
    assert_eq!(world.closed(0)[0].1, CloseReason::SlowPeer(Slow::HardBound));
    assert_eq!(world.dropped(), [if when_high == WhenSlow::DropOldest { 38 - 10 } else { 0 }, 0, 0, 0]);
    taken
}

#[test]
fn sim_nobody_is_cut_off_while_a_more_urgent_lane_has_something_to_drop() {
    let (dropping, keeping) = (bulk_until_closed(WhenSlow::DropOldest), bulk_until_closed(WhenSlow::Disconnect));
    assert_eq!(dropping - keeping, 38 - 10, "so many bulk messages take the place of what the high lane drops");
}

#[test]
fn sim_who_drops_the_newest_has_a_copy_of_the_log_and_stays() {
    let change = |config: &mut Config| {
        config.limits.outbox_soft = 100_000;
        config.limits.log_bytes = 2 * HARD;
    };
    let (mut world, peers, mut reader) = stopped(WhenSlow::DropNewest, 10_000, change);
    let base = world.base();
    for _ in 0..2000 {
        give(&mut world, Way::Broadcast, WhenSlow::DropNewest, peers, &[(1000, 0)]);
        world.run(MILLI);
    }
    assert_eq!((world.count(0, Counter::LogEvacuations), world.closed(0)), (1, vec![]));
    reader.go_on(&mut world);
    let got = reader.since(base);
    assert_eq!(got, (0..got.len() as u64).collect::<Vec<_>>());
    assert!((100..=109).contains(&got.len()), "{} are 100 KB, and 10 KB in the kernel", got.len());
    assert_eq!((world.dropped(), world.messages(1)), ([0, 2000 - got.len() as u64, 0, 0], 2000));
}

#[test]
fn sim_what_gave_way_to_its_like_before_is_not_reported_as_dropped_for_slowness() {
    let (mut world, peers, mut reader) = stopped(WhenSlow::Conflate, 10_000, |_| ());
    give(&mut world, Way::Send, WhenSlow::Conflate, peers, &[(1000, 1), (1000, 1), (1000, 1)]);
    reader.go_on(&mut world);
    // Two for each of both.
    assert_eq!((world.dropped(), world.slowness(peers[0])), ([0, 0, 4, 0], vec![]));
    for key in 0..100 {
        give(&mut world, Way::Send, WhenSlow::Conflate, peers, &[(1000, key)]);
    }
    reader.go_on(&mut world);
    let told = world.slowness(peers[0]);
    let dropped = told.iter().map(|(_, report)| report.map(|report| report.dropped)).collect::<Vec<_>>();
    let [oldest, 0, 4, 0] = world.dropped() else { panic!("{:?}", world.dropped()) };
    assert_eq!(dropped, [Some(0), Some(oldest), None]);
    assert!(oldest > 0);
}

#[test]
fn sim_what_is_refused_in_any_case_makes_nobody_drop_anything() {
    let (mut world, [slow, _], mut reader) = stopped(WhenSlow::DropOldest, 10_000, |_| ());
    let base = world.base();
    world.on(0, move |actor, cx| {
        for _ in 0..35 {
            let frame = frame(actor, cx, 1000);
            assert_eq!(send(actor, cx, slow, &frame), Ok(()));
        }
    });
    // Nearly at the mark.
    let long = Arc::new(Frame::new(META, &[0; 50_001]).unwrap());
    world.on(0, move |_, cx| {
        assert_eq!(cx.send_frame(slow, &long), Err(SendError::TooLong { len: 50_001, max: 50_000 }));
        let batch = vec![Frame::new(META, &[0; 50_000]).unwrap(); 4];
        assert_eq!(cx.send_batch(slow, &batch), Err(SendError::OutboxFull), "more than the hard bound");
    });
    reader.go_on(&mut world);
    assert_eq!((reader.since(base), world.dropped()), ((0..35).collect(), [0; 4]));
}
