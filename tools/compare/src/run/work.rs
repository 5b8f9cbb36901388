//! The rows of the comparison: what is done, how often, and who takes part.

use crate::client::Load;
use crate::server::Poll;

/// What a row asks of each contestant in each round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Work {
    /// One run.
    Load(Load),
    /// One run beside another, which is the same without what is looked at; the row's figures are the first one's.
    Beside { load: Load, without: Load },
    /// One run that finds the contestant's own saturation rate, and one in an open loop at half of it.
    HalfRate { saturating: Load },
}

/// How much hangs on a row: how many of the asked rounds it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// A bar hangs on it: all of them.
    Deciding,
    /// It reports: a third of them.
    Reporting,
    /// It hardly varies: a fifth of them.
    Steady,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    /// What `--only` is matched against.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) work: Work,
    pub(super) body_len: usize,
    pub(super) weight: Weight,
    /// How many times as long as the others it is measured.
    pub(super) windows: u32,
}

/// Keepalive comes every few seconds, and is most of what an idle server does: a window has to hold it.
const IDLE_WINDOWS: u32 = 15;
/// The slowest servers need half a second to fill what the kernel holds for one that never reads; only then does it show what they do.
const STUCK_WINDOWS: u32 = 3;

/// From so many connections on a server never waits long enough for its way of waiting to matter, and one that spins is the same.
pub(super) const MANY: usize = 1_000;

impl Row {
    const fn new(name: &'static str, title: &'static str, weight: Weight, body_len: usize, work: Work) -> Self {
        Self { name, title, work, body_len, weight, windows: 1 }
    }

    /// The load that the row's figures are of, but for an open loop's rate, which is not known before.
    pub(super) fn load(&self) -> Load {
        match self.work {
            Work::Load(load) | Work::Beside { load, .. } => load,
            Work::HalfRate { saturating } => open_loop(saturating, 0),
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.load().connections()
    }

    /// Whether a server that waits like this says anything that the one that sleeps does not.
    pub(super) fn distinguishes(&self, poll: Poll) -> bool {
        poll == Poll::Block || (self.connections() < MANY && !self.is_idle())
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.load(), Load::Idle { .. })
    }

    /// Of so many that were asked for.
    pub(super) fn rounds(&self, asked: usize) -> usize {
        let share = match self.weight {
            Weight::Deciding => asked,
            Weight::Reporting => asked.div_ceil(3),
            Weight::Steady => asked.div_ceil(5),
        };
        share.max(1)
    }

    const fn windows(self, windows: u32) -> Self {
        Self { windows, ..self }
    }

    /// Runs of one contestant in one round.
    pub(super) fn runs(&self) -> usize {
        if matches!(self.work, Work::Load(_)) { 1 } else { 2 }
    }
}

/// The same peers, in an open loop at this rate.
pub(super) fn open_loop(closed: Load, rate: u64) -> Load {
    match closed {
        Load::Fanout { subscribers, .. } => Load::OpenFanout { subscribers, rate },
        other => Load::OpenEcho { connections: other.connections(), rate },
    }
}

/// Messages that make one delivery each in echo and one for each subscriber in fan-out: deliveries to a message.
pub(super) fn deliveries_per_message(load: Load) -> usize {
    match load {
        Load::Fanout { subscribers, stuck, .. } => subscribers - stuck,
        Load::OpenFanout { subscribers, .. } => subscribers,
        _ => 1,
    }
}

const fn echo(connections: usize, in_flight: usize) -> Work {
    Work::Load(Load::Echo { connections, in_flight })
}

const fn fanout(subscribers: usize, outstanding: usize) -> Work {
    Work::Load(Load::Fanout { subscribers, outstanding, stuck: 0 })
}

const STUCK: Work = Work::Beside {
    load: Load::Fanout { subscribers: 50, outstanding: 64, stuck: 1 },
    without: Load::Fanout { subscribers: 50, outstanding: 64, stuck: 0 },
};
const OPEN_ECHO: Work = Work::HalfRate { saturating: Load::Echo { connections: 100, in_flight: 1 } };
const OPEN_FANOUT: Work = Work::HalfRate { saturating: Load::Fanout { subscribers: 50, outstanding: 64, stuck: 0 } };

const KIB: usize = 1024;

