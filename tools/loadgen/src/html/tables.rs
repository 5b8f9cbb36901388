//! The page of a result that has no plots: what hostile, churn, idle, reconnect-storm, baseline, doctor and serve write, field by field.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::escape;
use super::page::{document, pairs, plain, table};
use crate::report::time;

/// What all results of this tool name in their schema.
const FAMILY: &str = "corecast-loadgen-";

/// Whether it is such a result.
pub(super) fn is_one(value: &Value) -> bool {
    value["schema"].as_str().is_some_and(|schema| schema.starts_with(FAMILY)) && value.is_object()
}

/// One page of one result, or of several.
pub(super) fn page(results: &[Value]) -> String {
    let mut out = String::new();
    let titles: Vec<_> = results.iter().map(title).collect();
    for (result, title) in results.iter().zip(&titles) {
        let _ = writeln!(out, "<section class=\"run\">\n<h1>{}</h1>", escape(title));
        let verdict = result.get("passed").or_else(|| result.get("runs")).and_then(Value::as_bool);
        if let Some(passed) = verdict {
            let (kind, word) = if passed { ("good", "passed") } else { ("bad", "FAILED") };
            let _ = writeln!(out, "<p><span class=\"verdict {kind}\">{word}</span></p>");
        }
        result.as_object().into_iter().for_each(|fields| section(&mut out, fields));
        out.push_str("</section>\n");
    }
    document(&titles.join(", "), &out)
}

/// `reconnect-storm`, or the schema's word where the result does not name itself.
fn title(result: &Value) -> String {
    let schema =
        || result["schema"].as_str().unwrap_or_default().trim_start_matches(FAMILY).split('/').next().unwrap_or_default().to_owned();
    result["workload"].as_str().map_or_else(schema, str::to_owned)
}

/// Single values together, then what has parts, each under its name.
fn section(out: &mut String, fields: &Map<String, Value>) {
    let has_parts = |value: &Value| match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(values) => values.iter().any(Value::is_object),
        _ => false,
    };
    let is_empty = |value: &Value| value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
    let single: Map<_, _> = fields
        .iter()
        .filter(|(_, value)| !has_parts(value) && !is_empty(value))
        .map(|(name, value)| (label(name), shown(name, value)))
        .collect();
    pairs(out, &single);
    for (name, value) in fields.iter().filter(|(_, value)| has_parts(value)) {
        let _ = writeln!(out, "<h2>{}</h2>", escape(&name.replace('_', " ")));
        match value {
            Value::Array(rows) => grid(out, rows),
            value => pairs(out, &flat(value).into_iter().map(|(name, value)| (label(&name), shown(&name, &value))).collect::<Map<_, _>>()),
        }
    }
}

/// A row for each part, and a column for each value that one of them has.
fn grid(out: &mut String, rows: &[Value]) {
    let rows: Vec<_> = rows.iter().map(flat).collect();
    let mut columns: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    let titles: Vec<_> = columns.iter().map(|name| label(name)).collect();
    let cells = |row: &Vec<(String, Value)>| {
        let cell = |name: &&str| {
            let value = row.iter().find(|(other, _)| other == name).map_or(Value::Null, |(name, value)| shown(name, value));
            escape(&plain(&value).unwrap_or_default())
        };
        columns.iter().map(cell).collect::<Vec<_>>()
    };
    table(out, &titles.iter().map(String::as_str).collect::<Vec<_>>(), rows.iter().map(cells));
}

/// All values below this one, with the names that lead to them.
fn flat(value: &Value) -> Vec<(String, Value)> {
    let Value::Object(fields) = value else { return vec![("value".into(), value.clone())] };
    let mut all = Vec::new();
    for (name, value) in fields {
        if value.is_object() {
            all.extend(flat(value).into_iter().map(|(inner, value)| (format!("{name} {inner}"), value)));
        } else {
            all.push((name.clone(), value.clone()));
        }
    }
    all
}

/// A name without the unit that the value itself is shown with.
fn label(name: &str) -> String {
    let word = |word: &str| {
        let without = ["_ns", "_us", "_s"].iter().find_map(|unit| word.strip_suffix(unit)).filter(|without| !without.ends_with("_per"));
        without.unwrap_or(word).replace('_', " ")
    };
    name.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// A time as one, by the unit in its name; other numbers with no more digits than mean anything.
fn shown(name: &str, value: &Value) -> Value {
    let Some(number) = value.as_f64() else { return value.clone() };
    let is_in = |unit: &str| name.split(' ').any(|word| word.ends_with(unit));
    match () {
        () if number < 0.0 || !number.is_finite() => value.clone(),
        () if is_in("_ns") => time(number as u64).into(),
        () if is_in("_us") => time((number * 1e3) as u64).into(),
        () if is_in("_s") && !is_in("per_s") => time((number * 1e9) as u64).into(),
        () if value.is_f64() && number >= 100.0 => (number.round() as u64).into(),
        () if value.is_f64() => ((number * 1e3).round() / 1e3).into(),
        () => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_is_in_it_is_shown() {
        let storm = json!({"schema": "corecast-loadgen-storm/1", "workload": "reconnect-storm", "passed": false, "idle_s": 1.5,
            "rate": 1234.567, "rounds": [{"back_ns": {"p99": 2_000_000}, "server": {"accepted": 50}}, {"failures": {"<refused>": 3}}],
            "machine": {"kernel": "Linux & co"}});
        assert!(is_one(&storm));
        let page = page(&[storm]);
        let parts = ["<h1>reconnect-storm</h1>", "FAILED", "1.50 s", "1,235", "back p99", "2.00 ms", "&lt;refused&gt;", "Linux &amp; co"];
        for part in parts {
            assert!(page.contains(part), "{part:?} in {page}");
        }
    }

    #[test]
    fn a_result_that_does_not_name_itself_is_called_by_its_schema() {
        let page = page(&[json!({"schema": "corecast-loadgen-hostile/1", "lines": [{"attack": "none", "p50_us": 117.567}]})]);
        assert!(page.contains("<h1>hostile</h1>") && page.contains("118 us") && page.contains("attack"), "{page}");
        assert!(!is_one(&json!({"schema": "corecast-loadgen/4"})) && !is_one(&json!({"schema": "other"})) && !is_one(&json!([])));
    }
}
