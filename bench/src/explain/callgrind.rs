//! Instructions by function, from the file that callgrind writes. What a function calls of the standard library and of the C
//! library counts as its own: `memcpy` does not explain anything, but who copies does.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use anyhow::Context as _;

use super::sizes::crate_of;
use super::{Amounts, demangled, of_an_iteration, path_in, under};
use crate::gate::slices::Build;

/// Name of the sum in the amounts of a run.
const TOTAL: &str = "";

/// Instructions of an iteration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// All of them.
    pub total: f64,
    /// By function.
    pub functions: Amounts,
}

/// Counts the instructions of a bench.
///
/// # Errors
/// If valgrind fails.
pub fn profile(build: &Build, bench: &str) -> anyhow::Result<Profile> {
    let mut amounts = of_an_iteration(build, |iterations| {
        let folder = tempfile::tempdir()?;
        let file = path_in(folder.path(), "callgrind.out");
        let out = format!("--callgrind-out-file={file}");
        under("valgrind", &["--tool=callgrind", "--demangle=no", &out], build, bench, iterations)?;
        let text = fs::read(&file).context("valgrind wrote no profile")?;
        let Profile { total, mut functions } = parse(&String::from_utf8_lossy(&text));
        functions.insert(TOTAL.to_owned(), total);
        Ok(functions)
    })?;
    Ok(Profile { total: amounts.remove(TOTAL).unwrap_or(0.0), functions: amounts })
}

/// Reads callgrind's file.
#[must_use]
pub fn parse(text: &str) -> Profile {
    let mut names: HashMap<&str, String> = HashMap::new();
    let (mut function, mut callee) = (String::new(), None);
    let mut is_call = false;
    let mut profile = Profile::default();
    let mut calls: BTreeMap<(String, String), f64> = BTreeMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = resolved(name, &mut names);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            callee = Some(resolved(name, &mut names));
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost: f64 = line.split_whitespace().nth(1).and_then(|cost| cost.parse().ok()).unwrap_or(0.0);
            if let Some(callee) = callee.take().filter(|_| is_call) {
                *calls.entry((function.clone(), callee)).or_default() += cost;
            } else {
                profile.total += cost;
                *profile.functions.entry(function.clone()).or_default() += cost;
            }
            is_call = false;
        }
    }
    attribute(&mut profile.functions, &calls);
    profile
}

/// A name, which callgrind writes in full only once: `(3) name`, later `(3)`.
fn resolved<'a>(text: &'a str, names: &mut HashMap<&'a str, String>) -> String {
    let (id, name) = text.split_once(' ').unwrap_or((text, ""));
    if name.is_empty() {
        return names.get(id).cloned().unwrap_or_else(|| demangled(id));
    }
    // A function that calls itself has its depth behind the name.
    let name = demangled(name.split('\'').next().unwrap_or(name));
    names.insert(id, name.clone());
    name
}

/// Whether a function belongs to a library that is a means only.
fn is_library(function: &str) -> bool {
    matches!(
        crate_of(function).as_str(),
        "" | "std" | "core" | "alloc" | "hashbrown" | "compiler_builtins" | "__rustc"
    )
}

/// Moves what library functions cost to the functions that call them, by what each caller spends in them. Functions of a library
/// call each other, so this is repeated.
fn attribute(functions: &mut Amounts, calls: &BTreeMap<(String, String), f64>) {
    const PASSES: usize = 40;
    let mut callers: BTreeMap<&String, Vec<(&String, f64)>> = BTreeMap::new();
    for ((caller, callee), cost) in calls.iter().filter(|((caller, callee), _)| caller != callee) {
        callers.entry(callee).or_default().push((caller, *cost));
    }
    let library: Vec<String> = functions.keys().filter(|function| is_library(function)).cloned().collect();
    for _ in 0..PASSES {
        for function in &library {
            let Some(callers) = callers.get(function) else { continue };
            let cost = functions.insert(function.clone(), 0.0).unwrap_or(0.0);
            let all: f64 = callers.iter().map(|(_, cost)| cost).sum();
            for (caller, spent) in callers {
                *functions.entry((*caller).clone()).or_default() += cost * spent / all.max(1.0);
            }
        }
    }
    functions.retain(|function, _| !is_library(function));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_of_the_library_count_for_the_caller() {
        let file = "version: 1\npositions: line\nevents: Ir\n\nob=(1) x\nfl=(1) a.rs\n\
            fn=(1) _ZN5bench4copy17h0123456789abcdefE\n10 5\n+1 7\ncfn=(2) memcpy\ncalls=3 0\n+1 90\n* 3\n\
            fn=(2)\n1 90\n\
            fn=(3) _ZN5bench4main17h0123456789abcdefE\n20 1\ncfn=(1)\ncalls=1 10\n20 105\n\ntotals: 106\n";
        let profile = parse(file);
        assert!((profile.total - 106.0).abs() < 1e-9, "{profile:?}");
        let functions: Vec<(&str, f64)> =
            profile.functions.iter().map(|(name, cost)| (name.as_str(), *cost)).collect();
        assert_eq!(functions, [("bench::copy", 105.0), ("bench::main", 1.0)]);
    }
}
