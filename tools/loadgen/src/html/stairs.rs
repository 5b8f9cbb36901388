//! The page of a staircase: what `sweep` and `knee` found, as latency against throughput.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;

use super::axis::{Axis, Scale, Unit};
use super::escape;
use super::page::{document, figures, pairs, plain, table};
use super::plot::{Series, all_x, all_y, lines};
use crate::machine::Machine;
use crate::report::{Latency, Setup, group, time};
use crate::step::{Step, Verdict};

/// What `sweep` and `knee` write, as far as the page shows it.
#[derive(Debug, Deserialize)]
pub(super) struct Staircase {
    setup: Option<Setup>,
    duration_s: f64,
    steps: Vec<Step>,
    machine: Machine,
    /// What was asked for and found besides.
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Staircase {
    /// Whether a file has one.
    pub(super) fn is_one(value: &Value) -> bool {
        value["schema"].as_str().is_some_and(|schema| matches!(schema, "corecast-loadgen-sweep/1" | "corecast-loadgen-knee/1"))
    }

    fn title(&self) -> String {
        let Some(Setup { workload, peers, size, arrivals, .. }) = &self.setup else { return "nothing was run".into() };
        let arrivals = arrivals.as_deref().unwrap_or("constant");
        let peers = group(u64::from(*peers));
        format!("{workload}: {peers} peers, {} bytes, {arrivals} arrivals, {} s at each rate", group(*size as u64), self.duration_s)
    }

    /// From the lowest rate on: a knee is searched for in another order.
    fn steps(&self) -> Vec<&Step> {
        let mut steps: Vec<_> = self.steps.iter().collect();
        steps.sort_by(|one, other| one.rate.total_cmp(&other.rate));
        steps
    }

    /// What a knee came to.
    fn answer(&self) -> Option<String> {
        let bound = time(self.rest.get("bound_ns")?.as_u64()?);
        let limited = self.rest.get("generator_limited").and_then(Value::as_bool) == Some(true);
        let by = if limited { "; the generator is why there is no more, not the server" } else { "" };
        Some(match self.rest.get("rate").and_then(Value::as_f64) {
            Some(rate) => format!("Up to {} messages a second the response time's p99 stays under {bound}{by}.", group(rate as u64)),
            None => format!("At no rate that was tried the response time's p99 stayed under {bound}{by}."),
        })
    }
}

/// One page of one staircase, or of several that are compared.
pub(super) fn page(staircases: &[Staircase]) -> String {
    let mut out = String::new();
    let title = match staircases {
        [one] => one.title(),
        several => format!("{} staircases", several.len()),
    };
    if staircases.len() > 1 {
        let _ = writeln!(out, "<h1>{}</h1>", escape(&title));
        figures(&mut out, compared(staircases).into_iter().collect());
    }
    staircases.iter().for_each(|staircase| section(&mut out, staircase));
    document(&title, &out)
}

fn section(out: &mut String, staircase: &Staircase) {
    let _ = writeln!(out, "<section class=\"run\">\n<h1>{}</h1>", escape(&staircase.title()));
    if let Some(answer) = staircase.answer() {
        let _ = writeln!(out, "<p><strong>{}</strong></p>", escape(&answer));
    }
    let steps = staircase.steps();
    figures(out, [latency(&steps), kept(&steps), lag(&steps), cost(&steps)].into_iter().flatten().collect());
    out.push_str("<h2>Every run</h2>\n");
    let columns = ["due/s", "sent/s", "delivered/s", "p50", "p99", "p99.9", "max", "service p99", "sent late p99", "CPU each", "verdict"];
    table(out, &columns, steps.iter().map(|step| row(step)));
    let reasons: String = steps
        .iter()
        .flat_map(|step| step.reasons.iter().map(|reason| format!("<li>At {}: {}</li>", group(step.rate as u64), escape(reason))))
        .collect();
    if !reasons.is_empty() {
        let _ = writeln!(out, "<ul class=\"reasons bad\">{reasons}</ul>");
    }
    out.push_str("<h2>How it was run</h2>\n");
    let command: Option<Vec<String>> = staircase.rest.get("command").and_then(|value| serde_json::from_value(value.clone()).ok());
    if let Some(command) = command {
        let _ = writeln!(out, "<pre class=\"command\">{}</pre>", escape(&super::page::command_line(&command)));
    }
    out.push_str("<div class=\"two\"><div><h3>Runs</h3>\n");
    // The rate is that of the first run.
    pairs(out, &staircase.setup.clone().map(|setup| Setup { rate: None, ..setup }));
    out.push_str("</div><div><h3>Asked for and found</h3>\n");
    pairs(out, &staircase.rest.iter().filter(|(name, value)| *name != "command" && plain(value).is_some()).collect::<BTreeMap<_, _>>());
    out.push_str("<h3>Machine</h3>\n");
    pairs(out, &staircase.machine);
    out.push_str("</div></div>\n</section>\n");
}

fn row(step: &Step) -> Vec<String> {
    let of = |latency: Option<Latency>, value: fn(Latency) -> u64| latency.map_or_else(|| "-".into(), |latency| time(value(latency)));
    let cpu = step.server_cpu_ns_per_delivery.map_or_else(|| "-".into(), |nanos| time(nanos as u64));
    let (word, kind) = word(step.verdict);
    let cells = [
        group(step.rate as u64),
        group(step.msgs_per_s as u64),
        group(step.deliveries_per_s as u64),
        of(step.response_ns, |latency| latency.p50),
        of(step.response_ns, |latency| latency.p99),
        of(step.response_ns, |latency| latency.p999),
        of(step.response_ns, |latency| latency.max),
        of(step.service_ns, |latency| latency.p99),
        of(step.send_lag_ns, |latency| latency.p99),
        cpu,
    ];
    let badge = format!("<span class=\"verdict {kind}\">{word}</span>");
    cells.iter().map(|text| escape(text)).chain([badge]).collect()
}

fn word(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Valid => ("valid", "good"),
        Verdict::Invalid => ("INVALID", "bad"),
        Verdict::Failed => ("FAILED", "bad"),
    }
}

