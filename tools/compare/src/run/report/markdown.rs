//! The tables, in Markdown.

use std::fmt::{Result, Write};

use super::super::bars::Bar;
use super::super::contestant::CORECAST;
use super::super::results::{Conditions, Entry, Figure, Results, RowResults};
use super::{beaten_limits, cpu_counts, has_figures, headline, is_idle, show, title, writer};

/// All of it: how it was measured, one figure for each contestant in each row, then every row by itself.
pub(crate) fn document(results: &Results) -> String {
    let mut text = String::new();
    preface(results, &mut text)
        .and_then(|()| summary(results, &mut text))
        .and_then(|()| cpu_summary(results, &mut text))
        .and_then(|()| results.rows.iter().try_for_each(|row| details(row, &mut text)))
        .and_then(|()| remarks(results, &mut text))
        .expect("writing to a string");
    text
}

/// How it was measured, and how the figures are meant.
pub(super) fn method(conditions: &Conditions) -> String {
    let Conditions { rounds, warmup_s, measure_s, server_core, client_core, client_poll, .. } = conditions;
    format!(
        "Rounds: up to {rounds}, in each of which every contestant has its turn against a fresh server: {warmup_s} s of warm-up, \
         {measure_s} s measured; server on core {server_core}, client on core {client_core}, loopback; the client's poll: {client_poll}. \
         Figures are medians over the rounds, in brackets the interval that holds the median with at least 95 % (sign test; with fewer \
         than 6 rounds it is the whole range). Ratios are per round, and above 1 the one that is named first is better. Rate: \
         deliveries (echo: answers) a second. Latency: echo, round trip; fan-out, until the last subscriber has it; open loop, from when \
         the message was due."
    )
}

fn preface(results: &Results, text: &mut String) -> Result {
    let conditions = &results.conditions;
    writeln!(text, "`{}`\n\nMachine: {}.\n\n{}\n", conditions.command, results.machine, method(conditions))?;
    for who in &results.contestants {
        let version = who.version.as_ref().map_or_else(String::new, |version| format!(" ({version})"));
        let missing = who.missing.as_ref().map_or_else(String::new, |how| format!("; **skipped**, {how}"));
        writeln!(text, "- `{}`: {}{version}{missing}", who.name, who.what)?;
    }
    writeln!(text)
}

/// One line for each row, one column for each contestant.
fn summary(results: &Results, text: &mut String) -> Result {
    let ratio = "In brackets the ratio to the bare loop that waits in the same way; of the default policy, to the one that sleeps.";
    writeln!(text, "## At a glance\n\n{ratio}\n")?;
    matrix(results, text, headline, |row, entry| {
        let figure = headline(row);
        let value = show::middle(entry.estimate(figure), writer(figure));
        let ratio = entry.ratios.get(&figure).filter(|_| figure == Figure::Rate);
        ratio.map_or(value.clone(), |ratio| format!("{value} ({})", show::ratio(ratio.median)))
    })
}

fn cpu_summary(results: &Results, text: &mut String) -> Result {
    writeln!(text, "Server CPU per delivery:\n")?;
    let figure = |row: &RowResults| if is_idle(row) { Figure::IdleCpu } else { Figure::ServerCpu };
    matrix(results, text, figure, |row, entry| {
        let figure = figure(row);
        if cpu_counts(entry) { show::middle(entry.estimate(figure), writer(figure)) } else { "spins".into() }
    })
}

fn matrix(
    results: &Results,
    text: &mut String,
    figure: impl Fn(&RowResults) -> Figure,
    cell: impl Fn(&RowResults, &Entry) -> String,
) -> Result {
    let names: Vec<&str> = results.contestants.iter().filter(|who| who.missing.is_none()).map(|who| who.name.as_str()).collect();
    writeln!(text, "| work | {} |", names.join(" | "))?;
    writeln!(text, "|---|{}", "---:|".repeat(names.len()))?;
    for row in &results.rows {
        let unit = match figure(row) {
            // What the table is of, as its heading says.
            Figure::Rate | Figure::ServerCpu => String::new(),
            other => format!(": {}", title(other)),
        };
        let cells = names.iter().map(|name| match row.entry(name) {
            Some(entry) if entry.failed.is_some() => "**failed**".into(),
            Some(entry) if has_figures(entry) => cell(row, entry),
            _ => "-".to_owned(),
        });
        writeln!(text, "| {}{unit} | {} |", row.title, cells.collect::<Vec<_>>().join(" | "))?;
    }
    writeln!(text)
}

/// The columns of a row's own table.
pub(super) fn columns(row: &RowResults) -> Vec<Figure> {
    let headline = headline(row);
    if headline == Figure::Memory {
        return vec![Figure::Memory, Figure::IdleCpu];
    }
    let kept = (headline == Figure::Kept).then_some(Figure::Kept);
    let tail = (headline == Figure::P999).then_some(Figure::P999);
    let columns = [Some(Figure::Rate), kept, Some(Figure::P50), Some(Figure::P99), tail, Some(Figure::ServerCpu), Some(Figure::ClientCpu)];
    columns.into_iter().flatten().collect()
}

/// Whether a figure is also shown as a ratio to the limit.
fn has_ratio(figure: Figure) -> bool {
    matches!(figure, Figure::Rate | Figure::ServerCpu)
}

