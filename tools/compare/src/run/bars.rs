//! The bars that corecast is held to, and whether a run shows that it reaches them.
//!
//! A ratio reaches a bar if the lower end of its interval does, and at least 15 rounds are behind it (six, of who is too slow for more).
//! Where the interval lies on both sides of the bar, the machine has not decided it, and it is said so. With few connections the rate
//! decides, spinning against spinning, and server CPU per delivery where both sleep; from a thousand on it is the CPU alone, because there
//! the client is the slower side. Memory and the processor time of an idle server hardly vary: three rounds decide them, all of which have
//! to hold. Who fails in a row has missed its bars there.

use serde::Serialize;

use super::contestant::{ALL, BARE, BARE_SPIN, CORECAST, CORECAST_BLOCK, CORECAST_NOISE, CORECAST_SPIN, NAIVE};
use super::report::show;
use super::results::{Figure, Results, RowResults};
use super::work::MANY;
use crate::stats::Estimate;

/// Rounds without which no ratio decides anything.
const ENOUGH_ROUNDS: usize = 15;
/// What is enough of a contestant that was so slow that its time in the row was up sooner, while ours had all rounds: the interval of six
/// is their whole range, and covers as much.
const FEWEST_ROUNDS: usize = 6;
/// Rounds without which nothing that hardly varies is decided.
const STEADY_ROUNDS: usize = 3;
const CLOSED_LOOP: f64 = 0.95;
const PIPELINED_FANOUT: f64 = 0.9;
const PIPELINED_ECHO: f64 = 0.7;
const OF_OTHERS: [(&str, f64); 4] = [("tokio-tuned", 3.0), ("zmq", 4.0), ("nats", 8.0), (NAIVE, 40.0)];
/// A round trip may take 1.1 of what it takes the spinning loop.
const SPINNING_P50: f64 = 1.0 / 1.1;
const SLEEPING_P50: f64 = 3.0;
const IDLE_CORES: f64 = 0.02;
const KEPT: f64 = 0.95;
const IDLE_BYTES: f64 = 512.0;
const IDLE_NOISE_BYTES: f64 = 2.5 * 1024.0;

const CLOSED_ROWS: [&str; 9] = [
    "echo-1",
    "echo-100",
    "echo-1000",
    "fanout-50-128B-x1",
    "fanout-50-1KiB-x1",
    "fanout-1000-128B-x1",
    "fanout-1000-1KiB-x1",
    "fanout-5000-128B-x1",
    "fanout-5000-1KiB-x1",
];
const PIPELINED_ROWS: [&str; 6] = [
    "fanout-50-128B-x64",
    "fanout-50-1KiB-x64",
    "fanout-1000-128B-x64",
    "fanout-1000-1KiB-x64",
    "fanout-5000-128B-x64",
    "fanout-5000-1KiB-x64",
];
const OPEN_ROWS: [&str; 2] = ["open-echo-100", "open-fanout-50"];

/// What a run says about a bar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Verdict {
    Met,
    NotMet,
    /// Measured, and not enough: why.
    Undecided(String),
    /// Not in this run: why.
    NotMeasured(String),
}

impl Verdict {
    /// The word, and the reason if there is one.
    pub(crate) fn text(&self) -> (&'static str, &str) {
        match self {
            Verdict::Met => ("met", ""),
            Verdict::NotMet => ("not met", ""),
            Verdict::Undecided(why) => ("undecided", why),
            Verdict::NotMeasured(why) => ("not measured", why),
        }
    }
}

/// A bar in one row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) row: String,
    pub(crate) bound: String,
    /// What was measured, as it is shown.
    pub(crate) figure: String,
    pub(crate) verdict: Verdict,
}

/// Whether a ratio is at least so much.
fn at_least(ratio: Option<Estimate>, bound: f64, enough: usize) -> Verdict {
    match ratio {
        None => absent(),
        Some(Estimate { count, .. }) if count < enough => Verdict::Undecided(format!("{count} of {ENOUGH_ROUNDS} rounds")),
        Some(ratio) if ratio.low >= bound => Verdict::Met,
        Some(ratio) if ratio.high < bound => Verdict::NotMet,
        Some(_) => spans(),
    }
}

