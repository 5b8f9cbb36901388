//! Plots as inline SVG: lines, areas on top of each other, bars. Colours are the page's, by class, so that they follow its light and dark.

use std::fmt::Write as _;

use super::axis::Axis;
use super::escape;

/// The size of a plot in its own units, of which the page makes what fits, and the room around the area that is plotted on.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 290.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;
/// One bar, with its distance to the next.
const BAR: f64 = 30.0;
/// Points of a line that are marked and say their value when pointed at: where there are more, every so manyth is.
const MARKED: usize = 60;
/// Points of a line. What there is more is not to be seen.
const MOST_POINTS: usize = 1200;

/// A line, an area or a part of a bar. `style` is a colour of the page, and a kind of dash.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) style: usize,
    pub(super) points: Vec<(f64, f64)>,
    /// What is written beside each point. Empty, or one for each.
    pub(super) labels: Vec<String>,
}

impl Series {
    pub(super) fn new(name: impl Into<String>, style: usize, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), style, points, labels: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    fn xs(&self) -> impl Iterator<Item = f64> + '_ {
        self.points.iter().map(|(x, _)| *x)
    }

    fn ys(&self) -> impl Iterator<Item = f64> + '_ {
        self.points.iter().map(|(_, y)| *y)
    }
}

/// All values of all series on one axis.
pub(super) fn all_x(series: &[Series]) -> impl Iterator<Item = f64> + '_ {
    series.iter().flat_map(Series::xs)
}

pub(super) fn all_y(series: &[Series]) -> impl Iterator<Item = f64> + '_ {
    series.iter().flat_map(Series::ys)
}

/// What is plotted, without its title.
struct Frame<'a> {
    x: &'a Axis,
    y: &'a Axis,
}

