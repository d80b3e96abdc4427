//! What a bench does differently in a second build: instructions by function, allocations by site, system calls, sizes by crate,
//! dependencies, settings and toolchain of the build. Ranked by how many instructions each accounts for.
//!
//! Profilers that are not installed are named, and the rest is reported without them. Must not measure time: what is
//! reported here does not vary, or hardly.

pub mod callgrind;
pub mod document;
mod heap;
mod packages;
mod sizes;
mod syscalls;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};

use crate::counts::{CountChange, changes};
use crate::gate::programs::Programs;
use crate::gate::slices::Build;

/// Iterations under a profiler, after one that is subtracted.
const ITERATIONS: u64 = 20;
/// What a system call takes at least, in instructions; it is not counted by callgrind.
const SYSCALL_COST: f64 = 1_000.0;
/// What a call takes that waits for a disk, in instructions.
const SYNC_COST: f64 = 1e6;
/// A smaller share of the instructions is not a cause.
const LEAST_SHARE: f64 = 0.001;

/// Amounts by name, for an iteration.
pub type Amounts = BTreeMap<String, f64>;

/// What a cause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The compiler is another.
    Toolchain,
    /// A profile or the configuration of cargo changed.
    Settings,
    /// A package in `Cargo.lock` changed.
    Dependency,
    /// A function, with what it calls of the standard library.
    Function,
    /// System calls.
    Syscall,
    /// Allocations of a function.
    Allocation,
}

/// Something that the second build does more, or differently.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What changed, in words.
    pub change: String,
    /// Instructions for an iteration that it accounts for, or an estimate of them.
    pub instructions: f64,
    /// These as a share of the first build's instructions; nothing where they were not counted.
    pub share: Option<f64>,
}

/// Two amounts of the same, before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Of what.
    pub name: String,
    /// In the first build.
    pub before: f64,
    /// In the second.
    pub after: f64,
}

/// All that differs.
#[derive(Debug, Clone, Default)]
pub struct Explanation {
    /// Likely causes, the largest first.
    pub causes: Vec<Cause>,
    /// Instructions of an iteration, in both builds.
    pub instructions: Option<[f64; 2]>,
    /// Instructions by function.
    pub functions: Vec<Difference>,
    /// Blocks allocated by the function that asked for them.
    pub blocks: Vec<Difference>,
    /// System calls by name.
    pub syscalls: Vec<Difference>,
    /// Bytes of the program by crate.
    pub sizes: Vec<Difference>,
    /// What an ordinary run counts.
    pub counts: Vec<CountChange>,
    /// Packages that changed, and how.
    pub packages: Vec<(String, String)>,
    /// What could not be looked at, and why.
    pub missing: Vec<String>,
}

/// Explains how a bench differs in two builds.
///
/// # Errors
/// If a program cannot be read or run.
pub fn explain(before: &Programs, after: &Programs, bench: &str) -> anyhow::Result<Explanation> {
    for programs in [before, after] {
        let known = programs.build.start()?.measure(bench, 1)?.is_some();
        ensure!(known, "{} has no bench `{bench}`", programs.commit);
    }
    let builds = [&before.build, &after.build];
    let mut explanation =
        Explanation { counts: changes(&before.counts()?, &after.counts()?), ..Explanation::default() };
    let profiles = with_tool("valgrind", "instructions by function", &mut explanation.missing, || {
        both(builds, |build| callgrind::profile(build, bench))
    })?;
    if let Some([one, other]) = &profiles {
        explanation.instructions = Some([one.total, other.total]);
        explanation.functions = differences(&one.functions, &other.functions);
    }
    let heaps = with_tool("valgrind", "allocations by function", &mut explanation.missing, || {
        both(builds, |build| heap::blocks(build, bench))
    })?;
    explanation.blocks = heaps.map(|[one, other]| differences(&one, &other)).unwrap_or_default();
    let calls = with_tool("strace", "system calls", &mut explanation.missing, || {
        both(builds, |build| syscalls::count(build, bench))
    })?;
    explanation.syscalls = calls.map(|[one, other]| differences(&one, &other)).unwrap_or_default();
    let [one, other] = both(builds, |build| sizes::by_crate(&build.program))?;
    explanation.sizes = differences(&one, &other);
    explanation.packages = packages::changes(&before.provenance.lock, &after.provenance.lock)?;
    explanation.causes = causes(&explanation, before, after);
    Ok(explanation)
}

/// What a tool finds; nothing if it is not installed, which is noted.
fn with_tool<T>(
    tool: &str,
    what: &str,
    missing: &mut Vec<String>,
    find: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    match Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            missing.push(format!("{what}: {tool} is not installed"));
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot start {tool}")),
        Ok(_) => find().map(Some),
    }
}

fn both<T>(builds: [&Build; 2], find: impl Fn(&Build) -> anyhow::Result<T>) -> anyhow::Result<[T; 2]> {
    Ok([find(builds[0])?, find(builds[1])?])
}

