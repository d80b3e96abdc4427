//! A revision's files, checked out beside the working tree, and what of the repository's history is asked for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::programs::output;

/// A git repository, and where in it the workspace lies.
#[derive(Debug, Clone)]
pub struct Repository {
    top: PathBuf,
    /// From the top.
    workspace: PathBuf,
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its full id.
    pub id: String,
    /// When it was made.
    pub time: DateTime<Utc>,
    /// How many commits it descends from, itself included: less than any of its descendants.
    pub position: u64,
    /// The first line of its message.
    pub subject: String,
}

impl fmt::Display for Commit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", short(&self.id), self.subject)
    }
}

/// The first twelve digits of a commit's id.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

impl Repository {
    /// The repository that a folder lies in.
    ///
    /// # Errors
    /// If the folder does not lie in a cargo workspace and a git repository.
    pub fn find(folder: &Path) -> anyhow::Result<Self> {
        let mut git = Command::new("git");
        git.arg("-C").arg(folder).args(["rev-parse", "--show-toplevel"]);
        let top = PathBuf::from(output(&mut git)?.trim()).canonicalize()?;
        let mut cargo = Command::new("cargo");
        cargo.args(["locate-project", "--workspace", "--message-format=plain"]).current_dir(folder);
        let manifest = PathBuf::from(output(&mut cargo)?.trim()).canonicalize()?;
        let workspace = manifest.parent().and_then(|folder| folder.strip_prefix(&top).ok());
        let workspace = workspace.with_context(|| {
            format!("the workspace {} does not lie in the repository {}", manifest.display(), top.display())
        })?;
        Ok(Self { workspace: workspace.to_owned(), top })
    }

    /// Git, in this repository.
    #[must_use]
    pub fn git(&self) -> Command {
        let mut git = Command::new("git");
        git.arg("-C").arg(&self.top);
        git
    }

    /// The commit that a revision names.
    ///
    /// # Errors
    /// If the revision does not name a commit.
    pub fn commit(&self, revision: &str) -> anyhow::Result<Commit> {
        let verify = format!("{revision}^{{commit}}");
        let id = output(self.git().args(["rev-parse", "--verify", "--quiet", "--end-of-options", &verify]))
            .with_context(|| format!("`{revision}` does not name a commit"))?;
        let id = id.trim().to_owned();
        let shown = output(self.git().args(["log", "-1", "--format=%cI%n%s", &id]))?;
        let (time, subject) = shown.split_once('\n').unwrap_or((&shown, ""));
        let position = output(self.git().args(["rev-list", "--count", &id]))?;
        Ok(Commit {
            time: time.trim().parse().with_context(|| format!("`{time}` is not a time"))?,
            position: position.trim().parse().context("git does not count commits")?,
            subject: subject.trim().to_owned(),
            id,
        })
    }

    /// The commits of a range on the line of first parents, oldest first.
    ///
    /// # Errors
    /// If git does not know the range.
    pub fn range(&self, range: &str) -> anyhow::Result<Vec<String>> {
        let list = ["rev-list", "--first-parent", "--reverse", "--end-of-options", range];
        Ok(output(self.git().args(list))?.lines().map(str::to_owned).collect())
    }

    /// Whether files that git tracks have changes that are not committed.
    ///
    /// # Errors
    /// If git fails.
    pub fn is_dirty(&self) -> anyhow::Result<bool> {
        let status = output(self.git().args(["status", "--porcelain", "--untracked-files=no"]))?;
        Ok(!status.trim().is_empty())
    }

    /// Removes the work trees of processes that used a folder and were interrupted.
    pub(super) fn remove_left_over(&self, folder: &Path) -> anyhow::Result<()> {
        let listed = output(self.git().args(["worktree", "list", "--porcelain"]))?;
        for entry in listed.split("\n\n") {
            let path = entry.lines().find_map(|line| line.strip_prefix("worktree "));
            let reason = entry.lines().find_map(|line| line.strip_prefix("locked "));
            if let (Some(path), Some(reason)) = (path, reason)
                && reason == mark(folder)
            {
                self.remove(Path::new(path))?;
            }
        }
        Ok(())
    }

    fn remove(&self, tree: &Path) -> anyhow::Result<()> {
        if tree.exists() {
            std::fs::remove_dir_all(tree).with_context(|| format!("cannot remove {}", tree.display()))?;
        }
        // Git forgets a tree that is gone, unless it is locked.
        output(self.git().args(["worktree", "unlock"]).arg(tree))?;
        output(self.git().args(["worktree", "prune"])).map(drop)
    }
}

/// Why git must not prune a work tree; names the folder, so that the next process there finds it.
fn mark(folder: &Path) -> String {
    format!("bench-gate in {}", folder.display())
}

/// The files of a commit, removed again when this is dropped.
#[derive(Debug)]
pub struct WorkTree<'a> {
    repository: &'a Repository,
    commit: Commit,
    path: PathBuf,
    /// The folder of its own that it lies in.
    _parent: tempfile::TempDir,
}

impl<'a> WorkTree<'a> {
    /// Checks a commit out, with its submodules.
    pub(super) fn add(repository: &'a Repository, commit: &Commit, folder: &Path) -> anyhow::Result<Self> {
        let parent = tempfile::Builder::new().prefix("bench-gate-").tempdir()?;
        let path = parent.path().canonicalize()?.join("tree");
        let mut add = repository.git();
        add.args(["worktree", "add", "--quiet", "--detach", "--lock", "--reason", &mark(folder)]);
        output(add.arg(&path).arg(&commit.id))?;
        let tree = Self { repository, commit: commit.clone(), path, _parent: parent };
        if tree.path.join(".gitmodules").exists() {
            let mut modules = Command::new("git");
            modules.arg("-C").arg(&tree.path).args([
                "submodule",
                "--quiet",
                "update",
                "--init",
                "--recursive",
            ]);
            output(&mut modules)?;
        }
        let manifest = tree.workspace().join("Cargo.toml");
        ensure!(manifest.exists(), "{} has no workspace in {}", tree.commit, repository.workspace.display());
        Ok(tree)
    }

    /// Where the workspace lies in it.
    #[must_use]
    pub fn workspace(&self) -> PathBuf {
        self.path.join(&self.repository.workspace)
    }

    pub(super) fn commit(&self) -> &Commit {
        &self.commit
    }
}

impl Drop for WorkTree<'_> {
    fn drop(&mut self) {
        let _ = self.repository.remove(&self.path);
    }
}
