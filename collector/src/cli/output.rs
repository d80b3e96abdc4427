//! What is printed: results on stdout for people or as JSON, errors on stderr in one line.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::Exit;
use super::settings::Value;
use super::{logging, summary};
use crate::archive::{ArchiveError, Deposit, Findings, Outcome, Problem, Repair};
use crate::feed::Source;
use crate::import::ImportSummary;
use crate::mirror::MirrorError;
use crate::publish::PublishError;
use crate::quantity::Quantity;
use crate::record::check::HealthCheck;
use crate::record::{HttpUse, RunRecord};
use crate::run::{RunError, RunReport};
use crate::store::OpenError;
use crate::text::{json_for_terminal, printable, without_credentials};

/// Prints a value as one JSON document.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    write_json(&mut io::stdout(), value)
}

/// Writes a value as one JSON document.
pub(crate) fn write_json(out: &mut dyn io::Write, value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(writeln!(out, "{}", json_for_terminal(&text))?)
}

/// Reports in one line why a command failed, and in another one what to do.
pub(crate) fn report_error(error: &anyhow::Error, exit: Exit) -> Exit {
    let priority = if logging::goes_to_journal() { "<3>" } else { "" };
    let _ = writeln!(io::stderr(), "{priority}error: {}", one_line(error));
    let hint = error.chain().find_map(|cause| {
        let of_run = || match cause.downcast_ref()? {
            RunError::Archive(error) => error.hint(),
            _ => None,
        };
        let archive = || cause.downcast_ref().map_or_else(of_run, ArchiveError::hint);
        let mirror = || cause.downcast_ref::<MirrorError>().and_then(MirrorError::hint);
        let publishing = || cause.downcast_ref::<PublishError>().and_then(PublishError::hint);
        let opening = || cause.downcast_ref::<OpenError>().and_then(OpenError::hint);
        archive().or_else(mirror).or_else(publishing).or_else(opening)
    });
    if let Some(hint) = hint {
        let _ = writeln!(io::stderr(), "{priority}hint: {hint}");
    }
    exit
}

/// An error and its causes in one line, without repetitions.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Most errors name their cause themselves.
        if !line.contains(&cause) {
            line += if line.is_empty() { "" } else { ": " };
            line += &cause;
        }
    }
    without_credentials(&printable(line).to_string()).into_owned()
}

/// A run as JSON: its record, the objects that it wrote, and the store.
#[derive(Serialize)]
pub(crate) struct RunOutput<'a> {
    #[serde(flatten)]
    record: &'a RunRecord,
    store: &'a str,
    objects: Vec<&'a str>,
    record_file: Option<String>,
}

impl<'a> RunOutput<'a> {
    pub(crate) fn new(report: &'a RunReport, store: &'a str) -> Self {
        let objects = report.result.as_ref().map_or_else(
            |_| Vec::new(),
            |deposit| deposit.objects.iter().map(|(key, _)| key.as_str()).collect(),
        );
        let record_file = report.record_file.as_ref().map(|path| path.display().to_string());
        Self { record: &report.record, store, objects, record_file }
    }
}

/// Prints the result of a run; nothing if it failed, since the error is reported.
pub(crate) fn print_run(report: &RunReport, source: &Source, store: &str, timings: bool) -> io::Result<()> {
    let Ok(deposit) = &report.result else { return Ok(()) };
    let record = &report.record;
    let mut text = format!("Collected from {source}\n");
    let _ = writeln!(text, "  fetched   {}", fetched(record));
    describe_deposit(&mut text, deposit, store);
    let _ = writeln!(text, "  time      {}", times(record));
    if timings {
        text += &summary::timings(record);
    }
    if let Some(path) = &report.record_file {
        let _ = writeln!(text, "  record    {}", path.display());
    }
    io::stdout().write_all(text.as_bytes())
}

fn fetched(record: &RunRecord) -> String {
    let count = |quantity| record.quantities.count(quantity).unwrap_or(0);
    let events = count(Quantity::ApiEventsTotal);
    let size = bytes(count(Quantity::ApiResponseBytes) as u64);
    let Some(HttpUse { status, encoding }) = &record.http else {
        return format!("{} in {size}", counted(events, "event"));
    };
    let status = status.map_or_else(String::new, |status| format!("HTTP {status}, "));
    let wire = encoding.as_ref().map_or_else(String::new, |encoding| {
        format!("{} on the wire ({}), ", bytes(count(Quantity::WireBytes) as u64), printable(encoding))
    });
    format!(
        "{} in {size}; {wire}{status}{}",
        counted(events, "event"),
        counted(count(Quantity::Attempts), "call")
    )
}

