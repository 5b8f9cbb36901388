//! What a run comes to: the figures, as JSON and as a short table.

mod interval;
#[cfg(test)]
mod sample;
mod table;
mod validity;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::acked::Terms;
use crate::answers::RequestFigures;
use crate::error::Error;
use crate::hdr::{self, Logged, Recorded};
use crate::machine::Machine;
use crate::measure::{Condition, Slice, new_histogram, percentiles};
use crate::outcome::{Total, per_second};
use crate::pacer::Pace;
use crate::pairs::PairFigures;
use crate::probe::Counters;
use crate::run::Phases;
use crate::spec::Spec;
use crate::targets::TargetFigures;
use crate::workload::{Bulk, Subscriptions};

pub(crate) use interval::{CoreTime, Interval};
#[cfg(test)]
pub(crate) use sample::sample;
pub(crate) use table::{group, percentile_text, reasons_text, row, time};
pub(crate) use validity::Validity;

/// Names the meaning of the fields below. A change of meaning changes the number.
pub(crate) const SCHEMA: &str = "corecast-loadgen/4";

/// Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Latency {
    pub(crate) fn new([p50, p90, p99, p999, max]: [u64; 5]) -> Self {
        Self { p50, p90, p99, p999, max }
    }

    /// Nothing where nothing was recorded.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self::new(percentiles(histogram)))
    }
}

/// One run of one workload.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) schema: String,
    /// Which run of which process, as its messages say.
    pub(crate) run_id: u32,
    /// The command line. Empty where an older version wrote the report.
    #[serde(default)]
    pub(crate) command: Vec<String>,
    /// The runs that this one was merged from. Empty where it was measured.
    pub(crate) merged: Vec<u32>,
    #[serde(flatten)]
    pub(crate) setup: Setup,
    /// When the measured time began, in seconds since 1970.
    pub(crate) started_at_s: f64,
    pub(crate) connect_s: f64,
    /// Failed attempts to connect that were repeated.
    pub(crate) connect_failures: BTreeMap<String, u64>,
    #[serde(flatten)]
    pub(crate) verified: Verified,
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// Open loop: whether it says something about the server.
    pub(crate) validity: Option<Validity>,
    /// Peers of other clients at the targets when this run began: the server's processor time is for them as well. Nothing where the server
    /// was in this process, or did not say.
    #[serde(default)]
    pub(crate) other_peers: Option<u64>,
    /// Each of several targets. Empty where there is one.
    #[serde(default)]
    pub(crate) targets: Vec<TargetFigures>,
    /// The measured time, piece by piece.
    pub(crate) intervals: Vec<Interval>,
    /// A signal ended the measurement early.
    pub(crate) interrupted: bool,
    /// Everything that the server counted, whatever is not zero. Nothing where it is another process: see its `--stats-json`.
    pub(crate) server_counters: Option<Counters>,
    pub(crate) machine: Machine,
}

/// What was measured: once, or under two conditions that took turns.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Figures {
    AllToAll {
        #[serde(flatten)]
        measured: Measured,
        pairs: PairFigures,
    },
    Request {
        #[serde(flatten)]
        measured: Measured,
        requests: RequestFigures,
    },
    Mixed {
        rounds: u32,
        without_bulk: Measured,
        with_bulk: Measured,
        bulk: BulkFigures,
    },
    Receipts {
        #[serde(flatten)]
        measured: Measured,
        receipts: ReceiptFigures,
    },
    Topics {
        #[serde(flatten)]
        measured: Measured,
        topics: TopicFigures,
    },
    SlowReaders {
        rounds: u32,
        undisturbed: Measured,
        disturbed: Measured,
        /// `deliveries_per_s` of the second by that of the first; nothing where the first is zero.
        rate_ratio: Option<f64>,
        slow: SlowFigures,
    },
    /// Last, because the others have all that it has.
    One(Measured),
}

/// The bulk lane of a mixed run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BulkFigures {
    pub(crate) size: usize,
    /// Messages that each peer had asked for and not received.
    pub(crate) ahead: u32,
    /// The server's, where the command line says it.
    pub(crate) notsent_lowat: Option<u32>,
    /// The client's, likewise.
    pub(crate) receive_buffer: Option<usize>,
    /// Messages that arrived in the phases that had bulk.
    pub(crate) delivered: u64,
    pub(crate) deliveries_per_s: f64,
    pub(crate) bytes_per_s: f64,
}

