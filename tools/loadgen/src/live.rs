//! `--live`: what a run does, on the terminal, while it goes on: throughput, percentiles, what waits, what the server's cores do.
//!
//! It is a block of lines that is written over itself, where the cursor was. No mode of the terminal is changed and no other screen is
//! taken, so that whatever ends the process leaves the terminal as it was.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::progress::terminal_size;
use crate::report::{CoreTime, Interval, group, time};

/// Columns of the names and of the figures beside them.
const NAME: usize = 11;
const FIGURE: usize = 14;
/// Heights of a column of a course.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A terminal's own colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    Plain,
    Bold,
    Faint,
    Of(u8),
}

/// What is spent where: name, letter, colour.
const PARTS: [(&str, char, Colour); 9] = [
    ("read", 'r', Colour::Of(34)),
    ("decode", 'd', Colour::Of(36)),
    ("handler", 'h', Colour::Of(32)),
    ("encode", 'e', Colour::Of(33)),
    ("write", 'w', Colour::Of(31)),
    ("poll", 'p', Colour::Of(35)),
    ("inbox", 'i', Colour::Of(95)),
    ("events", 't', Colour::Of(91)),
    ("idle", '.', Colour::Faint),
];

/// A line in parts of one colour each.
#[derive(Clone, Debug, Default)]
struct Row(Vec<(Colour, String)>);

impl Row {
    fn with(mut self, colour: Colour, text: impl Into<String>) -> Self {
        self.0.push((colour, text.into()));
        self
    }

    /// As much of it as has room: a line that wraps cannot be written over.
    fn write(&self, out: &mut String, width: usize, coloured: bool) {
        let mut room = width;
        for (colour, text) in &self.0 {
            let shown: String = text.chars().take(room).collect();
            room -= shown.chars().count();
            let code = match colour {
                Colour::Plain => 0,
                Colour::Bold => 1,
                Colour::Faint => 2,
                Colour::Of(code) => *code,
            };
            if coloured && code > 0 && !shown.is_empty() {
                out.push_str(&format!("\x1b[{code}m{shown}\x1b[0m"));
            } else {
                out.push_str(&shown);
            }
        }
    }
}

/// What is shown.
pub(crate) struct Now<'a> {
    pub(crate) phase: &'a str,
    pub(crate) elapsed: Duration,
    pub(crate) count: u64,
    pub(crate) unit: &'a str,
    pub(crate) rate: f64,
    /// Why nothing goes on, where that is known.
    pub(crate) note: Option<&'a str>,
    /// The measured time so far.
    pub(crate) intervals: &'a [Interval],
}

/// The block of lines.
pub(crate) struct Live {
    title: String,
    coloured: bool,
    /// Lines that are there, above the cursor, and how wide the terminal was when they were written.
    drawn: (usize, usize),
}

impl Live {
    /// Nothing where standard output is no terminal.
    pub(crate) fn open(title: String) -> Option<Self> {
        let coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        std::io::stdout().is_terminal().then_some(Self { title, coloured, drawn: (0, 0) })
    }

    /// Draws it.
    pub(crate) fn show(&mut self, now: &Now<'_>) {
        let (width, height) = terminal_size(std::io::stdout());
        let (rows, before) = self.drawn;
        // What was written for another width may have been wrapped since: it stays where it is.
        let mut out = if rows > 0 && before == width { format!("\x1b[?2026h\x1b[{rows}F") } else { "\x1b[?2026h".to_owned() };
        let all = frame(&self.title, now, width);
        let shown = &all[..all.len().min(height.saturating_sub(1))];
        for row in shown {
            row.write(&mut out, width - 1, self.coloured);
            out.push_str("\x1b[K\n");
        }
        out.push_str("\x1b[J\x1b[?2026l");
        self.drawn = (shown.len(), width);
        write_out(&out);
    }

