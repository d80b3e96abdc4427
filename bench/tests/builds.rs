//! How revisions are built and measured: what `ab` must not be fooled by. Programs are shell scripts or crates without
//! dependencies.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bench::gate::conditions::Conditions;
use bench::gate::pairs::{Plan, Verdict, compare};
use bench::gate::programs::{Builder, Kind};
use bench::gate::slices::Build;
use tempfile::TempDir;

fn git(folder: &Path, arguments: &[&str]) {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A repository with a workspace in the folder `tool`, whose package `bench` prints a number.
fn repository() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let tool = folder.path().canonicalize().unwrap().join("tool");
    fs::create_dir_all(tool.join("src/bin")).unwrap();
    let manifest = "[workspace]\n[package]\nname = \"bench\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
    fs::write(tool.join("Cargo.toml"), manifest).unwrap();
    fs::write(tool.join("Cargo.lock"), "version = 4\n[[package]]\nname = \"bench\"\nversion = \"0.1.0\"\n")
        .unwrap();
    git(&tool, &["init", "--quiet", "--initial-branch=main"]);
    for (key, value) in [("user.name", "t"), ("user.email", "t@localhost")] {
        git(&tool, &["config", key, value]);
    }
    commit(&tool, 1);
    (folder, tool)
}

/// Commits programs that print a number.
fn commit(tool: &Path, number: u32) {
    for program in ["bench-slice", "bench-counts"] {
        let source = format!("fn main() {{ println!(\"{{{{\\\"number\\\": {number}}}}}\"); }}\n");
        fs::write(tool.join("src/bin").join(format!("{program}.rs")), source).unwrap();
    }
    git(tool, &["add", "."]);
    git(tool, &["commit", "--quiet", "-m", &format!("Print {number}")]);
    git(tool, &["tag", &format!("v{number}")]);
}

fn open(tool: &Path) -> anyhow::Result<Builder> {
    Builder::open(tool, &tool.join("kept"), Kind::Catalog, false)
}

/// What the program of a revision counts.
fn counted(builder: &Builder, revision: &str) -> u64 {
    let commit = builder.repository().commit(revision).unwrap();
    builder.build(&commit).unwrap().counts().unwrap()["number"]
}

#[test]
fn programs_are_those_of_the_revision() {
    let (_folder, tool) = repository();
    commit(&tool, 2);
    // A target and a target directory in the configuration: of the checkout, and then of a revision.
    let host = Command::new("rustc").arg("-vV").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    fs::create_dir(tool.join(".cargo")).unwrap();
    let configuration = format!("[build]\ntarget = \"{host}\"\ntarget-dir = \"elsewhere\"\n");
    fs::write(tool.join(".cargo/config.toml"), configuration).unwrap();
    commit(&tool, 3);
    // What is not committed is not measured.
    let uncommitted = "fn main() { println!(\"{{\\\"number\\\": 99}}\"); }\n";
    fs::write(tool.join("src/bin/bench-counts.rs"), uncommitted).unwrap();

    let builder = open(&tool).unwrap();
    assert!(builder.repository().is_dirty().unwrap());
    for number in [1, 2, 3, 2, 1] {
        assert_eq!(counted(&builder, &format!("v{number}")), number);
    }
    let trees = Command::new("git").arg("-C").arg(&tool).args(["worktree", "list"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&trees.stdout).lines().count(), 1, "a work tree was left behind");

    // A program that was replaced is noticed.
    let programs = fs::read_dir(tool.join("kept/programs")).unwrap().map(|entry| entry.unwrap().path());
    let programs: Vec<PathBuf> = programs.collect();
    fs::copy(programs[0].join("bench-counts"), programs[1].join("bench-counts")).unwrap();
    let replaced = ["v1", "v2", "v3"].map(|revision| {
        let commit = builder.repository().commit(revision).unwrap();
        builder.build(&commit).err().map(|error| error.to_string())
    });
    let errors: Vec<&String> = replaced.iter().flatten().collect();
    assert!(errors.len() == 1 && errors[0].contains("its build id is"), "{errors:?}");
}