/// Whether something that is no ratio, and hardly varies, is at most so much.
fn at_most(value: Option<Estimate>, bound: f64) -> Verdict {
    match value {
        None => absent(),
        Some(Estimate { count, .. }) if count < STEADY_ROUNDS => Verdict::Undecided(format!("{count} of {STEADY_ROUNDS} rounds")),
        Some(value) if value.high <= bound => Verdict::Met,
        Some(value) if value.low > bound => Verdict::NotMet,
        Some(_) => spans(),
    }
}

fn absent() -> Verdict {
    Verdict::NotMeasured("no figures of both in this run".into())
}

fn spans() -> Verdict {
    Verdict::Undecided("the interval lies on both sides".into())
}

/// The verdict, unless somebody whom it is about failed in the row: the rounds before that decide nothing.
fn unless_failed(row: &RowResults, ours: &str, other: Option<&str>, verdict: Verdict) -> Verdict {
    let failed = |name: &&str| row.entry(name).is_some_and(|entry| entry.failed.is_some());
    match other.filter(failed) {
        _ if failed(&ours) => Verdict::NotMet,
        Some(other) => Verdict::NotMeasured(format!("{other} failed")),
        None => verdict,
    }
}

/// Everybody who is neither the limit nor ours.
fn others() -> impl Iterator<Item = &'static str> {
    ALL.iter().filter(|contestant| contestant.is_foreign()).map(|contestant| contestant.name)
}

/// The bars, row by row, of the rows that the run has; then those that no run of this command measures.
pub(crate) fn all(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    let rows = |names: &'static [&'static str]| names.iter().filter_map(|name| results.row(name));
    for row in rows(&CLOSED_ROWS) {
        limit(row, "closed loop, of the limit", CLOSED_LOOP, &mut bars);
        nobody_ahead(row, &mut bars);
    }
    for row in rows(&PIPELINED_ROWS) {
        limit(row, "pipelined fan-out, of the limit", PIPELINED_FANOUT, &mut bars);
        for (other, bound) in OF_OTHERS {
            bars.push(of_other(row, other, bound));
        }
    }
    if let Some(row) = results.row("echo-16-64B-x64") {
        let what = "pipelined echo, of the loop that parses headers: rate, spinning";
        bars.push(ratio_bar(row, what, (CORECAST_SPIN, BARE_SPIN, Figure::Rate), PIPELINED_ECHO));
    }
    if let Some(row) = results.row("echo-1") {
        let what = "p50 with the default idle policy, of the spinning loop's";
        bars.push(ratio_bar(row, what, (CORECAST, BARE_SPIN, Figure::P50), SPINNING_P50));
        bars.push(lowest(row, "p50 below every sleeping contestant's", CORECAST, Figure::P50, SLEEPING_P50));
    }
    if let Some(row) = results.row("idle-1000") {
        let cores = row.estimate(CORECAST, Figure::IdleCpu);
        bars.push(Bar {
            what: "processor time while idle".into(),
            row: row.name.clone(),
            bound: "at most 2 % of a core".into(),
            figure: show::interval(cores, show::cores),
            verdict: unless_failed(row, CORECAST, None, at_most(cores, IDLE_CORES)),
        });
    }
    bars.extend(rows(&OPEN_ROWS).map(tail));
    if let Some(row) = results.row("stuck-1-of-50") {
        for ours in [CORECAST, CORECAST_NOISE] {
            let kept = row.estimate(ours, Figure::Kept);
            bars.push(Bar {
                what: format!("rate of the other 49 that is kept, {ours}"),
                row: row.name.clone(),
                bound: at_least_text(KEPT),
                figure: show::interval(kept, show::ratio),
                verdict: unless_failed(row, ours, None, at_least(kept, KEPT, ENOUGH_ROUNDS)),
            });
        }
    }
    if let Some(row) = results.row("idle-10000") {
        bars.push(memory(row, CORECAST, IDLE_BYTES));
        bars.push(memory(row, CORECAST_NOISE, IDLE_NOISE_BYTES));
    }
    bars.push(Bar {
        what: "cost per delivery as cores are added".into(),
        row: "-".into(),
        bound: "flat".into(),
        figure: "-".into(),
        verdict: Verdict::NotMeasured("cargo bench --features bench-internals --bench cores".into()),
    });
    bars
}

