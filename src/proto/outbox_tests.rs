//! Outboxes on one set of logs, against a model that knows nothing of spans, tails or cursors: each lane is a list of messages, and what
//! leaves is the frame that has begun, then the lanes in order. What was taken is decoded again and must be what was sent.

use std::rc::Rc;

use super::*;
use crate::buffers::BufferPool;
use crate::rng::Rng;
use crate::wire::{FrameDecoder, Header, Kind, Meta, control_frame, message_wire_len};

const SEEDS: u64 = 700;
const STEPS: usize = 150;

/// A message or control frame as it was given to an outbox or a log.
#[derive(Debug)]
struct Sent {
    wire: Vec<u8>,
    /// Where its frames end.
    ends: Vec<usize>,
    kind: Kind,
    message_type: u16,
    correlation: Option<u64>,
    body: Vec<u8>,
}

impl Sent {
    fn new(wire: Vec<u8>, kind: Kind, message_type: u16, correlation: Option<u64>, body: Vec<u8>) -> Rc<Self> {
        let mut ends = Vec::new();
        let mut at = 0;
        while at < wire.len() {
            at += Header::frame_len(&wire[at..]);
            ends.push(at);
        }
        Rc::new(Self { wire, ends, kind, message_type, correlation, body })
    }

    /// What is left of the frame that `offset` is inside of; zero between frames.
    fn frame_left(&self, offset: usize) -> usize {
        if offset == 0 { 0 } else { self.ends.iter().find(|&&end| end >= offset).unwrap() - offset }
    }
}

/// A frame to broadcast or send, and what should come of it.
type Banked = (Frame, Rc<Sent>);

/// Every size at which something changes: empty, the cut, two and three exact fragments, the by-reference threshold, a part of a segment.
fn bank() -> Vec<Banked> {
    const SHAPES: [(usize, &[usize]); 3] = [
        (1024, &[0, 1, 100, 1023, 1024, 1025, 2044, 2045, 3000, 3068, 4059, 4060]),
        (4096, &[300, 2040, 4087, 4088, 4089, 4096, 4097, 12_284]),
        (16_384, &[16_384, 16_385, 32_764, 49_148]),
    ];
    let mut bank = Vec::new();
    for lane in Lane::ALL {
        for (cut, lens) in SHAPES {
            for &len in lens {
                for correlation in [None, Some(len as u64 * 3)] {
                    let kind = if correlation.is_some() { Kind::Response } else { Kind::Data };
                    let message_type = bank.len() as u16;
                    let body: Vec<u8> = (0..len).map(|at| (at * 7 + bank.len()) as u8).collect();
                    let frame = Frame::encode(Draft::new(kind, Meta::new(message_type).lane(lane), correlation, &body), cut).unwrap();
                    let sent = Sent::new(frame.as_bytes().to_vec(), kind, message_type, correlation, body);
                    bank.push((frame, sent));
                }
            }
        }
    }
    bank
}

/// The other side of one connection: cuts the bytes into frames again, and puts messages together.
#[derive(Default)]
struct Receiver {
    decoder: FrameDecoder,
    buffers: BufferPool,
    /// What should come, lane by lane.
    due: [VecDeque<Rc<Sent>>; LANES],
    /// A message of which pieces came.
    partial: [Vec<u8>; LANES],
    total: [usize; LANES],
}

