//! The programs of a revision: built from a work tree of its own, and proven to be of that revision before they are measured.
//!
//! A work tree lies in the system's folder for temporary files, so that neither the configuration of cargo nor a toolchain
//! file of the checkout applies to it. What cargo reports as built is copied to a folder of the revision. The linker writes the
//! commit into each program as its build id, whatever the revision's sources are; a program with another build id is an
//! error. Must not know what a bench measures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use object::Object as _;
use serde::{Deserialize, Serialize};

use super::slices::Build;
use super::work_tree::{Commit, Repository, WorkTree};
use crate::counts::Counts;

/// What is built of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// `bench-slice` and `bench-counts` of this project's package `bench`.
    Catalog,
    /// A bench target with criterion, of any workspace.
    Criterion {
        /// The bench target.
        bench: String,
        /// The package that it belongs to, if the workspace's default is another.
        package: Option<String>,
    },
}

/// The programs of a revision.
#[derive(Debug, Clone)]
pub struct Programs {
    /// What is measured.
    pub build: Build,
    /// The revision.
    pub commit: Commit,
    /// What they were built with.
    pub provenance: Provenance,
    counts: Option<PathBuf>,
}

/// What programs were built from and with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The commit, which is the programs' build id as well.
    pub commit: String,
    /// What `rustc -vV` prints in the work tree.
    pub toolchain: String,
    /// `Cargo.lock`; empty if the revision has none.
    pub lock: String,
    /// The profile in `Cargo.toml`, and the configuration of cargo, by key.
    pub settings: BTreeMap<String, String>,
}

/// What of `cargo metadata` is needed.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

/// What of a message of cargo is needed.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

/// Builds revisions, and keeps what it has built.
#[derive(Debug)]
pub struct Builder {
    repository: Repository,
    folder: PathBuf,
    kind: Kind,
    /// With symbols and line tables, for profilers.
    symbols: bool,
    /// Held for as long as this lives: one process at a time builds in a folder.
    lock: fs::File,
}