/// What became of acknowledged broadcasts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReceiptFigures {
    /// So many acknowledgements make a quorum.
    pub(crate) quorum: u32,
    pub(crate) deadline_s: f64,
    /// Broadcasts that every peer has acknowledged, warm-up and drain included.
    pub(crate) complete: u64,
    /// All others.
    pub(crate) incomplete: u64,
    pub(crate) incomplete_reasons: BTreeMap<String, u64>,
    /// From the broadcast to the first acknowledgement, by the server's engine; of those receipts that came in the measured time.
    pub(crate) first_ns: Option<Latency>,
    /// To the one that made the quorum.
    pub(crate) quorum_ns: Option<Latency>,
    /// To the last.
    pub(crate) last_ns: Option<Latency>,
}

/// What was subscribed to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TopicFigures {
    /// How many topics there are.
    pub(crate) count: u32,
    /// How many of them each peer had subscribed to.
    pub(crate) per_peer: u32,
    /// How many peers had subscribed to each, at the fewest and at the most.
    pub(crate) subscribers_min: u64,
    pub(crate) subscribers_max: u64,
}

/// The subscribers that stopped reading.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SlowFigures {
    /// So many of the subscribers in each round.
    pub(crate) readers: u32,
    /// When a server in this process cuts them off. Nothing: as the library does, or as the target was told.
    pub(crate) notsent_lowat: Option<u32>,
    pub(crate) outbox_soft: Option<usize>,
    pub(crate) outbox_hard: Option<usize>,
    pub(crate) soft_grace_s: Option<f64>,
    pub(crate) write_stall_s: Option<f64>,
    /// Messages that they received while they read.
    pub(crate) total_delivered: u64,
    /// Of all rounds.
    pub(crate) stopped: u64,
    /// Those that the server cut off before their phase had ended.
    pub(crate) cut_off: u64,
    /// By the server's counter of the reason.
    pub(crate) cut_off_reasons: Counters,
}

impl Figures {
    pub(crate) fn of(spec: &Spec, total: &Total, phases: &Phases) -> Self {
        let [undisturbed, disturbed] = Condition::BOTH.map(|condition| total.measured(spec.kind, condition, phases));
        let Some(rounds) = spec.rounds else { return Self::of_one_phase(spec, total, undisturbed) };
        if let Some(Bulk { size, ahead }) = spec.bulk {
            let (delivered, elapsed_ns) = total.bulk();
            let deliveries_per_s = per_second(delivered, elapsed_ns);
            let bytes_per_s = deliveries_per_s * size as f64;
            let notsent_lowat = spec.tuning.notsent_lowat;
            let bulk =
                BulkFigures { size, ahead, notsent_lowat, receive_buffer: spec.receive_buffer, delivered, deliveries_per_s, bytes_per_s };
            return Self::Mixed { rounds, without_bulk: undisturbed, with_bulk: disturbed, bulk };
        }
        let tuning = &spec.tuning.slow_peers;
        let slow = SlowFigures {
            readers: spec.slow,
            notsent_lowat: spec.tuning.notsent_lowat,
            outbox_soft: tuning.outbox_soft,
            outbox_hard: tuning.outbox_hard,
            soft_grace_s: tuning.soft_grace.map(|grace| grace.as_secs_f64()),
            write_stall_s: tuning.write_stall.map(|stall| stall.as_secs_f64()),
            total_delivered: total.slow_delivered(),
            stopped: phases.stopped,
            cut_off: phases.cut_off.values().sum(),
            cut_off_reasons: phases.cut_off.clone(),
        };
        let rate = undisturbed.deliveries_per_s;
        let rate_ratio = (rate > 0.0).then(|| disturbed.deliveries_per_s / rate);
        Self::SlowReaders { rounds, undisturbed, disturbed, rate_ratio, slow }
    }

    fn of_one_phase(spec: &Spec, total: &Total, measured: Measured) -> Self {
        if let Some(Terms { quorum, deadline }) = spec.terms {
            let (complete, incomplete_reasons) = total.receipts();
            let [first_ns, quorum_ns, last_ns] = total.acked();
            let (incomplete, deadline_s) = (incomplete_reasons.values().sum(), deadline.as_secs_f64());
            let receipts = ReceiptFigures { quorum, deadline_s, complete, incomplete, incomplete_reasons, first_ns, quorum_ns, last_ns };
            return Self::Receipts { measured, receipts };
        }
        if let Some(requests) = spec.requests {
            return Self::Request { measured, requests: total.requests(requests) };
        }
        if let Some(pairs) = total.pairs() {
            return Self::AllToAll { measured, pairs };
        }
        let Some(subscriptions) = spec.subscriptions else { return Self::One(measured) };
        let (subscribers_min, subscribers_max) = subscriptions.per_topic(spec.load.peers);
        let Subscriptions { topics: count, per_peer } = subscriptions;
        Self::Topics { measured, topics: TopicFigures { count, per_peer, subscribers_min, subscribers_max } }
    }