impl Receiver {
    fn receive(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while let Some(frame) = self.decoder.next(&mut self.buffers, bytes, &mut at).unwrap() {
            let (header, mut payload) = (frame.header, frame.payload);
            let lane = header.lane.map_or(CONTROL, |lane| lane.index() + 1);
            let due = self.due[lane].front().expect("nothing more was sent in this lane");
            if header.kind == Kind::Fragment {
                assert!(!self.partial[lane].is_empty(), "a fragment without a beginning");
            } else {
                assert!(self.partial[lane].is_empty(), "a message begins inside another");
                assert_eq!(header.kind, due.kind);
                self.total[lane] = payload.len();
                if header.more {
                    let (total, rest) = payload.split_first_chunk().unwrap();
                    let correlation = due.correlation.map_or(0, |_| 8);
                    (self.total[lane], payload) = (u32::from_le_bytes(*total) as usize + correlation, rest);
                }
            }
            assert_eq!(header.message_type, due.message_type);
            self.partial[lane].extend_from_slice(payload);
            if !header.more {
                let (correlation, body) = self.partial[lane].split_at(due.correlation.map_or(0, |_| 8));
                assert_eq!(self.total[lane], self.partial[lane].len());
                assert!(due.correlation.is_none_or(|sent| sent.to_le_bytes() == correlation));
                assert!(body == due.body, "another body than was sent");
                self.partial[lane].clear();
                self.due[lane].pop_front();
            }
        }
        assert_eq!(at, bytes.len());
    }
}

/// One outbox, the model of it, and who it sends to.
struct Peer {
    outbox: Outbox,
    attached: bool,
    lanes: [VecDeque<Rc<Sent>>; LANES],
    /// Bytes of each lane's first message that have left.
    begun: [usize; LANES],
    bytes: usize,
    messages: u64,
    receiver: Receiver,
}

impl Peer {
    fn new(logs: &Logs) -> Self {
        Self {
            outbox: Outbox::new(logs),
            attached: true,
            lanes: Default::default(),
            begun: [0; LANES],
            bytes: 0,
            messages: 0,
            receiver: Receiver::default(),
        }
    }

    fn expect(&mut self, lane: usize, sent: &Rc<Sent>) {
        self.bytes += sent.wire.len();
        self.messages += u64::from(lane != CONTROL);
        self.lanes[lane].push_back(Rc::clone(sent));
        self.receiver.due[lane].push_back(Rc::clone(sent));
    }

    /// The lane in which a frame has begun to leave, and what is left of it.
    fn started(&self) -> Option<(usize, usize)> {
        let left = |lane: usize| self.lanes[lane].front().map_or(0, |sent| sent.frame_left(self.begun[lane]));
        let started: Vec<_> = (0..LANES).map(|lane| (lane, left(lane))).filter(|&(_, left)| left > 0).collect();
        assert!(started.len() <= 1, "two lanes are inside a frame: {started:?}");
        started.first().copied()
    }

    /// What is to leave, in order: lane, length.
    fn order(&self) -> Vec<(usize, usize)> {
        let bytes = |lane: usize| self.lanes[lane].iter().map(|sent| sent.wire.len()).sum::<usize>() - self.begun[lane];
        let mut order: Vec<_> = self.started().into_iter().collect();
        let first = order.first().copied().unwrap_or((LANES, 0));
        order.extend((0..LANES).map(|lane| (lane, bytes(lane) - if lane == first.0 { first.1 } else { 0 })));
        order
    }

    /// Takes bytes off the model, which must be `taken`. Returns the messages that ended in them.
    fn take(&mut self, mut taken: &[u8]) -> u64 {
        let mut messages = 0;
        self.bytes -= taken.len();
        for (lane, len) in self.order() {
            let (mut part, rest) = taken.split_at(len.min(taken.len()));
            taken = rest;
            while !part.is_empty() {
                let wire = &self.lanes[lane][0].wire;
                let waiting = &wire[self.begun[lane]..];
                let len = part.len().min(waiting.len());
                assert!(part[..len] == waiting[..len], "lane {lane}: other bytes, or in another order, than were sent");
                part = &part[len..];
                self.begun[lane] += len;
                if self.begun[lane] == wire.len() {
                    messages += u64::from(lane != CONTROL);
                    self.lanes[lane].pop_front();
                    self.begun[lane] = 0;
                }
            }
        }
        assert!(taken.is_empty());
        self.messages -= messages;
        messages
    }

