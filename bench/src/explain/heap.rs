//! Blocks that are allocated, by the function that asked for them, from the file that valgrind's DHAT writes.

use std::fs;

use anyhow::Context as _;
use serde::Deserialize;

use super::sizes::crate_of;
use super::{Amounts, demangled, of_an_iteration, path_in, under};
use crate::gate::slices::Build;

/// What of the file is needed.
#[derive(Deserialize)]
struct Profile {
    #[serde(rename = "pps")]
    points: Vec<Point>,
    #[serde(rename = "ftbl")]
    frames: Vec<String>,
}

/// A place that allocates.
#[derive(Deserialize)]
struct Point {
    #[serde(rename = "tbk")]
    blocks: f64,
    #[serde(rename = "fs")]
    frames: Vec<usize>,
}

/// Counts the blocks that an iteration allocates.
pub(super) fn blocks(build: &Build, bench: &str) -> anyhow::Result<Amounts> {
    of_an_iteration(build, |iterations| {
        let folder = tempfile::tempdir()?;
        let file = path_in(folder.path(), "dhat.json");
        let out = format!("--dhat-out-file={file}");
        under("valgrind", &["--tool=dhat", "--demangle=no", &out], build, bench, iterations)?;
        let text = fs::read(&file).context("valgrind wrote no profile of the heap")?;
        parse(&text)
    })
}

fn parse(json: &[u8]) -> anyhow::Result<Amounts> {
    let Profile { points, frames } = serde_json::from_slice(json).context("DHAT wrote something else")?;
    let mut amounts = Amounts::new();
    for point in points {
        let names = point.frames.iter().filter_map(|&number| function(frames.get(number)?));
        let is_means = |name: &String| {
            matches!(crate_of(name).as_str(), "" | "std" | "core" | "alloc" | "hashbrown" | "__rustc")
        };
        let site = names.into_iter().find(|name| !is_means(name));
        *amounts.entry(site.unwrap_or_else(|| "the runtime".to_owned())).or_default() += point.blocks;
    }
    Ok(amounts)
}

/// The function of a frame: `0x10A3F: symbol (file.rs:12)`.
fn function(frame: &str) -> Option<String> {
    let symbol = frame.split_once(": ")?.1;
    let symbol = symbol.rsplit_once(" (").map_or(symbol, |(symbol, _)| symbol);
    Some(demangled(symbol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_count_for_the_function_that_asked() {
        let file = br#"{"pps":[{"tb":64,"tbk":2,"fs":[1,2,3]},{"tb":8,"tbk":1,"fs":[1]}],
            "ftbl":["[root]","0x1: malloc (in /usr/lib/x.so)","0x2: _ZN5alloc3vec3VecE (mod.rs:1)",
            "0x3: _ZN5bench4copy17h0123456789abcdefE (copy.rs:9)"]}"#;
        let amounts = parse(file).unwrap();
        assert_eq!(amounts.get("bench::copy"), Some(&2.0), "{amounts:?}");
        assert_eq!(amounts.get("the runtime"), Some(&1.0));
    }
}
