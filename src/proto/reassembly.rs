//! Messages that arrive in pieces.

use crate::error::Violation;
use crate::time::Timestamp;
use crate::wire::{CORRELATION_LEN, Header, Kind, Lane, Meta, TOTAL_LEN};

/// What a core may keep in memory for messages that have not arrived whole.
#[derive(Debug)]
pub(crate) struct Budget {
    used: usize,
    limit: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: 0, limit }
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }

    fn take(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.limit - self.used;
        if fits {
            self.used += bytes;
        }
        fits
    }

    fn give_back(&mut self, bytes: usize) {
        self.used -= bytes;
    }
}

/// A message that arrived in pieces, whole.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) kind: Kind,
    pub(crate) meta: Meta,
    pub(crate) correlation: u64,
    pub(crate) body: Vec<u8>,
}

/// What a fragment led to.
#[derive(Debug)]
pub(crate) enum Piece {
    /// More are to come.
    Taken,
    Whole(Assembled),
    /// The message was not begun, because the core has no room for it now. Give the same frame again later.
    NoRoom,
}

/// The unfinished messages of one peer: one per lane.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    lanes: [Option<Partial>; Lane::ALL.len()],
}

#[derive(Debug)]
struct Partial {
    message: Assembled,
    total: usize,
    /// When it has to be whole.
    deadline: Timestamp,
}

impl Reassembly {
    /// The first fragment of a message, which has to be whole at `deadline(bytes that are missing)`. The length it announces is checked
    /// before anything is allocated, and memory grows with what arrives.
    pub(crate) fn begin(
        &mut self,
        header: Header,
        payload: &[u8],
        max_message: usize,
        budget: &mut Budget,
        deadline: impl FnOnce(usize) -> Timestamp,
    ) -> Result<Piece, Violation> {
        let lane = header.lane.unwrap_or_default();
        if self.lanes[lane.index()].is_some() {
            return Err(Violation::Interleaved);
        }
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
        if !budget.take(total) {
            return Ok(Piece::NoRoom);
        }
        let meta = Meta::new(header.message_type).lane(lane);
        let message = Assembled { kind: header.kind, meta, correlation, body: body.to_vec() };
        let deadline = deadline(total - message.body.len());
        self.lanes[lane.index()] = Some(Partial { message, total, deadline });
        Ok(Piece::Taken)
    }

    /// A later fragment.
    pub(crate) fn go_on(&mut self, header: Header, payload: &[u8], budget: &mut Budget) -> Result<Piece, Violation> {
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
            // Doubling, but never beyond what was announced and taken from the budget.
            body.reserve_exact((2 * body.capacity()).clamp(received, partial.total) - body.len());
        }
        body.extend_from_slice(payload);
        if !complete {
            return Ok(Piece::Taken);
        }
        budget.give_back(partial.total);
        Ok(slot.take().map_or(Piece::Taken, |partial| Piece::Whole(partial.message)))
    }

    /// Whether a message of this lane has begun and not ended.
    pub(crate) fn is_busy(&self, lane: Lane) -> bool {
        self.lanes[lane.index()].is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(Option::is_none)
    }

    /// Bytes taken from the budget.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.lanes.iter().flatten().map(|partial| partial.total).sum()
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

    /// Gives everything back: the peer is gone.
    pub(crate) fn abandon(self, budget: &mut Budget) {
        budget.give_back(self.lanes.iter().flatten().map(|partial| partial.total).sum());
    }
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

    fn header(kind: Kind, more: bool, len: usize) -> Header {
        Header::message(kind, Meta::new(5), more, len)
    }

    fn first(total: u32, body: &[u8]) -> Vec<u8> {
        [&total.to_le_bytes(), body].concat()
    }

    fn begin(reassembly: &mut Reassembly, budget: &mut Budget, total: u32, body: &[u8]) -> Result<Piece, Violation> {
        let payload = first(total, body);
        reassembly.begin(header(Kind::Data, true, payload.len()), &payload, 1000, budget, |missing| Timestamp::from_nanos(missing as u64))
    }

    fn go_on(reassembly: &mut Reassembly, budget: &mut Budget, more: bool, body: &[u8]) -> Result<Piece, Violation> {
        reassembly.go_on(header(Kind::Fragment, more, body.len()), body, budget)
    }

    #[test]
    fn pieces_become_the_message_and_the_budget_returns() {
        let (mut reassembly, mut budget) = (Reassembly::default(), Budget::new(1000));
        assert!(matches!(begin(&mut reassembly, &mut budget, 6, b"ab"), Ok(Piece::Taken)));
        assert_eq!((budget.used(), reassembly.deadline()), (6, Some(Timestamp::from_nanos(4))));
        assert!(matches!(go_on(&mut reassembly, &mut budget, true, b"cd"), Ok(Piece::Taken)));
        let Ok(Piece::Whole(message)) = go_on(&mut reassembly, &mut budget, false, b"ef") else { panic!("not whole") };
        assert_eq!((message.body.as_slice(), budget.used(), reassembly.is_empty()), (&b"abcdef"[..], 0, true));
    }

    #[test]
    fn each_broken_rule_has_its_own_violation() {
        let fresh = || (Reassembly::default(), Budget::new(1000));
        let (mut r, mut b) = fresh();
        assert_eq!(begin(&mut r, &mut b, 1001, b"x").unwrap_err(), Violation::MessageTooLong { len: 1001 });
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
        assert_eq!(b.used(), 0);
    }

    #[test]
    fn without_room_nothing_begins_and_nothing_is_taken() {
        let (mut reassembly, mut budget) = (Reassembly::default(), Budget::new(5));
        assert!(matches!(begin(&mut reassembly, &mut budget, 6, b"ab"), Ok(Piece::NoRoom)));
        assert_eq!((budget.used(), reassembly.is_empty()), (0, true));
    }
}