    fn spans(&self) -> usize {
        self.outbox.queued.as_ref().map_or(0, |queued| queued.lanes.iter().map(|queue| queue.spans.len()).sum())
    }

    fn check(&self, logs: &Logs) {
        let outbox = &self.outbox;
        outbox.assert_invariants(logs);
        assert_eq!(outbox.claimed(logs), self.bytes + self.spans() * SPAN_CHARGE);
        assert_eq!(outbox.is_empty(logs), self.bytes == 0);
        assert_eq!(outbox.has_control(), !self.lanes[CONTROL].is_empty());
        assert_eq!(outbox.is_mid_frame(), self.started().is_some());
        for queue in outbox.queued.iter().flat_map(|queued| &queued.lanes) {
            assert!(queue.head <= TRIMMED.max(queue.tail.len() / 2), "the front of a tail is kept though it has left");
        }
    }
}

/// A core: logs, pool, outboxes.
struct Core<'a> {
    rng: Rng,
    /// What this seed draws from, and how long its bodies are at most.
    bank: Vec<&'a Banked>,
    largest: usize,
    logs: Logs,
    pool: QueuedPool,
    peers: Vec<Peer>,
    serial: u64,
}

impl<'a> Core<'a> {
    fn new(seed: u64, bank: &'a [Banked]) -> Self {
        let mut rng = Rng::new(seed);
        let logs = Logs::new();
        let peers = (0..2 + rng.below(4)).map(|_| Peer::new(&logs)).collect();
        let largest = [400, 4000, 4200, usize::MAX, 2048][rng.below(5) as usize];
        let mut bank: Vec<_> = bank.iter().filter(|(_, sent)| sent.wire.len() <= largest).collect();
        if largest == 2048 {
            // One frame over and over, of a size that fills segments without a rest.
            bank.retain(|(_, sent)| sent.wire.len() == 2048);
            bank = vec![bank[rng.below(bank.len() as u64) as usize]];
        }
        Self { rng, bank, largest, logs, pool: QueuedPool::new(8 << 20), peers, serial: 0 }
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.below(n as u64) as usize
    }

    fn draw_frame(&mut self) -> Banked {
        let index = self.below(self.bank.len());
        self.bank[index].clone()
    }

    fn step(&mut self) {
        let at = self.below(self.peers.len());
        match self.below(32) {
            0..4 => self.broadcast(None),
            4..6 => self.broadcast(Some(at)),
            6..10 => self.push_message(at),
            10..13 => self.push_frame(at),
            13..15 => self.push_control(at),
            15..24 => self.gather_and_advance(at),
            24..27 => self.take_contiguous(at),
            27 if self.rng.chance(1, 8) => self.detach(at),
            28 if self.rng.chance(1, 4) => self.clear(at),
            29 => self.evacuate(at),
            _ => self.release(),
        }
        for peer in &self.peers {
            peer.check(&self.logs);
        }
        let busy = self.peers.iter().filter(|peer| peer.outbox.queued.is_some()).count();
        assert!(busy + self.pool.free.len() <= self.peers.len(), "a box was made though one was free");
        assert!(self.pool.free.iter().all(|queued| queued.is_empty() && queued.claimed == 0 && queued.private == 0));
    }

    fn broadcast(&mut self, except: Option<usize>) {
        let (frame, sent) = self.draw_frame();
        let log = frame.lane().index();
        let count = if self.rng.chance(1, 4) { 1 + self.below(60) } else { 1 };
        let except = except.filter(|&at| self.peers[at].attached);
        for _ in 0..count {
            if let Some(at) = except {
                self.peers[at].outbox.settle_lane(&self.logs, &mut self.pool, frame.lane());
            }
            self.logs.append(&frame);
            if let Some(at) = except {
                self.peers[at].outbox.skip_to_end(&self.logs, frame.lane());
            }
            for (at, peer) in self.peers.iter_mut().enumerate() {
                if peer.attached && except != Some(at) {
                    peer.expect(log + 1, &sent);
                }
            }
        }
    }