impl Frame<'_> {
    /// Where a point lies in the drawing.
    fn at(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        let (x, y) = (self.x.at(x)?, self.y.at(y)?);
        Some((LEFT + x * (WIDTH - LEFT - RIGHT), TOP + (1.0 - y) * (HEIGHT - TOP - BOTTOM)))
    }

    /// Grid and words around the area.
    fn draw(&self, out: &mut String) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for tick in self.y.ticks() {
            let y = TOP + (1.0 - tick.at) * (bottom - TOP);
            let _ = write!(out, r#"<path class="grid" d="M{LEFT:.1} {y:.1}H{right:.1}"/>"#);
            let label = escape(&tick.label);
            let _ = write!(out, r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{label}</text>"#, LEFT - 6.0, y + 4.0);
        }
        let mut free = f64::NEG_INFINITY;
        for tick in self.x.ticks() {
            let x = LEFT + tick.at * (right - LEFT);
            let _ = write!(out, r#"<path class="grid" d="M{x:.1} {TOP:.1}V{bottom:.1}"/>"#);
            // A label that would touch the one before it is left out.
            let half = 3.4 * tick.label.chars().count() as f64;
            if x - half >= free {
                free = x + half + 6.0;
                let label = escape(&tick.label);
                let _ = write!(out, r#"<text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#, bottom + 16.0);
            }
        }
        let _ = write!(out, r#"<path class="axis" d="M{LEFT:.1} {TOP:.1}V{bottom:.1}H{right:.1}"/>"#);
        let middle = f64::midpoint(LEFT, right);
        let label = escape(self.x.label);
        let _ = write!(out, r#"<text class="label" x="{middle:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#, HEIGHT - 8.0);
    }

    fn value(&self, name: &str, (x, y): (f64, f64)) -> String {
        escape(&format!("{name}: {} at {}", self.y.unit.text(y), self.x.unit.text(x)))
    }
}

/// Every so manyth, and the last.
fn thinned<T: Copy>(points: &[T], most: usize) -> impl Iterator<Item = T> + '_ {
    let step = points.len().div_ceil(most).max(1);
    points.iter().enumerate().filter(move |(index, _)| index % step == 0 || index + 1 == points.len()).map(|(_, point)| *point)
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut d = String::new();
    for (x, y) in points {
        let _ = write!(d, "{}{x:.1} {y:.1}", if d.is_empty() { "M" } else { "L" });
    }
    d
}

/// Lines in their order, the later above the earlier. `bands`: parts of the x axis that stand out.
pub(super) fn lines(title: &str, x: &Axis, y: &Axis, series: &[Series], bands: &[(f64, f64)]) -> String {
    let frame = Frame { x, y };
    let mut body = String::new();
    for (from, to) in bands.iter().filter_map(|(from, to)| x.at(*from).zip(x.at(*to))) {
        let [from, to] = [from, to].map(|at| LEFT + at * (WIDTH - LEFT - RIGHT));
        let (width, height) = (to - from, HEIGHT - TOP - BOTTOM);
        let _ = write!(body, r#"<rect class="band" x="{from:.1}" y="{TOP:.1}" width="{width:.1}" height="{height:.1}"/>"#);
    }
    frame.draw(&mut body);
    for Series { name, style, points, labels } in series {
        let d = path(thinned(points, MOST_POINTS).filter_map(|point| frame.at(point)));
        let _ = write!(body, r#"<path class="line s{style}" d="{d}"/>"#);
        for point in thinned(points, MARKED) {
            if let Some((cx, cy)) = frame.at(point) {
                let value = frame.value(name, point);
                let _ = write!(body, r#"<circle class="dot s{style}" cx="{cx:.1}" cy="{cy:.1}" r="2.6"><title>{value}</title></circle>"#);
            }
        }
        for (point, label) in points.iter().zip(labels) {
            if let Some((x, y)) = frame.at(*point) {
                let anchor = if x > WIDTH * 0.8 { "end" } else { "start" };
                let (x, label) = (if anchor == "end" { x - 7.0 } else { x + 7.0 }, escape(label));
                let _ = write!(body, r#"<text class="note" x="{x:.1}" y="{:.1}" text-anchor="{anchor}">{label}</text>"#, y - 7.0);
            }
        }
    }
    figure(title, HEIGHT, &body, series.iter().map(|series| (series.name.as_str(), series.style, true)))
}

/// Areas on top of each other, from the bottom up, over pieces of the x axis that need not follow each other. `parts`: name, style and the
/// height in each piece.
pub(super) fn areas(title: &str, x: &Axis, y: &Axis, pieces: &[(f64, f64)], parts: &[(&str, usize, Vec<f64>)]) -> String {
    let frame = Frame { x, y };
    let mut body = String::new();
    let mut floor = vec![0.0; pieces.len()];
    for (name, style, heights) in parts {
        let mut d = String::new();
        for (((from, to), floor), height) in pieces.iter().zip(&mut floor).zip(heights).filter(|(_, height)| **height > 0.0) {
            let top = *floor + height;
            if let Some(((left, bottom), (right, top))) = frame.at((*from, *floor)).zip(frame.at((*to, top))) {
                let _ = write!(d, "M{left:.1} {bottom:.1}H{right:.1}V{top:.1}H{left:.1}Z");
            }
            *floor = top;
        }
        let mean = heights.iter().sum::<f64>() / heights.len().max(1) as f64;
        let value = escape(&format!("{name}: {} on average", y.unit.text(mean)));
        let _ = write!(body, r#"<path class="area flush s{style}" d="{d}"><title>{value}</title></path>"#);
    }
    frame.draw(&mut body);
    figure(title, HEIGHT, &body, parts.iter().map(|(name, style, _)| (*name, *style, false)))
}

/// One bar in each row, whose parts follow each other. `parts`: name and style; `rows`: name, and how long each part is.
pub(super) fn bars(title: &str, x: &Axis, parts: &[(&str, usize)], rows: &[(String, Vec<f64>)]) -> String {
    let height = TOP + BAR * rows.len() as f64 + BOTTOM;
    let (right, bottom) = (WIDTH - RIGHT, height - BOTTOM);
    let mut body = String::new();
    for tick in x.ticks() {
        let (at, label) = (LEFT + tick.at * (right - LEFT), escape(&tick.label));
        let _ = write!(body, r#"<path class="grid" d="M{at:.1} {TOP:.1}V{bottom:.1}"/>"#);
        let _ = write!(body, r#"<text class="tick" x="{at:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#, bottom + 16.0);
    }
    for (index, (row, lengths)) in rows.iter().enumerate() {
        let y = TOP + BAR * index as f64;
        let name = escape(row);
        let _ = write!(body, r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{name}</text>"#, LEFT - 6.0, y + BAR * 0.6);
        let mut from = 0.0;
        for ((part, style), length) in parts.iter().zip(lengths) {
            let (Some(begin), Some(end)) = (x.at(from), x.at(from + length)) else { continue };
            from += length;
            let (begin, width) = (LEFT + begin * (right - LEFT), (end - begin) * (right - LEFT));
            let value = escape(&format!("{row}, {part}: {}", x.unit.text(*length)));
            let _ = write!(
                body,
                r#"<rect class="area s{style}" x="{begin:.1}" y="{:.1}" width="{width:.1}" height="{:.1}"><title>{value}</title></rect>"#,
                y + 4.0,
                BAR - 8.0
            );
        }
    }
    let (middle, label) = (f64::midpoint(LEFT, right), escape(x.label));
    let _ = write!(body, r#"<text class="label" x="{middle:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#, height - 8.0);
    figure(title, height, &body, parts.iter().map(|(name, style)| (*name, *style, false)))
}

/// The drawing with its title, and what its colours mean where there are several.
fn figure<'a>(title: &str, height: f64, body: &str, series: impl Iterator<Item = (&'a str, usize, bool)>) -> String {
    let series: Vec<_> = series.collect();
    let title = escape(title);
    let mut out = format!("<figure><figcaption>{title}</figcaption>");
    out.push_str(r#"<div class="legend">"#);
    for (name, style, line) in series {
        let shape = if line { r#"<path class="line" d="M0 6H20"/>"# } else { r#"<path class="area" d="M2 1H18V11H2Z"/>"# };
        let shape = shape.replacen("class=\"", &format!("class=\"s{style} "), 1);
        let _ = write!(out, r#"<span><svg class="key" viewBox="0 0 20 12" width="20" height="12">{shape}</svg>{}</span>"#, escape(name));
    }
    let _ = write!(out, r#"</div><svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">{body}</svg></figure>"#);
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::super::axis::{Scale, Unit};
    use super::*;

    /// Whether every tag is closed in its order and every quote too.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        for part in svg.split('<').skip(1) {
            let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("a tag does not end: {part:?}"));
            assert!(!text.contains('>') && tag.matches('"').count().is_multiple_of(2), "{part:?}");
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            match (tag.starts_with('/'), tag.ends_with('/')) {
                (true, _) => assert_eq!(open.pop(), Some(name), "closed by {tag:?}"),
                (false, true) => {}
                (false, false) => open.push(name),
            }
        }
        assert!(open.is_empty(), "still open: {open:?}");
    }

    fn axes(series: &[Series]) -> (Axis, Axis) {
        let x = Axis::fit("x", Unit::Seconds, Scale::Linear, all_x(series)).unwrap();
        (x, Axis::fit("y", Unit::Nanoseconds, Scale::Log, all_y(series)).unwrap())
    }

    #[test]
    fn lines_are_svg_and_name_their_values() {
        let mut series = vec![Series::new("a & <b>", 0, vec![(0.0, 100.0), (1.0, 20_000.0)]), Series::new("other", 1, vec![(0.5, 500.0)])];
        series[1].labels = vec!["\"quoted\"".into()];
        let (x, y) = axes(&series);
        let svg = lines("Title & more", &x, &y, &series, &[(0.2, 0.4)]);
        assert_well_formed(&svg);
        for part in ["Title &amp; more", "a &amp; &lt;b&gt;: 20.0 us at 1 s", "&quot;quoted&quot;", "class=\"band\"", "class=\"s1 line\""] {
            assert!(svg.contains(part), "{part:?} in {svg}");
        }
    }

    #[test]
    fn what_is_no_number_is_not_drawn() {
        let series = [Series::new("a", 0, vec![(0.0, f64::NAN), (f64::NAN, 5.0), (1.0, 0.0), (2.0, 50.0), (f64::INFINITY, 70.0)])];
        let (x, y) = axes(&series);
        let svg = lines("", &x, &y, &series, &[(f64::NAN, 1.0)]);
        assert_well_formed(&svg);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 1);
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let (x, y) = (Axis::up_to("x", Unit::Seconds, 1.0), Axis::up_to("y", Unit::Share, 1.0));
        for svg in [lines("a", &x, &y, &[], &[]), areas("a", &x, &y, &[], &[("b", 0, vec![])]), bars("a", &x, &[("b", 0)], &[])] {
            assert_well_formed(&svg);
            assert!(!svg.contains("NaN"), "{svg}");
        }
    }

    #[test]
    fn long_courses_are_thinned_and_keep_their_end() {
        let points: Vec<_> = (0..100_000).map(|x| (f64::from(x), 1.0 + f64::from(x))).collect();
        let series = [Series::new("a", 0, points)];
        let (x, y) = axes(&series);
        let svg = lines("", &x, &y, &series, &[]);
        assert!(svg.len() < 60_000 && svg.matches("<circle").count() <= MARKED + 1, "{} bytes", svg.len());
        assert!(svg.contains("a: 100 us at 99999 s"), "the last one is there");
    }

    #[test]
    fn areas_stand_on_each_other_and_leave_gaps() {
        let (x, y) = (Axis::up_to("x", Unit::Seconds, 4.0), Axis::up_to("y", Unit::Share, 1.0));
        let svg = areas("a", &x, &y, &[(0.0, 1.0), (3.0, 4.0)], &[("low", 0, vec![0.25, 0.5]), ("high", 1, vec![0.75, 0.0])]);
        assert_well_formed(&svg);
        let paths: Vec<_> = svg.split("<path class=\"area flush").skip(1).map(|path| path.split('"').nth(2).unwrap()).collect();
        assert_eq!(paths.iter().map(|d| d.matches('Z').count()).collect::<Vec<_>>(), [2, 1], "{paths:?}");
        assert!(svg.contains("low: 37.5 % on average"), "{svg}");
    }

    #[test]
    fn bars_follow_each_other() {
        let x = Axis::up_to("seconds", Unit::Seconds, 2.0);
        let rows = [("core 0".to_owned(), vec![0.5, 1.5]), ("core 1".to_owned(), vec![1.0, f64::NAN])];
        let svg = bars("a", &x, &[("read", 0), ("idle", 9)], &rows);
        assert_well_formed(&svg);
        assert!(svg.contains("core 0, idle: 1.5 s") && !svg.contains("NaN"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 3);
    }
}
