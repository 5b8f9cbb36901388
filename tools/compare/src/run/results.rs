//! What a run found out, as it is written to JSON and read from it again: every round of every contestant in every row, and the
//! medians, intervals and ratios that follow from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::client::meter::Figures;
use crate::machine::Machine;
use crate::stats::{self, Estimate};

pub(crate) const SCHEMA: &str = "corecast-compare/2";

/// All of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) schema: String,
    pub(crate) machine: Machine,
    pub(crate) conditions: Conditions,
    pub(crate) contestants: Vec<Who>,
    pub(crate) rows: Vec<RowResults>,
}

/// How it was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Conditions {
    /// The command line.
    pub(crate) command: String,
    /// Asked for; rows that only report have fewer.
    pub(crate) rounds: usize,
    pub(crate) warmup_s: f64,
    pub(crate) measure_s: f64,
    pub(crate) server_core: usize,
    pub(crate) client_core: usize,
    pub(crate) client_poll: String,
}

/// A contestant that was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Who {
    pub(crate) name: String,
    pub(crate) what: String,
    /// Of what it stands on, as its program says.
    pub(crate) version: Option<String>,
    /// Is it not there: how to get it.
    pub(crate) missing: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RowResults {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) load: serde_json::Value,
    pub(crate) connections: usize,
    pub(crate) body_len: usize,
    pub(crate) rounds: usize,
    pub(crate) entries: Vec<Entry>,
}

/// One contestant in one row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) contestant: String,
    /// Which contestant is its limit.
    pub(crate) limit: String,
    /// Why it was not run.
    pub(crate) skipped: Option<String>,
    /// Why it was given up; the rounds before it count.
    pub(crate) failed: Option<String>,
    pub(crate) rounds: Vec<Round>,
    /// Medians over the rounds, by figure.
    #[serde(default)]
    pub(crate) estimates: BTreeMap<Figure, Estimate>,
    /// To its limit, per round; above 1 it is better than the limit.
    #[serde(default)]
    pub(crate) ratios: BTreeMap<Figure, Estimate>,
}

/// One contestant in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) round: usize,
    pub(crate) sample: Sample,
    /// The run beside it: without the stuck peer, or the one that found the rate of saturation.
    pub(crate) beside: Option<Sample>,
    /// With a stuck peer: the rate that each of the others has, as a share of what each has without.
    #[serde(default)]
    pub(crate) kept: Option<f64>,
}

/// The figures of one window. None: there were none, because nothing was delivered in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) deliveries: u64,
    pub(crate) seconds: f64,
    pub(crate) rate: f64,
    pub(crate) p50_ns: Option<f64>,
    pub(crate) p99_ns: Option<f64>,
    pub(crate) p999_ns: Option<f64>,
    pub(crate) server_cpu_ns: Option<f64>,
    pub(crate) client_cpu_ns: Option<f64>,
    pub(crate) server_cores: f64,
    pub(crate) foreign_cores: f64,
    pub(crate) bytes_per_connection: Option<f64>,
}

impl From<&Figures> for Sample {
    fn from(figures: &Figures) -> Self {
        // A server that did not run in a short window has delivered what stood in the kernel.
        let some = |value: f64| (value.is_finite() && value > 0.0 && figures.deliveries > 0).then_some(value);
        let latency = |nanos: u64| (nanos > 0).then_some(nanos as f64);
        Self {
            deliveries: figures.deliveries,
            seconds: figures.seconds,
            rate: figures.deliveries_per_second,
            p50_ns: latency(figures.p50_ns),
            p99_ns: latency(figures.p99_ns),
            p999_ns: latency(figures.p999_ns),
            server_cpu_ns: some(figures.server_cpu_ns_per_delivery),
            client_cpu_ns: some(figures.client_cpu_ns_per_delivery),
            server_cores: figures.server_cores,
            foreign_cores: figures.foreign_cores,
            bytes_per_connection: figures.bytes_per_connection,
        }
    }
}

/// What a table has a column for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Deliveries a second.
    Rate,
    P50,
    P99,
    P999,
    /// Of the server's processor time, for each delivery.
    ServerCpu,
    ClientCpu,
    /// Resident bytes of the server for each idle connection.
    Memory,
    /// The server's processor time while nothing happens, in cores.
    IdleCpu,
    /// See [`Round::kept`].
    Kept,
}

impl Figure {
    pub(crate) const ALL: [Self; 9] =
        [Self::Rate, Self::P50, Self::P99, Self::P999, Self::ServerCpu, Self::ClientCpu, Self::Memory, Self::IdleCpu, Self::Kept];