impl Builder {
    /// Builds revisions of the repository that a workspace lies in, and keeps them in a folder, which no other process may
    /// use meanwhile. Removes the work trees that an interrupted process left.
    ///
    /// # Errors
    /// If another process uses the folder, or this is not a workspace in a git repository.
    pub fn open(workspace: &Path, folder: &Path, kind: Kind, symbols: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let folder = folder.canonicalize()?;
        let path = folder.join("lock");
        let lock = fs::File::options().create(true).append(true).open(&path);
        let lock = lock.with_context(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => bail!(
                "another bench-gate uses {}\nhint: wait for it, or name another folder with --dir",
                folder.display()
            ),
            Err(fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let repository = Repository::find(workspace)?;
        repository.remove_left_over(&folder)?;
        Ok(Self { repository, folder, kind, symbols, lock })
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Where programs are kept.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The programs of a commit, built if they are not kept from an earlier call with the same settings.
    ///
    /// # Errors
    /// If git or cargo fails, the revision does not have the bench, or a program is not of the revision.
    pub fn build(&self, commit: &Commit) -> anyhow::Result<Programs> {
        let settings = self.settings()?;
        let kept = self.folder.join("programs").join(format!("{}-{settings:016x}", commit.id));
        if !kept.exists() {
            self.build_into(commit, &kept)?;
        }
        let provenance = fs::read_to_string(kept.join("provenance.json"))
            .with_context(|| format!("{} is incomplete\nhint: remove it", kept.display()))?;
        let provenance: Provenance = serde_json::from_str(&provenance)?;
        let (measured, counts) = match &self.kind {
            Kind::Catalog => ("bench-slice", Some(kept.join("bench-counts"))),
            Kind::Criterion { .. } => ("bench", None),
        };
        let measured = kept.join(measured);
        for program in counts.iter().chain([&measured]) {
            prove(program, &commit.id)?;
        }
        let build = Build::of_kind(&measured, &self.kind);
        Ok(Programs { build, commit: commit.clone(), provenance, counts })
    }

    /// What else than the commit decides what a program is: a number for it.
    fn settings(&self) -> anyhow::Result<u64> {
        let rustc = output(Command::new("rustc").arg("-vV"))?;
        let names = ["RUSTFLAGS", "RUSTC", "RUSTUP_TOOLCHAIN", "CARGO_ENCODED_RUSTFLAGS"];
        let prefixes = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_"];
        let decides =
            |name: &str| names.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix));
        let mut environment: Vec<(String, String)> = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .filter(|(name, _)| decides(name) && name != "CARGO_TARGET_DIR")
            .collect();
        environment.sort();
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        let configuration = home.and_then(|home| fs::read_to_string(home.join("config.toml")).ok());
        let settings = format!("{rustc}{environment:?}{configuration:?}{:?}{}", self.kind, self.symbols);
        Ok(twox_hash::XxHash3_64::oneshot(settings.as_bytes()))
    }

    fn build_into(&self, commit: &Commit, kept: &Path) -> anyhow::Result<()> {
        let tree = WorkTree::add(&self.repository, commit, &self.folder)?;
        let target = self.folder.join(if self.symbols { "target-symbols" } else { "target" });
        let partial = kept.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        self.clean(&tree, &target)?;
        for (name, arguments) in self.arguments() {
            let program = self.link(&tree, &target, &arguments)?;
            prove(&program, &commit.id)?;
            fs::copy(&program, partial.join(name))
                .with_context(|| format!("cannot copy {}", program.display()))?;
        }
        let provenance = Provenance {
            commit: commit.id.clone(),
            toolchain: output(Command::new("rustc").arg("-vV").current_dir(tree.workspace()))?,
            lock: fs::read_to_string(tree.workspace().join("Cargo.lock")).unwrap_or_default(),
            settings: build_settings(&tree.workspace()),
        };
        fs::write(partial.join("provenance.json"), serde_json::to_string(&provenance)?)?;
        fs::rename(&partial, kept).with_context(|| format!("cannot make {}", kept.display()))
    }

    /// Removes what cargo keeps of the workspace's own packages: whether it is fresh is decided by times of files, which a
    /// clock that was set back makes wrong. Dependencies stay.
    fn clean(&self, tree: &WorkTree, target: &Path) -> anyhow::Result<()> {
        if !target.exists() {
            return Ok(());
        }
        let metadata = Command::new("cargo")
            .args(["metadata", "--no-deps", "--format-version=1"])
            .current_dir(tree.workspace())
            .output()
            .context("cannot start cargo")?;
        ensure!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr).trim());
        let Metadata { packages } = serde_json::from_slice(&metadata.stdout)?;
        let mut clean = Command::new("cargo");
        clean.args(["clean", "--quiet", "--profile", self.profile()]).current_dir(tree.workspace());
        clean.env("CARGO_TARGET_DIR", target);
        for Package { name } in &packages {
            clean.args(["-p", name]);
        }
        output(&mut clean).map(drop)
    }

    fn profile(&self) -> &'static str {
        match self.kind {
            Kind::Catalog => "release",
            Kind::Criterion { .. } => "bench",
        }
    }

    /// The programs to build: under which name each is kept, and the arguments that select it.
    fn arguments(&self) -> Vec<(&'static str, Vec<&str>)> {
        match &self.kind {
            Kind::Catalog => ["bench-slice", "bench-counts"]
                .map(|program| (program, vec!["-p", "bench", "--bin", program]))
                .to_vec(),
            Kind::Criterion { bench, package } => {
                let package = package.iter().flat_map(|package| ["-p", package]);
                vec![("bench", package.chain(["--bench", bench]).collect())]
            }
        }
    }

    /// Builds a program with the commit as its build id; where it is follows from what cargo reports.
    fn link(&self, tree: &WorkTree, target: &Path, arguments: &[&str]) -> anyhow::Result<PathBuf> {
        let mut cargo = Command::new("cargo");
        cargo.arg("rustc").args(["--profile", self.profile(), "--message-format=json-render-diagnostics"]);
        cargo.arg("--quiet").args(arguments).current_dir(tree.workspace()).env("CARGO_TARGET_DIR", target);
        if tree.workspace().join("Cargo.lock").exists() {
            cargo.arg("--locked");
        }
        if self.symbols {
            let profile = self.profile().to_uppercase();
            cargo.env(format!("CARGO_PROFILE_{profile}_STRIP"), "none");
            cargo.env(format!("CARGO_PROFILE_{profile}_DEBUG"), "line-tables-only");
        }
        cargo.args(["--", "-C"]).arg(format!("link-arg=-Wl,--build-id=0x{}", tree.commit().id));
        let built = output(&mut cargo).with_context(|| format!("{} does not build", tree.commit()))?;
        let messages = built.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
        messages.filter_map(|message| message.executable).next_back().with_context(|| {
            format!("cargo built no program of {} with {}", tree.commit(), arguments.join(" "))
        })
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        // Closing the file is not enough while a child that was just started still has it.
        let _ = self.lock.unlock();
    }
}