    /// The measured part, or the undisturbed and the disturbed one.
    pub(crate) fn measured(&self) -> impl Iterator<Item = &Measured> {
        let (first, second) = match self {
            Self::One(measured) | Self::Receipts { measured, .. } | Self::Topics { measured, .. } => (measured, None),
            Self::AllToAll { measured, .. } | Self::Request { measured, .. } => (measured, None),
            Self::Mixed { without_bulk, with_bulk, .. } => (without_bulk, Some(with_bulk)),
            Self::SlowReaders { undisturbed, disturbed, .. } => (undisturbed, Some(disturbed)),
        };
        std::iter::once(first).chain(second)
    }

    /// Whether everything that was to come of the messages besides their arrival has: acknowledgements by every peer, answers in time, the
    /// same account on both sides of every pair.
    fn are_whole(&self) -> bool {
        match self {
            Self::Receipts { receipts, .. } => receipts.incomplete == 0,
            Self::Request { requests, .. } => requests.are_answered(),
            Self::AllToAll { pairs, .. } => pairs.are_complete(),
            Self::One(_) | Self::Mixed { .. } | Self::Topics { .. } | Self::SlowReaders { .. } => true,
        }
    }

    /// What has no figure although it was run: a comparison with nothing shows nothing.
    fn missing(&self) -> Option<&'static str> {
        let counts = match self {
            Self::One(_) | Self::Topics { .. } | Self::Receipts { .. } | Self::AllToAll { .. } | Self::Request { .. } => return None,
            Self::Mixed { without_bulk, with_bulk, bulk, .. } => [
                (without_bulk.delivered, "no round trip without bulk"),
                (with_bulk.delivered, "none with bulk"),
                (bulk.delivered, "no bulk"),
            ],
            Self::SlowReaders { undisturbed, disturbed, slow, .. } => [
                (undisturbed.delivered, "nothing undisturbed"),
                (disturbed.delivered, "nothing disturbed"),
                (slow.stopped, "nobody stopped"),
            ],
        };
        counts.into_iter().find(|(count, _)| *count == 0).map(|(_, missing)| missing)
    }
}

/// What was run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) workload: String,
    /// `embedded`, or the target's address.
    pub(crate) server: String,
    /// Peers as asked for: fan-out and topics have one publisher besides.
    pub(crate) peers: u32,
    pub(crate) size: usize,
    /// Closed loop only.
    pub(crate) in_flight: Option<u32>,
    /// Open loop only: messages a second.
    pub(crate) rate: Option<f64>,
    /// `constant`, `poisson` or `burst:N`.
    pub(crate) arrivals: Option<String>,
    /// Poisson only.
    pub(crate) arrival_seed: Option<u64>,
    /// How the generator waited.
    pub(crate) pace: Option<Pace>,
    pub(crate) plaintext: bool,
    /// Processors that the cores were pinned to. Nothing where they were not, or in another process.
    pub(crate) server_cores: Option<Vec<usize>>,
    pub(crate) client_cores: Option<Vec<usize>>,
    pub(crate) spin_us: Option<u64>,
}

/// The whole run, with its warm-up and its drain: all of it is verified.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Verified {
    /// Messages that the client's engines took, warm-up included.
    pub(crate) total_sent: u64,
    /// Open loop: messages that were due and could not be sent, because the server did not take them. Their latency is in no figure.
    pub(crate) unsent: u64,
    /// Messages that arrived, each counted once at each receiver, warm-up and drain included.
    pub(crate) total_delivered: u64,
    /// Deliveries that `total_sent` should have led to, less `total_delivered`.
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) corrupt: u64,
    /// Messages of other runs that came as well, since a server sends to all its peers. They are in no other count.
    #[serde(default)]
    pub(crate) foreign: u64,
    /// Peers that ended during the run.
    pub(crate) disconnected: u64,
    pub(crate) disconnect_reasons: BTreeMap<String, u64>,
}

