//! A chart as SVG, in the page's own colours.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, Utc};

use super::super::{Cell, Chart};
use super::escaped;

/// Lines after so many begin with the first colour again.
pub(super) const COLOURS: usize = 8;
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 240.0;
/// Room for the numbers on the left, and for those below.
const LEFT: f64 = 80.0;
const BELOW: f64 = 24.0;
/// Lines across, the lowest left out.
const LINES: usize = 4;

/// How times and figures become places.
struct Scale {
    from: DateTime<Utc>,
    seconds: f64,
    top: f64,
}

impl Scale {
    fn of(chart: &Chart) -> Self {
        let times = || chart.lines.iter().flat_map(|(_, points)| points.iter().map(|(time, _)| *time));
        let (from, to) = (times().min().unwrap_or_default(), times().max().unwrap_or_default());
        let highest = if chart.stacked {
            let count = chart.lines.iter().map(|(_, points)| points.len()).max().unwrap_or(0);
            let sum = |at: usize| chart.lines.iter().filter_map(|(_, points)| Some(points.get(at)?.1)).sum();
            (0..count).map(sum).fold(0.0, f64::max)
        } else {
            chart
                .lines
                .iter()
                .flat_map(|(_, points)| points.iter().map(|(_, figure)| *figure))
                .fold(0.0, f64::max)
        };
        let top = if highest > 0.0 { highest * 1.05 } else { 1.0 };
        Self { from, seconds: (to - from).as_seconds_f64().max(1.0), top }
    }

    fn x(&self, time: DateTime<Utc>) -> f64 {
        LEFT + (time - self.from).as_seconds_f64() / self.seconds * (WIDTH - LEFT)
    }

    fn y(&self, figure: f64) -> f64 {
        HEIGHT - figure / self.top * HEIGHT
    }
}

pub(super) fn draw(chart: &Chart, page: &mut String) {
    let scale = Scale::of(chart);
    let _ = writeln!(
        page,
        "<svg viewBox=\"0 -16 {WIDTH} {}\" role=\"group\" aria-label=\"{}\">",
        HEIGHT + BELOW + 16.0,
        escaped(&chart.title)
    );
    for line in 0..=LINES {
        let figure = scale.top * line as f64 / LINES as f64;
        let y = scale.y(figure);
        let shown = escaped(&Cell::of(Some(figure), chart.unit).to_string());
        let _ = write!(
            page,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{shown}</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    for (part, anchor) in [(0.0, "start"), (0.5, "middle"), (1.0, "end")] {
        let time = scale.from + chrono::TimeDelta::seconds((scale.seconds * part) as i64);
        let (x, y) = (scale.x(time), HEIGHT + BELOW - 6.0);
        let _ =
            write!(page, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>", Cell::Time(time));
    }
    page.push('\n');
    let mut columns: BTreeMap<DateTime<Utc>, Column> = BTreeMap::new();
    let mut below: Vec<f64> = Vec::new();
    for (number, (name, points)) in chart.lines.iter().enumerate() {
        let base = |at: usize| below.get(at).copied().unwrap_or(0.0);
        let tops: Vec<f64> = points.iter().enumerate().map(|(at, (_, figure))| figure + base(at)).collect();
        let place = |time: DateTime<Utc>, figure: f64| format!("{:.1},{:.1}", scale.x(time), scale.y(figure));
        let mut path: Vec<String> =
            points.iter().zip(&tops).map(|((time, _), top)| place(*time, *top)).collect();
        let colour = number % COLOURS;
        if chart.stacked {
            path.extend(points.iter().enumerate().rev().map(|(at, (time, _))| place(*time, base(at))));
            let _ = writeln!(page, "<polygon class=\"area fill{colour}\" points=\"{}\"/>", path.join(" "));
        } else {
            let _ = writeln!(page, "<polyline class=\"line stroke{colour}\" points=\"{}\"/>", path.join(" "));
        }
        for ((time, figure), top) in points.iter().zip(&tops) {
            let column = columns.entry(*time).or_default();
            column.said.push(format!("{name} {}", Cell::of(Some(*figure), chart.unit)));
            column.tops.push(*top);
        }
        if chart.stacked {
            below = tops;
        }
    }
    for (time, why) in &chart.marks {
        let x = scale.x(*time);
        let _ = write!(page, "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{HEIGHT}\"/>");
        let column = columns.entry(*time).or_default();
        column.said.push(why.clone());
        column.tops.push(scale.top);
    }
    let width = (WIDTH - LEFT) / columns.len().max(1) as f64;
    for (time, column) in &columns {
        show_column(&scale, *time, column, width, page);
    }
    page.push_str("</svg>\n");
}

/// All that a chart shows of one moment.
#[derive(Default)]
struct Column {
    said: Vec<String>,
    tops: Vec<f64>,
}

/// A moment that says its figures under the mouse and when it has the focus.
fn show_column(scale: &Scale, time: DateTime<Utc>, column: &Column, width: f64, page: &mut String) {
    const LINE_HEIGHT: f64 = 15.0;
    let x = scale.x(time);
    let time = Cell::Time(time).to_string();
    let label = escaped(&format!("{time}: {}", column.said.join(", ")));
    let _ = write!(
        page,
        "<g class=\"column\" tabindex=\"0\" role=\"img\" aria-label=\"{label}\">\
         <rect x=\"{:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{HEIGHT}\"/>",
        x - width / 2.0
    );
    for top in &column.tops {
        let _ = write!(page, "<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3\"/>", scale.y(*top));
    }
    let (anchor, beside) = if x > WIDTH / 2.0 { ("end", -8.0) } else { ("start", 8.0) };
    for (number, said) in std::iter::once(&time).chain(&column.said).enumerate() {
        let (x, y) = (x + beside, LINE_HEIGHT * (number + 1) as f64);
        let _ =
            write!(page, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(said));
    }
    page.push_str("</g>\n");
}
