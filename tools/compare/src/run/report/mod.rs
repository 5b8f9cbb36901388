//! The reports of a run, all made from [`super::results::Results`] and nothing else.

pub(super) mod html;
pub(super) mod markdown;
pub(super) mod show;
mod svg;

use super::contestant;
use super::results::{Entry, Figure, RowResults};
use super::work::{ROWS, Work};

/// A contestant that beats the limit by more than this shows that it is none.
const LIMIT_MARGIN: f64 = 1.05;

/// What a row is there for: the figure that stands for it where there is room for one.
fn headline(row: &RowResults) -> Figure {
    let known = ROWS.iter().find(|known| known.name == row.name);
    match known.map(|known| known.work) {
        Some(Work::HalfRate { .. }) => Figure::P999,
        Some(Work::Beside { .. }) => Figure::Kept,
        _ if is_idle(row) => Figure::Memory,
        _ => Figure::Rate,
    }
}

fn is_idle(row: &RowResults) -> bool {
    row.entries.iter().flat_map(|entry| &entry.rounds).any(|round| round.sample.bytes_per_connection.is_some())
}

fn has_figures(entry: &Entry) -> bool {
    !entry.rounds.is_empty()
}

/// How a figure is written.
fn writer(figure: Figure) -> fn(f64) -> String {
    match figure {
        Figure::Rate => show::rate,
        Figure::P50 | Figure::P99 | Figure::P999 | Figure::ServerCpu | Figure::ClientCpu => show::time,
        Figure::Memory => show::bytes,
        Figure::IdleCpu => show::cores,
        Figure::Kept => show::ratio,
    }
}

fn title(figure: Figure) -> &'static str {
    match figure {
        Figure::Rate => "deliveries a second",
        Figure::P50 => "p50",
        Figure::P99 => "p99",
        Figure::P999 => "p99.9",
        Figure::ServerCpu => "server CPU per delivery",
        Figure::ClientCpu => "client CPU per delivery",
        Figure::Memory => "memory per idle connection",
        Figure::IdleCpu => "server CPU while idle",
        Figure::Kept => "share of the rate that is kept",
    }
}

/// Who beats the limit of a row, so that it is none, and in what.
fn beaten_limits(row: &RowResults) -> Vec<(&str, &'static str)> {
    // Where many connections keep the client busy, the rate says nothing about the server.
    let few = row.connections < super::work::MANY;
    let mut beaten = Vec::new();
    for entry in row.entries.iter().filter(|entry| !is_limit(&entry.contestant)) {
        // The default policy spins for a while, which the loop that sleeps does not.
        let rate = few && ![contestant::CORECAST, contestant::CORECAST_NOISE].contains(&entry.contestant.as_str());
        for (figure, name) in [(rate.then_some(Figure::Rate), "rate"), (cpu_counts(entry).then_some(Figure::ServerCpu), "server CPU")] {
            let ratio = figure.and_then(|figure| entry.ratios.get(&figure));
            if ratio.is_some_and(|ratio| ratio.coverage >= 0.95 && ratio.low > LIMIT_MARGIN) {
                beaten.push((entry.contestant.as_str(), name));
            }
        }
    }
    beaten
}

/// Whether server CPU means anything: of a server that spins it is the time that has passed.
fn cpu_counts(entry: &Entry) -> bool {
    ![contestant::BARE_SPIN, contestant::CORECAST_SPIN].contains(&entry.contestant.as_str())
}

fn is_limit(contestant: &str) -> bool {
    [contestant::BARE, contestant::BARE_SPIN].contains(&contestant)
}

fn is_ours(contestant: &str) -> bool {
    contestant.starts_with(contestant::CORECAST)
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::{entry, row};
    use super::*;

    #[test]
    fn a_limit_that_is_beaten_is_named() {
        let of = |rate: f64| {
            let row = row("echo-100", vec![entry("bare", "bare", &[100.0; 15]), entry("monoio", "bare", &[rate; 15])]);
            beaten_limits(&row).iter().map(|(who, what)| format!("{who} {what}")).collect::<Vec<_>>()
        };
        assert_eq!(of(104.0), [""; 0]);
        assert_eq!(of(110.0), ["monoio rate", "monoio server CPU"]);
    }

    #[test]
    fn each_row_has_a_figure_that_stands_for_it() {
        let of = |name| headline(&row(name, Vec::new()));
        assert_eq!([of("echo-1"), of("stuck-1-of-50"), of("open-echo-100")], [Figure::Rate, Figure::Kept, Figure::P999]);
    }
}