    /// Takes it away. The next time it is drawn where the cursor is then.
    pub(crate) fn clear(&mut self) {
        let rows = std::mem::take(&mut self.drawn).0;
        if rows > 0 {
            write_out(&format!("\x1b[{rows}F\x1b[J"));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A terminal that is gone is no reason to stop.
fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// All lines.
fn frame(title: &str, now: &Now<'_>, width: usize) -> Vec<Row> {
    let counted = format!("{:>6.1} s  {} {}", now.elapsed.as_secs_f64(), group(now.count), now.unit);
    let rate = if now.note.is_some() { String::new() } else { format!(", {} /s", group(now.rate.max(0.0) as u64)) };
    let mut rows = vec![
        Row::default().with(Colour::Bold, title),
        Row::default().with(Colour::Of(36), format!("{:<NAME$}", now.phase)).with(Colour::Plain, counted + &rate),
    ];
    rows.extend(now.note.map(|note| Row::default().with(Colour::Of(33), note)));
    let Some(last) = now.intervals.last() else { return rows };
    rows.push(Row::default());
    let room = width.saturating_sub(NAME + FIGURE + 2);
    let mut course = |name: &str, figure: String, value: &dyn Fn(&Interval) -> f64| {
        let row = Row::default().with(Colour::Faint, format!("{name:<NAME$}")).with(Colour::Bold, format!("{figure:>FIGURE$}  "));
        rows.push(row.with(Colour::Of(36), spark(now.intervals, room, value)));
    };
    let per_s = |interval: &Interval| if interval.elapsed_s > 0.0 { interval.delivered as f64 / interval.elapsed_s } else { 0.0 };
    course("delivered", format!("{} /s", group(per_s(last) as u64)), &per_s);
    course("p50", time(last.p50_ns), &|interval| interval.p50_ns as f64);
    course("p99", time(last.p99_ns), &|interval| interval.p99_ns as f64);
    course("max", time(last.max_ns), &|interval| interval.max_ns as f64);
    if now.intervals.iter().any(|interval| interval.lag_max_ns > 0) {
        course("sent late", time(last.lag_max_ns), &|interval| interval.lag_max_ns as f64);
    }
    course("waiting", format!("{} bytes", group(last.queued_bytes)), &|interval| interval.queued_bytes as f64);
    if last.core_time.is_empty() {
        return rows;
    }
    rows.push(Row::default());
    rows.extend(last.core_time.iter().enumerate().map(|(core, spent)| core_row(core, spent, width)));
    let legend = PARTS.iter().fold(Row::default().with(Colour::Plain, " ".repeat(NAME)), |row, (name, letter, colour)| {
        row.with(*colour, letter.to_string()).with(Colour::Faint, format!(" {name}  "))
    });
    rows.push(legend);
    rows
}

/// The latest values, each as a column of its height from zero to the highest of them.
fn spark(intervals: &[Interval], room: usize, value: &dyn Fn(&Interval) -> f64) -> String {
    let shown = &intervals[intervals.len().saturating_sub(room)..];
    let most = shown.iter().map(value).fold(0.0, f64::max);
    let column = |interval: &Interval| {
        let height = if most > 0.0 { value(interval) / most } else { 0.0 };
        HEIGHTS[((height * 8.0).ceil() as usize).clamp(1, 8) - 1]
    };
    shown.iter().map(column).collect()
}

/// What a core did, as a bar of letters.
fn core_row(core: usize, spent: &CoreTime, width: usize) -> Row {
    let CoreTime { poll, inbox, read, decode, handler, encode, events, write, idle } = *spent;
    let seconds = [read, decode, handler, encode, write, poll, inbox, events, idle];
    let whole: f64 = seconds.iter().sum();
    let busy = if whole > 0.0 { (whole - idle) / whole } else { 0.0 };
    let name = Row::default().with(Colour::Faint, format!("{:<NAME$}", format!("core {core}")));
    let mut row = name.with(Colour::Bold, format!("{:>FIGURE$}  ", format!("{:.0} % busy", busy * 100.0)));
    let room = width.saturating_sub(NAME + FIGURE + 3);
    let (mut sum, mut end) = (0.0, 0);
    for (seconds, (_, letter, colour)) in seconds.iter().zip(PARTS) {
        sum += seconds;
        // Rounded where each part ends, so that the bar as a whole is as long as the room.
        let next = if whole > 0.0 { (sum / whole * room as f64).round() as usize } else { 0 };
        row = row.with(colour, letter.to_string().repeat(next.saturating_sub(end)));
        end = next;
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(delivered: u64, lag_max_ns: u64) -> Interval {
        let core = CoreTime { read: 0.25, write: 0.25, idle: 0.5, ..CoreTime::default() };
        Interval {
            at_s: 0.0,
            elapsed_s: 0.5,
            disturbed: false,
            sent: delivered,
            delivered,
            p50_ns: 20_000,
            p99_ns: 90_000,
            max_ns: 1_000_000,
            lag_max_ns,
            latencies: None,
            queued_bytes: 4096,
            core_time: vec![core],
        }
    }

    fn text(intervals: &[Interval], note: Option<&str>, width: usize) -> Vec<String> {
        let elapsed = Duration::from_millis(1500);
        let now = Now { phase: "measuring", elapsed, count: 12_345, unit: "delivered", rate: 1000.4, note, intervals };
        let write = |row: &Row| {
            let mut line = String::new();
            row.write(&mut line, width, false);
            line
        };
        frame("echo: 50 peers", &now, width).iter().map(write).collect()
    }

    #[test]
    fn what_happened_last_is_shown_with_its_course() {
        let lines = text(&[interval(100, 0), interval(400, 0), interval(200, 0)], None, 60);
        let has = |start: &str, parts: &[&str]| {
            let line = lines.iter().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start:?} in {lines:#?}"));
            assert!(parts.iter().all(|part| line.contains(part)), "{parts:?} in {line:?}");
        };
        has("echo: 50 peers", &[]);
        has("measuring", &["1.5 s", "12,345 delivered", "1,000 /s"]);
        has("delivered", &["400 /s", "▂█▄"]);
        has("p99", &["90.0 us"]);
        has("waiting", &["4,096 bytes"]);
        has("core 0", &["50 % busy", "rrrrrr", "wwwwww", "......"]);
        assert!(!lines.iter().any(|line| line.starts_with("sent late")), "a closed loop is never late: {lines:#?}");
        assert!(text(&[interval(1, 5000)], None, 60).iter().any(|line| line.starts_with("sent late") && line.contains("5.00 us")));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let intervals: Vec<_> = (0..500).map(|count| interval(count, 1)).collect();
        for width in [1, 5, 20, 27, 80, 200] {
            let lines = text(&intervals, Some("a very long note about what does not answer"), width);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:#?}");
        }
        let bar = text(&intervals, None, 100).into_iter().find(|line| line.starts_with("core 0")).unwrap();
        assert_eq!(bar.chars().count(), 99, "the bar is as long as there is room");
    }

    #[test]
    fn before_anything_is_measured_there_are_two_lines() {
        assert_eq!(text(&[], None, 80).len(), 2);
        assert_eq!(text(&[], Some("connection refused"), 80).len(), 3);
    }

    #[test]
    fn colours_can_be_left_out() {
        let row = Row::default().with(Colour::Of(31), "abc").with(Colour::Plain, "def");
        let write = |coloured| {
            let mut out = String::new();
            row.write(&mut out, 4, coloured);
            out
        };
        assert_eq!((write(true).as_str(), write(false).as_str()), ("\u{1b}[31mabc\u{1b}[0md", "abcd"));
    }
}