    fn push_message(&mut self, at: usize) {
        let lane = Lane::ALL[self.below(3)];
        let cut = [1024, 1025, 4096, 16_384][self.below(4)];
        let len = match self.below(8) {
            0 => 0,
            1 => cut - 12 + self.below(14),
            2 => 2 * cut - 14 + self.below(16),
            3 => self.below(3 * cut),
            _ => self.below(300),
        };
        self.serial += 1;
        let correlation = self.rng.chance(1, 3).then_some(self.serial);
        let mut body = vec![self.serial as u8; len.min(self.largest)];
        if let Some(first) = body.first_chunk_mut() {
            *first = self.serial.to_le_bytes();
        }
        let kind = if correlation.is_some() { Kind::Request } else { Kind::Data };
        let meta = Meta::new(self.serial as u16).lane(lane);
        let peer = &mut self.peers[at];
        let before = peer.outbox.claimed(&self.logs);
        let private = peer.outbox.private();
        let took = peer.outbox.push_message(&self.logs, &mut self.pool, Draft::new(kind, meta, correlation, &body), cut);
        assert!(peer.outbox.claimed(&self.logs) - before <= SPANS_CHARGE + message_wire_len(correlation.is_some(), body.len(), cut));
        let mut wire = Vec::new();
        append_message(&mut wire, Draft::new(kind, meta, correlation, &body), cut);
        assert_eq!(took, peer.outbox.private() - private);
        peer.expect(lane.index() + 1, &Sent::new(wire, kind, meta.message_type, correlation, body));
    }

    fn push_frame(&mut self, at: usize) {
        let (frame, sent) = self.draw_frame();
        let peer = &mut self.peers[at];
        let before = peer.outbox.claimed(&self.logs);
        let private = peer.outbox.private();
        let took = peer.outbox.push_frame(&self.logs, &mut self.pool, &frame);
        assert!(peer.outbox.claimed(&self.logs) - before <= sent.wire.len() + 2 * SPAN_CHARGE);
        assert_eq!(took, peer.outbox.private() - private);
        peer.expect(frame.lane().index() + 1, &sent);
    }

    fn push_control(&mut self, at: usize) {
        self.serial += 1;
        let payload = self.serial.to_le_bytes();
        let wire = control_frame(Kind::Pong, payload);
        let peer = &mut self.peers[at];
        peer.outbox.push_control(&mut self.pool, &wire);
        peer.expect(CONTROL, &Sent::new(wire.to_vec(), Kind::Pong, 0, None, payload.to_vec()));
    }

    fn gather_and_advance(&mut self, at: usize) {
        let budget = 1 + match self.below(6) {
            0 => self.below(20),
            1 => self.below(1024),
            2..4 => self.below(64 * 1024),
            4 => 256 * 1024,
            _ => usize::MAX - 1,
        };
        let peer = &self.peers[at];
        let mut slices = Slices::new(budget);
        peer.outbox.gather(&self.logs, &mut slices);
        let listed = slices.as_slice();
        assert!(listed.iter().all(|slice| !slice.is_empty()));
        let gathered = listed.iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat();
        assert_eq!(gathered.len(), slices.bytes());
        assert!(listed.len() == MAX_SLICES || gathered.len() == peer.bytes.min(budget), "something was left out");
        self.advance(at, &gathered);
    }

    fn take_contiguous(&mut self, at: usize) {
        let outbox = &self.peers[at].outbox;
        let Some(bytes) = outbox.contiguous(&self.logs) else { return };
        assert_eq!(bytes.len(), self.peers[at].bytes, "contiguous, but not everything");
        let mut slices = Slices::new(usize::MAX);
        outbox.gather(&self.logs, &mut slices);
        assert_eq!(slices.as_slice().len(), 1);
        assert!(std::ptr::eq(&raw const *slices.as_slice()[0], bytes));
        let bytes = bytes.to_vec();
        self.advance(at, &bytes);
    }