/// One line through all runs in which there was such a value.
fn course(name: impl Into<String>, style: usize, steps: &[&Step], value: impl Fn(&Step) -> Option<f64>) -> Series {
    let points = steps.iter().filter_map(|step| Some((step.msgs_per_s, value(step)?)));
    Series::new(name, style, points.collect())
}

fn draw(title: &str, label: &'static str, unit: Unit, scale: Scale, series: Vec<Series>) -> Option<String> {
    let series: Vec<_> = series.into_iter().filter(|series| !series.is_empty()).collect();
    let x = Axis::fit("messages a second", Unit::PerSecond, Scale::Linear, all_x(&series))?;
    let y = Axis::fit(label, unit, scale, all_y(&series))?;
    Some(lines(title, &x, &y, &series, &[]))
}

fn latency(steps: &[&Step]) -> Option<String> {
    let of = |name, style, value: fn(Latency) -> u64| {
        course(name, style, steps, move |step| step.response_ns.map(|latency| value(latency).max(1) as f64))
    };
    let mut p99 = of("p99", 3, |latency| latency.p99);
    let with_latency = steps.iter().filter(|step| step.response_ns.is_some());
    p99.labels =
        with_latency.map(|step| if step.verdict == Verdict::Valid { String::new() } else { word(step.verdict).0.into() }).collect();
    let series = vec![of("p99.9", 1, |latency| latency.p999), p99, of("p50", 0, |latency| latency.p50)];
    draw("Response time against throughput", "response time", Unit::Nanoseconds, Scale::Log, series)
}

/// Where the server, or the generator, no longer follows.
fn kept(steps: &[&Step]) -> Option<String> {
    let points = |value: fn(&Step) -> f64| steps.iter().map(|step| (step.rate, value(step))).collect();
    let series = [Series::new("due", 2, points(|step| step.rate)), Series::new("sent", 0, points(|step| step.msgs_per_s))];
    let x = Axis::fit("messages a second that were due", Unit::PerSecond, Scale::Linear, all_x(&series))?;
    let y = Axis::fit("messages a second", Unit::PerSecond, Scale::Linear, all_y(&series))?;
    Some(lines("What was sent of what was due", &x, &y, &series, &[]))
}

