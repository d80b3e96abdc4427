//! A second witness: how many instructions an iteration takes, counted by valgrind's callgrind. It knows nothing of caches,
//! but hardly of noise either.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;

use super::slices::Build;

/// Iterations whose instructions are counted to see how many are worth counting.
const PROBE: u64 = 40;
/// The minimum number of instructions to count: a process alone differs from its twin by some thousand.
const WORTH_COUNTING: f64 = 2e7;

/// Instructions of a bench in two builds.
#[derive(Debug, Clone, Serialize)]
pub struct Instructions {
    /// Which bench.
    pub id: String,
    /// In the first build, for an iteration.
    pub base: f64,
    /// In the second.
    pub head: f64,
}

impl Instructions {
    /// Those of the second build for each of the first's.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.head / self.base
    }

    /// Whether the second build takes more by at least this share.
    #[must_use]
    pub fn is_more(&self, least_effect: f64) -> bool {
        self.ratio() >= 1.0 + least_effect
    }
}

/// Counts the instructions of the benches that both builds have.
///
/// # Errors
/// If valgrind is missing or says nothing.
pub fn count(base: &Build, head: &Build, ids: &[String]) -> anyhow::Result<Vec<Instructions>> {
    let (mut of_base, mut of_head) = (base.start()?, head.start()?);
    let mut in_both = Vec::new();
    for id in ids {
        if of_base.measure(id, 1)?.is_some() && of_head.measure(id, 1)?.is_some() {
            in_both.push(id);
        }
    }
    let counted = in_both.into_iter().map(|id| {
        let alone = collected(base, id, 1)?;
        let probed = collected(base, id, 1 + PROBE)?.saturating_sub(alone) as f64 / PROBE as f64;
        let iterations = (WORTH_COUNTING / probed.max(1.0)).clamp(50.0, 1e6) as u64;
        let of = |build: &Build| -> anyhow::Result<f64> {
            let more = (iterations as f64 * (1.0 + build.handicap)).round() as u64;
            Ok(collected(build, id, 1 + more)?.saturating_sub(collected(build, id, 1)?) as f64
                / iterations as f64)
        };
        Ok(Instructions { id: id.clone(), base: of(base)?, head: of(head)? })
    });
    counted.collect()
}

/// The instructions of a process that runs a number of iterations of a bench.
fn collected(build: &Build, id: &str, iterations: u64) -> anyhow::Result<u64> {
    let mut process = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(&build.program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start valgrind, which --instructions needs")?;
    if let Some(mut stdin) = process.stdin.take() {
        writeln!(stdin, "{id} {iterations}")?;
    }
    let output = process.wait_with_output()?;
    let printed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed: {}", printed.trim());
    let line = printed.lines().find_map(|line| line.split_once("Collected :"));
    match line.and_then(|(_, count)| count.trim().parse().ok()) {
        Some(count) => Ok(count),
        None => bail!("valgrind does not say how many instructions it counted"),
    }
}