/// Against the limit: by rate where both spin, and by CPU where both sleep.
fn limit(row: &RowResults, what: &str, bound: f64, bars: &mut Vec<Bar>) {
    if row.connections < MANY {
        bars.push(ratio_bar(row, &format!("{what}: rate, spinning"), (CORECAST_SPIN, BARE_SPIN, Figure::Rate), bound));
    }
    bars.push(ratio_bar(row, &format!("{what}: server CPU, sleeping"), (CORECAST_BLOCK, BARE, Figure::ServerCpu), bound));
}

/// Against another one: by rate with few connections, ours as it is without being told; by CPU where both sleep with many.
fn of_other(row: &RowResults, other: &str, bound: f64) -> Bar {
    let (ours, figure, name) =
        if row.connections < MANY { (CORECAST, Figure::Rate, "rate") } else { (CORECAST_BLOCK, Figure::ServerCpu, "server CPU") };
    ratio_bar(row, &format!("pipelined fan-out, times {other}: {name}"), (ours, other, figure), bound)
}

/// Against everybody else, none of whom spins: ours sleeping, and as it is without being told, which is to spin while there is something to
/// do.
fn nobody_ahead(row: &RowResults, bars: &mut Vec<Bar>) {
    let mut bar = |how: &str, ours, figure| bars.push(lowest(row, &format!("closed loop, nobody ahead: {how}"), ours, figure, 1.0));
    if row.connections < MANY {
        bar("rate, as it comes", CORECAST, Figure::Rate);
        bar("rate, sleeping", CORECAST_BLOCK, Figure::Rate);
    }
    bar("server CPU, sleeping", CORECAST_BLOCK, Figure::ServerCpu);
}

