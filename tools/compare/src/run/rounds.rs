//! One row, measured: rounds in which every contestant has its turn, each against a fresh server process.
//!
//! What is close in time shares the machine's mood, so the ratio of two runs of one round is steadier than either. The order is rotated
//! from round to round, which takes out a drift. A fresh process for each run gives each its own luck with memory layout and ports. A run
//! that other programs disturbed is made again at once: that is decided by the CPU they used, never by the result.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::RunConfig;
use super::contestant::Contestant;
use super::process::ServerProcess;
use super::results::{Entry, Round, RowResults, Sample};
use super::work::{Row, Work, deliveries_per_message, open_loop};
use crate::client::meter::{Figures, Window};
use crate::client::{self, ClientConfig, Load};
use crate::machine;
use crate::sys::CpuSet;

/// A contestant that is there, and its program.
#[derive(Clone, Debug)]
pub(crate) struct Present {
    pub(crate) contestant: Contestant,
    pub(crate) file: PathBuf,
}

/// CPU of other programs, in cores, above which a run is made again.
const DISTURBED_ABOVE: f64 = 0.1;
/// After so long a contestant has had enough of a row: one that needs half a minute to drain what is on its way would need all evening.
/// Not the limit and ours, by whom all are measured.
const ENOUGH: Duration = Duration::from_secs(40);
/// The share of its saturation rate at which an open loop runs.
const OPEN_SHARE: f64 = 0.5;

/// What measuring needs besides the row.
pub(super) struct Bench<'a> {
    pub(super) config: &'a RunConfig,
    pub(super) present: &'a [Present],
    /// Where this process may run.
    pub(super) cpus: CpuSet,
}

impl Bench<'_> {
    /// All rounds of one row. `progress` is told before each what comes.
    pub(super) fn measure(&self, row: &Row, progress: &mut dyn FnMut(usize, usize)) -> RowResults {
        let mut entries: Vec<Entry> = self.present.iter().map(|present| entry(&present.contestant, row)).collect();
        let mut spent = vec![Duration::ZERO; entries.len()];
        let rounds = row.rounds(self.config.rounds);
        // As many again as wanted, but no more: the machine may never become quiet.
        let mut repeats_left = rounds;
        for round in 0..rounds {
            progress(round, rounds);
            machine::wait_until_quiet(self.config.patience);
            for index in rotated(entries.len(), round) {
                let entry = &mut entries[index];
                if entry.skipped.is_some() || entry.failed.is_some() || is_tired(&self.present[index].contestant, spent[index]) {
                    continue;
                }
                let start = Instant::now();
                match self.take_turn(&self.present[index], row, round, &mut repeats_left) {
                    Ok(result) => entry.rounds.push(result),
                    Err(failure) => {
                        eprintln!("{}: {} failed: {failure}", row.name, entry.contestant);
                        entry.failed = Some(failure.to_string());
                    }
                }
                spent[index] += start.elapsed();
            }
        }
        RowResults {
            name: row.name.into(),
            title: row.title.into(),
            load: serde_json::to_value(row.load()).expect("plain data always serialises"),
            connections: row.connections(),
            body_len: row.body_len,
            rounds,
            entries,
        }
    }

    /// One contestant's part of a round, again if it was disturbed.
    fn take_turn(&self, present: &Present, row: &Row, round: usize, repeats_left: &mut usize) -> io::Result<Round> {
        loop {
            let result = self.run_work(present, row, round)?;
            let foreign = result.beside.iter().fold(result.sample.foreign_cores, |most, beside| most.max(beside.foreign_cores));
            if foreign <= DISTURBED_ABOVE || *repeats_left == 0 {
                return Ok(result);
            }
            *repeats_left -= 1;
            eprintln!("{}: {} was disturbed by other programs ({foreign:.2} cores), once more", row.name, present.contestant.name);
        }
    }

    fn run_work(&self, present: &Present, row: &Row, round: usize) -> io::Result<Round> {
        let run = |load| self.run_once(present, load, row, None).map(|figures| Sample::from(&figures));
        let (sample, beside) = match row.work {
            Work::Load(load) => (run(load)?, None),
            Work::Beside { load, without } if round.is_multiple_of(2) => {
                let beside = run(without)?;
                (run(load)?, Some(beside))
            }
            Work::Beside { load, without } => {
                let sample = run(load)?;
                (sample, Some(run(without)?))
            }
            Work::HalfRate { saturating } => {
                let beside = run(saturating)?;
                (run(open_loop(saturating, half_rate(saturating, beside.rate)))?, Some(beside))
            }
        };
        Ok(Round { round, kept: kept(row.work, &sample, beside.as_ref()), sample, beside })
    }

    /// One run: fresh server, dial, warm up, measure, drain, close, stop. What the server logs goes to `log`, if given.
    pub(super) fn run_once(&self, present: &Present, load: Load, row: &Row, log: Option<&Path>) -> io::Result<Figures> {
        let config = self.config;
        let contestant = &present.contestant;
        let server = ServerProcess::start(contestant, &present.file, load, config.server_core, self.cpus, log)?;
        let figures = client::measure(&ClientConfig {
            protocol: contestant.protocol,
            server: server.reach.address,
            publishing: server.reach.publishing,
            network: [0; 32],
            node: server.reach.node,
            load,
            body_len: row.body_len,
            poll: config.client_poll,
            window: Window { warmup: config.warmup, measure: config.measure * row.windows, server_pid: Some(server.pid()) },
        })?;
        server.stop()?;
        if figures.faults.none() {
            Ok(figures)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("INVALID: {:?}", figures.faults)))
        }
    }
}

