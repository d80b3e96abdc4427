//! Finds recordings in a git repository: the versions of a file, each recorded at the time of its commit.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::DateTime;
use tracing::warn;

use super::recordings::{Body, Recording};
use crate::files;

/// Begins the line of a commit; the lines of its changes begin otherwise.
const COMMIT: char = '\u{1}';

/// A file in a git repository.
#[derive(Debug)]
pub(super) struct Source<'a> {
    repository: &'a Path,
    file: &'a str,
}

impl<'a> Source<'a> {
    /// Parses `git:REPOSITORY:FILE`; nothing if it does not begin with `git:`.
    pub(super) fn parse(path: &'a Path) -> Option<io::Result<Self>> {
        let rest = path.to_str()?.strip_prefix("git:")?;
        let parts =
            rest.rsplit_once(':').filter(|(repository, file)| !repository.is_empty() && !file.is_empty());
        let source = parts.map(|(repository, file)| Self { repository: Path::new(repository), file });
        Some(source.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a repository is written as git:REPOSITORY:FILE")
        }))
    }

    /// Finds all versions of the file. Of merges, both sides count, each commit once.
    pub(super) fn find(
        &self,
        found: &mut Vec<Recording>,
        progress: &mut impl FnMut(usize),
    ) -> io::Result<()> {
        if self.ask(&["rev-parse", "--is-shallow-repository"])? == "true" {
            warn!(repository = %self.repository.display(), "the clone is shallow: earlier versions are missing; `git fetch --unshallow` gets them");
        }
        let objects = Arc::new(Objects::open(self.repository)?);
        let sizes = Objects::sizes(self.repository)?;
        let format = format!("--format={COMMIT}%H %ct");
        let mut log = git(self.repository);
        log.args([
            "log",
            "--reverse",
            "--full-history",
            "--raw",
            "--no-abbrev",
            "--no-renames",
            "--no-color",
        ]);
        log.args(["--no-ext-diff", "--no-textconv", "--no-show-signature", "--no-mailmap", "--no-notes"]);
        log.args([&format, "--", self.file]);
        let mut child = start(&mut log)?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (mut commit, before) = (None, found.len());
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            if let Some(line) = line.strip_prefix(COMMIT) {
                commit = parse_commit(line);
                continue;
            }
            let (Some((revision, time)), Some(id)) = (&commit, version_of(&line)) else { continue };
            let name = format!("{}: {} in {revision}", self.repository.display(), self.file);
            let Some(size_bytes) = sizes.size(id)? else {
                let missing =
                    format!("{name} is missing: the clone is partial, and only a full one can be imported");
                return Err(io::Error::new(io::ErrorKind::NotFound, missing));
            };
            let position = (found.len() - before) as u64;
            let body = Body::Object { objects: Arc::clone(&objects), id: id.into() };
            found.push(Recording::new(*time, name, position, size_bytes, body));
            progress(found.len());
        }
        finish(child)?;
        if found.len() == before {
            let missing =
                format!("no commit changed {} (the path begins at the root of the repository)", self.file);
            return Err(io::Error::new(io::ErrorKind::NotFound, missing));
        }
        Ok(())
    }

    fn ask(&self, arguments: &[&str]) -> io::Result<String> {
        let mut child = start(git(self.repository).args(arguments))?;
        let mut answer = String::new();
        if let Some(mut output) = child.stdout.take() {
            output.read_to_string(&mut answer)?;
        }
        finish(child)?;
        Ok(answer.trim().to_owned())
    }
}

fn parse_commit(line: &str) -> Option<(String, DateTime<chrono::Utc>)> {
    let (revision, seconds) = line.split_once(' ')?;
    Some((revision.chars().take(12).collect(), DateTime::from_timestamp(seconds.parse().ok()?, 0)?))
}

/// The object of a file in a line such as `:100644 100644 OLD NEW M FILE`; nothing if it was deleted, or is not a file.
fn version_of(line: &str) -> Option<&str> {
    let mut fields = line.strip_prefix(':')?.split([' ', '\t']);
    let (mode, id) = (fields.nth(1)?, fields.nth(1)?);
    (mode.starts_with("100")).then_some(id)
}

fn git(repository: &Path) -> Command {
    let mut command = Command::new("git");
    // Variables of a hook, or of another repository, must not lead elsewhere; nothing is fetched.
    for variable in
        ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_PREFIX"]
    {
        command.env_remove(variable);
    }
    command.envs([
        ("LC_ALL", "C"),
        ("GIT_LITERAL_PATHSPECS", "1"),
        ("GIT_NO_LAZY_FETCH", "1"),
        ("GIT_OPTIONAL_LOCKS", "0"),
    ]);
    command.args(["--no-pager", "--no-replace-objects", "-C"]).arg(repository);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(command: &mut Command) -> io::Result<Child> {
    command
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("the program git cannot be started: {error}")))
}

/// Waits for a program that has closed its output.
fn finish(mut child: Child) -> io::Result<()> {
    let mut message = String::new();
    if let Some(mut errors) = child.stderr.take() {
        errors.read_to_string(&mut message)?;
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    let message = message.lines().find(|line| !line.is_empty()).unwrap_or("it gave no reason");
    Err(io::Error::other(format!("git failed: {}", message.trim_start_matches("fatal: "))))
}

/// Reads the objects of a repository, through a process of git.
#[derive(Debug)]
pub(super) struct Objects(Mutex<CatFile>);

#[derive(Debug)]
struct CatFile {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Objects {
    fn open(repository: &Path) -> io::Result<Self> {
        Self::start(repository, "--batch")
    }

    /// Knows only the sizes of objects.
    fn sizes(repository: &Path) -> io::Result<Self> {
        Self::start(repository, "--batch-check")
    }

    fn start(repository: &Path, mode: &str) -> io::Result<Self> {
        let mut command = git(repository);
        // Nothing reads its messages while it runs, and a full pipe would stop it.
        command.args(["cat-file", mode]).stdin(Stdio::piped()).stderr(Stdio::null());
        let mut child = start(&mut command)?;
        let (input, output) = (child.stdin.take(), child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        Ok(Self(Mutex::new(CatFile { child, input, output: BufReader::new(output) })))
    }

    fn size(&self, id: &str) -> io::Result<Option<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).header(id)
    }

    /// Reads an object of at most `limit_bytes`.
    pub(super) fn read(&self, id: &str, limit_bytes: u64) -> io::Result<Vec<u8>> {
        let mut process = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let size = process
            .header(id)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "git does not have it"))?;
        if size > limit_bytes {
            return Err(files::too_large(limit_bytes));
        }
        let mut body = vec![0; usize::try_from(size).unwrap_or_default() + 1];
        process.output.read_exact(&mut body)?;
        body.pop();
        Ok(body)
    }
}

impl CatFile {
    /// Asks for an object; the answer begins with its size. Nothing if the repository does not have it.
    fn header(&mut self, id: &str) -> io::Result<Option<u64>> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(format!("{id}\n").as_bytes())?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
            [_, "blob", size] => size.parse().map(Some).map_err(io::Error::other),
            [_, "missing"] => Ok(None),
            _ => Err(io::Error::other(format!("git cat-file answered \"{}\"", line.trim()))),
        }
    }
}

impl Drop for CatFile {
    fn drop(&mut self) {
        // At the end of its input the process ends.
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
