//! What will be run: which rows, on whom, who is missing, and how long it will take.

use std::fmt;
use std::time::Duration;

use super::RunConfig;
use super::contestant::{Contestant, Places};
use super::results::Who;
use super::rounds::Present;
use super::work::Row;
use crate::client::Protocol;

/// Starting and ending a server, and looking whether the machine is quiet.
const START_AND_STOP: Duration = Duration::from_millis(120);
/// Dialling one connection and ending it.
const CONNECTION: Duration = Duration::from_micros(150);
/// The same with a Noise handshake, which both ends compute.
const NOISE_CONNECTION: Duration = Duration::from_micros(600);

/// Files of the client and of a server besides their connections.
const OTHER_FILES: u64 = 64;

/// The rows and the contestants of a run.
pub(super) struct Plan {
    pub(super) rows: Vec<Row>,
    pub(super) present: Vec<Present>,
    /// Who is not there, and how to get it.
    missing: Vec<(Contestant, String)>,
}

impl Plan {
    pub(super) fn new(rows: Vec<Row>, contestants: &[Contestant], places: &Places) -> Result<Self, String> {
        let (mut present, mut missing) = (Vec::new(), Vec::new());
        for contestant in contestants {
            match contestant.locate(places) {
                Ok(file) => present.push(Present { contestant: *contestant, file }),
                Err(how) => missing.push((*contestant, how)),
            }
        }
        if present.is_empty() {
            let hows: Vec<String> = missing.iter().map(|(contestant, how)| format!("{}: {how}", contestant.name)).collect();
            return Err(format!("none of these contestants is there: {}", hows.join("; ")));
        }
        Ok(Self { rows, present, missing })
    }

    /// Takes out the rows with more connections than a process may have open files, and says so, one line each.
    pub(super) fn leave_out_beyond(&mut self, files: u64) -> Vec<String> {
        let needs = |row: &Row| row.connections() as u64 + OTHER_FILES;
        let (fit, beyond): (Vec<Row>, Vec<Row>) = self.rows.iter().partition(|row| needs(row) <= files);
        self.rows = fit;
        let line =
            |row: &Row| format!("skipped: {}: it needs {} open files, and {files} are allowed: see ulimit -Hn", row.name, needs(row));
        beyond.iter().map(line).collect()
    }

    /// For the report: who was asked for, in the order of the tables.
    pub(super) fn contestants(&self) -> Vec<Who> {
        let there = self.present.iter().map(|Present { contestant, file }| Who {
            name: contestant.name.into(),
            what: contestant.what.into(),
            version: contestant.version(file),
            missing: None,
        });
        let missing = self.missing.iter().map(|(contestant, how)| Who {
            name: contestant.name.into(),
            what: contestant.what.into(),
            version: None,
            missing: Some(how.clone()),
        });
        there.chain(missing).collect()
    }

    /// One for each who is not there, with how to get it.
    pub(super) fn missing_lines(&self) -> Vec<String> {
        self.missing.iter().map(|(contestant, how)| format!("skipped: {}: {how}", contestant.name)).collect()
    }

    /// How long the rows from this one on take, for people; as much longer than they should as the rows before have taken in `elapsed`.
    pub(super) fn minutes(&self, config: &RunConfig, from: usize, elapsed: Duration) -> String {
        let time = |rows: &[Row]| rows.iter().map(|row| self.row_time(config, row)).sum::<Duration>().as_secs_f64();
        let (before, after) = self.rows.split_at(from);
        let slower = if from == 0 { 1.0 } else { elapsed.as_secs_f64() / time(before) };
        let seconds = (time(after) * slower) as u64;
        if seconds < 90 { format!("about {} s", seconds.max(1)) } else { format!("about {} min", (seconds + 30) / 60) }
    }

    fn row_time(&self, config: &RunConfig, row: &Row) -> Duration {
        let contestants = self.present.iter().map(|present| &present.contestant).filter(|contestant| contestant.excuse(row).is_none());
        let round = contestants.map(|contestant| run_time(config, row, contestant.protocol) * row.runs() as u32).sum::<Duration>();
        (round + config.patience.min(Duration::from_millis(300))) * row.rounds(config.rounds) as u32
    }
}