#[test]
fn folder_is_used_by_one_process_and_cleaned_after_an_interrupted_one() {
    let (_folder, tool) = repository();
    let first = open(&tool).unwrap();
    let error = open(&tool).unwrap_err().to_string();
    assert!(error.contains("another bench-gate uses") && error.contains("--dir"), "{error}");
    drop(first);

    // What a process leaves that was killed while it built.
    let left_over = tempfile::tempdir().unwrap();
    let tree = left_over.path().join("tree");
    let reason = format!("bench-gate in {}", tool.join("kept").display());
    let tree_name = tree.to_str().unwrap();
    git(&tool, &["worktree", "add", "--quiet", "--detach", "--lock", "--reason", &reason, tree_name]);
    let others = left_over.path().join("others");
    git(&tool, &["worktree", "add", "--quiet", "--detach", others.to_str().unwrap()]);
    drop(open(&tool).unwrap());
    assert!(!tree.exists() && others.exists());
    let error = open(&tool).unwrap().repository().commit("--upload-pack=x").unwrap_err().to_string();
    assert!(error.contains("does not name a commit"), "{error}");
}

/// A `bench-slice` that knows some benches and answers with some nanoseconds; runs a command before each answer.
fn script(folder: &Path, name: &str, benches: &str, nanoseconds: u32, command: &str) -> Build {
    let path = folder.join(name);
    let script = format!(
        "#!/bin/sh\nwhile read -r line; do {command}\n case $line in\n benches) echo '{benches}';;\n \
         'only here 1'*) [ {name} = base ] && echo {nanoseconds} || echo unknown;;\n *) echo {nanoseconds};; esac; done\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Build::new(&path)
}

#[test]
fn bench_that_vanished_is_named_and_fails_unless_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let base = script(folder.path(), "base", "[\"a b\",\"only here\"]", 2_000_000, "");
    let head = script(folder.path(), "head", "[\"a b\"]", 2_000_000, "");
    let plan = Plan::of(&[&base, &head]).unwrap();
    assert_eq!(plan.ids, ["a b", "only here"]);
    let conditions = Conditions::at(folder.path());
    let plan = Plan { rounds: [14, 14], slices: 1, conditions, ..plan };
    let comparison = compare(&base, &head, &plan, |_| ()).unwrap();
    let verdicts: Vec<Verdict> = comparison.benches.iter().map(|bench| bench.verdict).collect();
    assert_eq!(verdicts, [Verdict::Same, Verdict::Vanished]);
    assert_eq!(comparison.exit_code(), 3);
    let plan = Plan { accepted: vec!["only here".to_owned()], ..plan };
    let comparison = compare(&base, &head, &plan, |_| ()).unwrap();
    assert_eq!((comparison.benches[1].verdict, comparison.exit_code()), (Verdict::Removed, 0));
}

#[test]
fn throttled_rounds_are_repeated_and_a_throttled_machine_gives_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("sys/fs/cgroup")).unwrap();
    let stat = root.join("sys/fs/cgroup/cpu.stat");
    fs::write(&stat, "nr_throttled 0\n").unwrap();
    let conditions = Conditions::at(&root);
    let quiet = script(folder.path(), "base", "[\"a\"]", 2_000_000, "");
    let plan = Plan { rounds: [14, 14], slices: 1, conditions, ..Plan::of(&[&quiet]).unwrap() };

    // Throttled in the first slices only.
    let marker = folder.path().join("marker");
    let once = format!(
        "[ -e {0} ] || {{ echo 'nr_throttled 1' > {1}; : > {0}; }}",
        marker.display(),
        stat.display()
    );
    let head =
        script(folder.path(), "once", "[\"a\"]", 2_000_000, &format!("case $line in *' 6') {once};; esac"));
    let comparison = compare(&quiet, &head, &plan, |_| ()).unwrap();
    assert_eq!((comparison.rounds, comparison.repeated, comparison.exit_code()), (14, 1, 0));

    let always = format!("echo \"nr_throttled $(date +%s%N)\" > {}", stat.display());
    let head = script(folder.path(), "always", "[\"a\"]", 2_000_000, &always);
    let comparison = compare(&quiet, &head, &plan, |_| ()).unwrap();
    assert_eq!((comparison.rounds, comparison.exit_code()), (0, 4));
    assert!(comparison.disturbed.is_some_and(|why| why.contains("quota")));
}