    /// The kernel takes some of `gathered`: nothing, all, or some.
    fn advance(&mut self, at: usize, gathered: &[u8]) {
        let taken = match self.below(8) {
            0 => 0,
            1..4 => gathered.len(),
            4 => self.below(40).min(gathered.len()),
            _ => self.below(gathered.len() + 1),
        };
        let peer = &mut self.peers[at];
        let private = peer.outbox.private();
        let advanced = peer.outbox.advance(&self.logs, &mut self.pool, taken);
        assert_eq!(advanced.freed, private - peer.outbox.private());
        assert_eq!(advanced.messages, peer.take(&gathered[..taken]), "messages that left whole");
        peer.receiver.receive(&gathered[..taken]);
        assert_eq!(peer.receiver.decoder.is_partial(), peer.started().is_some());
    }

    fn detach(&mut self, at: usize) {
        self.peers[at].outbox.detach(&self.logs, &mut self.pool);
        self.peers[at].attached = false;
    }

    /// The connection ends with something waiting. Then the slot has another peer, or the same one says goodbye.
    fn clear(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        let dropped = peer.outbox.clear(&self.logs, &mut self.pool);
        assert_eq!(dropped.messages, peer.messages);
        assert!(peer.outbox.is_empty(&self.logs) && !peer.outbox.is_mid_frame());
        assert_eq!(peer.outbox.oldest(&self.logs), self.logs.ends().map(|cursor| cursor.position));
        let mut next = Peer::new(&self.logs);
        if self.rng.chance(1, 2) {
            std::mem::swap(&mut next.outbox, &mut peer.outbox);
            next.attached = false;
        }
        *peer = next;
    }

    fn evacuate(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        peer.outbox.evacuate(&self.logs, &mut self.pool);
        assert_eq!(peer.outbox.private(), peer.outbox.claimed(&self.logs), "something is still in a log");
        assert_eq!(peer.outbox.oldest(&self.logs), self.logs.ends().map(|cursor| cursor.position));
    }

    fn release(&mut self) {
        let oldest = std::array::from_fn(|lane| self.peers.iter().map(|peer| peer.outbox.oldest(&self.logs)[lane]).min().unwrap());
        self.logs.release(oldest);
    }

    /// Everybody gets what is waiting, and everything is given back.
    fn finish(mut self) {
        for at in 0..self.peers.len() {
            while !self.peers[at].outbox.is_empty(&self.logs) {
                self.gather_and_advance(at);
                self.peers[at].check(&self.logs);
            }
            let peer = &self.peers[at];
            assert_eq!((peer.messages, peer.outbox.private()), (0, 0));
            assert!(peer.receiver.due.iter().all(VecDeque::is_empty), "something never came");
        }
        self.release();
        assert!(self.logs.is_empty());
        assert_eq!(self.logs.held(), 0);
        let tails = || self.pool.free.iter().flat_map(|queued| &queued.lanes);
        assert!(tails().all(|queue| queue.tail.is_empty() && queue.tail.capacity() <= KEPT_TAIL && queue.bytes == 0));
    }
}

#[test]
fn any_run_of_operations_delivers_each_lane_whole_and_in_order() {
    let bank = bank();
    for seed in 0..SEEDS {
        let run = || {
            let mut core = Core::new(seed, &bank);
            (0..STEPS).for_each(|_| core.step());
            core.finish();
        };
        if let Err(failure) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(failure);
        }
    }
}

fn frame(lane: Lane, len: usize) -> Frame {
    Frame::new(Meta::new(len as u16).lane(lane), &vec![len as u8; len]).unwrap()
}

fn pong() -> [u8; 16] {
    control_frame(Kind::Pong, [7; 8])
}

/// Logs, a pool, and an outbox that is up to date.
fn fresh() -> (Logs, QueuedPool, Outbox) {
    let logs = Logs::new();
    let outbox = Outbox::new(&logs);
    (logs, QueuedPool::new(8 << 20), outbox)
}

