//! How the cost of each operation grows with the size of its input.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use bench::growth::{Cost, Growth, Input, OPERATIONS, Operation, find};
use clap::Parser;

/// Measures the operations at three sizes of their inputs, fits the exponent of the processor time, and ends with 1 if one is steeper, or
/// needs more memory, than it may. Takes some minutes.
#[derive(Debug, Parser)]
#[command(version)]
struct CommandLine {
    /// Only operations whose names hold one of these texts.
    #[arg(value_name = "TEXT")]
    names: Vec<String>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    /// Where the inputs are made, about 500 MB; removed at the end.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
    /// Measure one operation on the input in --folder, in this process.
    #[arg(long, value_name = "OPERATION", hide = true)]
    measure: Option<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let CommandLine { names, json, folder, measure } = CommandLine::parse();
    if let Some(name) = measure {
        let cost = Cost::of(find(&name)?, &folder)?;
        writeln!(io::stdout(), "{}", serde_json::to_string(&cost)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_wanted = |it: &&Operation| names.is_empty() || names.iter().any(|text| it.name.contains(text));
    let wanted: Vec<&Operation> = OPERATIONS.iter().filter(is_wanted).collect();
    ensure!(!wanted.is_empty(), "no operation has such a name");
    let mut measured = Vec::new();
    for input in Input::ALL {
        let operations: Vec<&Operation> = wanted.iter().copied().filter(|it| it.input == input).collect();
        if !operations.is_empty() {
            measured.extend(measure_all(input, &operations, &folder)?);
        }
    }
    let text = if json { serde_json::to_string_pretty(&measured)? + "\n" } else { table(&measured) };
    io::stdout().write_all(text.as_bytes())?;
    let faults: Vec<String> = measured.iter().flat_map(Growth::faults).collect();
    for fault in &faults {
        writeln!(io::stderr(), "error: {fault}")?;
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures operations on an input, size by size.
fn measure_all(input: Input, operations: &[&Operation], folder: &Path) -> anyhow::Result<Vec<Growth>> {
    let mut costs = vec![Vec::new(); operations.len()];
    for size in input.sizes() {
        writeln!(io::stderr(), "{size} {}", input.unit())?;
        let place = tempfile::tempdir_in(folder)
            .with_context(|| format!("cannot make a folder in {}", folder.display()))?;
        input.make(size, place.path())?;
        for (operation, costs) in operations.iter().zip(&mut costs) {
            costs.push(in_a_process(operation, place.path())?);
        }
    }
    let growth = operations.iter().zip(costs).map(|(operation, costs)| {
        let costs = costs.try_into().map_err(|_| anyhow::anyhow!("not three sizes"))?;
        Ok(Growth::new(operation, costs))
    });
    growth.collect()
}

fn in_a_process(operation: &Operation, folder: &Path) -> anyhow::Result<Cost> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--measure").arg(operation.name).arg("--folder").arg(folder);
    let output = command.output()?;
    let failure = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", operation.name, failure.trim());
    serde_json::from_slice(&output.stdout).with_context(|| format!("{}: no result", operation.name))
}

/// The table of the docs, as Markdown.
fn table(measured: &[Growth]) -> String {
    let mut text =
        "| Operation | Sizes | Processor time | Memory | Exponent | At most |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for Growth { operation, unit, sizes, costs, exponent, max_exponent, .. } in measured {
        let [small, medium, large] = sizes.map(with_commas);
        let times = costs.map(|cost| format!("{:.1}", cost.cpu_s * 1e3)).join(", ");
        let memory = costs.map(|cost| (cost.peak_memory_bytes / 1_000_000).to_string()).join(", ");
        let _ = writeln!(
            text,
            "| {operation} | {small}, {medium}, {large} {unit} | {times} ms | {memory} MB | {exponent:.2} | {max_exponent} |"
        );
    }
    text
}

fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}
