//! Holds the tables against the archive: every event once, in its month, in its latest version, and nothing else.

use std::collections::BTreeSet;

use serde::Serialize;

use super::manifest::{Found, Manifest};
use super::month::Table;
use super::update::Update;
use super::{Attempts, Month, Tables, TablesError, TablesOptions, TablesReport};

/// What the tables hold, and what is wrong with them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TablesFindings {
    /// Months that are covered and hold something.
    pub months: usize,
    /// Rows that the tables of events should have.
    pub events: u64,
    /// Rows that the tables of revisions should have.
    pub revisions: u64,
    /// Lines of the archive that are not events. They are in no table.
    pub unreadable: u64,
    /// Objects that were committed since the tables were made. Nothing is wrong with that: the next time adds them.
    pub objects_since: usize,
    /// Months whose files do not hold what the objects hold.
    pub wrong_months: BTreeSet<Month>,
    /// What is wrong.
    pub problems: Vec<String>,
}

impl TablesFindings {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Tables {
    /// Makes all rows of the tables again in memory, of the objects that went into them, and compares.
    ///
    /// # Errors
    /// [`TablesError`] if something cannot be read.
    pub async fn verify(&self) -> Result<TablesFindings, TablesError> {
        let mut findings = TablesFindings::default();
        let stored = Manifest::read(&*self.store).await?;
        let mut named = BTreeSet::new();
        match &stored.found {
            Found::Absent => findings.blame("there are no tables; `collector tables` makes them"),
            Found::Damaged(reason) => findings.blame(format!(
                "tables/manifest.json cannot be used: {reason}; `collector tables` makes it anew"
            )),
            Found::Future(format) => {
                findings
                    .blame(format!("the tables have format {format}, of a later version of this program"));
            }
            Found::Usable(manifest) if manifest.cursor().is_none() => {
                findings.blame("the tables were never completed; `collector tables` completes them");
            }
            Found::Usable(manifest) => {
                let files = |month: &Month| Table::ALL.map(|table| month.key(table));
                named.extend(manifest.months.keys().flat_map(files));
            }
        }
        if !findings.is_sound() {
            return Ok(findings);
        }
        let options = TablesOptions { full: true, dry_run: true, ..TablesOptions::default() };
        let mut attempts = Attempts::default();
        let update = Update::begin(self, &options, true, &mut attempts, stored).await?;
        let months = update.covered();
        findings.objects_since = update.left_out();
        let report = update.carry_out().await?;
        findings.take(&report, months);
        for listed in self.store.list("tables/").await? {
            let key = listed.key.to_string();
            let is_read =
                Table::ALL.iter().any(|table| key.starts_with(&format!("tables/{}/", table.name())));
            if is_read && !named.contains(&listed.key) && !report.removed.contains(&key) {
                findings.blame(format!("{key} is not a file of the manifest, and tools that read the folder read it too; remove it"));
            }
        }
        Ok(findings)
    }
}

impl TablesFindings {
    fn blame(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    fn take(&mut self, report: &TablesReport, months: usize) {
        self.months = months;
        (self.events, self.revisions, self.unreadable) = (report.events, report.revisions, report.unreadable);
        let wrong = |key: &String| {
            let month = key.split('/').nth(2).and_then(|part| part.strip_prefix("month="))?;
            month.parse::<Month>().ok()
        };
        self.wrong_months = report.replaced.iter().chain(&report.removed).filter_map(wrong).collect();
        for key in &report.replaced {
            self.problems.push(format!("{key} is missing or does not hold what the objects hold"));
        }
        for key in &report.removed {
            self.problems.push(format!("{key} is of a month in which nothing is stored"));
        }
        for month in &self.wrong_months {
            let again =
                format!("`collector tables --full --from {month}-01 --to {month}-01` makes {month} again");
            self.problems.push(again);
        }
    }
}