fn describe_deposit(text: &mut String, deposit: &Deposit, store: &str) {
    if let Outcome::LeftToAnother { owner, until } = &deposit.outcome {
        let _ = writeln!(
            text,
            "  left      another run ({}) is at work on {store} until {until} at the latest",
            printable(owner)
        );
        return;
    }
    let count = |quantity| deposit.count(quantity);
    let _ = writeln!(text, "  known     {}", counted(count(Quantity::BufferOverlap), "event"));
    let _ = write!(text, "  new       {}", counted(count(Quantity::NewEventsCount), "event"));
    for (quantity, name) in [
        (Quantity::RevisionsCount, "revision"),
        (Quantity::WithdrawnCount, "withdrawal"),
        (Quantity::ReturnedCount, "return"),
    ] {
        if count(quantity) > 0 {
            let _ = write!(text, ", {}", counted(count(quantity), name));
        }
    }
    text.push('\n');
    let rejected = count(Quantity::RejectedInResponse);
    if rejected > 0 {
        let (total, stored) = (counted(rejected, "element"), count(Quantity::RejectedCount));
        let _ = writeln!(text, "  rejected  {total} that are not valid events, {stored} of them stored now");
    }
    if deposit.quantities.is_set(Quantity::PossibleGap) {
        text.push_str("  gap       this full response does not reach back to the last one: events may have been missed\n");
    }
    if deposit.quantities.is_set(Quantity::SparseResponse) {
        text.push_str("  sparse    the response is spread over months; it says nothing about gaps\n");
    }
    if !deposit.objects.is_empty() {
        let _ = writeln!(text, "  stored    {} in {store}", counted(deposit.objects.len(), "object"));
        for (key, size) in &deposit.objects {
            let _ = writeln!(text, "            {key}  {}", bytes(*size as u64));
        }
    }
}

fn times(record: &RunRecord) -> String {
    let mut text = duration(record.get(Quantity::TotalTime).unwrap_or(0.0));
    // `--timings` shows the phases of calls.
    let steps = Quantity::steps().filter(|(_, step)| !step.kind.is_phase());
    let steps = steps.filter_map(|(quantity, step)| Some((step.label, record.get(quantity)?)));
    for (index, (label, seconds)) in steps.enumerate() {
        let _ = write!(text, "{} {label} {}", if index == 0 { ":" } else { "," }, duration(seconds));
    }
    text
}

/// Prints what an import did.
pub(crate) fn print_import(summary: &ImportSummary) -> io::Result<()> {
    let ImportSummary { responses, failed, events_new, revisions, rejected, elapsed_s } = summary;
    let mut text = format!("Imported {} in {elapsed_s:.2} s\n", counted(*responses, "response"));
    let _ = writeln!(text, "  failed     {failed}");
    let _ = writeln!(text, "  new        {}", counted(*events_new, "event"));
    let _ = writeln!(text, "  revisions  {revisions}");
    let _ = writeln!(text, "  rejected   {rejected}");
    io::stdout().write_all(text.as_bytes())
}

/// A progress bar, on a terminal only.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar that counts `things`, whose number is not known yet.
    pub(crate) fn new(things: &'static str) -> Self {
        Self::with_template(things, "{bar:30} {pos}/{len} {msg}, {per_sec}, {eta} left")
    }

    /// A line that counts `things`, whose number is not known until the end.
    pub(crate) fn counting(things: &'static str) -> Self {
        Self::with_template(things, "{spinner} {pos} {msg}, {per_sec}")
    }

    fn with_template(things: &'static str, template: &str) -> Self {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target).with_message(things);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub(crate) fn show(&self, done: usize, of: usize) {
        if !self.0.is_hidden() {
            self.0.set_length(of as u64);
            self.0.set_position(done as u64);
        }
    }

    pub(crate) fn count(&self, done: usize) {
        self.0.set_position(done as u64);
    }

    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Maximum number of problems that are printed; `--json` has all of them.
const PROBLEMS_SHOWN: usize = 20;

/// Prints the contents of an archive and its problems.
pub(crate) fn print_findings(findings: &Findings, store: &str) -> io::Result<()> {
    let mut text = format!("Archive in {store}\n");
    let rows = [
        ("objects", findings.objects),
        ("events", findings.events),
        ("unique ids", findings.unique_ids),
        ("revisions", findings.revisions),
        ("rejected", findings.rejected),
        ("withdrawn", findings.withdrawn),
        ("duplicates", findings.duplicates),
        ("misplaced", findings.misplaced),
        ("unreadable", findings.unreadable),
        ("repeated versions", findings.repeated_versions),
        ("disagreements", findings.disagreements),
    ];
    for (name, count) in rows {
        let _ = writeln!(text, "  {name:<18}{count:>8}");
    }
    if findings.claimed > 0 {
        let claimed = counted(findings.claimed, "object");
        let _ = writeln!(text, "A run has claimed {claimed} and not committed; the next one finishes that.");
    }
    if findings.ahead > 0 {
        let ahead = counted(findings.ahead, "object");
        let _ =
            writeln!(text, "This is a replica: {ahead} ahead of its ledger, which the next update covers.");
    }
    if findings.vouched_for > 0 {
        let ids = counted(findings.vouched_for, "id");
        let _ = writeln!(text, "Another collector marked {ids} as seen that it did not store here.");
    }
    for Problem { object, line, problem } in findings.problems.iter().take(PROBLEMS_SHOWN) {
        let line = line.map_or_else(String::new, |line| format!(":{line}"));
        let _ = writeln!(text, "  {}{line}: {}", printable(object), printable(problem));
    }
    if findings.problems.len() > PROBLEMS_SHOWN {
        let _ = writeln!(text, "  and {} more; see --json", findings.problems.len() - PROBLEMS_SHOWN);
    }
    text.push_str(if findings.objects == 0 && findings.is_sound() {
        "There is nothing here.\n"
    } else if findings.is_sound() {
        "Sound.\n"
    } else if findings.problems.len() == findings.foreign {
        "Not sound: move what does not belong to the archive to another place.\n"
    } else {
        "Not sound: `collector repair --dry-run` says what can be done.\n"
    });
    io::stdout().write_all(text.as_bytes())
}