/// Everything that is waiting, in the order in which it leaves.
fn waiting(outbox: &Outbox, logs: &Logs) -> Vec<u8> {
    let mut slices = Slices::new(usize::MAX);
    outbox.gather(logs, &mut slices);
    slices.as_slice().iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat()
}

#[test]
fn a_pong_overtakes_broadcasts_but_not_the_frame_that_has_begun() {
    let (mut logs, mut pool, mut outbox) = fresh();
    let frames = [10, 20, 30].map(|len| frame(Lane::High, len));
    frames.iter().for_each(|frame| logs.append(frame));
    let [first, second, third] = frames.each_ref().map(Frame::as_bytes);
    outbox.push_control(&mut pool, &pong());
    assert_eq!(waiting(&outbox, &logs), [&pong(), first, second, third].concat());
    outbox.advance(&logs, &mut pool, 16 + 5);
    assert!(outbox.is_mid_frame());
    outbox.push_control(&mut pool, &pong());
    assert_eq!(waiting(&outbox, &logs), [&first[5..], &pong(), second, third].concat());
}

#[test]
fn a_pong_waits_for_a_fragment_not_for_the_message() {
    for len in [3000, 5000] {
        let (mut logs, mut pool, mut outbox) = fresh();
        let frame = Frame::encode(Draft::data(Meta::new(1), &vec![1; len]), 1024).unwrap();
        logs.append(&frame);
        outbox.advance(&logs, &mut pool, 10);
        outbox.push_control(&mut pool, &pong());
        let (fragment, rest) = frame.as_bytes().split_at(1032);
        assert_eq!(waiting(&outbox, &logs), [&fragment[10..], &pong(), rest].concat(), "{len}");
    }
}

#[test]
fn a_write_of_nothing_keeps_the_frame_that_has_begun() {
    let (mut logs, mut pool, mut outbox) = fresh();
    let (bulk, high) = (frame(Lane::Bulk, 100), frame(Lane::High, 10));
    logs.append(&bulk);
    outbox.advance(&logs, &mut pool, 50);
    logs.append(&high);
    assert_eq!(outbox.advance(&logs, &mut pool, 0), Advanced::default());
    assert_eq!(waiting(&outbox, &logs), [&bulk.as_bytes()[50..], high.as_bytes()].concat());
}

#[test]
fn the_last_broadcast_has_ended_though_a_pong_waits() {
    let (mut logs, mut pool, mut outbox) = fresh();
    let (first, second) = (frame(Lane::Normal, 100), frame(Lane::Normal, 20));
    logs.append(&first);
    outbox.advance(&logs, &mut pool, 50);
    outbox.push_control(&mut pool, &pong());
    assert_eq!(outbox.advance(&logs, &mut pool, 58).messages, 1);
    assert!(!outbox.is_mid_frame());
    logs.append(&second);
    assert_eq!(waiting(&outbox, &logs), [&pong(), second.as_bytes()].concat());
}

#[test]
fn broadcasts_and_direct_sends_of_a_lane_leave_in_the_order_of_the_calls() {
    let (mut logs, mut pool, mut outbox) = fresh();
    let mut sent = Vec::new();
    for len in [1, 2, 5000, 3, 6000] {
        let (cast, direct) = (frame(Lane::Normal, len), frame(Lane::Normal, len + 10));
        logs.append(&cast);
        outbox.push_frame(&logs, &mut pool, &direct);
        outbox.push_message(&logs, &mut pool, Draft::data(Meta::new(len as u16), &[9; 40]), 1024);
        sent.extend_from_slice(cast.as_bytes());
        sent.extend_from_slice(direct.as_bytes());
        append_message(&mut sent, Draft::data(Meta::new(len as u16), &[9; 40]), 1024);
    }
    let urgent = frame(Lane::High, 4);
    logs.append(&urgent);
    assert_eq!(waiting(&outbox, &logs), [urgent.as_bytes(), &sent].concat());
}