/// All rows, in the order of the table.
pub(super) const ROWS: [Row; 24] = {
    use Weight::{Deciding, Reporting, Steady};
    [
        Row::new("echo-1", "echo, 1 connection, 32 B", Deciding, 32, echo(1, 1)),
        Row::new("echo-100", "echo, 100 connections, 32 B", Deciding, 32, echo(100, 1)),
        Row::new("echo-1000", "echo, 1,000 connections, 32 B", Deciding, 32, echo(1_000, 1)),
        Row::new("echo-16-64B-x64", "pipelined echo, 16 connections, 64 B, 64 in flight on each", Deciding, 64, echo(16, 64)),
        Row::new("echo-16-16KiB-x64", "pipelined echo, 16 connections, 16 KiB, 64 in flight on each", Reporting, 16 * KIB, echo(16, 64)),
        Row::new(
            "sink-16-128B",
            "one-way sink, 16 connections, 128 B",
            Reporting,
            128,
            Work::Load(Load::Sink { connections: 16, in_flight: 1_024 }),
        ),
        Row::new("fanout-50-128B-x1", "fan-out to 50, 128 B, one at a time", Deciding, 128, fanout(50, 1)),
        Row::new("fanout-50-1KiB-x1", "fan-out to 50, 1 KiB, one at a time", Deciding, KIB, fanout(50, 1)),
        Row::new("fanout-1000-128B-x1", "fan-out to 1,000, 128 B, one at a time", Deciding, 128, fanout(1_000, 1)),
        Row::new("fanout-1000-1KiB-x1", "fan-out to 1,000, 1 KiB, one at a time", Deciding, KIB, fanout(1_000, 1)),
        Row::new("fanout-5000-128B-x1", "fan-out to 5,000, 128 B, one at a time", Deciding, 128, fanout(5_000, 1)),
        Row::new("fanout-5000-1KiB-x1", "fan-out to 5,000, 1 KiB, one at a time", Deciding, KIB, fanout(5_000, 1)),
        Row::new("fanout-50-128B-x64", "fan-out to 50, 128 B, 64 outstanding", Deciding, 128, fanout(50, 64)),
        Row::new("fanout-50-1KiB-x64", "fan-out to 50, 1 KiB, 64 outstanding", Deciding, KIB, fanout(50, 64)),
        Row::new("fanout-1000-128B-x64", "fan-out to 1,000, 128 B, 64 outstanding", Deciding, 128, fanout(1_000, 64)),
        Row::new("fanout-1000-1KiB-x64", "fan-out to 1,000, 1 KiB, 64 outstanding", Deciding, KIB, fanout(1_000, 64)),
        Row::new("fanout-5000-128B-x64", "fan-out to 5,000, 128 B, 64 outstanding", Deciding, 128, fanout(5_000, 64)),
        Row::new("fanout-5000-1KiB-x64", "fan-out to 5,000, 1 KiB, 64 outstanding", Deciding, KIB, fanout(5_000, 64)),
        Row::new("fanout-50-100KiB-x1", "fan-out to 50, 100 KiB, one at a time", Reporting, 100 * KIB, fanout(50, 1)),
        Row::new("stuck-1-of-50", "fan-out to 50 of which one never reads, 1 KiB, 64 outstanding", Deciding, KIB, STUCK)
            .windows(STUCK_WINDOWS),
        Row::new("idle-1000", "1,000 idle connections", Steady, 32, Work::Load(Load::Idle { connections: 1_000 })).windows(IDLE_WINDOWS),
        Row::new("idle-10000", "10,000 idle connections", Steady, 32, Work::Load(Load::Idle { connections: 10_000 })).windows(IDLE_WINDOWS),
        Row::new("open-echo-100", "echo, 100 connections, 32 B, open loop at half of saturation", Deciding, 32, OPEN_ECHO),
        Row::new("open-fanout-50", "fan-out to 50, 128 B, open loop at half of saturation", Deciding, 128, OPEN_FANOUT),
    ]
};

/// The row of that name, or else the rows whose name contains the pattern; or what there is, for whoever asked for none of it.
pub(super) fn select(pattern: Option<&str>) -> Result<Vec<Row>, String> {
    if let Some(row) = ROWS.into_iter().find(|row| pattern == Some(row.name)) {
        return Ok(vec![row]);
    }
    let chosen: Vec<Row> = ROWS.into_iter().filter(|row| pattern.is_none_or(|pattern| row.name.contains(pattern))).collect();
    if chosen.is_empty() {
        let names = ROWS.map(|row| row.name).join(", ");
        return Err(format!("no row matches {:?}; there are: {names}", pattern.unwrap_or_default()));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_chooses_and_a_wrong_one_is_told_what_there_is() {
        let names = |pattern| select(Some(pattern)).unwrap().iter().map(|row| row.name).collect::<Vec<_>>();
        assert_eq!(select(None).unwrap().len(), ROWS.len());
        assert_eq!(names("idle"), ["idle-1000", "idle-10000"]);
        assert_eq!(names("echo-1"), ["echo-1"]);
        assert_eq!(names("echo-10"), ["echo-100", "echo-1000", "open-echo-100"]);
        let error = select(Some("nothing")).unwrap_err();
        assert!(error.contains("\"nothing\"") && error.contains("stuck-1-of-50"), "{error}");
    }

    #[test]
    fn every_row_has_a_name_of_its_own_and_a_load_that_can_be_run() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..index].iter().all(|other| other.name != row.name), "{}", row.name);
            let bare = super::super::contestant::select(Some(&["bare".into()])).unwrap()[0];
            assert_eq!(bare.excuse(row), None, "{}", row.name);
        }
    }

    #[test]
    fn rows_that_only_report_have_fewer_rounds_but_some() {
        let row = |weight| Row { weight, ..ROWS[0] };
        let rounds = |asked| [Weight::Deciding, Weight::Reporting, Weight::Steady].map(|weight| row(weight).rounds(asked));
        assert_eq!(rounds(15), [15, 5, 3]);
        assert_eq!(rounds(1), [1, 1, 1]);
    }

    #[test]
    fn an_open_loop_has_the_peers_of_the_closed_one() {
        assert_eq!(open_loop(Load::Echo { connections: 3, in_flight: 9 }, 5), Load::OpenEcho { connections: 3, rate: 5 });
        let closed = Load::Fanout { subscribers: 4, outstanding: 64, stuck: 1 };
        assert_eq!(open_loop(closed, 5), Load::OpenFanout { subscribers: 4, rate: 5 });
        assert_eq!(deliveries_per_message(closed), 3);
    }

    #[test]
    fn spinning_is_looked_at_where_it_can_matter() {
        let row = |name| select(Some(name)).unwrap()[0];
        assert!(row("echo-100").distinguishes(Poll::Spin) && row("echo-1000").distinguishes(Poll::Block));
        assert!(!row("echo-1000").distinguishes(Poll::Spin) && !row("idle-1000").distinguishes(Poll::Spin));
    }
}
