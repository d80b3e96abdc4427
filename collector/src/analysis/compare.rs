//! What `BEFORE..AFTER` means: two times of one history, or records in two places.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use chrono::{DateTime, Months, NaiveDate, NaiveTime, Utc};
use thiserror::Error;

use crate::record::compact::{CompactRuns, RunSlice};
use crate::record::history::{History, Input};

/// The runs of one side.
#[derive(Debug, Clone)]
pub struct Runs<'a> {
    place: Place<'a>,
    /// The number of records that cannot be read.
    pub skipped: usize,
}

/// Where runs are held. Those of a period are borrowed: a copy of years of records would double the memory.
#[derive(Debug, Clone)]
enum Place<'a> {
    Own(CompactRuns),
    Borrowed(RunSlice<'a>),
}

impl Runs<'_> {
    /// In the order of their starts.
    #[must_use]
    pub fn all(&self) -> RunSlice<'_> {
        match &self.place {
            Place::Own(runs) => runs.all(),
            Place::Borrowed(runs) => *runs,
        }
    }
}

impl<'a> From<&'a History> for Runs<'a> {
    fn from(history: &'a History) -> Self {
        Self { place: Place::Borrowed(history.runs.all()), skipped: history.skipped.len() }
    }
}

/// What names one side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Side {
    /// Runs from then on, and earlier than then.
    Time([DateTime<Utc>; 2]),
    /// Records in another place.
    Place(PathBuf),
}

/// Why two sides cannot be compared.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompareError {
    /// A baseline must be named by letters, digits, `.`, `_` and `-`.
    #[error("`{0}` is not a name for a baseline: use letters, digits, `.`, `_` and `-`")]
    BaselineName(String),
    /// There is no baseline of that name.
    #[error("there is no baseline `{name}` in {}; saved are: {saved}", .folder.display())]
    NoBaseline {
        /// The name.
        name: String,
        /// The folder of baselines.
        folder: PathBuf,
        /// The names of those that are there.
        saved: String,
    },
    /// The text does not name two sides.
    #[error("`{0}` is not a comparison such as 2026-01..2026-02 or before/..after/ (places must exist)")]
    NotTwoSides(String),
    /// A side has no runs.
    #[error("there are no runs in {0}")]
    NoRuns(String),
    /// The records of a side cannot be read.
    #[error("cannot read the records")]
    Unreadable(#[from] io::Error),
}

/// What `BEFORE..AFTER` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sides([(String, Side); 2]);

impl FromStr for Sides {
    type Err = CompareError;

    fn from_str(text: &str) -> Result<Self, CompareError> {
        // Paths may hold `..` as well.
        let mut splits = text.match_indices("..").map(|(at, dots)| [&text[..at], &text[at + dots.len()..]]);
        let named = |name: &str| Some((name.to_owned(), side(name)?));
        let both = splits.find_map(|[before, after]| Some([named(before)?, named(after)?]));
        both.map(Self).ok_or_else(|| CompareError::NotTwoSides(text.to_owned()))
    }
}

impl Sides {
    /// Whether a side is a time of a history.
    #[must_use]
    pub fn are_in_history(&self) -> bool {
        self.0.iter().any(|(_, side)| matches!(side, Side::Time(_)))
    }

    /// The runs of both sides; `history` is where times are looked up.
    ///
    /// # Errors
    /// [`CompareError`].
    pub fn runs<'a>(&self, history: &'a History) -> Result<[Runs<'a>; 2], CompareError> {
        let [before, after] = self.0.each_ref().map(|(name, side)| {
            let runs = runs_of(side, history)?;
            if runs.all().is_empty() { Err(CompareError::NoRuns(name.clone())) } else { Ok(runs) }
        });
        let (mut before, after) = (before?, after?);
        before.skipped += history.skipped.len();
        Ok([before, after])
    }
}

fn side(text: &str) -> Option<Side> {
    let time = match text.split_once('/') {
        Some((from, to)) => period(from).zip(period(to)).map(|([from, _], [_, to])| [from, to]),
        None => period(text),
    };
    let place = || Path::new(text).exists().then(|| Side::Place(PathBuf::from(text)));
    time.map(Side::Time).or_else(place)
}