/// Prints what a repair did or would do.
pub(crate) fn print_repair(repair: &Repair, store: &str) -> io::Result<()> {
    let mut text = if repair.dry_run {
        format!("Repair of {store}, nothing was changed; it would have\n")
    } else {
        format!("Repair of {store}\n")
    };
    if repair.is_idle() {
        text.push_str("  nothing to do\n");
    }
    if repair.claimed > 0 {
        let _ =
            writeln!(text, "  finished {} that a dead run had claimed", counted(repair.claimed, "object"));
    }
    if repair.moved > 0 {
        let (lines, objects) = (counted(repair.moved, "line"), counted(repair.objects, "object"));
        let _ = writeln!(text, "  moved {lines} out of {objects} to repaired/:");
        for (count, what) in [
            (repair.duplicates, "whose event stands in another line"),
            (repair.replaced, "stored anew in the day they belong to"),
            (repair.unreadable, "that cannot be read"),
        ] {
            if count > 0 {
                let _ = writeln!(text, "    {count} {what}");
            }
        }
    }
    if repair.revisions > 0 {
        let _ =
            writeln!(text, "  stored {} found among the duplicates", counted(repair.revisions, "revision"));
    }
    note_losses(&mut text, repair);
    if repair.ledger_rebuilt {
        text.push_str("  made the ledger anew from the archive\n");
    }
    io::stdout().write_all(text.as_bytes())
}

/// What a repair cannot bring back.
fn note_losses(text: &mut String, repair: &Repair) {
    let Repair { absent, altered, noted_objects, journal_records, .. } = repair;
    for (count, what) in [(*absent, "the loss"), (*altered, "the changed content")] {
        if count > 0 {
            let _ = writeln!(text, "  noted {what} of {} in the journal", counted(count, "object"));
        }
    }
    for name in noted_objects.iter().take(PROBLEMS_SHOWN) {
        let _ = writeln!(text, "    {}", printable(name));
    }
    if absent + altered > PROBLEMS_SHOWN {
        let _ = writeln!(text, "    and {} more; see --json", absent + altered - PROBLEMS_SHOWN);
    }
    if repair.dry_run && absent + altered > 0 {
        text.push_str("  a backup or a replica may have them: put them back before the repair\n");
    }
    if *journal_records > 0 {
        let records = counted(*journal_records, "record");
        let _ = writeln!(text, "  made {records} of the journal anew, without what they named");
    }
}

/// The health check as JSON.
#[derive(Serialize)]
pub(crate) struct HealthOutput<'a> {
    healthy: bool,
    message: Vec<&'a str>,
}

impl<'a> HealthOutput<'a> {
    pub(crate) fn new(verdict: &'a HealthCheck) -> Self {
        Self { healthy: verdict.healthy, message: verdict.lines.lines().collect() }
    }
}

/// The value and the origin of every setting.
pub(crate) fn config_json(values: &[Value]) -> serde_json::Value {
    let rows = values.iter().map(|value| {
        (value.key.clone(), json!({"value": value.shown(), "source": value.origin.to_string()}))
    });
    rows.collect::<serde_json::Map<_, _>>().into()
}

/// The same for people.
pub(crate) fn print_config(values: &[Value], state_dir: &Path) -> io::Result<()> {
    let rows: Vec<_> = values.iter().map(|value| (&value.key, value.shown(), &value.origin)).collect();
    let keys = rows.iter().map(|(key, ..)| key.len()).max().unwrap_or(0);
    let texts = rows.iter().map(|(_, text, _)| text.len()).max().unwrap_or(0);
    let mut page = String::new();
    for (key, text, origin) in rows {
        let _ = writeln!(page, "{key:keys$}  {text:texts$}  {origin}");
    }
    let _ = writeln!(page, "\nCalls are counted in {}", state_dir.display());
    io::stdout().write_all(page.as_bytes())
}

pub(crate) fn counted(count: usize, name: &str) -> String {
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

/// A length of time with three significant digits.
pub(crate) fn duration(seconds: f64) -> String {
    let (value, unit) = if seconds < 1.0 { (seconds * 1e3, "ms") } else { (seconds, "s") };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

/// A size in decimal units.
pub(crate) fn bytes(size: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let size_f = size as f64;
    match size {
        0..1_000 => format!("{size} B"),
        1_000..1_000_000 => format!("{:.1} kB", size_f / 1e3),
        _ => format!("{:.1} MB", size_f / 1e6),
    }
}
