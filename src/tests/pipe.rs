//! Connections that misbehave as the kernel's do.
//!
//! A [`Net`] owns every byte between nodes: how long it is under way, how it is cut, how much fits, and what is lost when an end closes
//! too early. It knows no shard; whoever owns an [`End`] is told of edges ([`Net::pop`]) and reads until there is nothing left.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{ErrorKind, IoSlice};

use crate::rng::Rng;

/// One side of a connection. Side 0 has dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    pub(super) link: u32,
    pub(super) side: u8,
}

impl End {
    pub(super) fn other(self) -> Self {
        Self { side: 1 - self.side, ..self }
    }
}

/// What an end is told, once for each time that it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Edge {
    Readable,
    Writable,
    /// The handshake of TCP has ended, one way or the other.
    Connected,
    Refused,
}

/// How bad the network is. Rates are per mille of the calls that they are drawn at.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    /// Nanoseconds from one end to the other, shortest and longest.
    pub(super) latency: (u64, u64),
    /// Bytes that fit between the ends.
    pub(super) capacity: (usize, usize),
    /// A read that gives less than there is.
    pub(super) short_read: u64,
    /// A write that takes less than fits.
    pub(super) short_write: u64,
    /// A write after which nothing arrives for a while.
    pub(super) stall: u64,
    pub(super) longest_stall: u64,
    /// A write that finds the connection reset.
    pub(super) reset: u64,
    /// A write after which the connection is dead and nobody is told.
    pub(super) vanish: u64,
    pub(super) refuse: u64,
    /// A connect that is never answered.
    pub(super) lost_connect: u64,
}

impl Faults {
    /// A millisecond of latency, a mebibyte of room, and no faults.
    pub(super) fn none() -> Self {
        Self {
            latency: (1_000_000, 1_000_000),
            capacity: (1 << 20, 1 << 20),
            short_read: 0,
            short_write: 0,
            stall: 0,
            longest_stall: 0,
            reset: 0,
            vanish: 0,
            refuse: 0,
            lost_connect: 0,
        }
    }
}

#[derive(Debug)]
struct Chunk {
    at: u64,
    bytes: Vec<u8>,
    read: usize,
}

/// One end's side of a connection.
#[derive(Debug)]
struct Side {
    /// On its way to this end, or arrived and unread.
    input: VecDeque<Chunk>,
    used: usize,
    capacity: usize,
    /// When the last byte so far arrives: nothing overtakes.
    last: u64,
    fin: Option<u64>,
    /// From then on every call fails.
    error: Option<(u64, ErrorKind)>,
    /// The application has closed its direction, or all.
    shut: bool,
    closed: bool,
    /// A write was cut short: an edge follows when there is room.
    blocked: bool,
}

#[derive(Debug)]
struct Link {
    sides: [Side; 2],
    target: usize,
    /// Nothing arrives any more, and nobody knows.
    dead: bool,
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Bytes(Vec<u8>),
    WouldBlock,
    Eof,
    Failed(ErrorKind),
}

/// All connections.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) faults: Faults,
    /// What a connect fails with that finds nobody.
    pub(super) refusal: ErrorKind,
    links: Vec<Link>,
    edges: BinaryHeap<Reverse<(u64, u64, End, Edge)>>,
    serial: u64,
    rng: Rng,
}

impl Net {
    pub(super) fn new(faults: Faults, seed: u64) -> Self {
        Self { faults, refusal: ErrorKind::ConnectionRefused, links: Vec::new(), edges: BinaryHeap::new(), serial: 0, rng: Rng::new(seed) }
    }

    /// Begins to connect to a node. `Connected` or `Refused` follows at the end that is returned, or nothing.
    pub(super) fn connect(&mut self, now: u64, target: usize) -> End {
        let link = self.links.len() as u32;
        let sides = [self.side(now), self.side(now)];
        self.links.push(Link { sides, target, dead: false });
        let end = End { link, side: 0 };
        let at = now + self.latency();
        if self.roll(self.faults.lost_connect) {
            self.links[link as usize].dead = true;
        } else if self.roll(self.faults.refuse) {
            self.edge(at, end, Edge::Refused);
        } else {
            self.edge(at, end, Edge::Connected);
        }
        end
    }

