//! Files that hold keys, and files that name the paths of keys.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use tracing::warn;

/// Looks up an environment variable. Passed in, so that tests need not change the process's own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Maximum size of a file of keys or settings.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a text of at most [`MAX_BYTES`].
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {MAX_BYTES} bytes"),
        ));
    }
    Ok(text)
}

/// Reads a file that only its owner should be able to read.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let text = read_text(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        let mode = format!("{:o}", mode & 0o777);
        warn!(path = %path.display(), mode, "others may read this file; chmod 600 it");
    }
    Ok(text)
}

/// The home folder, or nowhere.
pub(super) fn home(environment: Environment<'_>) -> PathBuf {
    environment("HOME").map(PathBuf::from).unwrap_or_default()
}

/// A path in which `~/` means the home folder.
pub(super) fn expand(path: &str, home: &Path) -> PathBuf {
    path.strip_prefix("~/").map_or_else(|| PathBuf::from(path), |below| home.join(below))
}

/// A section of an INI file.
pub(crate) type Section = BTreeMap<String, String>;

/// The sections of an INI file as the services' tools write it; `outside` is that of lines before any.
pub(crate) fn sections(text: &str, outside: &str) -> BTreeMap<String, Section> {
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    let mut current = outside.to_owned();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.trim().clone_into(&mut current);
            sections.entry(current.clone()).or_default();
        } else if !line.starts_with(['#', ';'])
            && let Some((name, value)) = line.split_once('=')
        {
            let section = sections.entry(current.clone()).or_default();
            section.insert(name.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    sections
}
