//! A home for one collector, the program run in it, and what it left there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A file of `fixtures/data`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data").join(name)
}

/// An empty folder in which a collector runs with its defaults.
pub(crate) struct Home {
    folder: TempDir,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Fails unless it ended with this code.
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// The one line that begins with `error:`.
    #[track_caller]
    pub(crate) fn error_line(&self) -> &str {
        let errors: Vec<_> = self.stderr.lines().filter(|line| line.starts_with("error:")).collect();
        assert_eq!(errors.len(), 1, "not one error line: {}", self.stderr);
        errors[0]
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A line of the archive and the folder of the day it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// As in `2026/01/02`.
    pub(crate) day: String,
    pub(crate) text: String,
}

impl Line {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program of this package that runs here, without a setting from outside.
    pub(crate) fn program(&self, path: &str) -> Command {
        let mut command = Command::new(path);
        command.current_dir(&self.folder).env_clear().env("HOME", self.folder.path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_collector"));
        command.args(arguments);
        command
    }

    pub(crate) fn collector(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    /// `collector run --feed FEED`.
    pub(crate) fn run(&self, feed: impl AsRef<Path>) -> Ended {
        self.collector(&["run", "--feed", feed.as_ref().to_str().unwrap()])
    }

    /// `collector run --feed FEED --json`, which must succeed.
    #[track_caller]
    pub(crate) fn run_json(&self, feed: impl AsRef<Path>) -> Value {
        self.collector(&["run", "--json", "--feed", feed.as_ref().to_str().unwrap()]).with(0).json()
    }

    /// The archive in a store is sound, or the process was killed before it began one.
    #[track_caller]
    pub(crate) fn assert_sound(&self, store: &str) {
        let verified = self.collector(&["verify", "--store", store, "--json"]);
        if !verified.stderr.contains("no archive in") {
            verified.with(0);
        }
    }

    /// Writes a file here.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Every file of the store and its bytes.
    pub(crate) fn store(&self) -> BTreeMap<String, Vec<u8>> {
        let root = self.path("data");
        let mut found = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for path in entries.map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let key = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                    found.insert(key, fs::read(&path).unwrap());
                }
            }
        }
        found
    }

    /// The names of the archive's objects, but for the ledger.
    pub(crate) fn objects(&self) -> Vec<String> {
        let mut names: Vec<String> = self.store().into_keys().collect();
        names.retain(|name| !name.starts_with(['.', 'm']));
        names
    }

    /// The lines under a folder of the archive, in order of their objects' names.
    pub(crate) fn lines(&self, kind: &str) -> Vec<Line> {
        let mut lines = Vec::new();
        for (key, bytes) in self.store() {
            let Some(rest) = key.strip_prefix(&format!("{kind}/")) else { continue };
            let (day, _) = rest.rsplit_once('/').unwrap();
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'), "{key} ends inside a line");
            lines.extend(text.lines().map(|line| Line { day: day.to_owned(), text: line.to_owned() }));
        }
        lines
    }

    pub(crate) fn ledger(&self) -> Value {
        self.read_json("data/metadata/last_seen.json")
    }

    pub(crate) fn health(&self) -> Value {
        self.read_json("health.json")
    }

    /// The records of all runs, in order of their names.
    pub(crate) fn records(&self) -> Vec<Value> {
        self.record_files().iter().map(|path| self.read_json(path)).collect()
    }

    /// Their names, as the program prints them.
    pub(crate) fn record_files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("metrics")) else { return Vec::new() };
        let name = |entry: fs::DirEntry| format!("./metrics/{}", entry.file_name().to_str().unwrap());
        let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }

    fn read_json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }
}
