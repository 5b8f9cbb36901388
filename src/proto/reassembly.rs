//! Messages that arrive in pieces.

use std::time::Duration;

use super::peer::Whole;
use crate::buffers::{BufferPool, LARGE, MEDIUM, capacity_for};
use crate::error::Violation;
use crate::time::Timestamp;
use crate::wire::{CORRELATION_LEN, Header, Kind, Lane, Meta, TOTAL_LEN};

/// A message that arrived in pieces, whole.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) kind: Kind,
    pub(crate) meta: Meta,
    pub(crate) correlation: u64,
    /// A buffer of the core's pool.
    pub(crate) body: Vec<u8>,
}

impl Assembled {
    pub(crate) fn whole(&self) -> Whole<'_> {
        Whole { kind: self.kind, meta: self.meta, correlation: self.correlation, body: &self.body }
    }
}

/// What a fragment led to.
#[derive(Debug)]
pub(crate) enum Piece {
    /// More are to come.
    Taken,
    /// The message is whole, and waits for [`Reassembly::take_whole`].
    Whole,
    /// The message was not begun, because the core has no room for it now. Give the same frame again later.
    NoRoom,
}

/// The unfinished messages of one peer: one per lane.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    lanes: [Option<Partial>; Lane::ALL.len()],
    /// The one that has just become whole.
    whole: Option<Assembled>,
    /// Bytes taken from the budget.
    taken: usize,
}

#[derive(Debug)]
struct Partial {
    message: Assembled,
    total: usize,
    /// When it has to be whole.
    deadline: Timestamp,
}

/// Memory of a peer that has begun to send messages in pieces, beyond their bodies.
pub(crate) const REASSEMBLY: usize = size_of::<Reassembly>();

/// What a message of so many bytes takes from the budget when it begins: the memory that it will have at the end, so that what has begun
/// can always be finished.
pub(crate) const fn charge(total: usize) -> usize {
    capacity_for(total)
}

/// How much room a message of `total` bytes gets when `received` of them need more than `capacity`. Through the classes, then doubling.
fn room(total: usize, received: usize, capacity: usize) -> usize {
    if received <= MEDIUM { received } else { (2 * capacity).max(LARGE).clamp(received, total) }
}

impl Reassembly {
    /// The first fragment of a message, which has to be whole at `deadline(bytes that are missing)`. The length it announces is checked
    /// before anything is allocated, and memory grows with what arrives: `fits` says whether the budget has what it will need at the end.
    pub(crate) fn begin(
        &mut self,
        header: Header,
        payload: &[u8],
        max_message: usize,
        pool: &mut BufferPool,
        fits: impl FnOnce(usize) -> bool,
        deadline: impl FnOnce(usize) -> Timestamp,
    ) -> Result<Piece, Violation> {
        let lane = header.lane.unwrap_or_default();
        if self.lanes[lane.index()].is_some() {
            return Err(Violation::Interleaved);
        }
        let (total, correlation, body) = announced(header, payload, max_message)?;
        if !fits(charge(total)) {
            return Ok(Piece::NoRoom);
        }
        self.taken += charge(total);
        let meta = Meta::new(header.message_type).lane(lane);
        let mut begun = pool.take(body.len());
        begun.extend_from_slice(body);
        let message = Assembled { kind: header.kind, meta, correlation, body: begun };
        let deadline = deadline(total - body.len());
        self.lanes[lane.index()] = Some(Partial { message, total, deadline });
        Ok(Piece::Taken)
    }

    /// Gives up what has begun in a lane: its type, and how many bytes of its body have still to come.
    pub(crate) fn abandon_lane(&mut self, lane: Lane, pool: &mut BufferPool) -> Option<(u16, usize)> {
        let Partial { message, total, .. } = self.lanes[lane.index()].take()?;
        self.taken -= charge(total);
        let missing = total - message.body.len();
        pool.give_back(message.body);
        Some((message.meta.message_type, missing))
    }