fn run_time(config: &RunConfig, row: &Row, protocol: Protocol) -> Duration {
    let connection = if protocol == Protocol::Noise { NOISE_CONNECTION } else { CONNECTION };
    START_AND_STOP + connection * row.connections() as u32 + config.warmup + config.measure * row.windows
}

/// What is about to be done, before it begins: one line, and one more for each who is missing.
pub(super) struct Announcement<'a>(pub(super) &'a Plan, pub(super) &'a RunConfig);

impl fmt::Display for Announcement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(plan, config) = self;
        for line in plan.missing_lines() {
            writeln!(f, "{line}")?;
        }
        let time = plan.minutes(config, 0, Duration::ZERO);
        write!(f, "rows: {}, contestants: {}; {time} on a quiet machine, longer on a busy one", plan.rows.len(), plan.present.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{contestant, work};
    use super::*;
    use crate::network::Network;
    use crate::server::Poll;

    fn config(rounds: usize, warmup_ms: u64, measure_ms: u64) -> RunConfig {
        RunConfig {
            rounds,
            warmup: Duration::from_millis(warmup_ms),
            measure: Duration::from_millis(measure_ms),
            server_core: 0,
            client_core: 1,
            client_poll: Poll::Spin,
            network: Network::Machine,
            patience: Duration::from_secs(3),
        }
    }

    /// As if everything were built and installed.
    fn everybody() -> Plan {
        let present = contestant::ALL.map(|contestant| Present { contestant, file: "/x".into() });
        Plan { rows: work::select(None).unwrap(), present: present.into(), missing: Vec::new() }
    }

    fn seconds(config: &RunConfig) -> u64 {
        let plan = everybody();
        plan.rows.iter().map(|row| plan.row_time(config, row)).sum::<Duration>().as_secs()
    }

    #[test]
    fn the_whole_takes_an_hour_and_a_quarter_and_a_quick_one_five_minutes() {
        use super::super::command::{DEFAULT, QUICK};
        let of = |times: super::super::command::Times| seconds(&config(times.rounds, times.warmup_ms, times.measure_ms));
        assert!(of(DEFAULT) < 80 * 60, "{} s", of(DEFAULT));
        assert!(of(QUICK) < 5 * 60, "{} s", of(QUICK));
    }

    #[test]
    fn who_is_missing_is_said_before_the_start_one_line_each() {
        let chosen = contestant::select(Some(&["bare".into(), "redis".into(), "monoio".into()])).unwrap();
        let places = Places { own: "/own".into(), folders: vec![], system: vec![] };
        let plan = Plan::new(work::select(Some("echo-1")).unwrap(), &chosen, &places).unwrap();
        let text = Announcement(&plan, &config(1, 10, 10)).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("skipped: monoio: not built: cargo build"), "{text}");
        assert_eq!(lines[1], "skipped: redis: not installed: apt-get install redis-server");
        assert!(lines[2].starts_with("rows: 1, contestants: 1; about "), "{text}");
        assert_eq!(plan.contestants().iter().map(|who| who.missing.is_some()).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn rows_that_need_more_files_than_allowed_are_left_out_and_said() {
        let mut plan = everybody();
        let all = plan.rows.len();
        assert_eq!(plan.leave_out_beyond(20_000), [""; 0]);
        let lines = plan.leave_out_beyond(4_096);
        assert_eq!(plan.rows.len(), all - lines.len());
        assert!(
            lines.contains(&"skipped: idle-10000: it needs 10064 open files, and 4096 are allowed: see ulimit -Hn".to_owned()),
            "{lines:?}"
        );
    }

    #[test]
    fn nobody_there_is_an_error() {
        let places = Places { own: "/own".into(), folders: vec![], system: vec![] };
        let chosen = contestant::select(Some(&["redis".into()])).unwrap();
        assert!(Plan::new(work::select(None).unwrap(), &chosen, &places).err().unwrap().contains("apt-get install redis-server"));
    }
}
