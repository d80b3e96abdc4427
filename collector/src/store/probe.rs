//! Tries what a local store needs of its file system.
//!
//! Network and user-space file systems differ from local ones in what they promise: exclusive create may not exclude, rename
//! may take two steps, and times of files are those of the server. Everything happens in a hidden folder that is removed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use crate::files::descriptors;

/// How the name of the hidden folder begins.
pub const PREFIX: &str = ".probe-";
/// Maximum difference between the clocks of this machine and of the file server. Staged files are cleared by their age.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(2);
const RIVALS: usize = 4;
const ROUNDS: usize = 16;
const RENAMES: usize = 64;
const CONTENT_BYTES: usize = 4096;

/// What one trial has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What was tried.
    pub name: &'static str,
    /// What was found; an error if a store cannot be kept there.
    pub outcome: Result<String, String>,
}

/// Tries the file system of a folder that exists.
///
/// # Errors
/// [`io::Error`] if no files can be made there.
pub fn probe(folder: &Path) -> io::Result<Vec<Probe>> {
    let hidden = tempfile::Builder::new().prefix(PREFIX).tempdir_in(folder)?;
    let hidden = hidden.path();
    Ok(vec![
        Probe { name: "exclusive", outcome: exclusive_create(hidden)? },
        Probe { name: "visibility", outcome: visibility(hidden)? },
        Probe { name: "rename", outcome: atomic_rename(hidden)? },
        Probe { name: "file_clock", outcome: file_clock(hidden)? },
    ])
}

/// Of several who create one name at once, exactly one succeeds.
fn exclusive_create(folder: &Path) -> io::Result<Result<String, String>> {
    // Each holds a file open.
    let rivals = descriptors::spare().clamp(2, RIVALS);
    for round in 0..ROUNDS {
        let path = folder.join(format!("exclusive-{round}"));
        let winners = thread::scope(|scope| {
            let create = || -> io::Result<bool> {
                let staged = NamedTempFile::new_in(folder)?;
                Ok(match staged.persist_noclobber(&path) {
                    Ok(_) => true,
                    Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => false,
                    Err(error) => return Err(error.error),
                })
            };
            let begun: Vec<_> = (0..rivals).map(|_| scope.spawn(create)).collect();
            let results = begun.into_iter().map(|rival| rival.join().unwrap_or(Ok(false)));
            results.collect::<io::Result<Vec<bool>>>()
        })?;
        let count = winners.into_iter().filter(|&won| won).count();
        if count != 1 {
            return Ok(Err(format!("{count} of {rivals} processes could create one file exclusively")));
        }
    }
    Ok(Ok("one of several creates of a file succeeds".to_owned()))
}

/// A new file is listed at once, and its content can be read.
fn visibility(folder: &Path) -> io::Result<Result<String, String>> {
    let path = folder.join("visible");
    fs::write(&path, b"content")?;
    let is_listed = fs::read_dir(folder)?.flatten().any(|entry| entry.path() == path);
    if !is_listed {
        return Ok(Err("a new file is missing in the listing of its folder".to_owned()));
    }
    if fs::read(&path)? != b"content" {
        return Ok(Err("a new file does not have the content that was written".to_owned()));
    }
    Ok(Ok("a new file is listed and read at once".to_owned()))
}

/// While a file is replaced, its name always leads to one of the contents.
fn atomic_rename(folder: &Path) -> io::Result<Result<String, String>> {
    let path = folder.join("renamed");
    fs::write(&path, [b'0'; CONTENT_BYTES])?;
    thread::scope(|scope| {
        let writer = scope.spawn(|| -> io::Result<()> {
            for number in 0..RENAMES {
                let mut staged = NamedTempFile::new_in(folder)?;
                staged.write_all(&[if number % 2 == 0 { b'1' } else { b'0' }; CONTENT_BYTES])?;
                staged.persist(&path)?;
            }
            Ok(())
        });
        while !writer.is_finished() {
            let whole = |bytes: &Vec<u8>| {
                bytes.len() == CONTENT_BYTES && bytes.iter().all(|byte| Some(byte) == bytes.first())
            };
            match fs::read(&path) {
                Ok(bytes) if whole(&bytes) => {}
                Ok(_) => return Ok(Err("a file that is being replaced is read in part".to_owned())),
                Err(error) => {
                    return Ok(Err(format!("a file that is being replaced cannot be read: {error}")));
                }
            }
        }
        writer.join().unwrap_or(Ok(()))?;
        Ok(Ok("a file is replaced in one step".to_owned()))
    })
}

/// The clock of the file server, and the resolution of its time stamps.
fn file_clock(folder: &Path) -> io::Result<Result<String, String>> {
    let began = SystemTime::now();
    let mut whole_seconds = true;
    let mut ahead = 0;
    for number in 0..4 {
        let mut file = File::create_new(folder.join(format!("time-{number}")))?;
        file.write_all(b"x")?;
        let modified = file.metadata()?.modified()?;
        let since_epoch = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        whole_seconds &= since_epoch.subsec_nanos() == 0;
        ahead = match modified.duration_since(began) {
            Ok(ahead) => ahead.as_secs().cast_signed(),
            Err(behind) => -behind.duration().as_secs().cast_signed(),
        };
    }
    let resolution = if whole_seconds { "time stamps in whole seconds" } else { "fine time stamps" };
    if ahead.unsigned_abs() > CLOCK_TOLERANCE.as_secs() {
        return Ok(Err(format!("the clock of the file server is {ahead:+} s beside this machine's")));
    }
    Ok(Ok(format!("{ahead:+} s beside this machine, {resolution}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_file_system_is_sound_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        for Probe { name, outcome } in probe(folder.path()).unwrap() {
            assert!(outcome.is_ok(), "{name}: {outcome:?}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(probe(Path::new("/nonexistent")).is_err());
    }
}