/// The head and the lines of a row's own table, cell by cell. A line of two cells is a contestant without figures, and why.
pub(super) fn table(row: &RowResults) -> (Vec<String>, Vec<Vec<String>>) {
    let columns = columns(row);
    let mut head = vec!["contestant".to_owned()];
    for &figure in &columns {
        head.push(title(figure).into());
        head.extend(has_ratio(figure).then(|| "to its limit".into()));
    }
    head.extend([format!("{CORECAST} to it: {}", title(headline(row))), "rounds".into()]);
    (head, row.entries.iter().map(|entry| line(row, entry, &columns)).collect())
}

fn line(row: &RowResults, entry: &Entry, columns: &[Figure]) -> Vec<String> {
    let name = &entry.contestant;
    if let Some(reason) = &entry.skipped {
        return vec![name.clone(), format!("skipped: {reason}")];
    }
    if let Some(reason) = &entry.failed {
        return vec![name.clone(), format!("failed in round {}: {reason}", entry.rounds.len() + 1)];
    }
    let mut cells = vec![name.clone()];
    for &figure in columns {
        let means_nothing = figure == Figure::ServerCpu && !cpu_counts(entry);
        cells.push(if means_nothing { "spins".into() } else { show::interval(entry.estimate(figure), writer(figure)) });
        let ratio = entry.ratios.get(&figure).filter(|_| !means_nothing).copied();
        cells.extend(has_ratio(figure).then(|| show::interval(ratio, show::ratio)));
    }
    let ours = (name != CORECAST).then(|| row.ratio(CORECAST, name, headline(row))).flatten();
    cells.extend([show::interval(ours, show::ratio), entry.rounds.len().to_string()]);
    cells
}

fn details(row: &RowResults, text: &mut String) -> Result {
    let (head, lines) = table(row);
    writeln!(text, "### {} (`{}`)\n\n| {} |", row.title, row.name, head.join(" | "))?;
    writeln!(text, "|---|{}", "---:|".repeat(head.len() - 1))?;
    for line in lines {
        writeln!(text, "| {} |{}", line.join(" | "), " |".repeat(head.len() - line.len()))?;
    }
    writeln!(text)
}

fn remarks(results: &Results, text: &mut String) -> Result {
    for row in &results.rows {
        for (who, what) in beaten_limits(row) {
            writeln!(text, "**{}: {who} beats the bare loop by more than 5 % in {what}, so that is not a limit here.**\n", row.name)?;
        }
    }
    match results.foreign_cores() {
        Some(cores) => writeln!(text, "CPU of other programs during the runs: median {cores:.2} cores."),
        None => Ok(()),
    }
}

/// The bars as a table.
pub(crate) fn bars(bars: &[Bar]) -> String {
    let mut text = "## Bars\n\n| bar | row | bound | measured | verdict |\n|---|---|---|---|---|\n".to_owned();
    for Bar { what, row, bound, figure, verdict } in bars {
        let (word, why) = verdict.text();
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        writeln!(text, "| {what} | {row} | {bound} | {figure} | **{word}**{why} |").expect("writing to a string");
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::super::bars;
    use super::super::super::results::Who;
    use super::super::super::results::tests::{entry, results, row};
    use super::*;

    /// One row with everything that can happen to a contestant.
    pub(in super::super) fn one_of_each() -> Results {
        let mut skipped = Entry::new("redis", "bare");
        skipped.skipped = Some("it has no such thing".into());
        let mut failed = entry("naive", "bare", &[3.0]);
        failed.failed = Some("stalled".into());
        let entries = vec![entry("bare", "bare", &[1000.0, 1000.0]), entry("corecast", "bare", &[900.0, 980.0]), skipped, failed];
        let mut results = results(vec![row("echo-100", entries)]);
        let missing = Some("apt-get install nats-server".into());
        results.contestants.push(Who { name: "nats".into(), what: "NATS".into(), version: None, missing });
        results.contestants[0].version = Some("1.2 & 3".into());
        results
    }

    #[test]
    fn the_tables_have_every_contestant_with_its_figures_or_the_reason() {
        let text = document(&one_of_each());
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}\n{text}")).to_owned();
        assert_eq!(line("| the row echo-100 | 1"), "| the row echo-100 | 1.00 k | 940 (0.940) | **failed** | - |");
        assert!(line("| redis |").starts_with("| redis | skipped: it has no such thing |"));
        assert!(line("| naive |").starts_with("| naive | failed in round 2: stalled |"));
        assert!(line("| corecast | 9").starts_with("| corecast | 940 [900, 980] | 0.940 [0.900, 0.980] |"), "{text}");
        assert_eq!(line("- `bare`"), "- `bare`: what bare is (1.2 & 3)");
        assert_eq!(line("- `nats`"), "- `nats`: NATS; **skipped**, apt-get install nats-server");
        assert!(text.contains("CPU of other programs during the runs: median 0.01 cores."));
    }

    #[test]
    fn tables_are_rectangles() {
        let text = document(&one_of_each());
        for table in text.split("\n\n").filter(|block| block.starts_with('|')) {
            let widths: Vec<usize> = table.lines().map(|line| line.matches('|').count()).collect();
            assert!(widths.iter().all(|&width| width == widths[0]), "{widths:?}\n{table}");
        }
    }

    #[test]
    fn bars_say_why_they_are_open() {
        let text = bars(&bars::all(&one_of_each()));
        assert!(text.contains("**not measured**: no figures of both in this run"), "{text}");
        assert!(text.lines().last().unwrap().contains("cargo bench"));
    }
}