impl Programs {
    /// What its ordinary run does, counted; nothing for programs that do not count.
    ///
    /// # Errors
    /// If it cannot be counted.
    pub fn counts(&self) -> anyhow::Result<Counts> {
        let Some(counts) = &self.counts else { return Ok(Counts::new()) };
        let printed = output(&mut Command::new(counts))?;
        serde_json::from_str(&printed).context("bench-counts does not print JSON")
    }

    /// The program that counts, if there is one.
    #[must_use]
    pub fn counting(&self) -> Option<&Path> {
        self.counts.as_deref()
    }
}

/// The profiles and the configuration of a workspace, by key.
fn build_settings(workspace: &Path) -> BTreeMap<String, String> {
    let read =
        |file: &str| -> Option<toml::Table> { fs::read_to_string(workspace.join(file)).ok()?.parse().ok() };
    let mut settings = BTreeMap::new();
    let profiles = read("Cargo.toml").and_then(|mut manifest| manifest.remove("profile"));
    if let Some(profiles) = profiles {
        flatten("profile", &profiles, &mut settings);
    }
    if let Some(configuration) = read(".cargo/config.toml") {
        flatten("configuration", &toml::Value::Table(configuration), &mut settings);
    }
    settings
}

fn flatten(path: &str, value: &toml::Value, settings: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            table.iter().for_each(|(key, value)| flatten(&format!("{path}.{key}"), value, settings));
        }
        value => {
            settings.insert(path.to_owned(), serde_json::json!(value).to_string());
        }
    }
}

/// Checks that a program is of a commit.
fn prove(program: &Path, commit: &str) -> anyhow::Result<()> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let file =
        object::File::parse(&*bytes).with_context(|| format!("{} is not a program", program.display()))?;
    let id = file.build_id().ok().flatten().unwrap_or_default();
    let id = id.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    ensure!(
        id == commit,
        "{} is not a program of {commit}: its build id is `{id}`\nhint: the linker must support --build-id",
        program.display()
    );
    Ok(())
}

/// The standard output of a command that must succeed; its errors go to the terminal.
pub(super) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start {}", command.get_program().display()))?;
    ensure!(output.status.success(), "failed with {}: {command:?}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_of_another_revision_is_refused() {
        let own = std::env::current_exe().unwrap();
        let error = prove(&own, "0123456789").unwrap_err().to_string();
        assert!(error.contains("not a program of 0123456789"), "{error}");
        let no_program = tempfile::NamedTempFile::new().unwrap();
        assert!(prove(no_program.path(), "0123456789").is_err());
    }
}
