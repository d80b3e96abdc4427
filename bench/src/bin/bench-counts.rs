//! Counts what an ordinary run does, exactly: blocks and bytes allocated, requests to the store, bytes written.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::path::PathBuf;

use bench::Case;
use bench::counts::{SIZES, of_an_ordinary_run, of_steps};
use clap::Parser;
use clap::builder::{PathBufValueParser, TypedValueParser as _};
use collector::files::writable;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Counts what an ordinary run does: as JSON for the gate, as a table, or as a file for DHAT's viewer.
#[derive(Debug, Parser)]
#[command(version)]
struct CommandLine {
    /// A table of what each step does to the heap, at the feed's 500 events and at ten and a hundred times as many.
    #[arg(long)]
    table: bool,
    /// Write where `two_new` allocates, for the viewer at <https://nnethercote.github.io/dh_view>.
    #[arg(long, value_name = "FILE", conflicts_with = "table", value_parser = PathBufValueParser::new().try_map(writable))]
    dhat: Option<PathBuf>,
    /// The number of events in the response.
    #[arg(long, value_name = "EVENTS", default_value_t = SIZES[0], requires = "dhat")]
    events: usize,
}

fn main() -> anyhow::Result<()> {
    let CommandLine { table, dhat, events } = CommandLine::parse();
    if let Some(path) = dhat {
        let case = Case::new(events, 2);
        let _profiler = dhat::Profiler::builder().file_name(path).build();
        black_box(case.objects());
        return Ok(());
    }
    let text = if table { steps()? } else { serde_json::to_string_pretty(&of_an_ordinary_run()?)? + "\n" };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn steps() -> anyhow::Result<String> {
    let mut text =
        format!("{:<16}{:>8}{:>8}{:>12}{:>12}\n", "step", "events", "blocks", "bytes", "peak bytes");
    for step in of_steps()? {
        let heap = step.heap;
        let _ = writeln!(
            text,
            "{:<16}{:>8}{:>8}{:>12}{:>12}",
            step.name, step.events, heap.blocks, heap.bytes, heap.peak
        );
    }
    Ok(text)
}