#[test]
fn many_tiny_alternating_sends_take_no_more_memory_than_twice_what_they_claim() {
    const BOUND: usize = 256 * 1024;
    let (mut logs, mut pool, mut outbox) = fresh();
    let empty = frame(Lane::Normal, 0);
    let mut pairs = 0;
    while outbox.claimed(&logs) + SPANS_CHARGE + message_wire_len(false, 0, 1024) <= BOUND {
        outbox.push_message(&logs, &mut pool, Draft::data(Meta::new(0), &[]), 1024);
        logs.append(&empty);
        pairs += 1;
    }
    assert!(pairs >= BOUND / (2 * 8 + 2 * SPAN_CHARGE + 8), "{pairs}");
    let queue = &outbox.queued.as_ref().unwrap().lanes[2];
    assert!(queue.spans.capacity() * size_of::<Span>() + queue.tail.capacity() <= 2 * BOUND);
    assert!(outbox.claimed(&logs) <= BOUND + empty.as_bytes().len());
}

#[test]
fn a_large_frame_is_not_copied_and_a_small_one_is() {
    for (len, copied) in [(BY_REFERENCE - 8, false), (BY_REFERENCE - 9, true)] {
        let frame = frame(Lane::Bulk, len);
        let (mut logs, mut pool, mut cast) = fresh();
        let mut direct = Outbox::new(&logs);
        logs.append(&frame);
        direct.skip_to_end(&logs, Lane::Bulk);
        direct.push_frame(&logs, &mut pool, &frame);
        for outbox in [&mut cast, &mut direct] {
            let mut slices = Slices::new(usize::MAX);
            outbox.gather(&logs, &mut slices);
            assert_eq!(slices.as_slice().len(), 1);
            assert_eq!(slices.as_slice()[0].as_ptr() != frame.as_bytes().as_ptr(), copied, "{len}");
        }
    }
}

#[test]
fn an_idle_outbox_is_small_and_broadcasts_need_no_box() {
    assert!(size_of::<Outbox>() <= 96);
    let (mut logs, mut pool, mut outbox) = fresh();
    for len in [0, 100, 5000] {
        logs.append(&frame(Lane::Normal, len));
        logs.append(&frame(Lane::High, len));
        assert!(outbox.claimed(&logs) >= 2 * len + 16);
        outbox.advance(&logs, &mut pool, 7);
        outbox.advance(&logs, &mut pool, 2 * len + 16 - 7);
        assert!(outbox.is_empty(&logs) && outbox.queued.is_none());
    }
    assert!(pool.free.is_empty(), "a box was made");
}

#[test]
fn an_emptied_box_goes_back_to_the_pool_with_its_small_tails_only() {
    let (logs, mut pool, mut outbox) = fresh();
    let long = outbox.push_message(&logs, &mut pool, Draft::data(Meta::new(1), &vec![1; 2 * KEPT_TAIL]), 1024);
    let short = outbox.push_control(&mut pool, &pong());
    let advanced = outbox.advance(&logs, &mut pool, long + short - 2 * SPAN_CHARGE);
    assert_eq!(advanced, Advanced { messages: 1, freed: long + short });
    assert_eq!(pool.free.len(), 1);
    let [control, _, normal, _] = &pool.free[0].lanes;
    assert_eq!(normal.tail.capacity(), 0);
    assert!((short - SPAN_CHARGE..=KEPT_TAIL).contains(&control.tail.capacity()));
    let memory = control.tail.as_ptr();
    outbox.push_control(&mut pool, &pong());
    assert!(pool.free.is_empty());
    assert_eq!(outbox.contiguous(&logs).unwrap().as_ptr(), memory);
}

