//! A page that stands for itself: no network, no script; charts as SVG, and every chart's numbers in a table.

use std::fmt::Write as _;

use anyhow::anyhow;
use plotters::prelude::*;

use super::table::Table;

const SIZE: (u32, u32) = (860, 320);
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 90, 156),
    RGBColor(200, 80, 0),
    RGBColor(0, 120, 80),
    RGBColor(140, 60, 140),
    RGBColor(120, 100, 0),
    RGBColor(90, 90, 90),
];

/// A page under way.
#[derive(Debug)]
pub struct Page {
    body: String,
    title: String,
}

/// A line of a chart.
#[derive(Debug, Clone)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// What a chart shows and how its axes are called.
#[derive(Debug, Clone, Copy)]
pub struct Axes<'a> {
    /// The chart's heading.
    pub title: &'a str,
    /// Along the bottom.
    pub x: &'a str,
    /// Along the side.
    pub y: &'a str,
    /// A level that matters, such as the buffer's size.
    pub mark: Option<(f64, &'a str)>,
}

impl Page {
    /// A page with a title.
    #[must_use]
    pub fn new(title: &str) -> Self {
        Self { body: String::new(), title: title.to_owned() }
    }

    /// A heading and a text below it.
    pub fn section(&mut self, heading: &str, text: &str) {
        let _ = writeln!(self.body, "<h2>{}</h2>\n<p>{}</p>", escaped(heading), escaped(text));
    }

    /// A table.
    pub fn table(&mut self, caption: &str, table: &Table) {
        let (headings, rows) = table.parts();
        let class = |column: usize| if table.is_numeric(column) { " class=\"n\"" } else { "" };
        let _ = write!(
            self.body,
            "<div class=\"wide\"><table><caption>{}</caption><thead><tr>",
            escaped(caption)
        );
        for (column, heading) in headings.iter().enumerate() {
            let _ = write!(self.body, "<th scope=\"col\"{}>{}</th>", class(column), escaped(heading));
        }
        self.body += "</tr></thead><tbody>";
        for row in rows {
            self.body += "<tr>";
            for (column, cell) in row.iter().enumerate() {
                let _ = write!(self.body, "<td{}>{}</td>", class(column), escaped(cell));
            }
            self.body += "</tr>";
        }
        self.body += "</tbody></table></div>\n";
    }

    /// A chart of lines. Nothing is drawn where there are no points.
    ///
    /// # Errors
    /// If it cannot be drawn.
    pub fn chart(&mut self, axes: &Axes<'_>, lines: &[Line]) -> anyhow::Result<()> {
        let points = || lines.iter().flat_map(|line| &line.points);
        if points().next().is_none() {
            return Ok(());
        }
        let svg = draw(axes, lines).map_err(|error| anyhow!("cannot draw {}: {error}", axes.title))?;
        // The page sizes it, and its title describes it to people who cannot see it.
        let label = format!("<svg role=\"img\" aria-label=\"{}\" ", escaped(axes.title));
        let svg = svg.replacen("<svg ", &label, 1);
        let _ = writeln!(
            self.body,
            "<figure>{svg}<figcaption>{}: {} over {}</figcaption></figure>",
            escaped(axes.title),
            escaped(axes.y),
            escaped(axes.x)
        );
        Ok(())
    }

    /// The whole page.
    #[must_use]
    pub fn finish(self) -> String {
        let Self { body, title } = self;
        let title = escaped(&title);
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>{STYLE}</style></head>\n\
             <body><main><h1>{title}</h1>\n{body}</main></body></html>\n"
        )
    }
}

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8886}\
body{font:16px/1.5 system-ui,sans-serif;margin:0}\
main{max-width:60rem;margin:0 auto;padding:1rem}\
.wide{overflow-x:auto}\
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}\
caption{text-align:left;font-weight:600;padding:.3rem 0}\
th,td{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}\
.n{text-align:right}\
figure{margin:1.5rem 0}\
figure svg{width:100%;height:auto;background:#fff;border-radius:6px}\
figcaption{font-size:.85rem;opacity:.8}\
@media print{body{font-size:11px}figure,table{break-inside:avoid}}";

fn draw(axes: &Axes<'_>, lines: &[Line]) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let bound = |pick: fn(&(f64, f64)) -> f64, start: f64, keep: fn(f64, f64) -> f64| {
        points().map(pick).fold(start, keep)
    };
    let (left, right) =
        (bound(|p| p.0, f64::INFINITY, f64::min), bound(|p| p.0, f64::NEG_INFINITY, f64::max));
    let top = bound(|p| p.1, 0.0, f64::max).max(axes.mark.map_or(0.0, |(level, _)| level)) * 1.08;
    let right = if right > left { right } else { left + 1.0 };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(text_of)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .caption(axes.title, ("sans-serif", 18))
            .x_label_area_size(38)
            .y_label_area_size(64)
            .build_cartesian_2d(left..right, 0.0..top.max(1e-9))
            .map_err(text_of)?;
        chart
            .configure_mesh()
            .x_desc(axes.x)
            .y_desc(axes.y)
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .draw()
            .map_err(text_of)?;
        for (line, color) in lines.iter().zip(COLORS.iter().cycle()) {
            let color = *color;
            let drawn =
                chart.draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)));
            drawn
                .map_err(text_of)?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
            if line.points.len() <= 40 {
                let dots = line.points.iter().map(|&point| Circle::new(point, 3, color.filled()));
                chart.draw_series(dots).map_err(text_of)?;
            }
        }
        if let Some((level, name)) = axes.mark {
            let mark = LineSeries::new([(left, level), (right, level)], RED.stroke_width(1));
            chart
                .draw_series(mark)
                .map_err(text_of)?
                .label(name)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], RED));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .draw()
            .map_err(text_of)?;
        area.present().map_err(text_of)?;
    }
    Ok(svg)
}

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
