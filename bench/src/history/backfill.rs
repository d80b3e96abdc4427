//! Which revisions of a range are still to be measured.

use super::findings::{Finding, Kind};
use super::storage::History;

/// Of revisions, oldest first, every `every`-th and the newest; those that are measured or cannot be built are left out.
#[must_use]
pub fn missing(revisions: &[String], every: usize, history: &History, reference: &str) -> Vec<String> {
    let last = revisions.len().saturating_sub(1);
    let chosen =
        revisions.iter().enumerate().filter(|(number, _)| number % every.max(1) == 0 || *number == last);
    chosen.map(|(_, id)| id).filter(|id| is_open(id, history, reference)).cloned().collect()
}

/// The revision in the middle of what lies around a step and is not measured; nothing if the step is at a commit.
#[must_use]
pub fn middle_of_step(
    revisions: &[String],
    finding: &Finding,
    history: &History,
    reference: &str,
) -> Option<String> {
    if finding.kind == Kind::Drift {
        return None;
    }
    let at = |id: &str| revisions.iter().position(|revision| revision == id);
    let (from, to) = (at(&finding.from.id)?, at(&finding.to.id)?);
    let between: Vec<&String> =
        revisions.get(from + 1..to)?.iter().filter(|id| is_open(id, history, reference)).collect();
    between.get(between.len() / 2).map(|id| (*id).clone())
}

fn is_open(id: &str, history: &History, reference: &str) -> bool {
    !history.has(id, reference) && !history.skipped.iter().any(|skipped| skipped.commit.id == id)
}
