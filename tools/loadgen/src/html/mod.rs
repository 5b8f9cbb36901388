//! A report as one HTML page: what happened, in plots and in tables, with nothing from elsewhere: no network, no scripts, no fonts.
//!
//! | module | owns |
//! |---|---|
//! | [`axis`] | where a value lies on an axis, and the ticks |
//! | [`plot`] | plots as inline SVG |
//! | [`plots`] | which plots a run has, and several runs together |
//! | [`mod@page`] | the page around them: verdict, tables, counters |
//! | [`stairs`] | the page of a staircase of rates |
//! | [`tables`] | the page of a result without plots |

mod axis;
mod page;
mod plot;
mod plots;
mod stairs;
mod tables;

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::cli::HtmlArgs;
use crate::error::Error;
use crate::output::JsonSink;
use crate::report::Report;

pub(crate) use page::page;
use stairs::Staircase;

/// Makes a page of results that were written before.
pub(crate) fn main(args: &HtmlArgs) -> Result<(), Error> {
    let (mut reports, mut staircases, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for path in &args.files {
        let refused = |reason: String| Error::NotAReport { path: path.clone(), reason };
        let value = read(path)?;
        if Staircase::is_one(&value) {
            staircases.push(serde_json::from_value(value).map_err(|error| refused(error.to_string()))?);
        } else if tables::is_one(&value) {
            others.push(value);
        } else {
            reports.extend(runs(value).map_err(refused)?);
        }
    }
    let page = match (&reports[..], &staircases[..], &others[..]) {
        (reports, [], []) => page(reports),
        ([], staircases, []) => stairs::page(staircases),
        ([], [], others) => tables::page(others),
        _ => {
            return Err(Error::Mismatch {
                reason: "runs, staircases (sweep, knee) and other results have pages of their own: name them apart".into(),
            });
        }
    };
    JsonSink::open(&args.output)?.write_text(&page)
}

/// The page of what `sweep` or `knee` has found.
pub(crate) fn staircase(found: &impl Serialize) -> String {
    let read = serde_json::to_value(found).and_then(serde_json::from_value);
    stairs::page(&[read.expect("the fields that these commands write")])
}

/// The page of a result that has no plots.
pub(crate) fn result(found: &impl Serialize) -> String {
    tables::page(&[serde_json::to_value(found).expect("text and numbers")])
}

fn read(path: &Path) -> Result<Value, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    serde_json::from_str(&text).map_err(|error| Error::NotAReport { path: path.to_owned(), reason: error.to_string() })
}

/// A report, or several where there is a list of them.
fn runs(value: Value) -> Result<Vec<Report>, String> {
    let values = match value {
        Value::Array(values) => values,
        value => vec![value],
    };
    if values.is_empty() {
        return Err("there is nothing in it".into());
    }
    values.into_iter().map(Report::from_value).collect()
}

/// Text, so that it is text in HTML and SVG, between tags and in quotes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Nothing that either format forbids.
            char if char.is_control() && !matches!(char, '\n' | '\t') => out.push('\u{fffd}'),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(escape("<script>alert('a & \"b\"')</script>"), "&lt;script&gt;alert(&#39;a &amp; &quot;b&quot;&#39;)&lt;/script&gt;");
        assert_eq!(escape("a\u{0}b\u{1b}[2J\n"), "a\u{fffd}b\u{fffd}[2J\n");
        assert_eq!(escape("50 µs"), "50 µs");
    }
}