fn runs_of<'a>(side: &Side, history: &'a History) -> io::Result<Runs<'a>> {
    match side {
        Side::Time([since, until]) => {
            Ok(Runs { place: Place::Borrowed(history.runs.all().between(*since..*until)), skipped: 0 })
        }
        Side::Place(path) => {
            let History { runs, skipped } = History::read(&[Input::Path(path.clone())], Utc::now())?;
            Ok(Runs { place: Place::Own(runs), skipped: skipped.len() })
        }
    }
}

/// A day, a month, a quarter or a year (UTC): when it begins, and when the next one does.
#[must_use]
pub fn period(text: &str) -> Option<[DateTime<Utc>; 2]> {
    let day = |text: &str| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let (from, to) = match text.len() {
        10 => {
            let from = day(text)?;
            (from, from.succ_opt()?)
        }
        7 => {
            let from = day(&format!("{text}-01"))?;
            (from, from.checked_add_months(Months::new(1))?)
        }
        6 => {
            let (year, quarter) = text.split_once('Q')?;
            let quarter: u32 = quarter.parse().ok().filter(|quarter| (1..=4).contains(quarter))?;
            let year = Some(year).filter(|year| year.len() == 4)?;
            let from = day(&format!("{year}-{:02}-01", quarter * 3 - 2))?;
            (from, from.checked_add_months(Months::new(3))?)
        }
        4 => {
            let from = day(&format!("{text}-01-01"))?;
            (from, from.checked_add_months(Months::new(12))?)
        }
        _ => return None,
    };
    Some([from, to].map(|day| day.and_time(NaiveTime::MIN).and_utc()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RunRecord;

    #[test]
    fn sides_are_times_or_places() {
        let shown = |text: &str| side(text).map(|side| format!("{side:?}"));
        assert!(shown("2026-01").unwrap().contains("2026-01-01T00:00:00Z, 2026-02-01T00:00:00Z"));
        assert!(shown("2026-01-30/2026-02").unwrap().contains("2026-01-30T00:00:00Z, 2026-03-01T00:00:00Z"));
        assert!(shown("2025").unwrap().contains("2026-01-01"));
        assert!(shown("2026Q1").unwrap().contains("2026-01-01T00:00:00Z, 2026-04-01T00:00:00Z"));
        assert!(shown("2026Q4").unwrap().contains("2026-10-01T00:00:00Z, 2027-01-01T00:00:00Z"));
        assert_eq!((side("2026Q5"), side("2026Q0"), side("26Q001")), (None, None, None));
        assert_eq!(side("."), Some(Side::Place(".".into())));
        assert_eq!(side("../.."), Some(Side::Place("../..".into())));
        assert_eq!((side("2026-13"), side("no such place"), side("")), (None, None, None));
        assert!("2026-01".parse::<Sides>().is_err());
        assert!("2026-01..2026-02".parse::<Sides>().unwrap().are_in_history());
        assert!(!"../.....".parse::<Sides>().unwrap().are_in_history());
    }

    #[test]
    fn periods_are_not_copied() {
        let at = |text: &str| RunRecord::new(text.parse().unwrap());
        let starts =
            ["2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z", "2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z"];
        let history = History { runs: starts.map(at).into_iter().collect(), skipped: Vec::new() };
        let sides: Sides = "2026-01..2026-02".parse().unwrap();
        let both = sides.runs(&history).unwrap();
        let starts_of = both.map(|side| match side.place {
            Place::Borrowed(runs) => runs.iter().map(|run| run.start).collect::<Vec<_>>(),
            Place::Own(_) => panic!("runs of a period are copied"),
        });
        assert_eq!(
            starts_of,
            [&starts[1..3], &starts[3..]].map(|side| side.iter().map(|it| at(it).start).collect::<Vec<_>>())
        );
        // The end of the first period is before its beginning.
        let reversed: Sides = "2026-02/2025..2026-02".parse().unwrap();
        assert!(matches!(reversed.runs(&history), Err(CompareError::NoRuns(_))));
    }
}
