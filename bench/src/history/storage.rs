//! Where a history is kept: a folder, or a branch of the repository. Files are added and never changed; each has a name of its
//! own, so that two writers at once lose nothing.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::branch::Branch;
use super::measurement::{Blessing, FORMAT, Measurement, Skipped};
use crate::gate::work_tree::{Commit, short};

const MEASUREMENTS: &str = "measurements";
const BLESSINGS: &str = "blessings";
const SKIPPED: &str = "skipped";

/// Where a history is kept.
#[derive(Debug)]
pub enum Storage {
    /// Files in a folder.
    Folder(PathBuf),
    /// Files on a branch that nothing else is on.
    Branch(Branch),
}

/// All that is kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Measurements, the revisions in the order of their history.
    pub measurements: Vec<Measurement>,
    /// Accepted changes.
    pub blessings: Vec<Blessing>,
    /// Revisions that could not be measured.
    pub skipped: Vec<Skipped>,
    /// Files that are not what their folder says, and why.
    pub unreadable: Vec<String>,
}

impl Storage {
    /// Reads all that is kept. Nothing is kept yet if there is no such folder or branch.
    ///
    /// # Errors
    /// If it cannot be read, or a file was written by a newer version of this program.
    pub fn load(&self) -> anyhow::Result<History> {
        let files = match self {
            Self::Folder(folder) => files_in(folder)?,
            Self::Branch(branch) => branch.read()?,
        };
        let mut history = History::default();
        for (name, bytes) in files {
            history.add(&name, &bytes)?;
        }
        history.measurements.sort_by(|one, other| {
            let (one_at, other_at) = (&one.commit, &other.commit);
            let by_history = (one_at.position, one_at.time).cmp(&(other_at.position, other_at.time));
            by_history.then_with(|| one_at.id.cmp(&other_at.id)).then(one.time.cmp(&other.time))
        });
        Ok(history)
    }

    /// Keeps a measurement.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add_measurement(&self, measurement: &Measurement) -> anyhow::Result<String> {
        self.add(MEASUREMENTS, &measurement.commit, measurement)
    }

    /// Keeps a blessing.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add_blessing(&self, blessing: &Blessing) -> anyhow::Result<String> {
        self.add(BLESSINGS, &blessing.commit, blessing)
    }

    /// Keeps that a revision cannot be measured.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add_skipped(&self, skipped: &Skipped) -> anyhow::Result<String> {
        self.add(SKIPPED, &skipped.commit, skipped)
    }

    fn add(&self, folder: &str, commit: &Commit, value: &impl Serialize) -> anyhow::Result<String> {
        let mut bytes = serde_json::to_vec_pretty(value)?;
        bytes.push(b'\n');
        // Equal content is the same file; different content has another name.
        let digest = twox_hash::XxHash3_64::oneshot(&bytes);
        let name = format!("{folder}/{}-{digest:016x}.json", short(&commit.id));
        match self {
            Self::Folder(path) => write_new(&path.join(&name), &bytes)?,
            Self::Branch(branch) => branch.add(&name, &bytes)?,
        }
        Ok(name)
    }
}

impl History {
    fn add(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let folder = name.split_once('/').map_or("", |(folder, _)| folder);
        if ![MEASUREMENTS, BLESSINGS, SKIPPED].contains(&folder) {
            return Ok(());
        }
        let value: Value = match serde_json::from_slice(bytes) {
            Ok(value) => value,
            Err(error) => {
                self.unreadable.push(format!("{name}: {error}"));
                return Ok(());
            }
        };
        let format = value.get("format").and_then(Value::as_u64).unwrap_or(0);
        if format > u64::from(FORMAT) {
            bail!(
                "{name} is of format {format}, and this program knows {FORMAT}\nhint: use a newer bench-gate"
            );
        }
        let unreadable = match folder {
            MEASUREMENTS => keep(value, &mut self.measurements),
            BLESSINGS => keep(value, &mut self.blessings),
            SKIPPED => keep(value, &mut self.skipped),
            _ => None,
        };
        self.unreadable.extend(unreadable.map(|why| format!("{name}: {why}")));
        Ok(())
    }

    /// The reference of the newest measurement.
    #[must_use]
    pub fn reference(&self) -> Option<&Commit> {
        let newest = self.measurements.iter().max_by_key(|measurement| measurement.time);
        newest.map(|measurement| &measurement.reference)
    }

    /// Whether a revision was measured against a reference.
    #[must_use]
    pub fn has(&self, commit: &str, reference: &str) -> bool {
        self.measurements.iter().any(|it| it.commit.id == commit && it.reference.id == reference)
    }
}

fn keep<T: DeserializeOwned>(value: Value, all: &mut Vec<T>) -> Option<String> {
    match serde_json::from_value(value) {
        Ok(value) => {
            all.push(value);
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

fn files_in(folder: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for part in [MEASUREMENTS, BLESSINGS, SKIPPED] {
        let path = folder.join(part);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("cannot read {}", path.display()))?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                files.push((format!("{part}/{name}"), bytes));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Writes a file that appears whole or not at all.
fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(cannot)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(cannot)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).with_context(cannot)?;
    file.persist(path).with_context(cannot)?;
    Ok(())
}