/// The measured part of the run. Each rate is a count divided by `elapsed_s`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) elapsed_s: f64,
    /// Messages that were sent in it.
    pub(crate) sent: u64,
    /// Messages that arrived in it, at each receiver; what was under way when it began or ended makes the difference.
    pub(crate) delivered: u64,
    /// `sent` a second.
    pub(crate) msgs_per_s: f64,
    /// `delivered` a second.
    pub(crate) deliveries_per_s: f64,
    /// Closed loop: from when a message was sent to its arrival. Open loop: the response time of the messages that were due in it, from
    /// when each was due. Flood: at the server, where its clock is the client's.
    pub(crate) latency_ns: Option<Latency>,
    /// Open loop: the service time of the same messages, from when each was given to the client's engine.
    pub(crate) service_ns: Option<Latency>,
    /// Closed-loop fan-out and topics: from when a message was sent to its arrival at the last of its subscribers.
    pub(crate) completion_ns: Option<Latency>,
    /// Open loop: how late the generator itself was. What a message waited because its peer was told to is not in it.
    pub(crate) send_lag_ns: Option<Latency>,
    pub(crate) server_cpu_ns_per_delivery: Option<f64>,
    /// Processors that the server kept busy.
    pub(crate) server_cpus_used: Option<f64>,
    /// Processors that it would have used besides, had nobody else run there. More than a few hundredths: measure again.
    pub(crate) server_cpus_waited: Option<f64>,
    /// All of what the percentiles are taken from.
    pub(crate) histograms: Histograms,
}

/// Base64 of HdrHistogram's compressed V2 encoding, in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Histograms {
    pub(crate) latency: Option<Recorded>,
    pub(crate) service: Option<Recorded>,
    pub(crate) completion: Option<Recorded>,
    pub(crate) send_lag: Option<Recorded>,
}

impl Histograms {
    pub(crate) fn of(slice: &Slice) -> Self {
        Self {
            latency: Recorded::of(&slice.latency),
            service: Recorded::of(&slice.service),
            completion: Recorded::of(&slice.completion),
            send_lag: Recorded::of(&slice.send_lag),
        }
    }
}

impl Verified {
    /// Whether everything that was sent arrived once, in order and undamaged, and that was not nothing.
    pub(crate) fn passed(&self) -> bool {
        let wrong = [self.lost, self.duplicated, self.reordered, self.corrupt, self.disconnected];
        self.total_delivered > 0 && wrong.iter().all(|count| *count == 0)
    }
}

impl Report {
    /// As `--json` wrote it.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        let refused = |reason: String| Error::NotAReport { path: path.to_owned(), reason };
        let value = serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
        Self::from_value(value).map_err(refused)
    }

    /// One of this version, or why it is none.
    pub(crate) fn from_value(value: serde_json::Value) -> Result<Self, String> {
        match value["schema"].as_str() {
            Some(SCHEMA) => serde_json::from_value(value).map_err(|error| error.to_string()),
            Some(schema) => Err(format!("it is {schema} and not {SCHEMA}")),
            None => Err("it names no schema".into()),
        }
    }

    pub(crate) fn passed(&self) -> bool {
        self.verified.passed() && self.figures.are_whole() && self.missing().is_none() && self.is_valid()
    }

    /// Whether it says something about the server, as far as that is known.
    pub(crate) fn is_valid(&self) -> bool {
        self.validity.as_ref().is_none_or(|validity| validity.valid)
    }

    /// The latencies of each piece of the measured time as HdrHistogram's log analysers read them.
    pub(crate) fn hdr_log(&self) -> String {
        let pieces = self.intervals.iter().filter_map(|interval| {
            let Interval { at_s, elapsed_s, max_ns, ref latencies, .. } = *interval;
            latencies.clone().map(|encoded| Logged { at_s, elapsed_s, max_ns, encoded })
        });
        hdr::log(self.started_at_s, pieces)
    }

    /// The latencies as HdrHistogram's plotters read them: of a run of two phases, the disturbed ones.
    pub(crate) fn hgrm(&self) -> String {
        let recorded = self.figures.measured().last().and_then(|measured| measured.histograms.latency.as_ref());
        recorded.map_or_else(|| hdr::hgrm(&new_histogram()), |recorded| hdr::hgrm(&recorded.0))
    }

    /// Who ends a run early has not asked for all of it.
    fn missing(&self) -> Option<&'static str> {
        self.figures.missing().filter(|_| !self.interrupted)
    }
}
