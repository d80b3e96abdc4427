//! A chart as SVG, in the page's own colours. Along it places are shares of the width, so that only the lines are stretched and
//! letters are as large on a phone.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, Utc};

use super::super::{Cell, Chart, Unit};
use super::escaped;

/// The number of colours of lines; further lines begin with the first again.
pub(super) const COLOURS: usize = 8;
/// In pixels; the style leaves room on the left and below.
const HEIGHT: f64 = 240.0;
/// Lines across at most, the lowest left out.
const MOST_LINES: f64 = 5.0;

/// How times and values become places.
struct Scale {
    from: DateTime<Utc>,
    seconds: f64,
    /// From one line across to the next.
    step: f64,
    top: f64,
}

impl Scale {
    fn new(chart: &Chart) -> Self {
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
        let step = round_step(highest / MOST_LINES, chart.unit);
        let top = (highest / step).ceil().max(1.0) * step;
        Self { from, seconds: (to - from).as_seconds_f64().max(1.0), step, top }
    }

    /// In percent of the width.
    fn x(&self, time: DateTime<Utc>) -> f64 {
        (time - self.from).as_seconds_f64() / self.seconds * 100.0
    }

    /// In pixels.
    fn y(&self, figure: f64) -> f64 {
        HEIGHT - figure / self.top * HEIGHT
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not less; there are no halves of things.
fn round_step(least: f64, unit: Unit) -> f64 {
    if unit == Unit::Count && least <= 1.0 || least <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= least * (1.0 - 1e-9)).unwrap_or(steps[3])
}

pub(super) fn draw(chart: &Chart, page: &mut String) {
    let scale = Scale::new(chart);
    let _ = writeln!(page, "<svg class=\"chart\" role=\"group\" aria-label=\"{}\">", escaped(&chart.title));
    for line in 0..=(scale.top / scale.step).round() as usize {
        let figure = scale.step * line as f64;
        let y = scale.y(figure);
        let shown = escaped(&Cell::new(Some(figure), chart.unit).to_string());
        let _ = write!(
            page,
            "<line class=\"axis\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{shown}</text>",
            y + 4.0
        );
    }
    for (part, anchor) in [(0.0, "start"), (0.5, "middle"), (1.0, "end")] {
        let time = Cell::Time(scale.from + chrono::TimeDelta::seconds((scale.seconds * part) as i64));
        let (x, y) = (part * 100.0, HEIGHT + 18.0);
        let _ = write!(
            page,
            "<text class=\"{anchor}\" x=\"{x}%\" y=\"{y}\" text-anchor=\"{anchor}\">{time}</text>"
        );
    }
    let _ = writeln!(
        page,
        "\n<svg width=\"100%\" height=\"{HEIGHT}\" viewBox=\"0 0 100 {HEIGHT}\" preserveAspectRatio=\"none\">"
    );
    let mut columns: BTreeMap<DateTime<Utc>, Column> = BTreeMap::new();
    let mut below: Vec<f64> = Vec::new();
    for (number, (name, points)) in chart.lines.iter().enumerate() {
        let base = |at: usize| below.get(at).copied().unwrap_or(0.0);
        let tops: Vec<f64> = points.iter().enumerate().map(|(at, (_, figure))| figure + base(at)).collect();
        let place = |time: DateTime<Utc>, figure: f64| format!("{:.2},{:.1}", scale.x(time), scale.y(figure));
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
            column.said.push(format!("{name} {}", Cell::new(Some(*figure), chart.unit)));
            column.tops.push(*top);
        }
        if chart.stacked {
            below = tops;
        }
    }
    page.push_str("</svg>\n");
    for (time, why) in &chart.marks {
        let x = scale.x(*time);
        let _ = write!(page, "<line class=\"mark\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y2=\"{HEIGHT}\"/>");
        let column = columns.entry(*time).or_default();
        column.said.push(why.clone());
        column.tops.push(scale.top);
    }
    let width = 100.0 / columns.len().max(1) as f64;
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

/// A moment that shows its values under the mouse and when it has the focus.
fn show_column(scale: &Scale, time: DateTime<Utc>, column: &Column, width: f64, page: &mut String) {
    const LINE_HEIGHT: f64 = 15.0;
    let x = scale.x(time);
    let time = Cell::Time(time).to_string();
    let label = escaped(&format!("{time}: {}", column.said.join(", ")));
    let _ = write!(
        page,
        "<g class=\"column\" tabindex=\"0\" role=\"img\" aria-label=\"{label}\">\
         <rect x=\"{:.2}%\" width=\"{width:.2}%\" height=\"{HEIGHT}\"/>",
        x - width / 2.0
    );
    for top in &column.tops {
        let _ = write!(page, "<circle cx=\"{x:.2}%\" cy=\"{:.1}\" r=\"3\"/>", scale.y(*top));
    }
    let (anchor, beside) = if x > 50.0 { ("end", -8) } else { ("start", 8) };
    for (number, said) in std::iter::once(&time).chain(&column.said).enumerate() {
        let (said, y) = (escaped(said), LINE_HEIGHT * (number + 1) as f64);
        let _ = write!(
            page,
            "<text x=\"{x:.2}%\" dx=\"{beside}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{said}</text>"
        );
    }
    page.push_str("</g>\n");
}
