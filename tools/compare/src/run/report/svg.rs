//! Plots as SVG: one line for each contestant, and beside each other the panels that say something about it.
//!
//! Colours are classes, so that the page that a plot stands in decides them, for light and for dark. Every mark has a title, which browsers
//! show when it is pointed at.

use std::fmt::Write;

use crate::stats::Estimate;

const LABELS: f64 = 132.0;
const PANEL: f64 = 272.0;
const GAP: f64 = 26.0;
const TOP: f64 = 30.0;
const LINE: f64 = 21.0;
const BOTTOM: f64 = 26.0;
/// Beside a bar, for its figure.
const FIGURE: f64 = 60.0;

/// Whose line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ours,
    Limit,
    Other,
}

impl Kind {
    fn class(self) -> &'static str {
        match self {
            Kind::Ours => "ours",
            Kind::Limit => "limit",
            Kind::Other => "other",
        }
    }
}

/// One contestant.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Instead of figures.
    pub(super) note: Option<String>,
}

/// One figure of every contestant, in the order of the lines.
pub(super) struct Series {
    pub(super) label: &'static str,
    pub(super) points: Vec<Option<Estimate>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// From zero, with the figure beside it.
    Bars,
    /// On a logarithmic scale, with the interval as a line. Each further series is a mark of another shape.
    Dots,
}

pub(super) struct Panel {
    pub(super) title: String,
    pub(super) form: Form,
    pub(super) series: Vec<Series>,
    pub(super) show: fn(f64) -> String,
}

/// Where a value lies in a panel.
enum Scale {
    Linear { end: f64 },
    Log { start: f64, end: f64 },
}

impl Scale {
    fn of(panel: &Panel) -> Self {
        let all = || panel.series.iter().flat_map(|series| &series.points).flatten();
        let high = all().map(|estimate| estimate.high).fold(0.0, f64::max);
        match panel.form {
            Form::Bars => Scale::Linear { end: if high > 0.0 { high } else { 1.0 } },
            Form::Dots => {
                let low = all().map(|estimate| estimate.low).filter(|&low| low > 0.0).fold(f64::INFINITY, f64::min);
                if low.is_finite() { Scale::Log { start: low / 1.2, end: high * 1.2 } } else { Scale::Log { start: 1.0, end: 10.0 } }
            }
        }
    }

    /// From 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let share = match *self {
            Scale::Linear { end } => value / end,
            Scale::Log { start, end } => (value.max(start) / start).ln() / (end / start).ln(),
        };
        share.clamp(0.0, 1.0)
    }

    /// Round numbers inside a logarithmic scale: powers of ten, and twos and fives between them while they are few.
    fn ticks(&self) -> Vec<f64> {
        let Scale::Log { start, end } = *self else { return Vec::new() };
        let within = |steps: &[f64]| -> Vec<f64> {
            let powers = (start.log10().floor() as i32)..=(end.log10().ceil() as i32);
            let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
            all.filter(|tick| (start..=end).contains(tick)).collect()
        };
        let choices: [&[f64]; 3] = [&[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];
        choices.into_iter().map(within).find(|ticks| ticks.len() <= 5).unwrap_or_default()
    }
}