/// Against everybody else at once: the verdict is the worst one, the figure that of whoever comes closest.
fn lowest(row: &RowResults, what: &str, ours: &str, figure: Figure, bound: f64) -> Bar {
    let ratios: Vec<(&str, Estimate)> = others().filter_map(|other| Some((other, row.ratio(ours, other, figure)?))).collect();
    let closest = ratios.iter().min_by(|a, b| a.1.median.total_cmp(&b.1.median));
    let named = |wanted: &dyn Fn(&Estimate) -> bool| list(ratios.iter().filter(|(_, ratio)| wanted(ratio)).map(|(other, _)| *other));
    let enough = |ratio: &Estimate| ratio.count >= ENOUGH_ROUNDS;
    let ahead = named(&|ratio| enough(ratio) && ratio.high < bound);
    let open = named(&|ratio| enough(ratio) && ratio.low < bound);
    // Who was so slow that it has fewer rounds is behind if it was in each of them.
    let few = named(&|ratio| !enough(ratio) && ratio.low < bound);
    let not_there = list(others().filter(|other| is_absent(row, other)));
    let verdict = match ratios.iter().map(|(_, ratio)| ratio.count).max() {
        None => Verdict::NotMeasured("no other contestant in this run".into()),
        Some(_) if !ahead.is_empty() => Verdict::NotMet,
        Some(most) if most < ENOUGH_ROUNDS => Verdict::Undecided(format!("{most} of {ENOUGH_ROUNDS} rounds")),
        Some(_) if !open.is_empty() => Verdict::Undecided(format!("the interval lies on both sides: {open}")),
        Some(_) if !few.is_empty() => Verdict::Undecided(format!("fewer than {ENOUGH_ROUNDS} rounds: {few}")),
        Some(_) if !not_there.is_empty() => Verdict::Undecided(format!("without {not_there}")),
        Some(_) => Verdict::Met,
    };
    let figure = closest.map_or_else(|| "-".into(), |(other, ratio)| format!("{other}: {}", show::interval(Some(*ratio), show::ratio)));
    let verdict = unless_failed(row, ours, None, verdict);
    Bar { what: what.into(), row: row.name.clone(), bound: at_least_text(bound), figure, verdict }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// Whether there is nothing to say of a contestant in this row. That it cannot do the work, or failed at it, is something.
fn is_absent(row: &RowResults, other: &str) -> bool {
    row.entry(other).is_none_or(|entry| entry.rounds.is_empty() && entry.skipped.is_none() && entry.failed.is_none())
}

/// In the open loop: whether anybody's p99.9 lies wholly below ours.
fn tail(row: &RowResults) -> Bar {
    let ours = row.estimate(CORECAST, Figure::P999);
    let theirs: Vec<(&str, Estimate)> = others().filter_map(|other| Some((other, row.estimate(other, Figure::P999)?))).collect();
    let below = |ours: Estimate| list(theirs.iter().filter(|(_, theirs)| theirs.high < ours.low).map(|(other, _)| *other));
    let few = list(theirs.iter().filter(|(_, theirs)| theirs.count < ENOUGH_ROUNDS).map(|(other, _)| *other));
    let not_there = list(others().filter(|other| is_absent(row, other)));
    let verdict = match ours {
        None => absent(),
        Some(_) if theirs.is_empty() => Verdict::NotMeasured("no other contestant in this run".into()),
        Some(ours) if ours.count < ENOUGH_ROUNDS => Verdict::Undecided(format!("{} of {ENOUGH_ROUNDS} rounds", ours.count)),
        Some(ours) if !below(ours).is_empty() => Verdict::NotMet,
        Some(_) if !few.is_empty() => Verdict::Undecided(format!("fewer than {ENOUGH_ROUNDS} rounds: {few}")),
        Some(_) if !not_there.is_empty() => Verdict::Undecided(format!("without {not_there}")),
        Some(_) => Verdict::Met,
    };
    let best = theirs.iter().min_by(|a, b| a.1.median.total_cmp(&b.1.median));
    let best = best.map_or_else(String::new, |(other, best)| format!("; {other}: {}", show::interval(Some(*best), show::time)));
    Bar {
        what: "p99.9 in the open loop, nobody's wholly below".into(),
        row: row.name.clone(),
        bound: "nobody".into(),
        figure: format!("{}{best}", show::interval(ours, show::time)),
        verdict: unless_failed(row, CORECAST, None, verdict),
    }
}

fn memory(row: &RowResults, ours: &str, bound: f64) -> Bar {
    let bytes = row.estimate(ours, Figure::Memory);
    Bar {
        what: format!("memory of an idle peer, {ours}"),
        row: row.name.clone(),
        bound: format!("at most {bound:.0} B"),
        figure: show::interval(bytes, show::bytes),
        verdict: unless_failed(row, ours, None, at_most(bytes, bound)),
    }
}

fn at_least_text(bound: f64) -> String {
    if bound < 1.0 { format!(">= {bound:.2}") } else { format!(">= {bound}") }
}

/// Of one contestant to another, in one figure.
fn ratio_bar(row: &RowResults, what: &str, (ours, other, figure): (&str, &str, Figure), bound: f64) -> Bar {
    let ratio = row.ratio(ours, other, figure);
    let had_all = row.entry(ours).is_some_and(|entry| entry.rounds.len() >= ENOUGH_ROUNDS);
    let enough = if had_all && others().any(|name| name == other) { FEWEST_ROUNDS } else { ENOUGH_ROUNDS };
    Bar {
        what: what.into(),
        row: row.name.clone(),
        bound: at_least_text(bound),
        figure: show::interval(ratio, show::ratio),
        verdict: unless_failed(row, ours, Some(other), at_least(ratio, bound, enough)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::{entry, results, row};
    use super::*;

    fn estimate(low: f64, high: f64, count: usize) -> Option<Estimate> {
        Some(Estimate { median: (low + high) / 2.0, low, high, coverage: 0.96, count })
    }

    #[test]
    fn a_bar_is_met_missed_or_open() {
        let at_least = |ratio| at_least(ratio, 0.95, ENOUGH_ROUNDS);
        assert_eq!(at_least(estimate(0.95, 1.0, 15)), Verdict::Met);
        assert_eq!(at_least(estimate(0.9, 0.94, 15)), Verdict::NotMet);
        assert_eq!(at_least(estimate(0.9, 0.96, 15)), spans());
        assert_eq!(at_least(estimate(1.2, 1.3, 14)), Verdict::Undecided("14 of 15 rounds".into()));
        assert!(matches!(at_least(None), Verdict::NotMeasured(_)));
        assert_eq!([at_most(estimate(1.0, 2.0, 3), 2.0), at_most(estimate(3.0, 4.0, 3), 2.0)], [Verdict::Met, Verdict::NotMet]);
        assert_eq!(at_most(estimate(1.0, 4.0, 3), 2.0), spans());
        assert_eq!(at_most(estimate(1.0, 1.0, 1), 2.0), Verdict::Undecided("1 of 3 rounds".into()));
    }

    #[test]
    fn who_was_so_slow_that_its_time_was_up_is_decided_by_fewer_rounds() {
        let slow = |rounds: usize, rate: f64| {
            let entries = vec![fifteen(CORECAST, 100.0), entry(NAIVE, BARE, &vec![rate; rounds])];
            of_other(&row("fanout-50-128B-x64", entries), NAIVE, 40.0).verdict
        };
        assert_eq!([slow(6, 2.0), slow(6, 3.0)], [Verdict::Met, Verdict::NotMet]);
        assert_eq!(slow(5, 2.0), Verdict::Undecided("5 of 15 rounds".into()));
        // Where ours has no more either, it is the run that was short.
        let short = vec![entry(CORECAST, BARE, &[100.0; 9]), entry(NAIVE, BARE, &[2.0; 9])];
        let verdict = of_other(&row("fanout-50-128B-x64", short), NAIVE, 40.0).verdict;
        assert_eq!(verdict, Verdict::Undecided("9 of 15 rounds".into()));
    }

    fn fifteen(contestant: &str, rate: f64) -> super::super::results::Entry {
        entry(contestant, BARE, &[rate; 15])
    }

    fn verdict(bars: &[Bar], what: &str) -> Verdict {
        bars.iter().find(|bar| bar.what.contains(what)).unwrap_or_else(|| panic!("no bar {what:?}")).verdict.clone()
    }

    /// Everybody else, this slow.
    fn the_rest(rate: f64) -> Vec<super::super::results::Entry> {
        others().map(|other| fifteen(other, rate)).collect()
    }

    fn with(entries: Vec<super::super::results::Entry>, name: &str) -> Vec<Bar> {
        all(&results(vec![row(name, entries)]))
    }

    #[test]
    fn the_one_who_is_ahead_decides() {
        let with = |monoio: f64| {
            let mut entries = the_rest(10.0);
            entries.retain(|entry| entry.contestant != "monoio");
            entries.extend([fifteen(CORECAST, 100.0), fifteen(CORECAST_SPIN, 96.0), fifteen(CORECAST_BLOCK, 90.0)]);
            entries.extend([fifteen(BARE_SPIN, 100.0), fifteen(BARE, 100.0), fifteen("monoio", monoio)]);
            with(entries, "echo-100")
        };
        assert_eq!(verdict(&with(99.0), "nobody ahead: rate, as it comes"), Verdict::Met);
        assert_eq!(verdict(&with(99.0), "nobody ahead: rate, sleeping"), Verdict::NotMet);
        assert_eq!(verdict(&with(89.0), "nobody ahead: rate, sleeping"), Verdict::Met);
        let behind = with(101.0);
        assert_eq!(verdict(&behind, "nobody ahead: rate, as it comes"), Verdict::NotMet);
        assert!(behind.iter().any(|bar| bar.figure.starts_with("monoio: 0.990")), "{behind:?}");
        assert_eq!(verdict(&behind, "of the limit: rate, spinning"), Verdict::Met);
        assert_eq!(verdict(&behind, "of the limit: server CPU, sleeping"), Verdict::NotMet);
    }

    #[test]
    fn who_is_not_there_or_has_few_rounds_leaves_it_open() {
        let ahead = |entries: Vec<_>| verdict(&with([entries, vec![fifteen(CORECAST, 100.0)]].concat(), "echo-100"), "rate, as it comes");
        let without = the_rest(10.0).into_iter().filter(|entry| entry.contestant != "monoio");
        assert_eq!(ahead(without.clone().collect()), Verdict::Undecided("without monoio".into()));
        let few = |rate: f64| without.clone().chain([entry("monoio", BARE, &[rate; 3])]).collect();
        assert_eq!(ahead(few(10.0)), Verdict::Met);
        assert_eq!(ahead(few(101.0)), Verdict::Undecided("fewer than 15 rounds: monoio".into()));
        let failed = super::super::results::Entry { failed: Some("why".into()), ..entry("monoio", BARE, &[]) };
        assert_eq!(ahead(without.chain([failed]).collect()), Verdict::Met);
    }

    #[test]
    fn who_fails_has_missed_its_bars_and_a_limit_that_fails_measures_nothing() {
        let failed = |name: &str| super::super::results::Entry { failed: Some("why".into()), ..fifteen(name, 100.0) };
        let of_limit = |ours, limit| verdict(&with(vec![ours, limit], "echo-1000"), "of the limit: server CPU");
        assert_eq!(of_limit(fifteen(CORECAST_BLOCK, 100.0), fifteen(BARE, 100.0)), Verdict::Met);
        assert_eq!(of_limit(failed(CORECAST_BLOCK), fifteen(BARE, 100.0)), Verdict::NotMet);
        assert_eq!(of_limit(fifteen(CORECAST_BLOCK, 100.0), failed(BARE)), Verdict::NotMeasured("bare failed".into()));
        let ahead = with([the_rest(10.0), vec![failed(CORECAST)]].concat(), "echo-1");
        assert_eq!(verdict(&ahead, "nobody ahead: rate, as it comes"), Verdict::NotMet);
        assert_eq!(verdict(&ahead, "p50 below"), Verdict::NotMet);
    }

    #[test]
    fn every_row_of_a_bar_has_the_rounds_that_it_needs() {
        use super::super::work::{ROWS, Weight};
        for name in CLOSED_ROWS.iter().chain(&PIPELINED_ROWS).chain(&OPEN_ROWS).chain(&["echo-16-64B-x64", "stuck-1-of-50"]) {
            let row = ROWS.iter().find(|row| row.name == *name).unwrap();
            assert!(matches!(row.weight, Weight::Deciding), "{name}");
        }
        let steady = ROWS.iter().filter(|row| row.is_idle()).map(|row| row.rounds(ENOUGH_ROUNDS));
        assert!(steady.clone().count() == 2 && steady.min() >= Some(STEADY_ROUNDS));
    }

    #[test]
    fn pipelined_fan_out_is_held_against_each_of_the_four() {
        let entries = vec![fifteen(CORECAST, 900.0), fifteen("tokio-tuned", 300.0), fifteen("zmq", 300.0), fifteen(NAIVE, 22.5)];
        let bars = all(&results(vec![row("fanout-50-128B-x64", entries)]));
        assert_eq!(verdict(&bars, "times tokio-tuned"), Verdict::Met);
        assert_eq!(verdict(&bars, "times zmq"), Verdict::NotMet);
        assert!(matches!(verdict(&bars, "times nats"), Verdict::NotMeasured(_)));
        assert_eq!(verdict(&bars, "times naive"), Verdict::Met);
    }

    #[test]
    fn only_rows_of_the_run_have_bars_and_the_rest_says_where_it_is_measured() {
        let bars = all(&results(vec![row("echo-16-16KiB-x64", vec![fifteen(BARE, 1.0)])]));
        assert_eq!(bars.len(), 1);
        assert!(matches!(&bars[0].verdict, Verdict::NotMeasured(how) if how.starts_with("cargo bench")));
    }

    #[test]
    fn a_tail_is_beaten_only_by_an_interval_wholly_below() {
        let open = |other: f64| {
            let mut entries = the_rest(10.0);
            entries.retain(|entry| entry.contestant != "nats");
            entries.extend([fifteen(CORECAST, 100.0), fifteen("nats", other)]);
            verdict(&with(entries, "open-echo-100"), "p99.9")
        };
        assert_eq!([open(100.0), open(90.0), open(110.0)], [Verdict::Met, Verdict::Met, Verdict::NotMet]);
    }
}