fn lag(steps: &[&Step]) -> Option<String> {
    let of = |name, style, latency: fn(&Step) -> Option<Latency>| {
        course(name, style, steps, move |step| latency(step).map(|latency| latency.p99.max(1) as f64))
    };
    let series = vec![of("service time, p99", 4, |step| step.service_ns), of("sent late by, p99", 2, |step| step.send_lag_ns)];
    draw("Service time, and how late the generator was", "time", Unit::Nanoseconds, Scale::Log, series)
}

fn cost(steps: &[&Step]) -> Option<String> {
    let series = course("server CPU for each delivery", 5, steps, |step| step.server_cpu_ns_per_delivery);
    draw("What a delivery costs the server", "processor time", Unit::Nanoseconds, Scale::Linear, vec![series])
}

/// p99 of each.
fn compared(staircases: &[Staircase]) -> Option<String> {
    let series = staircases.iter().enumerate().map(|(index, staircase)| {
        let p99 = |step: &Step| step.response_ns.map(|latency| latency.p99.max(1) as f64);
        course(format!("{}. {}", index + 1, staircase.title()), index % 9, &staircase.steps(), p99)
    });
    draw("p99 of the response time against throughput", "p99", Unit::Nanoseconds, Scale::Log, series.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn step(rate: f64, verdict: &str, p99: u64) -> Value {
        let latency = json!({"p50": p99 / 4, "p90": p99 / 2, "p99": p99, "p999": p99 * 2, "max": p99 * 3});
        let reasons: &[&str] = if verdict == "valid" { &[] } else { &["late & late"] };
        json!({"rate": rate, "msgs_per_s": rate, "deliveries_per_s": rate, "response_ns": latency, "service_ns": latency,
            "send_lag_ns": null, "server_cpu_ns_per_delivery": 1500.0, "unsent": 0, "lost": 0, "disconnected": 0,
            "verdict": verdict, "reasons": reasons})
    }

    fn staircase(steps: &[Value]) -> Value {
        let report = crate::report::sample(1, 0.0, 1..100);
        json!({"schema": "corecast-loadgen-knee/1", "setup": report.setup, "duration_s": 2.0, "steps": steps, "machine": report.machine,
            "bound_ns": 1_000_000, "rate": 2000.0, "generator_limited": false, "command": ["/x/corecast-loadgen", "knee", "echo"]})
    }

    #[test]
    fn a_staircase_is_read_and_shown_in_its_order() {
        let value = staircase(&[step(4000.0, "invalid", 9_000_000), step(1000.0, "valid", 90_000), step(2000.0, "valid", 200_000)]);
        assert!(Staircase::is_one(&value));
        let page = page(&[serde_json::from_value(value).unwrap()]);
        let parts = ["Response time against throughput", "2 s at each rate", "under 1.00 ms", "late &amp; late", "INVALID", "1.50 us"];
        for part in parts {
            assert!(page.contains(part), "{part:?}");
        }
        assert!(page.contains("corecast-loadgen knee echo") && !page.contains("NaN"));
        assert!(page.find("<td>1,000</td>") < page.find("<td>4,000</td>"));
    }

    #[test]
    fn several_are_compared_and_none_has_no_plots() {
        let one = |steps: &[Value]| serde_json::from_value::<Staircase>(staircase(steps)).unwrap();
        let both = page(&[one(&[step(1000.0, "valid", 90_000)]), one(&[step(1000.0, "valid", 50_000)])]);
        assert!(both.contains("2 staircases") && both.contains("p99 of the response time against throughput"));
        let none = page(&[one(&[])]);
        assert!(!none.contains("<svg") && !none.contains("NaN"), "{none}");
    }

    #[test]
    fn other_documents_are_none() {
        assert!(!Staircase::is_one(&json!({"schema": "corecast-loadgen/4"})) && !Staircase::is_one(&json!([])));
    }
}
