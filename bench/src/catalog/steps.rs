//! The steps of a run, and the whole from a response's bytes to the archive's lines.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate};
use collector::archive::{Archive, ArchiveOptions, objects_of};
use collector::clock::{SharedClock, SystemClock, VirtualClock};
use collector::event::Response;
use collector::import::{find_recordings, import};
use collector::ledger::{Classification, LedgerDocument};
use collector::store::{LocalStore, MemoryStore};

use super::{Entry, Throughput, Work, entries};
use crate::{Case, OwnedEvent};

pub(super) const ENTRIES: &[Entry] = entries![
    "date_group"/"chrono"/"500", Elements(500), group_by_chrono(500);
    "date_group"/"chrono"/"5000", Elements(5_000), group_by_chrono(5_000);
    "date_group"/"collector"/"500", Elements(500), group_in_place(500);
    "date_group"/"collector"/"5000", Elements(5_000), group_in_place(5_000);
    "jsonl"/"serde"/"500", Elements(500), lines_by_serde(500);
    "jsonl"/"serde"/"5000", Elements(5_000), lines_by_serde(5_000);
    "jsonl"/"collector"/"500", Elements(500), lines_in_place(500);
    "jsonl"/"collector"/"5000", Elements(5_000), lines_in_place(5_000);
    "metadata"/"parse"/"1000", Elements(1_000), parse_ledger();
    "metadata"/"serialize"/"1000", Elements(1_000), serialize_ledger();
    "ledger"/"find"/"500", Elements(500), classify(500);
    "ledger"/"find"/"5000", Elements(5_000), classify(5_000);
    "ledger"/"apply"/"500", Elements(500), apply_news(500);
    "import"/"day"/"48", Elements(48), import_day();
    "import"/"disk"/"500", Elements(500), import_on_disk(500);
    "pipeline"/"all_seen"/"500", Elements(500), pipeline(500, 0);
    "pipeline"/"all_seen"/"5000", Elements(5_000), pipeline(5_000, 0);
    "pipeline"/"all_seen"/"50000", Elements(50_000), pipeline(50_000, 0);
    "pipeline"/"two_new"/"500", Elements(500), pipeline(500, 2);
    "pipeline"/"two_new"/"5000", Elements(5_000), pipeline(5_000, 2);
    "pipeline"/"two_new"/"50000", Elements(50_000), pipeline(50_000, 2);
    "pipeline"/"all_new"/"500", Elements(500), pipeline(500, 500);
    "pipeline"/"all_new"/"5000", Elements(5_000), pipeline(5_000, 5_000);
    "pipeline"/"all_new"/"50000", Elements(50_000), pipeline(50_000, 50_000);
];

fn pipeline(buffer: usize, new: usize) -> Work {
    let case = Case::new(buffer, new);
    Box::new(move || _ = black_box(case.objects()))
}

/// As the documents have it: parse each `datetime`, group by its date.
fn group_by_chrono(count: usize) -> Work {
    let events = owned(count);
    Box::new(move || {
        let mut days: BTreeMap<NaiveDate, Vec<&OwnedEvent>> = BTreeMap::new();
        for event in black_box(&events) {
            let day = DateTime::parse_from_str(&event.datetime, "%Y-%m-%d %k:%M:%S %:z");
            days.entry(day.unwrap_or_default().date_naive()).or_default().push(event);
        }
        black_box(days.len());
    })
}

/// The day is known from reading; what is left is grouping.
fn group_in_place(count: usize) -> Work {
    let body: &'static [u8] = Case::new(count, count).body.leak();
    let elements = Response::parse(body).map(|response| response.elements().to_vec()).unwrap_or_default();
    Box::new(move || {
        let mut days: BTreeMap<NaiveDate, Vec<usize>> = BTreeMap::new();
        for (position, element) in black_box(&elements).iter().enumerate() {
            if let Ok(event) = element.event {
                days.entry(event.day).or_default().push(position);
            }
        }
        black_box(days.len());
    })
}

fn lines_by_serde(count: usize) -> Work {
    let events = owned(count);
    Box::new(move || {
        let mut lines = Vec::new();
        for event in black_box(&events) {
            let _ = serde_json::to_writer(&mut lines, event);
            lines.push(b'\n');
        }
        black_box(lines.len());
    })
}

fn lines_in_place(count: usize) -> Work {
    let case: &'static Case = Box::leak(Box::new(Case::new(count, count)));
    let Ok(response) = Response::parse(&case.body) else { return Box::new(|| ()) };
    let classified = Classification::find(&response, &case.ledger, case.at);
    Box::new(move || _ = black_box(objects_of(&response, black_box(&classified), case.at, "")))
}

fn owned(count: usize) -> Vec<OwnedEvent> {
    serde_json::from_slice(&Case::new(count, count).body).unwrap_or_default()
}

fn parse_ledger() -> Work {
    let document = crate::full_ledger().to_document();
    Box::new(move || _ = black_box(LedgerDocument::parse(black_box(&document))))
}

fn serialize_ledger() -> Work {
    let ledger = crate::full_ledger();
    Box::new(move || _ = black_box(black_box(&ledger).to_document()))
}

fn classify(count: usize) -> Work {
    let case: &'static Case = Box::leak(Box::new(Case::new(count, 2)));
    let Ok(response) = Response::parse(&case.body) else { return Box::new(|| ()) };
    Box::new(move || _ = black_box(Classification::find(black_box(&response), &case.ledger, case.at)))
}

fn apply_news(count: usize) -> Work {
    let case: &'static Case = Box::leak(Box::new(Case::new(count, 2)));
    let Ok(response) = Response::parse(&case.body) else { return Box::new(|| ()) };
    let classified = Classification::find(&response, &case.ledger, case.at);
    Box::new(move || _ = black_box(black_box(&classified).apply(&response, &case.ledger, case.at)))
}

/// A day of responses, half an hour apart, into an archive in memory.
fn import_day() -> Work {
    let recordings = crate::responses(48);
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return Box::new(|| ()) };
    Box::new(move || {
        runtime.block_on(async {
            let clock = Arc::new(VirtualClock::at(recordings[0].0));
            let archive =
                Archive::new(Arc::new(MemoryStore::default()), clock.clone(), ArchiveOptions::default());
            for (at, body) in &recordings {
                clock.set(*at);
                let (Ok(response), Ok(snapshot)) = (Response::parse(body), archive.open().await) else {
                    return;
                };
                let _ = black_box(archive.deposit(&response, snapshot, *at).await);
            }
        });
    })
}

/// The bulk import of recorded responses, durable, from files into an empty folder on disk: the processor's part and the syncs.
fn import_on_disk(count: usize) -> Work {
    let prepared = || {
        let folder = tempfile::tempdir()?;
        for (at, body) in crate::responses(count) {
            std::fs::write(folder.path().join(format!("{}.json", at.timestamp())), body)?;
        }
        let recordings = find_recordings(&[folder.path().to_owned()], |_| ()).map_err(io::Error::other)?;
        Ok::<_, io::Error>((folder, recordings, collector::run::runtime()?))
    };
    let Ok((folder, recordings, runtime)) = prepared() else { return Box::new(|| ()) };
    Box::new(move || {
        let Ok(home) = tempfile::tempdir_in(folder.path()) else { return };
        let clock: SharedClock = Arc::new(SystemClock::default());
        let store = Arc::new(LocalStore::new(home.path().join("data")));
        let archive = Archive::new(store, Arc::clone(&clock), ArchiveOptions::default());
        let _ = black_box(runtime.block_on(import(&archive, &clock, &recordings, |_| ())));
    })
}
