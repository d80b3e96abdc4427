//! The documents' tables with a measured column beside each documented one, as Markdown.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bench::catalog::{Work, find};
use bench::counts::Counts;
use bench::{Ids, ids};
use clap::Parser;
use clap::builder::{PathBufValueParser, TypedValueParser as _};
use collector::files::writable;
use redb::{Database, ReadableDatabase as _, TableDefinition};

/// How long each row is measured.
const MEASURED: Duration = Duration::from_millis(400);

/// Measures what the documents' tables claim, and prints them with a measured column, as Markdown. Takes ten seconds.
#[derive(Debug, Parser)]
#[command(version)]
struct CommandLine {
    /// Write them to a file as well.
    #[arg(value_parser = PathBufValueParser::new().try_map(writable))]
    file: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let CommandLine { file } = CommandLine::parse();
    let mut text = "# The documents' tables, measured\n\nTimes: medians on this machine, now.\n".to_owned();
    deduplication(&mut text)?;
    json_processing(&mut text)?;
    memory(&mut text)?;
    if let Some(path) = file {
        fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// The median time of an iteration, in milliseconds.
fn median_ms(mut work: Work) -> f64 {
    work();
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < MEASURED || times.len() < 5 {
        let since = Instant::now();
        work();
        times.push(since.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn of_catalog(id: &str) -> anyhow::Result<f64> {
    let entry = find(id).with_context(|| format!("there is no bench {id}"))?;
    Ok(median_ms((entry.prepare)()))
}

fn deduplication(text: &mut String) -> anyhow::Result<()> {
    let _ = write!(
        text,
        "\n## Deduplication against 1,000 seen ids\n\n| method | documented, 500 | measured | documented, 5,000 | measured |\n\
         |---|---|---|---|---|\n"
    );
    let rows = [
        ("Set", "set", "0.25 ms", "2.5 ms"),
        ("List", "list", "12.5 ms", "1,250 ms"),
        ("Sorted + binary search", "sorted", "1 ms", "15 ms"),
        ("B-tree", "btree", "–", "–"),
        ("The collector's ledger", "collector", "–", "–"),
    ];
    for (name, function, few, many) in rows {
        let [at_few, at_many] = [500, 5_000].map(|count| of_catalog(&format!("dedup/{function}/{count}")));
        let _ = writeln!(text, "| {name} | {few} | {:.4} ms | {many} | {:.4} ms |", at_few?, at_many?);
    }
    let [few, many] = [500, 5_000].map(database);
    let _ =
        writeln!(text, "| Database (embedded: redb) | 50+ ms | {:.3} ms | 500+ ms | {:.3} ms |", few?, many?);
    Ok(())
}

/// Each id looked up in a database on disk, all in one read transaction.
fn database(count: usize) -> anyhow::Result<f64> {
    const SEEN: TableDefinition<'_, i64, ()> = TableDefinition::new("seen");
    let folder = tempfile::tempdir()?;
    let database = Database::create(folder.path().join("seen.redb"))?;
    let Ids { seen, asked, .. } = ids(count);
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(SEEN)?;
        for id in seen {
            table.insert(id, ())?;
        }
    }
    write.commit()?;
    let look_up = move || -> anyhow::Result<usize> {
        let table = database.begin_read()?.open_table(SEEN)?;
        let mut new = 0;
        for id in &asked {
            new += usize::from(table.get(id)?.is_none());
        }
        Ok(new)
    };
    look_up()?;
    Ok(median_ms(Box::new(move || _ = std::hint::black_box(look_up()))))
}

fn json_processing(text: &mut String) -> anyhow::Result<()> {
    let _ = write!(
        text,
        "\n## JSON processing\n\n| operation | documented | measured: the collector | with serde_json, everything owned |\n\
         |---|---|---|---|\n"
    );
    let rows = [
        (
            "Parse a response, 100 KB",
            "10 ms",
            "json_parse/collector/100kb",
            Some("json_parse/owned_structs/100kb"),
        ),
        ("Parse the metadata, 1,000 ids", "1 ms", "metadata/parse/1000", None),
        ("Serialize the metadata, 1,000 ids", "2 ms", "metadata/serialize/1000", None),
        ("Serialize JSON Lines, 500 events", "5 ms", "jsonl/collector/500", Some("jsonl/serde/500")),
    ];
    for (operation, documented, own, other) in rows {
        let other = other.map(of_catalog).transpose()?.map_or("–".to_owned(), |ms| format!("{ms:.3} ms"));
        let _ = writeln!(text, "| {operation} | {documented} | {:.3} ms | {other} |", of_catalog(own)?);
    }
    Ok(())
}

fn memory(text: &mut String) -> anyhow::Result<()> {
    let program = std::env::current_exe()?.with_file_name("bench-counts");
    // `cargo run` builds this program alone.
    if let Some(cargo) = std::env::var_os("CARGO") {
        let built = Command::new(cargo)
            .args(["build", "--release", "--quiet", "-p", "bench", "--bin", "bench-counts"])
            .status();
        ensure!(built.is_ok_and(|status| status.success()), "bench-counts cannot be built");
    }
    let output = Command::new(&program)
        .output()
        .with_context(|| format!("{} is missing; `cargo build --release -p bench`", program.display()))?;
    let counts: Counts =
        serde_json::from_slice(&output.stdout).context("bench-counts does not say what it counted")?;
    let _ = write!(
        text,
        "\n## Memory\n\nOn the heap. The whole process, peak: `scripts/compare-with-python`.\n\n\
         | component | documented | measured |\n|---|---|---|\n"
    );
    let rows = [
        ("Event data (500)", "200 KB", "held/response of 500: bytes"),
        ("Event data (5,000)", "2 MB", "held/response of 5000: bytes"),
        ("Event data (50,000)", "20 MB", "held/response of 50000: bytes"),
        ("Seen ids (1,000)", "28 KB", "held/ledger of 1000: bytes"),
        ("Metadata JSON", "15 KB", "held/ledger document of 1000: bytes"),
    ];
    for (component, documented, count) in rows {
        let bytes = counts.get(count).with_context(|| format!("{count} was not counted"))?;
        let _ = writeln!(text, "| {component} | {documented} | {} KB |", (bytes + 500) / 1_000);
    }
    Ok(())
}