/// Runs a bench under a profiler: a number of iterations, or once if the build does not count iterations.
fn under(
    tool: &str,
    arguments: &[&str],
    build: &Build,
    bench: &str,
    iterations: u64,
) -> anyhow::Result<Output> {
    let mut command = Command::new(tool);
    command.args(arguments).arg(&build.program).stdout(Stdio::null()).stderr(Stdio::piped());
    if build.counts_iterations() {
        command.stdin(Stdio::piped());
    } else {
        // Without `--bench`, criterion runs the bench once.
        command.args(["--test", "--exact", bench]).stdin(Stdio::null());
    }
    let mut process = command.spawn().with_context(|| format!("cannot start {tool}"))?;
    if let Some(mut stdin) = process.stdin.take() {
        writeln!(stdin, "{bench} {iterations}")?;
    }
    let output = process.wait_with_output()?;
    ensure!(output.status.success(), "{tool} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output)
}

/// Amounts of an iteration: of many less those of one, which has the preparation in it.
fn of_an_iteration(build: &Build, find: impl Fn(u64) -> anyhow::Result<Amounts>) -> anyhow::Result<Amounts> {
    if !build.counts_iterations() {
        return find(1);
    }
    let once = find(1)?;
    let mut amounts = find(1 + ITERATIONS)?;
    for (name, amount) in &mut amounts {
        *amount = (*amount - once.get(name).copied().unwrap_or(0.0)) / ITERATIONS as f64;
    }
    amounts.retain(|_, amount| amount.abs() > 0.0);
    Ok(amounts)
}

/// What differs, the largest difference first.
fn differences(before: &Amounts, after: &Amounts) -> Vec<Difference> {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |amounts: &Amounts, name: &String| amounts.get(name).copied().unwrap_or(0.0);
    let difference =
        |name: &String| Difference { name: name.clone(), before: of(before, name), after: of(after, name) };
    let mut differences: Vec<Difference> =
        names.into_iter().map(difference).filter(|it| it.before.to_bits() != it.after.to_bits()).collect();
    let size = |it: &Difference| (it.after - it.before).abs();
    differences.sort_by(|one, other| size(other).total_cmp(&size(one)));
    differences
}

fn causes(explanation: &Explanation, before: &Programs, after: &Programs) -> Vec<Cause> {
    let total = explanation.instructions.map(|[before, _]| before.max(1.0));
    let rise = explanation.instructions.map_or(0.0, |[before, after]| after - before);
    let cause = |kind, name: &str, change: String, instructions: f64| Cause {
        kind,
        name: name.to_owned(),
        change,
        instructions,
        share: total.map(|total| instructions / total),
    };
    let mut causes = Vec::new();
    let (one, other) = (&before.provenance, &after.provenance);
    if one.toolchain != other.toolchain {
        let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        let change = format!("{}, now {}", first(&one.toolchain), first(&other.toolchain));
        causes.push(cause(Kind::Toolchain, "rustc", change, rise));
    }
    let settings = packages::settings(&one.settings, &other.settings);
    causes.extend(settings.into_iter().map(|(name, change)| cause(Kind::Settings, &name, change, rise)));
    for (package, change) in &explanation.packages {
        let crate_name = package.replace('-', "_");
        let of_it = explanation.functions.iter().filter(|it| sizes::crate_of(&it.name) == crate_name);
        let instructions: f64 = of_it.map(|it| it.after - it.before).sum();
        causes.push(cause(Kind::Dependency, package, change.clone(), instructions));
    }
    for Difference { name, before, after } in &explanation.functions {
        let change = format!("{before:.0} instructions, now {after:.0}");
        causes.push(cause(Kind::Function, name, change, after - before));
    }
    for Difference { name, before, after } in &explanation.syscalls {
        let each = if name.contains("sync") { SYNC_COST } else { SYSCALL_COST };
        let change = format!("{before:.2} calls, now {after:.2}");
        causes.push(cause(Kind::Syscall, name, change, (after - before) * each));
    }
    // What allocations take is part of what their function takes; alone they are ranked where nothing counted instructions.
    if explanation.instructions.is_none() {
        for Difference { name, before, after } in &explanation.blocks {
            let change = format!("{before:.2} blocks, now {after:.2}");
            causes.push(cause(Kind::Allocation, name, change, (after - before) * SYSCALL_COST / 10.0));
        }
    }
    let matters = |cause: &Cause| {
        cause.kind < Kind::Function
            || (cause.instructions > 0.0 && cause.share.is_none_or(|it| it >= LEAST_SHARE))
    };
    causes.retain(matters);
    causes.sort_by(|one, other| {
        other.instructions.total_cmp(&one.instructions).then(one.kind.cmp(&other.kind))
    });
    causes
}

/// A symbol as it is written in the sources, without hash.
fn demangled(symbol: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(symbol))
}

/// A file for a profiler's result in a folder.
fn path_in(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}