    /// A later fragment.
    pub(crate) fn go_on(&mut self, header: Header, payload: &[u8], pool: &mut BufferPool) -> Result<Piece, Violation> {
        let slot = &mut self.lanes[header.lane.unwrap_or_default().index()];
        let Some(partial) = slot.as_mut().filter(|partial| partial.message.meta.message_type == header.message_type) else {
            return Err(Violation::UnexpectedFragment);
        };
        let received = partial.message.body.len() + payload.len();
        if received > partial.total {
            return Err(Violation::FragmentOverrun);
        }
        let complete = received == partial.total;
        if payload.is_empty() || complete == header.more {
            return Err(Violation::FragmentShort);
        }
        let body = &mut partial.message.body;
        if body.capacity() < received {
            pool.grow(body, room(partial.total, received, body.capacity()));
        }
        body.extend_from_slice(payload);
        if !complete {
            return Ok(Piece::Taken);
        }
        self.taken -= charge(partial.total);
        self.whole = slot.take().map(|partial| partial.message);
        Ok(Piece::Whole)
    }

    /// The message that the last fragment made whole.
    pub(crate) fn take_whole(&mut self) -> Option<Assembled> {
        self.whole.take()
    }

    /// Whether a message of this lane has begun and not ended.
    pub(crate) fn is_busy(&self, lane: Lane) -> bool {
        self.lanes[lane.index()].is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.whole.is_none() && self.lanes.iter().all(Option::is_none)
    }

    /// Bytes taken from the budget.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// Bytes of memory.
    pub(crate) fn held(&self) -> usize {
        assert_eq!(self.taken, self.lanes.iter().flatten().map(|partial| charge(partial.total)).sum::<usize>());
        self.lanes.iter().flatten().map(|partial| partial.message.body.capacity()).sum()
    }

    /// When the first of the unfinished messages has to be whole.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.lanes.iter().flatten().map(|partial| partial.deadline).min()
    }

    /// The peer was not read for a while: `deadline(bytes that are missing)` counts from now.
    pub(crate) fn restart(&mut self, deadline: impl Fn(usize) -> Timestamp) {
        for partial in self.lanes.iter_mut().flatten() {
            partial.deadline = deadline(partial.total - partial.message.body.len());
        }
    }

    /// The peer was not read for so long: what is unfinished has that much more time.
    pub(crate) fn postpone(&mut self, by: Duration) {
        for partial in self.lanes.iter_mut().flatten() {
            partial.deadline = partial.deadline + by;
        }
    }

    /// Gives everything back: the peer is gone.
    pub(crate) fn abandon(self, pool: &mut BufferPool) {
        let unfinished = self.lanes.into_iter().flatten().map(|partial| partial.message);
        unfinished.chain(self.whole).for_each(|message| pool.give_back(message.body));
    }
}

/// What the first fragment of a message says: the length of its body, the correlation id, and how the body begins.
pub(crate) fn announced(header: Header, payload: &[u8], max_message: usize) -> Result<(usize, u64, &[u8]), Violation> {
    let (total, rest) = payload.split_first_chunk::<TOTAL_LEN>().expect("the header's length was checked");
    let announced = u32::from_le_bytes(*total);
    if announced as usize > max_message {
        return Err(Violation::MessageTooLong { len: announced });
    }
    let (correlation, body) = split_correlation(header.kind, rest);
    let total = announced as usize;
    if body.is_empty() || body.len() >= total {
        return Err(Violation::FragmentShort);
    }
    Ok((total, correlation, body))
}

