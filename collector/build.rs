//! Writes what `--version` prints to `OUT_DIR/version`: version, commit, features and target.

use std::path::Path;
use std::process::Command;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let version = [
        variable("CARGO_PKG_VERSION"),
        format!("commit: {}", commit().as_deref().unwrap_or("unknown")),
        format!("features: {}", features().join(", ")),
        format!("target: {}", variable("TARGET")),
    ];
    fs::write(Path::new(&variable("OUT_DIR")).join("version"), version.join("\n"))
}

fn features() -> Vec<String> {
    let name = |(variable, _): (String, String)| {
        Some(variable.strip_prefix("CARGO_FEATURE_")?.to_ascii_lowercase().replace('_', "-"))
    };
    let mut features: Vec<String> = env::vars().filter_map(name).filter(|name| name != "default").collect();
    features.sort();
    features
}

/// The commit, from `BUILD_COMMIT`, the published package, or git. A development build has none: it would be compiled again after
/// each commit.
fn commit() -> Option<String> {
    println!("cargo::rerun-if-env-changed=BUILD_COMMIT");
    let given = env::var("BUILD_COMMIT").ok().filter(|commit| !commit.is_empty());
    given.or_else(published).or_else(checked_out)
}

/// The commit that `cargo package` recorded: `{"git": {"sha1": "…", …`.
fn published() -> Option<String> {
    let recorded = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    println!("cargo::rerun-if-changed=.cargo_vcs_info.json");
    let (_, rest) = recorded.split_once("\"sha1\": \"")?;
    Some(rest.get(..12)?.to_owned())
}

fn checked_out() -> Option<String> {
    if env::var("PROFILE").ok()? != "release" {
        return None;
    }
    // Only a repository that holds this package, and not one around an unpacked copy.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        // A file that does not exist would rebuild the package each time.
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