    pub(crate) fn of(self, round: &Round) -> Option<f64> {
        let sample = &round.sample;
        let idle = sample.bytes_per_connection.is_some();
        let value = match self {
            Self::Rate => (!idle).then_some(sample.rate),
            Self::P50 => sample.p50_ns,
            Self::P99 => sample.p99_ns,
            Self::P999 => sample.p999_ns,
            Self::ServerCpu => sample.server_cpu_ns,
            Self::ClientCpu => sample.client_cpu_ns,
            Self::Memory => sample.bytes_per_connection,
            Self::IdleCpu => idle.then_some(sample.server_cores),
            Self::Kept => round.kept,
        };
        value.filter(|value| value.is_finite())
    }

    /// Whether more of it is better.
    pub(crate) fn rises(self) -> bool {
        matches!(self, Self::Rate | Self::Kept)
    }
}

impl Entry {
    pub(crate) fn new(contestant: &str, limit: &str) -> Self {
        Self {
            contestant: contestant.into(),
            limit: limit.into(),
            skipped: None,
            failed: None,
            rounds: Vec::new(),
            estimates: BTreeMap::new(),
            ratios: BTreeMap::new(),
        }
    }

    pub(crate) fn estimate(&self, figure: Figure) -> Option<Estimate> {
        stats::estimate(&self.rounds.iter().filter_map(|round| figure.of(round)).collect::<Vec<_>>())
    }
}

impl RowResults {
    pub(crate) fn entry(&self, contestant: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.contestant == contestant)
    }

    pub(crate) fn estimate(&self, contestant: &str, figure: Figure) -> Option<Estimate> {
        self.entry(contestant)?.estimate(figure)
    }

    /// The ratio of one contestant to another in the rounds that both were in; above 1 the first is better.
    pub(crate) fn ratio(&self, of: &str, to: &str, figure: Figure) -> Option<Estimate> {
        let (of, to) = (self.entry(of)?, self.entry(to)?);
        let pairs = of.rounds.iter().filter_map(|ours| {
            let theirs = to.rounds.iter().find(|theirs| theirs.round == ours.round)?;
            let (ours, theirs) = (figure.of(ours)?, figure.of(theirs)?);
            let ratio = if figure.rises() { ours / theirs } else { theirs / ours };
            ratio.is_finite().then_some(ratio)
        });
        stats::estimate(&pairs.collect::<Vec<_>>())
    }

    /// Writes the medians and ratios beside the rounds that they are of.
    fn summarise(&mut self) {
        let of_each = |row: &Self, entry: &Entry| {
            let figures = Figure::ALL.into_iter();
            let estimates = figures.clone().filter_map(|figure| Some((figure, entry.estimate(figure)?))).collect();
            let others = figures.filter(|_| entry.contestant != entry.limit);
            let ratios = others.filter_map(|figure| Some((figure, row.ratio(&entry.contestant, &entry.limit, figure)?))).collect();
            (estimates, ratios)
        };
        let summaries: Vec<_> = self.entries.iter().map(|entry| of_each(self, entry)).collect();
        for (entry, (estimates, ratios)) in self.entries.iter_mut().zip(summaries) {
            (entry.estimates, entry.ratios) = (estimates, ratios);
        }
    }
}

impl Results {
    /// Adds a row that has come to its end.
    pub(crate) fn add(&mut self, mut row: RowResults) {
        row.summarise();
        self.rows.push(row);
    }

    pub(crate) fn row(&self, name: &str) -> Option<&RowResults> {
        self.rows.iter().find(|row| row.name == name)
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data always serialises")
    }

    pub(crate) fn from_json(text: &str) -> Result<Self, String> {
        let results: Self = serde_json::from_str(text).map_err(|error| format!("not the results of a run: {error}"))?;
        if results.schema == SCHEMA { Ok(results) } else { Err(format!("schema {:?} instead of {SCHEMA:?}", results.schema)) }
    }

