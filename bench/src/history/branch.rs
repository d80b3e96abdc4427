//! A history on a branch of its own, written without a work tree. A commit is added to what is there now, and pushed without
//! force; whoever comes second adds to the commit of the first.

use std::fs;
use std::io::{Seek as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::gate::work_tree::Repository;

/// Writers that add at the same time make each other try again.
const TRIES: usize = 50;
/// What `update-ref` expects of a branch that must not exist yet.
const NO_COMMIT: &str = "";

/// A branch, and the remote that it is shared over.
#[derive(Debug)]
pub struct Branch {
    repository: Repository,
    name: String,
    remote: Option<String>,
}

/// What is to be added: a name and the bytes.
type File<'a> = (&'a str, &'a [u8]);

impl Branch {
    /// A branch of a repository. With a remote, it is fetched before reading and pushed after writing.
    ///
    /// # Errors
    /// If it is not a valid name of a branch.
    pub fn new(repository: Repository, name: &str, remote: Option<String>) -> anyhow::Result<Self> {
        let short = name.strip_prefix("refs/heads/").unwrap_or(name).to_owned();
        let branch = Self { repository, name: short, remote };
        let valid = branch.ask(&["check-ref-format", "--branch", &branch.name], None)?;
        ensure!(valid.is_some(), "`{name}` is not a valid name of a branch");
        Ok(branch)
    }

    /// All files on the branch.
    ///
    /// # Errors
    /// If git fails.
    pub fn read(&self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        self.add_once(None)?;
        let Some(tip) = self.tip(&self.local())? else { return Ok(Vec::new()) };
        let listed = self.must(&["ls-tree", "-r", "-z", "--format=%(objectname)%x09%(path)", &tip], None)?;
        let listed = String::from_utf8(listed).context("a name on the branch is not UTF-8")?;
        let listed: Vec<(&str, &str)> =
            listed.split('\0').filter_map(|entry| entry.split_once('\t')).collect();
        let ids = listed.iter().map(|(id, _)| *id).collect::<Vec<_>>().join("\n") + "\n";
        let mut contents = &*self.must(&["cat-file", "--batch"], Some(ids.as_bytes()))?;
        let mut files = Vec::new();
        for (_, path) in listed {
            let (content, rest) = split_object(contents).context("git cat-file printed something else")?;
            files.push((path.to_owned(), content.to_vec()));
            contents = rest;
        }
        Ok(files)
    }

    /// Adds a file, and pushes it if there is a remote.
    ///
    /// # Errors
    /// If git fails, or other writers are faster again and again.
    pub fn add(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            if self.add_once(Some((name, bytes)))? {
                return Ok(());
            }
        }
        bail!("{name} could not be added to {} in {TRIES} tries: other writers were faster", self.name)
    }

    /// Brings the remote's files and a new one to the branch. Says whether it succeeded; otherwise another writer was faster.
    fn add_once(&self, file: Option<File>) -> anyhow::Result<bool> {
        let theirs = self.fetch()?;
        let ours = self.tip(&self.local())?;
        let mut parents: Vec<String> = ours.iter().cloned().collect();
        parents.extend(theirs.filter(|theirs| ours.as_ref() != Some(theirs)));
        if parents.len() == 2 {
            self.drop_ancestor(&mut parents)?;
        }
        if !parents.is_empty() || file.is_some() {
            let tree = self.tree(&parents, file)?;
            let unchanged = match &parents[..] {
                [parent] => self.text(&["rev-parse", &format!("{parent}^{{tree}}")])? == tree,
                _ => false,
            };
            let commit = if unchanged { parents[0].clone() } else { self.commit(&tree, &parents, file)? };
            let expected = ours.as_deref().unwrap_or(NO_COMMIT);
            let moved = self.ask(&["update-ref", &self.local(), &commit, expected], None)?;
            if moved.is_none() {
                return Ok(false);
            }
        }
        match (&self.remote, file) {
            (Some(remote), Some(_)) => {
                let refspec = format!("{0}:{0}", self.local());
                Ok(self.ask(&["push", "--quiet", remote, &refspec], None)?.is_some())
            }
            _ => Ok(true),
        }
    }

    /// The remote's commit, fetched.
    fn fetch(&self) -> anyhow::Result<Option<String>> {
        let Some(remote) = &self.remote else { return Ok(None) };
        let listed = self.must(&["ls-remote", remote, &self.local()], None)?;
        let listed = String::from_utf8_lossy(&listed);
        let Some(tip) = listed.split_whitespace().next() else { return Ok(None) };
        // No reference is written, which another writer may write at the same time.
        let fetch = ["fetch", "--quiet", "--no-write-fetch-head", "--refmap=", remote, &self.local()];
        self.must(&fetch, None)?;
        Ok(Some(tip.to_owned()))
    }

    /// Of two commits, leaves the one that descends from the other, if one does.
    fn drop_ancestor(&self, commits: &mut Vec<String>) -> anyhow::Result<()> {
        for (number, of) in [(0, 1), (1, 0)] {
            let is_ancestor = ["merge-base", "--is-ancestor", &commits[number], &commits[of]];
            if self.ask(&is_ancestor, None)?.is_some() {
                commits.remove(number);
                break;
            }
        }
        Ok(())
    }

    /// A tree with all files of some commits and a new one.
    fn tree(&self, parents: &[String], file: Option<File>) -> anyhow::Result<String> {
        let mut entries = Vec::new();
        for parent in parents {
            entries.extend(self.must(&["ls-tree", "-r", "-z", parent], None)?);
        }
        if let Some((name, bytes)) = file {
            let blob = self.must(&["hash-object", "-w", "--stdin"], Some(bytes))?;
            let blob = String::from_utf8_lossy(&blob).trim().to_owned();
            entries.extend(format!("100644 blob {blob}\t{name}\0").bytes());
        }
        let folder = tempfile::tempdir()?;
        let index = folder.path().join("index");
        let with_index = |arguments: &[&str], input: Option<&[u8]>| {
            let mut git = self.git(arguments);
            git.env("GIT_INDEX_FILE", &index);
            run(git, input)?.with_context(|| format!("git {} failed", arguments.join(" ")))
        };
        with_index(&["update-index", "-z", "--index-info"], Some(&entries))?;
        let tree = with_index(&["write-tree"], None)?;
        Ok(String::from_utf8_lossy(&tree).trim().to_owned())
    }

    fn commit(&self, tree: &str, parents: &[String], file: Option<File>) -> anyhow::Result<String> {
        let message = file.map_or_else(|| "Merge histories".to_owned(), |(name, _)| format!("Add {name}"));
        let mut arguments = vec!["commit-tree", tree, "-m", &message];
        for parent in parents {
            arguments.extend(["-p", parent]);
        }
        self.text(&arguments)
    }

    fn local(&self) -> String {
        format!("refs/heads/{}", self.name)
    }

    fn tip(&self, reference: &str) -> anyhow::Result<Option<String>> {
        let tip = self.ask(&["rev-parse", "--verify", "--quiet", reference], None)?;
        Ok(tip.map(|tip| String::from_utf8_lossy(&tip).trim().to_owned()))
    }

    fn git(&self, arguments: &[&str]) -> Command {
        let mut git = self.repository.git();
        git.args([
            "-c",
            "user.name=bench-gate",
            "-c",
            "user.email=bench-gate@localhost",
            "-c",
            "core.quotePath=false",
        ]);
        git.args(arguments);
        git
    }

    fn text(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&self.must(arguments, None)?).trim().to_owned())
    }

    fn must(&self, arguments: &[&str], input: Option<&[u8]>) -> anyhow::Result<Vec<u8>> {
        let mut git = self.git(arguments);
        git.stderr(Stdio::inherit());
        run(git, input)?.with_context(|| format!("git {} failed", arguments.join(" ")))
    }

    /// What git prints; nothing if it fails, which is an answer.
    fn ask(&self, arguments: &[&str], input: Option<&[u8]>) -> anyhow::Result<Option<Vec<u8>>> {
        let mut git = self.git(arguments);
        git.stderr(Stdio::null());
        run(git, input)
    }
}

fn run(mut git: Command, input: Option<&[u8]>) -> anyhow::Result<Option<Vec<u8>>> {
    let stdin = match input {
        // A file, so that git can print before it has read all.
        Some(bytes) => {
            let mut file: fs::File = tempfile::tempfile()?;
            file.write_all(bytes)?;
            file.rewind()?;
            Stdio::from(file)
        }
        None => Stdio::null(),
    };
    let output = git.stdin(stdin).output().context("cannot start git")?;
    Ok(output.status.success().then_some(output.stdout))
}

/// The first object that `cat-file --batch` printed, and what follows it.
fn split_object(printed: &[u8]) -> Option<(&[u8], &[u8])> {
    let line_end = printed.iter().position(|&byte| byte == b'\n')?;
    let header = str::from_utf8(&printed[..line_end]).ok()?;
    let size: usize = header.rsplit(' ').next()?.parse().ok()?;
    let content = printed.get(line_end + 1..line_end + 1 + size)?;
    Some((content, printed.get(line_end + 2 + size..)?))
}
