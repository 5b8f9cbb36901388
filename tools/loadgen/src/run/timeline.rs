//! The measured time, piece by piece: what the client's cores have counted in each, what waits to be written, and what the server's cores
//! did meanwhile.
//!
//! A core is handed an empty [`Slice`] and gives back the one that it has counted in, so a cut costs it a message and no copying. Slices
//! are added up here, by the main thread, and go round.

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use corecast::{Counter, Handle, Stats};

use crate::client::Command;
use crate::hdr;
use crate::measure::{Condition, Slice, percentiles};
use crate::report::{CoreTime, Interval};
use crate::spec::Spec;

/// The longest piece, unless there would be more than [`MOST`].
const LENGTH: Duration = Duration::from_secs(1);
/// A run is cut into so many pieces at least, where they are no shorter than [`SHORTEST`].
const FEWEST: u32 = 10;
const SHORTEST: Duration = Duration::from_millis(50);
/// Pieces at most: what a plot can show, and a report should carry.
const MOST: u32 = 1000;
/// What the cores may take to give back their slices. What comes later counts in the next piece.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long the pieces of a measured time are.
fn piece(duration: Duration) -> Duration {
    LENGTH.min(duration / FEWEST).max(SHORTEST).max(duration / MOST)
}

/// The pieces so far.
pub(super) struct Timeline {
    length: Duration,
    /// Whether the latencies of each piece are kept.
    logged: bool,
    clients: Vec<Handle<Command>>,
    /// The server's, where it is in this process.
    server: Option<Handle<()>>,
    given: Sender<(Condition, Box<Slice>)>,
    back: Receiver<(Condition, Box<Slice>)>,
    #[expect(clippy::vec_box, reason = "they travel by pointer")]
    spare: Vec<Box<Slice>>,
    /// What was cut off, in the order of [`Condition::BOTH`].
    sums: [Slice; 2],
    intervals: Vec<Interval>,
    /// The beginning of the first piece.
    origin: Option<Instant>,
    /// The piece that has begun.
    current: Option<Piece>,
}

/// A piece that has begun.
struct Piece {
    condition: Condition,
    began: Instant,
    /// What the server's cores had counted then.
    before: Vec<Stats>,
}

impl Timeline {
    pub(super) fn new(spec: &Spec, clients: Vec<Handle<Command>>, server: Option<Handle<()>>) -> Self {
        let (given, back) = mpsc::channel();
        let sums = [Slice::new(), Slice::new()];
        let (length, logged) = (piece(spec.load.duration), spec.load.hdr_log.is_some());
        Self { length, logged, clients, server, given, back, spare: Vec::new(), sums, intervals: Vec::new(), origin: None, current: None }
    }

    /// The pieces that have ended.
    pub(super) fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// The client's windows have opened.
    pub(super) fn begin(&mut self, condition: Condition) {
        let began = Instant::now();
        self.origin.get_or_insert(began);
        self.current = Some(Piece { condition, began, before: self.core_stats() });
    }

    /// Ends a piece where it is time to.
    pub(super) fn look(&mut self) {
        if self.current.as_ref().is_some_and(|piece| piece.began.elapsed() >= self.length) {
            self.cut();
        }
    }

    /// The client's windows have closed.
    pub(super) fn end(&mut self) {
        self.cut();
        self.current = None;
    }

    /// Ends a piece, and begins the next.
    fn cut(&mut self) {
        let Some(Piece { condition, began, before }) = self.current.take() else { return };
        let now = Instant::now();
        let asked = self.clients.iter().filter(|client| {
            let fresh = self.spare.pop().unwrap_or_else(|| Box::new(Slice::new()));
            // Refused where the inbox is full. Then the core counts on, and gives it back the next time.
            client.post(0, Command::Cut { fresh, answer: self.given.clone() }).is_ok()
        });
        let asked = asked.count();
        let mut whole = self.spare.pop().unwrap_or_else(|| Box::new(Slice::new()));
        for _ in 0..asked {
            let Ok(part) = self.back.recv_timeout(PATIENCE.saturating_sub(now.elapsed())) else { break };
            self.take(part, &mut whole);
        }
        let after = self.core_stats();
        let [p50_ns, _, p99_ns, _, max_ns] = percentiles(&whole.latency);
        self.intervals.push(Interval {
            at_s: self.origin.map_or(0.0, |origin| (began - origin).as_secs_f64()),
            elapsed_s: (now - began).as_secs_f64(),
            disturbed: condition == Condition::Disturbed,
            sent: whole.sent,
            delivered: whole.delivered,
            p50_ns,
            p99_ns,
            max_ns,
            lag_max_ns: whole.send_lag.max(),
            queued_bytes: self.queued_bytes(&after),
            latencies: self.logged.then(|| hdr::encode(&whole.latency)),
            core_time: before.iter().zip(&after).map(|(before, after)| CoreTime::between(before, after)).collect(),
        });
        whole.reset();
        self.spare.push(whole);
        self.current = Some(Piece { condition, began: now, before: after });
    }

    /// Adds one core's part to the piece and to the sum of its condition.
    fn take(&mut self, (condition, mut slice): (Condition, Box<Slice>), whole: &mut Slice) {
        whole.add(&slice);
        self.sums[condition as usize].add(&slice);
        slice.reset();
        self.spare.push(slice);
    }

    /// What was cut off under each condition, and the pieces. To be called when the cores have reported, which is after their last slices.
    pub(super) fn finish(&mut self) -> (&[Slice; 2], Vec<Interval>) {
        while let Ok((condition, slice)) = self.back.try_recv() {
            self.sums[condition as usize].add(&slice);
        }
        (&self.sums, std::mem::take(&mut self.intervals))
    }

    fn core_stats(&self) -> Vec<Stats> {
        self.server.iter().flat_map(|server| (0..server.cores()).map(|core| server.core_stats(core))).collect()
    }

    fn queued_bytes(&self, server: &[Stats]) -> u64 {
        let queued = |stats: &Stats| stats.get(Counter::PrivateBytes) + stats.get(Counter::LogBytes);
        self.clients.iter().map(|client| queued(&client.stats())).chain(server.iter().map(queued)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_seconds_or_tenths_and_never_too_many() {
        let lengths = [0.2, 1.0, 5.0, 10.0, 60.0, 86_400.0].map(|seconds| piece(Duration::from_secs_f64(seconds)).as_secs_f64());
        assert_eq!(lengths, [0.05, 0.1, 0.5, 1.0, 1.0, 86.4]);
    }
}