    /// What other programs used during the runs, in cores: the median.
    pub(crate) fn foreign_cores(&self) -> Option<f64> {
        let rounds = self.rows.iter().flat_map(|row| &row.entries).flat_map(|entry| &entry.rounds);
        stats::estimate(&rounds.map(|round| round.sample.foreign_cores).collect::<Vec<_>>()).map(|estimate| estimate.median)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Figures that follow from one rate.
    pub(crate) fn sample(rate: f64) -> Sample {
        Sample {
            deliveries: rate as u64,
            seconds: 1.0,
            rate,
            p50_ns: Some(1e9 / rate),
            p99_ns: Some(2e9 / rate),
            p999_ns: Some(3e9 / rate),
            server_cpu_ns: Some(0.5e9 / rate),
            client_cpu_ns: Some(0.4e9 / rate),
            server_cores: 0.5,
            foreign_cores: 0.01,
            bytes_per_connection: None,
        }
    }

    pub(crate) fn entry(contestant: &str, limit: &str, rates: &[f64]) -> Entry {
        let rounds = rates.iter().enumerate().map(|(round, &rate)| Round { round, sample: sample(rate), beside: None, kept: None });
        Entry { rounds: rounds.collect(), ..Entry::new(contestant, limit) }
    }

    pub(crate) fn row(name: &str, entries: Vec<Entry>) -> RowResults {
        let mut row = RowResults {
            name: name.into(),
            title: format!("the row {name}"),
            load: serde_json::json!({}),
            connections: 1,
            body_len: 32,
            rounds: 15,
            entries,
        };
        row.summarise();
        row
    }

    pub(crate) fn results(rows: Vec<RowResults>) -> Results {
        let mut names: Vec<&str> = rows.iter().flat_map(|row| &row.entries).map(|entry| entry.contestant.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let who = |name: &&str| Who { name: (*name).into(), what: format!("what {name} is"), version: None, missing: None };
        Results {
            schema: SCHEMA.into(),
            machine: Machine { cpu: "a processor".into(), ..Machine::default() },
            conditions: Conditions {
                command: "corecast-compare run".into(),
                rounds: 15,
                warmup_s: 0.1,
                measure_s: 0.4,
                server_core: 0,
                client_core: 1,
                client_poll: "spin".into(),
            },
            contestants: names.iter().map(who).collect(),
            rows,
        }
    }

    #[test]
    fn ratios_are_of_the_rounds_that_both_were_in() {
        let mut late = entry("corecast", "bare", &[300.0, 100.0]);
        late.rounds[0].round = 1;
        late.rounds[1].round = 7;
        let row = row("echo-1", vec![entry("bare", "bare", &[50.0, 100.0, 200.0]), late]);
        // Round 1 is the only one that both have.
        assert_eq!(row.ratio("corecast", "bare", Figure::Rate).unwrap().median, 3.0);
        assert_eq!(row.ratio("corecast", "bare", Figure::P50).unwrap().median, 3.0);
        assert_eq!(row.ratio("bare", "corecast", Figure::Rate).unwrap().median, 1.0 / 3.0);
        assert_eq!(row.ratio("corecast", "nobody", Figure::Rate), None);
    }

    #[test]
    fn results_survive_json_and_others_are_refused() {
        let results = results(vec![row("echo-1", vec![entry("bare", "bare", &[1.0]), entry("corecast", "bare", &[2.0])])]);
        let again = Results::from_json(&results.json()).unwrap();
        assert_eq!(again.json(), results.json());
        assert_eq!(again.rows[0].entries[1].ratios[&Figure::Rate].median, 2.0);
        assert!(Results::from_json("{}").unwrap_err().contains("not the results"));
        assert!(Results::from_json(&results.json().replace(SCHEMA, "other/1")).unwrap_err().contains("other/1"));
    }

    #[test]
    fn nothing_delivered_is_no_figure() {
        let figures = Figures {
            deliveries: 0,
            seconds: 1.0,
            deliveries_per_second: 0.0,
            p50_ns: 0,
            p99_ns: 0,
            p999_ns: 0,
            server_cpu_ns_per_delivery: f64::INFINITY,
            client_cpu_ns_per_delivery: f64::NAN,
            server_cores: 0.25,
            bytes_per_connection: Some(512.0),
            foreign_cores: 0.0,
            faults: Default::default(),
        };
        let unseen = Figures { deliveries: 5, server_cpu_ns_per_delivery: 0.0, ..figures.clone() };
        assert_eq!(Sample::from(&unseen).server_cpu_ns, None);
        let round = Round { round: 0, sample: Sample::from(&figures), beside: None, kept: None };
        let of = |figure: Figure| figure.of(&round);
        assert_eq!((of(Figure::Rate), of(Figure::P50), of(Figure::ServerCpu)), (None, None, None));
        assert_eq!((of(Figure::Memory), of(Figure::IdleCpu)), (Some(512.0), Some(0.25)));
    }
}