fn is_tired(contestant: &Contestant, spent: Duration) -> bool {
    contestant.is_foreign() && spent > ENOUGH
}

fn entry(contestant: &Contestant, row: &Row) -> Entry {
    Entry { skipped: contestant.excuse(row), ..Entry::new(contestant.name, contestant.limit(row)) }
}

/// What is left of the rate of each peer. The stuck one is in one of the runs only, so it is messages that are compared.
fn kept(work: Work, sample: &Sample, beside: Option<&Sample>) -> Option<f64> {
    let Work::Beside { load, without } = work else { return None };
    let messages = |sample: &Sample, load| sample.rate / deliveries_per_message(load) as f64;
    Some(messages(sample, load) / messages(beside?, without))
}

/// Messages a second for the open loop, from the deliveries a second that the contestant was found to be able to make.
fn half_rate(saturating: Load, deliveries_per_second: f64) -> u64 {
    let messages = deliveries_per_second / deliveries_per_message(saturating) as f64;
    ((messages * OPEN_SHARE) as u64).max(1)
}

/// `0..count`, beginning with another one in each round.
fn rotated(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| (index + round) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_begins_with_another_contestant_and_has_all() {
        let order = |round| rotated(3, round).collect::<Vec<_>>();
        assert_eq!([order(0), order(1), order(2), order(3)], [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
        assert_eq!(rotated(0, 5).count(), 0);
    }

    #[test]
    fn who_never_reads_takes_nothing_of_the_others_rate_by_being_left_out() {
        use super::super::results::tests::sample;
        let row = super::super::work::select(Some("stuck-1-of-50")).unwrap()[0];
        let kept = |with, without| kept(row.work, &sample(with), Some(&sample(without))).unwrap();
        assert!((kept(49_000.0, 50_000.0) - 1.0).abs() < 1e-9 && (kept(24_500.0, 50_000.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn the_open_loop_has_half_of_the_messages() {
        assert_eq!(half_rate(Load::Echo { connections: 1, in_flight: 1 }, 9_000.0), 4_500);
        assert_eq!(half_rate(Load::Fanout { subscribers: 50, outstanding: 64, stuck: 0 }, 100_000.0), 1_000);
        assert_eq!(half_rate(Load::Fanout { subscribers: 50, outstanding: 64, stuck: 0 }, 10.0), 1);
    }
}
