//! The page: plots of every row, the bars, and all figures below. One file, without scripts, that needs nothing from anywhere.

use std::fmt::Write;

use super::super::bars::{self, Bar, Verdict};
use super::super::results::{Entry, Figure, Results, RowResults};
use super::svg::{self, Form, Kind, Line, Panel, Series, escape};
use super::{beaten_limits, cpu_counts, headline, is_limit, is_ours, markdown, title, writer};

/// How plots look, in the page and alone.
const PLOTS: &str = include_str!("plots.css");
const PAGE: &str = include_str!("page.css");

const SECTIONS: [&str; 6] = [
    "Echo and one-way",
    "Fan-out, one message at a time",
    "Fan-out, 64 messages outstanding",
    "One subscriber that never reads",
    "Open loop at half of each one's saturation",
    "Idle connections",
];

/// The whole page.
pub(crate) fn page(results: &Results) -> String {
    let mut page = String::new();
    write_page(results, &mut page).expect("writing to a string");
    page
}

/// The plot of one row, with its colours.
pub(crate) fn single_plot(results: &Results, row: &RowResults) -> String {
    let style = format!("<style>{PLOTS}</style>");
    plot(results, row, &style)
}

fn write_page(results: &Results, page: &mut String) -> std::fmt::Result {
    let conditions = &results.conditions;
    writeln!(page, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
    writeln!(
        page,
        "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">"
    )?;
    writeln!(page, "<title>corecast, compared</title>\n<style>\n{PLOTS}{PAGE}</style>\n</head>\n<body>")?;
    writeln!(
        page,
        "<h1>corecast, compared</h1>\n<p class=\"soft\">{}<br><code>{}</code></p>",
        machine(results),
        escape(&conditions.command)
    )?;
    writeln!(page, "<p>{}</p>", escape(&markdown::method(conditions)))?;
    key(page)?;
    write_bars(&bars::all(results), page)?;
    for (index, heading) in SECTIONS.iter().enumerate() {
        let rows: Vec<&RowResults> = results.rows.iter().filter(|row| section(&row.name) == index).collect();
        if !rows.is_empty() {
            writeln!(page, "<h2>{heading}</h2>")?;
        }
        rows.into_iter().try_for_each(|row| figure(results, row, page))?;
    }
    writeln!(page, "<h2>All figures</h2>")?;
    results.rows.iter().try_for_each(|row| write_table(row, page))?;
    who(results, page)?;
    writeln!(page, "</body>\n</html>")
}

/// Which section a row stands in.
fn section(row: &str) -> usize {
    match row.split('-').next() {
        Some("fanout") if row.ends_with("-x64") => 2,
        Some("fanout") => 1,
        Some("stuck") => 3,
        Some("open") => 4,
        Some("idle") => 5,
        _ => 0,
    }
}

fn machine(results: &Results) -> String {
    let others = results.foreign_cores().map_or_else(String::new, |cores| format!("; other programs used {cores:.2} cores (median)"));
    escape(&format!("{}{others}", results.machine))
}

fn key(page: &mut String) -> std::fmt::Result {
    writeln!(
        page,
        "<ul class=\"key\"><li><b class=\"ours\"></b>corecast</li><li><b class=\"limit\"></b>the bare epoll loop: the limit</li>\
         <li><b class=\"other\"></b>others</li><li>&#9679; p50 &#9675; p99 &#10073; p99.9, on logarithmic scales</li>\
         <li>lines: the interval of the median</li></ul>"
    )
}

fn write_bars(bars: &[Bar], page: &mut String) -> std::fmt::Result {
    let met = bars.iter().filter(|bar| bar.verdict == Verdict::Met).count();
    let missed = bars.iter().filter(|bar| bar.verdict == Verdict::NotMet).count();
    let open = bars.len() - met - missed;
    writeln!(
        page,
        "<h2>Bars</h2>\n<p>{met} met, {missed} not met, {open} undecided or not measured. A ratio reaches its bar if the lower \
         end of its interval does, after at least 15 rounds (6 of who is too slow for more); where the interval lies on both \
         sides, the machine has not decided.</p>"
    )?;
    writeln!(
        page,
        "<div class=\"scroll\"><table class=\"bars\">\n<tr><th>bar</th><th>row</th><th>bound</th><th>measured</th><th>verdict</th></tr>"
    )?;
    for Bar { what, row, bound, figure, verdict } in bars {
        let (word, why) = verdict.text();
        let class = match verdict {
            Verdict::Met => "met",
            Verdict::NotMet => "missed",
            _ => "open",
        };
        writeln!(
            page,
            "<tr><td>{}</td><td><code>{}</code></td><td>{}</td><td>{}</td><td><span class=\"verdict {class}\">{word}</span> \
             <span class=\"soft\">{}</span></td></tr>",
            escape(what),
            escape(row),
            escape(bound),
            escape(figure),
            escape(why)
        )?;
    }
    writeln!(page, "</table></div>")
}

fn figure(results: &Results, row: &RowResults, page: &mut String) -> std::fmt::Result {
    writeln!(page, "<figure>\n<figcaption>{} <code>{}</code></figcaption>\n<div class=\"scroll\">", escape(&row.title), escape(&row.name))?;
    write!(page, "{}</div>", plot(results, row, ""))?;
    for (who, what) in beaten_limits(row) {
        writeln!(page, "<p class=\"missed\">{} beats the bare loop by more than 5 % in {what}: it is not a limit here.</p>", escape(who))?;
    }
    writeln!(page, "</figure>")
}

fn plot(results: &Results, row: &RowResults, style: &str) -> String {
    // Who is missing altogether is named at the end of the page, and has no line in every plot.
    let there = |entry: &&Entry| results.contestants.iter().any(|who| who.name == entry.contestant && who.missing.is_none());
    // Nor has who is the same as another one in this row.
    let entries: Vec<&Entry> = row.entries.iter().filter(there).filter(|entry| !same_as_another(entry)).collect();
    let lines: Vec<Line> = entries.iter().map(|entry| line(entry)).collect();
    svg::plot(&row.title, &lines, &panels(row, &entries), style)
}

fn same_as_another(entry: &Entry) -> bool {
    entry.skipped.is_some() && !cpu_counts(entry)
}

fn line(entry: &Entry) -> Line {
    let kind = match entry.contestant.as_str() {
        name if is_ours(name) => Kind::Ours,
        name if is_limit(name) => Kind::Limit,
        _ => Kind::Other,
    };
    let note = match (&entry.skipped, &entry.failed) {
        (Some(reason), _) => Some(format!("skipped: {reason}")),
        (None, Some(reason)) => Some(format!("failed: {reason}")),
        (None, None) => None,
    };
    Line { name: entry.contestant.clone(), kind, note }
}

fn panels(row: &RowResults, entries: &[&Entry]) -> Vec<Panel> {
    // A contestant that failed has a reason on its line, and no room for marks.
    let series = |figure: Figure| {
        let point = |entry: &&Entry| {
            entry.estimate(figure).filter(|_| entry.failed.is_none() && (figure != Figure::ServerCpu || cpu_counts(entry)))
        };
        Series { label: title(figure), points: entries.iter().map(point).collect() }
    };
    let bars = |figure: Figure| Panel { title: title(figure).into(), form: Form::Bars, series: vec![series(figure)], show: writer(figure) };
    let latency = |figures: &[Figure]| Panel {
        title: format!("latency: {}", figures.iter().map(|&figure| title(figure)).collect::<Vec<_>>().join(", ")),
        form: Form::Dots,
        series: figures.iter().map(|&figure| series(figure)).collect(),
        show: writer(Figure::P50),
    };
    let usual = || vec![bars(Figure::Rate), latency(&[Figure::P50, Figure::P99]), bars(Figure::ServerCpu)];
    match headline(row) {
        Figure::Memory => vec![bars(Figure::Memory), bars(Figure::IdleCpu)],
        Figure::Kept => vec![bars(Figure::Kept), bars(Figure::Rate), bars(Figure::ServerCpu)],
        Figure::P999 => vec![latency(&[Figure::P50, Figure::P99, Figure::P999]), bars(Figure::Rate), bars(Figure::ServerCpu)],
        _ => usual(),
    }
}

fn write_table(row: &RowResults, page: &mut String) -> std::fmt::Result {
    let (head, lines) = markdown::table(row);
    writeln!(page, "<h3>{}</h3>\n<div class=\"scroll\"><table>\n<tr>{}</tr>", escape(&row.title), cells("th", &head))?;
    for line in lines {
        let class = if is_ours(&line[0]) { " class=\"ours\"" } else { "" };
        if line.len() == head.len() {
            writeln!(page, "<tr{class}>{}</tr>", cells("td", &line))?;
        } else {
            let (name, reason) = (escape(&line[0]), escape(&line[1..].join(" ")));
            writeln!(page, "<tr{class}><td>{name}</td><td class=\"reason\" colspan=\"{}\">{reason}</td></tr>", head.len() - 1)?;
        }
    }
    writeln!(page, "</table></div>")
}

fn cells(tag: &str, cells: &[String]) -> String {
    cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
}

fn who(results: &Results, page: &mut String) -> std::fmt::Result {
    writeln!(page, "<h2>Who is compared</h2>\n<ul class=\"who\">")?;
    for who in &results.contestants {
        let version = who.version.as_ref().map_or_else(String::new, |version| format!(" ({})", escape(version)));
        let missing = who.missing.as_ref().map_or_else(String::new, |how| format!("; <b>skipped</b>, {}", escape(how)));
        writeln!(page, "<li><code>{}</code>: {}{version}{missing}</li>", escape(&who.name), escape(&who.what))?;
    }
    writeln!(page, "</ul>")
}

#[cfg(test)]
mod tests {
    use super::super::super::work::ROWS;
    use super::super::markdown::tests::one_of_each;
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_anywhere_and_closes_what_it_opens() {
        let page = page(&one_of_each());
        for outside in ["<script", "<link", "<img", "@import", "url(", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
        // The name of SVG's language is no address that anything is fetched from.
        assert_eq!(page.matches("http").count(), page.matches("http://www.w3.org/2000/svg").count());
        for tag in ["table", "tr", "figure", "svg", "ul", "div", "html", "text", "g"] {
            let opened = page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        for shown in ["prefers-color-scheme: dark", "@media print", "a processor", "skipped: it has no such thing", "failed: stalled"] {
            assert!(page.contains(shown), "{shown}");
        }
        assert!(page.contains("apt-get install nats-server"));
    }

    #[test]
    fn a_plot_alone_has_its_own_colours() {
        let results = one_of_each();
        let svg = single_plot(&results, &results.rows[0]);
        assert!(svg.starts_with("<svg ") && svg.contains("<style>") && svg.contains("prefers-color-scheme"), "{svg}");
    }

    #[test]
    fn every_row_has_its_section() {
        let of = |name: &str| SECTIONS[section(name)];
        assert_eq!(of("fanout-5000-1KiB-x64"), "Fan-out, 64 messages outstanding");
        assert_eq!(of("fanout-50-100KiB-x1"), "Fan-out, one message at a time");
        assert_eq!([of("idle-1000"), of("sink-16-128B"), of("echo-1000")], ["Idle connections", "Echo and one-way", "Echo and one-way"]);
        let used: Vec<usize> = ROWS.iter().map(|row| section(row.name)).collect();
        assert!((0..SECTIONS.len()).all(|section| used.contains(&section)), "{used:?}");
    }
}
