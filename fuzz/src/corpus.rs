//! The inputs that are kept in the repository: examples and regressions.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The folder of a target's inputs.
#[must_use]
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The inputs of a target, in the order of their files' names.
///
/// A file is one input; in a file with the extension `lines`, each line is one.
///
/// # Errors
/// If the folder is missing or a file cannot be read.
pub fn read(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let entries = fs::read_dir(folder(target))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort_unstable();
    let mut inputs = Vec::new();
    for path in paths {
        let content = fs::read(&path)?;
        if path.extension().is_some_and(|extension| extension == "lines") {
            let lines = content.strip_suffix(b"\n").unwrap_or(&content).split(|&byte| byte == b'\n');
            inputs.extend(lines.map(<[u8]>::to_vec));
        } else {
            inputs.push(content);
        }
    }
    Ok(inputs)
}