/// The drawing, without colours.
pub(super) fn plot(title: &str, lines: &[Line], panels: &[Panel], style: &str) -> String {
    let width = LABELS + panels.len() as f64 * (PANEL + GAP);
    let height = TOP + lines.len() as f64 * LINE + BOTTOM;
    let title = escape(title);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\" aria-label=\"{title}\">\
         {style}\n"
    );
    for (index, line) in lines.iter().enumerate() {
        text(&mut svg, &format!("label {}", line.kind.class()), LABELS - 10.0, middle_of(index), "end", &line.name);
    }
    for (index, panel) in panels.iter().enumerate() {
        draw(&mut svg, panel, lines, LABELS + index as f64 * (PANEL + GAP));
    }
    // Above the grid, which a long one crosses.
    for (index, line) in lines.iter().enumerate() {
        if let Some(note) = &line.note {
            text(&mut svg, "note", LABELS + 5.0, middle_of(index), "start", note);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn middle_of(line: usize) -> f64 {
    TOP + (line as f64 + 0.5) * LINE
}

fn draw(svg: &mut String, panel: &Panel, lines: &[Line], left: f64) {
    let scale = Scale::of(panel);
    let bottom = TOP + lines.len() as f64 * LINE;
    text(svg, "title", left, 12.0, "start", &panel.title);
    element(svg, &format!("<path class=\"axis\" d=\"M{left:.1} {TOP}V{bottom}\"/>"));
    for tick in scale.ticks() {
        let x = left + scale.share(tick) * PANEL;
        element(svg, &format!("<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/>"));
        text(svg, "tick", x, bottom + 12.0, "middle", &(panel.show)(tick));
    }
    for (shape, series) in panel.series.iter().enumerate() {
        for (index, (line, point)) in lines.iter().zip(&series.points).enumerate() {
            let Some(point) = point.filter(|point| point.median.is_finite()) else { continue };
            let hint = format!("{}, {}: {}", line.name, series.label, super::show::interval(Some(point), panel.show));
            let mark = match panel.form {
                Form::Bars => bar(&scale, &point, left, middle_of(index), line.kind, &(panel.show)(point.median)),
                Form::Dots => dot(&scale, &point, left, middle_of(index), line.kind, shape),
            };
            element(svg, &format!("<g><title>{}</title>{mark}</g>", escape(&hint)));
        }
    }
}

fn bar(scale: &Scale, point: &Estimate, left: f64, middle: f64, kind: Kind, figure: &str) -> String {
    let room = PANEL - FIGURE;
    let at = |value: f64| left + scale.share(value) * room;
    let (end, low, high) = (at(point.median), at(point.low), at(point.high));
    let class = kind.class();
    format!(
        "<rect class=\"bar {class}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"12\"/>\
         <path class=\"interval\" d=\"M{low:.1} {middle:.1}H{high:.1}\"/>\
         <text class=\"figure {class}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        middle - 6.0,
        (end - left).max(0.5),
        end.max(high) + 5.0,
        middle + 4.0,
        escape(figure)
    )
}

/// The median as a mark over its interval: a disc, then a ring, then a bar.
fn dot(scale: &Scale, point: &Estimate, left: f64, middle: f64, kind: Kind, shape: usize) -> String {
    let at = |value: f64| left + scale.share(value) * PANEL;
    let (x, low, high) = (at(point.median), at(point.low), at(point.high));
    let class = kind.class();
    let mark = match shape {
        0 => format!("<circle class=\"disc {class}\" cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"4\"/>"),
        1 => format!("<circle class=\"ring {class}\" cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"3.6\"/>"),
        _ => format!("<path class=\"tail {class}\" d=\"M{x:.1} {:.1}V{:.1}\"/>", middle - 6.0, middle + 6.0),
    };
    format!("<path class=\"interval {class}\" d=\"M{low:.1} {middle:.1}H{high:.1}\"/>{mark}")
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, anchor: &str, content: &str) {
    let y = y + 4.0;
    element(svg, &format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(content)));
}

fn element(svg: &mut String, element: &str) {
    writeln!(svg, "{element}").expect("writing to a string");
}

/// Text inside markup.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::show;
    use super::*;

    fn estimate(median: f64) -> Option<Estimate> {
        Some(Estimate { median, low: median * 0.9, high: median * 1.1, coverage: 0.96, count: 15 })
    }

    fn panel(form: Form, points: Vec<Option<Estimate>>) -> Panel {
        Panel { title: "rate <".into(), form, series: vec![Series { label: "rate", points }], show: show::rate }
    }

    #[test]
    fn a_plot_is_markup_with_a_mark_for_every_figure() {
        let line = |name: &str, kind| Line { name: name.into(), kind, note: None };
        let lines = [line("bare", Kind::Limit), line("a & b", Kind::Ours), line("gone", Kind::Other)];
        for (form, mark) in [(Form::Bars, "<rect"), (Form::Dots, "<circle")] {
            let svg = plot("a \"title\"", &lines, &[panel(form, vec![estimate(10.0), estimate(1e6), None])], "");
            assert_eq!(svg.matches(mark).count(), 2, "{svg}");
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
            assert!(svg.contains("a &amp; b") && svg.contains("rate &lt;") && svg.contains("a &quot;title&quot;") && !svg.contains("NaN"));
            assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
        }
    }

    #[test]
    fn nothing_measured_is_an_empty_plot() {
        let lines = [Line { name: "x".into(), kind: Kind::Other, note: Some("skipped".into()) }];
        for form in [Form::Bars, Form::Dots] {
            let svg = plot("t", &lines, &[panel(form, vec![None])], "");
            assert!(svg.contains("skipped") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn ticks_are_round_and_few() {
        let ticks = |start, end| Scale::Log { start, end }.ticks();
        assert_eq!(ticks(8.0, 60.0), [10.0, 20.0, 50.0]);
        assert_eq!(ticks(0.9, 150.0), [1.0, 3.0, 10.0, 30.0, 100.0]);
        assert!(ticks(1.0, 1e5).len() <= 6);
        assert_eq!(Scale::Linear { end: 3.0 }.share(1.5), 0.5);
        assert_eq!(Scale::Log { start: 1.0, end: 100.0 }.share(10.0), 0.5);
    }
}