    fn side(&mut self, now: u64) -> Side {
        let (least, most) = self.faults.capacity;
        let capacity = least + self.rng.below((most - least) as u64 + 1) as usize;
        Side { input: VecDeque::new(), used: 0, capacity, last: now, fin: None, error: None, shut: false, closed: false, blocked: false }
    }

    pub(super) fn target(&self, end: End) -> usize {
        self.links[end.link as usize].target
    }

    pub(super) fn next_edge(&self) -> Option<u64> {
        self.edges.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next edge that has come by `now`. Ends that are closed are told nothing.
    pub(super) fn pop(&mut self, now: u64) -> Option<(End, Edge)> {
        while self.next_edge()? <= now {
            let Reverse((_, _, end, edge)) = self.edges.pop()?;
            let link = &mut self.links[end.link as usize];
            let side = &mut link.sides[end.side as usize];
            if edge == Edge::Writable {
                side.blocked = false;
            }
            let silent = link.dead && edge != Edge::Writable;
            if !side.closed && !silent {
                return Some((end, edge));
            }
        }
        None
    }

    pub(super) fn read(&mut self, now: u64, end: End, max: usize) -> Read {
        let short = self.roll(self.faults.short_read);
        let latency = self.latency();
        let cut = if short { 1 + self.rng.below(40) as usize } else { max };
        let side = self.side_mut(end);
        let mut bytes = Vec::new();
        while let Some(chunk) = side.input.front_mut()
            && chunk.at <= now
            && bytes.len() < cut.min(max)
        {
            let part = (cut.min(max) - bytes.len()).min(chunk.bytes.len() - chunk.read);
            bytes.extend_from_slice(&chunk.bytes[chunk.read..chunk.read + part]);
            chunk.read += part;
            if chunk.read == chunk.bytes.len() {
                side.input.pop_front();
            }
        }
        if bytes.is_empty() {
            return match (side.error, side.fin) {
                (Some((at, kind)), _) if at <= now => Read::Failed(kind),
                (_, Some(at)) if at <= now && side.input.is_empty() => Read::Eof,
                _ => Read::WouldBlock,
            };
        }
        side.used -= bytes.len();
        let room = side.used <= side.capacity / 2;
        if room && self.side_mut(end.other()).blocked {
            self.edge(now + latency, end.other(), Edge::Writable);
        }
        Read::Bytes(bytes)
    }

    /// Takes as many bytes as fit. Less than all: a `Writable` edge follows when there is room again.
    pub(super) fn write(&mut self, now: u64, end: End, slices: &[IoSlice<'_>]) -> Result<usize, ErrorKind> {
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let side = self.side_mut(end);
        if let Some((_, kind)) = side.error.filter(|(at, _)| *at <= now) {
            return Err(kind);
        }
        if side.shut {
            return Err(ErrorKind::BrokenPipe);
        }
        if self.roll(self.faults.reset) {
            self.reset(now, end.link);
            return Err(ErrorKind::ConnectionReset);
        }
        if self.roll(self.faults.vanish) {
            self.vanish(end.link);
        }
        let latency = self.latency();
        if self.side_mut(end.other()).closed {
            // Nobody is there: the bytes are answered with a reset.
            self.fail(now + latency, end, ErrorKind::ConnectionReset);
            return Ok(offered);
        }
        let short = self.roll(self.faults.short_write);
        let stall = if self.roll(self.faults.stall) { 1 + self.rng.below(self.faults.longest_stall.max(1)) } else { 0 };
        let space = self.side_mut(end.other()).capacity.saturating_sub(self.side_mut(end.other()).used);
        let fits = offered.min(space);
        let taken = if short { self.rng.below(fits as u64 + 1) as usize } else { fits };
        let link = &mut self.links[end.link as usize];
        let dead = link.dead;
        let other = &mut link.sides[1 - end.side as usize];
        other.used += taken;
        if taken > 0 && !dead {
            let mut bytes = Vec::with_capacity(taken);
            for slice in slices {
                bytes.extend_from_slice(&slice[..slice.len().min(taken - bytes.len())]);
            }
            let at = other.last.max(now + latency) + stall;
            other.last = at;
            other.input.push_back(Chunk { at, bytes, read: 0 });
            self.edge(at, end.other(), Edge::Readable);
        }
        if taken < offered {
            self.side_mut(end).blocked = true;
            if taken < space {
                self.edge(now + latency, end, Edge::Writable);
            }
        }
        Ok(taken)
    }

    /// Sends FIN.
    pub(super) fn shutdown_write(&mut self, now: u64, end: End) {
        let latency = self.latency();
        if std::mem::replace(&mut self.side_mut(end).shut, true) {
            return;
        }
        let link = &mut self.links[end.link as usize];
        if !link.dead {
            let other = &mut link.sides[1 - end.side as usize];
            let at = other.last.max(now + latency);
            other.last = at;
            other.fin = Some(at);
            self.edge(at, end.other(), Edge::Readable);
        }
    }

    /// Closes. With input unread, what this end has sent and has not arrived is destroyed.
    pub(super) fn close(&mut self, now: u64, end: End) {
        self.shutdown_write(now, end);
        let latency = self.latency();
        let side = self.side_mut(end);
        side.closed = true;
        let unread = side.input.iter().any(|chunk| chunk.read < chunk.bytes.len());
        side.input.clear();
        if unread && !self.links[end.link as usize].dead {
            let other = self.side_mut(end.other());
            let lost: usize = other.input.iter().filter(|chunk| chunk.at > now).map(|chunk| chunk.bytes.len()).sum();
            other.used -= lost;
            other.input.retain(|chunk| chunk.at <= now);
            other.fin = None;
            self.fail(now + latency, end.other(), ErrorKind::ConnectionReset);
        } else if self.side_mut(end.other()).blocked {
            // What it wants to write is answered with a reset.
            self.fail(now + latency, end.other(), ErrorKind::ConnectionReset);
        }
    }

    /// Both ends see an error; what is on its way is lost.
    pub(super) fn reset(&mut self, now: u64, link: u32) {
        for side in 0..2 {
            let end = End { link, side };
            let latency = self.latency();
            let this = self.side_mut(end);
            this.input.retain(|chunk| chunk.at <= now);
            this.used = this.input.iter().map(|chunk| chunk.bytes.len() - chunk.read).sum();
            this.fin = None;
            self.fail(now + latency, end, ErrorKind::ConnectionReset);
        }
    }

    /// Nothing arrives any more, and neither end is told.
    pub(super) fn vanish(&mut self, link: u32) {
        let link = &mut self.links[link as usize];
        link.dead = true;
        for side in &mut link.sides {
            side.input.clear();
            side.fin = None;
            side.error = None;
        }
    }

    fn fail(&mut self, at: u64, end: End, kind: ErrorKind) {
        let side = self.side_mut(end);
        if side.error.is_none() {
            side.error = Some((at, kind));
            self.edge(at, end, Edge::Readable);
            self.edge(at, end, Edge::Writable);
        }
    }

    fn side_mut(&mut self, end: End) -> &mut Side {
        &mut self.links[end.link as usize].sides[end.side as usize]
    }

    fn edge(&mut self, at: u64, end: End, edge: Edge) {
        self.serial += 1;
        self.edges.push(Reverse((at, self.serial, end, edge)));
    }

    fn latency(&mut self) -> u64 {
        let (least, most) = self.faults.latency;
        least + self.rng.below(most - least + 1)
    }

    fn roll(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.rng.chance(per_mille, 1000)
    }
}
