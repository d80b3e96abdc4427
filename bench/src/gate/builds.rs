//! Builds the benches of a revision, beside the working tree.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::counts::Counts;

/// The programs of a revision.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Measures slices.
    pub slice: PathBuf,
    counts: PathBuf,
}

impl Programs {
    /// Builds a revision in a work tree of its own under `folder`; `which` names it there.
    ///
    /// # Errors
    /// If git or cargo fails, or the revision has no benches of this kind.
    pub fn build(revision: &str, which: &str, folder: &Path) -> anyhow::Result<Self> {
        let tree = folder.join(which);
        let target = folder.join(format!("{which}-target"));
        if tree.exists() {
            run(Command::new("git").args(["worktree", "remove", "--force"]).arg(&tree))?;
        }
        run(Command::new("git")
            .args(["worktree", "add", "--quiet", "--detach", "--force"])
            .arg(&tree)
            .arg(revision))?;
        if !tree.join("bench/src/bin/bench-slice.rs").exists() {
            bail!("{revision} has no bench-slice, so that it cannot be compared; name a later revision");
        }
        let mut build = Command::new("cargo");
        build
            .current_dir(&tree)
            .env("CARGO_TARGET_DIR", &target)
            .args(["build", "--release", "--locked", "--quiet", "-p", "bench"])
            .args(["--bin", "bench-slice", "--bin", "bench-counts"]);
        run(&mut build)?;
        run(Command::new("git").args(["worktree", "remove", "--force"]).arg(&tree))?;
        let programs = target.join("release");
        Ok(Self { slice: programs.join("bench-slice"), counts: programs.join("bench-counts") })
    }

    /// What its ordinary run does, counted.
    ///
    /// # Errors
    /// If it cannot be counted.
    pub fn counts(&self) -> anyhow::Result<Counts> {
        let output = Command::new(&self.counts).output().context("cannot start bench-counts")?;
        ensure!(
            output.status.success(),
            "bench-counts failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        serde_json::from_slice(&output.stdout).context("bench-counts does not say what it counted")
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "failed: {command:?}");
    Ok(())
}

/// Counts that rose, with what they were and are: a regression each.
#[must_use]
pub fn risen(before: &Counts, after: &Counts) -> Vec<(String, u64, u64)> {
    let rose = |(name, &now): (&String, &u64)| {
        let was = *before.get(name)?;
        (now > was).then(|| (name.clone(), was, now))
    };
    after.iter().filter_map(rose).collect()
}