/// Takes the correlation id off a payload; zero where the kind has none.
pub(crate) fn split_correlation(kind: Kind, payload: &[u8]) -> (u64, &[u8]) {
    match payload.split_first_chunk::<CORRELATION_LEN>() {
        Some((id, body)) if kind.has_correlation() => (u64::from_le_bytes(*id), body),
        _ => (0, payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::SMALL;

    fn header(kind: Kind, more: bool, len: usize) -> Header {
        Header::message(kind, Meta::new(5), more, len)
    }

    fn first(total: u32, body: &[u8]) -> Vec<u8> {
        [&total.to_le_bytes(), body].concat()
    }

    fn begin(reassembly: &mut Reassembly, pool: &mut BufferPool, total: u32, body: &[u8]) -> Result<Piece, Violation> {
        let payload = first(total, body);
        let header = header(Kind::Data, true, payload.len());
        reassembly.begin(header, &payload, 3 << 20, pool, |_| true, |missing| Timestamp::from_nanos(missing as u64))
    }

    fn go_on(reassembly: &mut Reassembly, pool: &mut BufferPool, more: bool, body: &[u8]) -> Result<Piece, Violation> {
        reassembly.go_on(header(Kind::Fragment, more, body.len()), body, pool)
    }

    #[test]
    fn pieces_become_the_message_and_what_was_taken_returns() {
        let (mut reassembly, mut pool) = (Reassembly::default(), BufferPool::new(0));
        assert!(matches!(begin(&mut reassembly, &mut pool, 6, b"ab"), Ok(Piece::Taken)));
        assert_eq!((reassembly.taken(), reassembly.deadline()), (charge(6), Some(Timestamp::from_nanos(4))));
        assert!(matches!(go_on(&mut reassembly, &mut pool, true, b"cd"), Ok(Piece::Taken)));
        assert!(matches!(go_on(&mut reassembly, &mut pool, false, b"ef"), Ok(Piece::Whole)));
        let message = reassembly.take_whole().unwrap();
        assert_eq!((message.body.as_slice(), reassembly.taken(), reassembly.is_empty()), (&b"abcdef"[..], 0, true));
        pool.give_back(message.body);
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn each_broken_rule_has_its_own_violation() {
        let fresh = || (Reassembly::default(), BufferPool::new(0));
        let (mut r, mut b) = fresh();
        assert_eq!(begin(&mut r, &mut b, (3 << 20) + 1, b"x").unwrap_err(), Violation::MessageTooLong { len: (3 << 20) + 1 });
        assert_eq!(begin(&mut r, &mut b, 1, b"x").unwrap_err(), Violation::FragmentShort);
        assert_eq!(begin(&mut r, &mut b, 1, b"").unwrap_err(), Violation::FragmentShort);
        assert_eq!(go_on(&mut r, &mut b, false, b"x").unwrap_err(), Violation::UnexpectedFragment);
        let started = || {
            let (mut r, mut b) = fresh();
            begin(&mut r, &mut b, 4, b"ab").unwrap();
            (r, b)
        };
        let (mut r, mut b) = started();
        assert_eq!(begin(&mut r, &mut b, 4, b"ab").unwrap_err(), Violation::Interleaved);
        assert_eq!(go_on(&mut r, &mut b, false, b"cde").unwrap_err(), Violation::FragmentOverrun);
        assert_eq!(go_on(&mut r, &mut b, false, b"c").unwrap_err(), Violation::FragmentShort);
        assert_eq!(go_on(&mut r, &mut b, true, b"cd").unwrap_err(), Violation::FragmentShort);
        assert_eq!(go_on(&mut r, &mut b, true, b"").unwrap_err(), Violation::FragmentShort);
        r.abandon(&mut b);
        assert_eq!(b.lent(), 0);
    }

    #[test]
    fn without_room_nothing_begins_and_nothing_is_taken() {
        let (mut reassembly, mut pool) = (Reassembly::default(), BufferPool::new(0));
        let payload = first(5000, b"ab");
        let header = header(Kind::Data, true, payload.len());
        let begun = reassembly.begin(header, &payload, 5000, &mut pool, |bytes| bytes < MEDIUM, |_| Timestamp::ORIGIN);
        assert!(matches!(begun, Ok(Piece::NoRoom)));
        assert_eq!((reassembly.taken(), pool.lent(), reassembly.is_empty()), (0, 0, true));
    }

    #[test]
    fn memory_grows_with_what_arrives_and_stays_within_what_was_taken() {
        for total in [5000, 60_000, 100_000, 270_000, 1 << 20, 3 << 20] {
            let (mut reassembly, mut pool) = (Reassembly::default(), BufferPool::new(0));
            begin(&mut reassembly, &mut pool, total, &[1; 1000]).unwrap();
            let (mut received, mut most) = (1000, 0);
            while received < total as usize {
                let held = reassembly.held();
                assert_eq!(held, pool.lent());
                // The step from the middle class to the largest is the steepest.
                assert!(held <= 16 * received.max(SMALL), "{held} for {received} of {total}");
                most = most.max(held);
                let next = 1000.min(total as usize - received);
                received += next;
                go_on(&mut reassembly, &mut pool, received < total as usize, &vec![2; next]).unwrap();
            }
            assert!(most <= charge(total as usize), "{most} of {total}");
            assert!(reassembly.take_whole().is_some() && reassembly.is_empty());
        }
    }
}
