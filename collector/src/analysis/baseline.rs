//! Baselines: runs that are kept under a name, to compare later ones with.
//!
//! A baseline is a compressed file of JSON Lines, `baselines/NAME.jsonl.gz` in the folder of records. It holds the records themselves,
//! so that a comparison has all that one of two periods has, also after the records were deleted.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use chrono::Utc;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::compare::CompareError;
use crate::record::history::{History, Input};

/// Keeps runs under a name. Returns the file; a baseline of that name is replaced.
///
/// # Errors
/// [`CompareError`] if the name is invalid, there are no runs, or the file cannot be written.
pub fn save(folder: &Path, name: &str, history: &History) -> Result<PathBuf, CompareError> {
    let path = path(folder, name)?;
    if history.runs.all().is_empty() {
        return Err(CompareError::NoRuns(folder.display().to_string()));
    }
    let mut lines = GzEncoder::new(Vec::new(), Compression::default());
    for run in history.runs.all().iter() {
        serde_json::to_writer(&mut lines, &run.to_record()).map_err(io::Error::from)?;
        lines.write_all(b"\n")?;
    }
    let staged = crate::record::stage(&path, &lines.finish()?)?;
    staged.persist(&path).map_err(|error| error.error)?;
    Ok(path)
}

/// The runs that were kept under a name.
///
/// # Errors
/// [`CompareError`] if there is no such baseline, or it cannot be read.
pub fn load(folder: &Path, name: &str) -> Result<History, CompareError> {
    let path = path(folder, name)?;
    if !path.exists() {
        let folder = baselines(folder);
        let saved = saved(&folder);
        let saved = if saved.is_empty() { "none".to_owned() } else { saved.join(", ") };
        return Err(CompareError::NoBaseline { name: name.to_owned(), folder, saved });
    }
    let history = History::read(&[Input::Path(path.clone())], Utc::now())?;
    if history.runs.all().is_empty() {
        Err(CompareError::NoRuns(path.display().to_string()))
    } else {
        Ok(history)
    }
}

fn baselines(folder: &Path) -> PathBuf {
    folder.join("baselines")
}

/// Checks the name of a baseline, and returns it.
///
/// # Errors
/// [`CompareError::BaselineName`] if it holds more than letters, digits, `.`, `_` and `-`, or begins with `.`.
pub fn check_name(name: &str) -> Result<String, CompareError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = !name.is_empty() && !name.starts_with('.') && name.bytes().all(is_plain);
    is_name.then(|| name.to_owned()).ok_or_else(|| CompareError::BaselineName(name.to_owned()))
}

fn path(folder: &Path, name: &str) -> Result<PathBuf, CompareError> {
    check_name(name)?;
    Ok(baselines(folder).join(format!("{name}.jsonl.gz")))
}

/// The names of baselines in a folder.
fn saved(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> =
        names.filter_map(|name| name.strip_suffix(".jsonl.gz").map(str::to_owned)).collect();
    names.sort();
    names
}
