//! What the gate says, for people and for pull requests.

use std::fmt::Write as _;

use clap::builder::styling::{AnsiColor, Style};

use super::calibrate::Calibration;
use super::pairs::{Compared, Comparison, Verdict};
use super::statistics::Interval;

/// One line that says how it stands.
#[must_use]
pub fn summary(comparison: &Comparison) -> String {
    let count = |verdict| comparison.benches.iter().filter(|bench| bench.verdict == verdict).count();
    let (slower, faster, unsure) = (count(Verdict::Slower), count(Verdict::Faster), count(Verdict::Unsure));
    let vanished = count(Verdict::Vanished);
    let of = comparison.benches.len();
    match comparison.exit_code() {
        3 if vanished > 0 => format!("{slower} of {of} benches are slower, {vanished} have vanished"),
        3 => format!("{slower} of {of} benches are slower"),
        4 if comparison.disturbed.is_some() => {
            format!("inconclusive: {}", comparison.disturbed.as_deref().unwrap_or_default())
        }
        4 if comparison.control_tripped => {
            "inconclusive: the first build differs from itself on this machine now".to_owned()
        }
        4 => format!("inconclusive: {unsure} of {of} benches cannot be distinguished on this machine now"),
        _ if faster > 0 => format!("no bench is slower, {faster} of {of} are faster"),
        _ => format!("no bench of {of} is slower"),
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Faster => "faster",
        Verdict::Same => "same",
        Verdict::Slower => "SLOWER",
        Verdict::Unsure => "unsure",
        Verdict::New => "new",
        Verdict::Vanished => "vanished",
        Verdict::Removed => "removed",
    }
}

fn percent(ratio: Option<Interval>) -> String {
    let Some(ratio) = ratio else { return "–".to_owned() };
    let Interval { value, low, high } = ratio.map(|ratio| (ratio - 1.0) * 100.0);
    format!("{value:+.1} % ({low:+.1} to {high:+.1})")
}

/// How a verdict looks in a terminal that shows colours.
fn style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Same => Style::new(),
        Verdict::Faster => AnsiColor::Green.on_default(),
        Verdict::Slower | Verdict::Vanished => AnsiColor::Red.on_default().bold(),
        Verdict::Unsure | Verdict::New | Verdict::Removed => AnsiColor::Yellow.on_default(),
    }
}

/// A table for a terminal.
#[must_use]
pub fn text(comparison: &Comparison, coloured: bool) -> String {
    let width = comparison.benches.iter().map(|bench| bench.id.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Compared { id, verdict, ratio, .. } in &comparison.benches {
        let style = if coloured { style(*verdict) } else { Style::new() };
        let word = word(*verdict);
        let _ = writeln!(text, "{style}{word:<9}{style:#} {id:width$}  {}", percent(*ratio));
    }
    for note in notes(comparison) {
        let _ = writeln!(text, "note: {note}");
    }
    let _ = writeln!(text, "{}", summary(comparison));
    text
}

/// What must be known to read a comparison.
fn notes(comparison: &Comparison) -> Vec<String> {
    let repeated = (comparison.repeated > 0)
        .then(|| format!("{} rounds were repeated: the machine was disturbed", comparison.repeated));
    comparison.notes.iter().cloned().chain(repeated).collect()
}

/// A comment for a pull request: summary first, what changed, the rest folded, how to reproduce.
#[must_use]
pub fn markdown(comparison: &Comparison, reproduce: &str) -> String {
    let changed = |bench: &&Compared| bench.verdict != Verdict::Same;
    let rows = |benches: Vec<&Compared>| {
        let mut rows = "| bench | verdict | time (99 %) |\n|---|---|---|\n".to_owned();
        for Compared { id, verdict, ratio, .. } in benches {
            let _ = writeln!(rows, "| `{id}` | {} | {} |", word(*verdict), percent(*ratio));
        }
        rows
    };
    let mut text = format!("### Benches: {}\n\n", summary(comparison));
    let changed_benches: Vec<&Compared> = comparison.benches.iter().filter(changed).collect();
    if !changed_benches.is_empty() {
        text += &rows(changed_benches);
    }
    let same: Vec<&Compared> = comparison.benches.iter().filter(|bench| !changed(bench)).collect();
    if !same.is_empty() {
        let _ = write!(
            text,
            "\n<details><summary>{} unchanged</summary>\n\n{}\n</details>\n",
            same.len(),
            rows(same)
        );
    }
    for note in notes(comparison) {
        let _ = writeln!(text, "\nNote: {note}.");
    }
    let _ = write!(text, "\nTo reproduce: `{reproduce}`\n");
    text
}

/// What a calibration found.
#[must_use]
pub fn calibration(found: &[Calibration]) -> String {
    let mut text = "injected slowdown  comparisons  alarms  inconclusive  benches flagged\n".to_owned();
    for it in found {
        let _ = writeln!(
            text,
            "{:>15.0} %  {:>11}  {:>6}  {:>12}  {:>10} of {}",
            it.handicap * 100.0,
            it.comparisons,
            it.alarms,
            it.inconclusive,
            it.benches_slower,
            it.benches
        );
    }
    text
}