#[test]
fn a_message_is_counted_when_its_last_byte_leaves_or_when_it_is_dropped() {
    for stop in 0.. {
        let (mut logs, mut pool, mut outbox) = fresh();
        let fragments = Frame::encode(Draft::data(Meta::new(1), &[1; 1500]), 1024).unwrap();
        let mut ends = Vec::new();
        let mut total = 0;
        for frame in [&frame(Lane::Normal, 3), &fragments, &frame(Lane::Normal, 4088)] {
            logs.append(frame);
            outbox.push_frame(&logs, &mut pool, frame);
            logs.append(frame);
            ends.extend([1, 2, 3].map(|times| total + times * frame.as_bytes().len()));
            total = *ends.last().unwrap();
        }
        let stop = stop * 61;
        if stop > total {
            return;
        }
        let mut left = 0;
        for taken in 1..=stop {
            let advanced = outbox.advance(&logs, &mut pool, 1);
            assert_eq!(advanced.messages, ends.iter().filter(|&&end| end == taken).count() as u64, "at {taken}");
            left += advanced.messages;
        }
        if stop % 2 == 0 {
            outbox.evacuate(&logs, &mut pool);
        }
        let dropped = outbox.clear(&logs, &mut pool).messages;
        assert_eq!((left + dropped, dropped), (9, ends.iter().filter(|&&end| end > stop).count() as u64), "at {stop}");
    }
}

#[test]
fn an_excluded_outbox_misses_that_broadcast_only() {
    let (mut logs, mut pool, mut outbox) = fresh();
    let frames = [1, 2, 3].map(|len| frame(Lane::Normal, len));
    logs.append(&frames[0]);
    outbox.advance(&logs, &mut pool, 4);
    outbox.settle_lane(&logs, &mut pool, Lane::Normal);
    logs.append(&frames[1]);
    outbox.skip_to_end(&logs, Lane::Normal);
    logs.append(&frames[2]);
    assert_eq!(waiting(&outbox, &logs), [&frames[0].as_bytes()[4..], frames[2].as_bytes()].concat());
    assert_eq!(outbox.advance(&logs, &mut pool, 5 + 11).messages, 2);
}

#[test]
fn an_evacuated_outbox_lets_the_log_go_and_loses_nothing() {
    let (mut logs, mut pool, mut outbox) = fresh();
    for len in [100, 5000, 300] {
        logs.append(&frame(Lane::Normal, len));
        outbox.push_frame(&logs, &mut pool, &frame(Lane::Normal, len));
        logs.append(&frame(Lane::Bulk, len));
    }
    outbox.advance(&logs, &mut pool, 50);
    let before = waiting(&outbox, &logs);
    outbox.evacuate(&logs, &mut pool);
    assert_eq!(outbox.private(), outbox.claimed(&logs));
    logs.release(outbox.oldest(&logs));
    assert!(logs.is_empty());
    outbox.push_control(&mut pool, &pong());
    assert_eq!(waiting(&outbox, &logs), [&before[..58], &pong(), &before[58..]].concat());
    assert_eq!(outbox.advance(&logs, &mut pool, before.len() + 16).messages, 9);
}

#[test]
fn a_burst_of_broadcasts_or_of_replies_is_one_run_and_both_together_are_not() {
    let (mut logs, mut pool, mut outbox) = fresh();
    assert!(outbox.contiguous(&logs).is_none());
    (0..50).for_each(|len| logs.append(&frame(Lane::Normal, len)));
    assert_eq!(outbox.contiguous(&logs).unwrap(), waiting(&outbox, &logs));
    outbox.advance(&logs, &mut pool, outbox.claimed(&logs));
    for _ in 0..50 {
        outbox.push_message(&logs, &mut pool, Draft::data(Meta::new(1), &[1]), 1024);
    }
    assert_eq!(outbox.contiguous(&logs).unwrap(), waiting(&outbox, &logs));
    logs.append(&frame(Lane::Normal, 1));
    assert!(outbox.contiguous(&logs).is_none());
}
