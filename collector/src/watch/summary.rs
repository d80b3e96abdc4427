//! A run in few words, as the service remembers it.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::quantity::Quantity;
use crate::record::{self, RunRecord};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Everything new is stored.
    Success,
    /// Another run was at work.
    LeftToAnother,
    /// It failed.
    Failed,
}

impl Ended {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Success, Self::LeftToAnother, Self::Failed];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::LeftToAnother => "left_to_another",
            Self::Failed => "failed",
        }
    }
}

/// A run in few words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunSummary {
    /// When it began.
    pub start: DateTime<Utc>,
    /// How long it took, in seconds.
    pub total_s: f64,
    /// How it ended.
    pub ended: Ended,
    /// Why it failed.
    pub error: Option<String>,
    /// Elements of the response.
    pub events: Option<usize>,
    /// New events.
    pub new: usize,
    /// New versions of known events.
    pub revised: usize,
    /// Elements that are not valid events.
    pub rejected: usize,
    /// Events of the response that were known.
    pub overlap: Option<usize>,
    /// Whether events may have been missed before it.
    pub possible_gap: bool,
    /// Whether the response was spread over months.
    pub sparse: bool,
}

impl RunSummary {
    pub(super) fn new(record: &RunRecord) -> Self {
        let ended = match (record.status, &record.left_to) {
            (record::Status::Failed, _) => Ended::Failed,
            (record::Status::Success, Some(_)) => Ended::LeftToAnother,
            (record::Status::Success, None) => Ended::Success,
        };
        let quantities = &record.quantities;
        let count = |quantity| quantities.count(quantity);
        Self {
            start: record.start,
            total_s: quantities.get(Quantity::TotalTime).unwrap_or(0.0),
            ended,
            error: record.errors.last().map(|error| error.message.clone()),
            events: count(Quantity::ApiEventsTotal),
            new: count(Quantity::NewEventsCount).unwrap_or(0),
            revised: count(Quantity::RevisionsCount).unwrap_or(0),
            rejected: count(Quantity::RejectedCount).unwrap_or(0),
            overlap: count(Quantity::BufferOverlap),
            possible_gap: quantities.is_set(Quantity::PossibleGap),
            sparse: quantities.is_set(Quantity::SparseResponse),
        }
    }
}
