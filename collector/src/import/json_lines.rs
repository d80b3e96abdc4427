//! Finds recordings in JSON Lines: `{"time": "2026-01-02T14:00:00Z", "body": […]}` in each line.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::recordings::{Body, Recording};
use crate::feed::BODY_LIMIT_BYTES;
use crate::files;

/// Maximum size of what a line holds beside the body.
const FRAME_BYTES: u64 = 1024;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    time: &'a RawValue,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// The time of a line: seconds since 1970, or a text as RFC 3339 has it.
fn parse_time(json: &RawValue) -> Result<DateTime<Utc>, String> {
    let seconds = || DateTime::from_timestamp(json.get().parse().ok()?, 0);
    let text = || serde_json::from_str(json.get()).ok();
    seconds().or_else(text).ok_or_else(|| {
        let shown: String = json.get().chars().take(40).collect();
        format!("`time` is {shown}, and not a time such as \"2026-01-31T14:00:00Z\" or seconds since 1970")
    })
}

/// Whether a file of this name holds JSON Lines.
pub(super) fn is_named_so(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson")
}

/// Finds where the bodies are in a file. They are read later.
pub(super) fn find(
    path: &Path,
    found: &mut Vec<Recording>,
    progress: &mut impl FnMut(usize),
) -> io::Result<()> {
    let mut lines = BufReader::new(files::open_regular(path)?);
    let (name, path): (Arc<str>, Arc<Path>) = (path.to_string_lossy().into(), path.into());
    let (mut begin, mut number) = (0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = BODY_LIMIT_BYTES + FRAME_BYTES;
        let length = lines.by_ref().take(limit).read_until(b'\n', &mut line)? as u64;
        if length == 0 {
            return Ok(());
        }
        number += 1;
        let invalid =
            |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("line {number}: {why}"));
        if length == limit {
            return Err(invalid(format!("it is longer than {limit} bytes")));
        }
        if !line.trim_ascii().is_empty() {
            let Line { time, body } =
                serde_json::from_slice(&line).map_err(|error| invalid(error.to_string()))?;
            let time = parse_time(time).map_err(invalid)?;
            let offset = body.get().as_ptr() as usize - line.as_ptr() as usize;
            let span = Body::Span { path: Arc::clone(&path), offset: begin + offset as u64 };
            found.push(Recording::new(time, Arc::clone(&name), number, body.get().len() as u64, span));
            progress(found.len());
        }
        begin += length;
    }
}
