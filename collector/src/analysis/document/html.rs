//! One page that needs nothing else: no network, no script; light and dark; every value of the text, and charts whose
//! points show their values under the mouse and to the keyboard.

use std::fmt::Write as _;

use super::{Cell, Chart, Document, Fact, Item, Live, Table};
use crate::text::printable;

mod chart;

const STYLE: &str = include_str!("html/style.css");
/// What a page may do: look as it does.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

pub(super) fn show(document: &Document, live: Option<&Live>) -> String {
    let title = escaped(&document.title);
    let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n");
    if let Some(Live { reload_every, .. }) = live {
        let _ = writeln!(page, "<meta http-equiv=\"refresh\" content=\"{}\">", reload_every.as_secs());
    }
    let _ = write!(
        page,
        "<meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <link rel=\"icon\" href=\"{}\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n<main>\n<h1>{title}</h1>\n",
        icon(live)
    );
    if let Some(Live { is_good, state, words, .. }) = live {
        let (class, sign) = if *is_good { ("good", '✓') } else { ("bad", '✗') };
        let words = escaped(words);
        let _ = writeln!(
            page,
            "<p class=\"state {class}\" role=\"status\"><strong>{sign} {state}</strong> {words}</p>"
        );
    }
    page.push_str("<nav aria-label=\"Contents\"><ul>");
    for section in &document.sections {
        let _ = write!(page, "<li><a href=\"#{}\">{}</a>", section.name, escaped(&section.title));
    }
    page.push_str("</ul></nav>\n");
    for section in &document.sections {
        let (name, title) = (section.name, escaped(&section.title));
        let _ = writeln!(
            page,
            "<section id=\"{name}\" aria-labelledby=\"{name}-title\">\n<h2 id=\"{name}-title\">{title}</h2>"
        );
        for item in &section.items {
            match item {
                Item::Facts(facts) => show_facts(facts, &mut page),
                Item::Table(table) => show_table(table, &section.title, &mut page),
                Item::Bar(parts) => show_bar(parts, &mut page),
                Item::Chart(chart) => show_chart(chart, &mut page),
                Item::Note(note) => {
                    let _ = writeln!(page, "<p>{}</p>", escaped(note));
                }
            }
        }
        page.push_str("</section>\n");
    }
    page.push_str("</main>\n</html>\n");
    page
}

/// A dot that shows the current state in the browser's tab.
fn icon(live: Option<&Live>) -> String {
    let colour = match live {
        None => "1f6feb",
        Some(Live { is_good: true, .. }) => "2da44e",
        Some(Live { is_good: false, .. }) => "cf222e",
    };
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http%3A//www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
         %3Ccircle cx='8' cy='8' r='7' fill='%23{colour}'/%3E%3C/svg%3E"
    )
}

fn show_facts(facts: &[Fact], page: &mut String) {
    page.push_str("<dl>");
    for Fact { label, value, .. } in facts {
        let _ =
            write!(page, "<div><dt>{}</dt><dd>{}</dd></div>", escaped(label), escaped(&value.to_string()));
    }
    page.push_str("</dl>\n");
}

fn show_table(table: &Table, caption: &str, page: &mut String) {
    if table.rows.is_empty() {
        page.push_str("<p>None.</p>\n");
        return;
    }
    // A table wider than the screen is moved by itself, also by the keyboard.
    let _ = write!(
        page,
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{}\"><table><thead><tr>",
        escaped(caption)
    );
    for (number, (_, label)) in table.columns.iter().enumerate() {
        let class =
            if table.rows.iter().all(|row| row[number].is_number()) { " class=\"number\"" } else { "" };
        let _ = write!(page, "<th scope=\"col\"{class}>{}</th>", escaped(label));
    }
    page.push_str("</tr></thead><tbody>\n");
    for row in &table.rows {
        page.push_str("<tr>");
        for (number, cell) in row.iter().enumerate() {
            let class = if matches!(cell, Cell::Text(_)) { "" } else { " class=\"number\"" };
            let shown = escaped(&cell.to_string());
            let _ = if number == 0 {
                write!(page, "<th scope=\"row\"{class}>{shown}</th>")
            } else {
                write!(page, "<td{class}>{shown}</td>")
            };
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
}

fn show_bar(parts: &[(String, f64)], page: &mut String) {
    page.push_str("<div class=\"bar\" aria-hidden=\"true\">");
    for (number, (_, share)) in parts.iter().enumerate() {
        let _ = write!(
            page,
            "<span class=\"fill{}\" style=\"flex-grow:{share:.4}\"></span>",
            number % chart::COLOURS
        );
    }
    page.push_str("</div><ul class=\"legend\">");
    for (number, (label, share)) in parts.iter().enumerate() {
        let (colour, label) = (number % chart::COLOURS, escaped(label));
        let _ = write!(page, "<li><span class=\"fill{colour}\"></span>{label} {:.1} %", share * 100.0);
    }
    page.push_str("</ul>\n");
}

fn show_chart(chart: &Chart, page: &mut String) {
    let (title, end) = (escaped(&chart.title), format!("after-{}", page.len()));
    // Each moment of a chart can have the focus; who goes by the keyboard may want none of them.
    let _ = write!(
        page,
        "<figure><figcaption>{title}</figcaption><a class=\"skip\" href=\"#{end}\">Skip the chart</a>"
    );
    chart::draw(chart, page);
    page.push_str("<ul class=\"legend\">");
    for (number, (name, _)) in chart.lines.iter().enumerate() {
        let _ = write!(page, "<li><span class=\"fill{}\"></span>{}", number % chart::COLOURS, escaped(name));
    }
    let _ = writeln!(page, "</ul></figure><span id=\"{end}\"></span>");
}

/// What a record says may not become markup.
fn escaped(text: &str) -> String {
    printable(text)
        .to_string()
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}
