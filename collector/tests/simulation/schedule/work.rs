//! What a process of the simulation does: it collects, imports, or repairs.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use collector::archive::{Archive, ArchiveError, Bulk, Outcome};
use collector::clock::Clock as _;
use collector::event::Response;
use collector::record::Evidence;
use collector::run::{note_deposited, stored_before};

use crate::machine::{MachineClock, TrueClock};
use crate::tape::{Answer, Tape};

/// What a collector reports to the schedule while it works.
#[derive(Debug)]
pub(super) enum Said {
    /// All of the response of this number is stored.
    Stored(usize),
    /// The response of this number has arrived.
    Fetched(usize),
    LeftToAnother,
    Failed(#[expect(dead_code, reason = "the log shows it")] String),
}

/// A process: one or several runs, one after the other.
pub(super) async fn collect(
    archive: Archive,
    clock: MachineClock,
    truth: TrueClock,
    tape: &Tape,
    runs: usize,
    evidence: Arc<Mutex<Evidence>>,
    said: Arc<Mutex<Vec<Said>>>,
) {
    let result: Result<(), ArchiveError> = async {
        let mut snapshot = None;
        for _ in 0..runs {
            let (answer, start) = (tape.at(truth.now()), clock.now());
            let response = Response::parse(&tape.answers[answer].body).unwrap();
            let events = tape.answers[answer].events.len();
            let seen = tape.answers[answer].events.iter().map(|event| (event.id, event.day));
            {
                // Events are seen when the response arrives, whatever becomes of the run.
                let mut evidence = evidence.lock().unwrap();
                evidence.note_response(start, response.elements().len(), events);
                evidence.note_unsettled(start, seen);
            }
            said.lock().unwrap().push(Said::Fetched(answer));
            let before = match snapshot.take() {
                Some(before) => before,
                None => archive.open().await?,
            };
            let deposited = archive.deposit(&response, before, start).await;
            let unsettled = evidence.lock().unwrap().unsettled_events.clone();
            let stored = stored_before(&archive, &deposited, &unsettled).await;
            note_deposited(&deposited, &response, start, &stored, &mut evidence.lock().unwrap());
            let (deposit, after) = deposited?;
            if deposit.outcome == Outcome::Stored {
                said.lock().unwrap().push(Said::Stored(answer));
                snapshot = Some(after);
            } else {
                said.lock().unwrap().push(Said::LeftToAnother);
            }
        }
        Ok(())
    }
    .await;
    if let Err(error) = result {
        said.lock().unwrap().push(Said::Failed(error.to_string()));
    }
}

/// A process: it imports what was recorded.
pub(super) async fn import(
    archive: Archive,
    tape: &'static Tape,
    answers: Range<usize>,
    said: Arc<Mutex<Vec<Said>>>,
) {
    let mut bulk = Bulk::new(&archive);
    let mut unreported = answers.start;
    let mut report = |stored: usize| {
        said.lock().unwrap().extend((unreported..answers.start + stored).map(Said::Stored));
        unreported = answers.start + stored;
    };
    let result = async {
        for answer in answers.clone() {
            let Answer { at, body, .. } = &tape.answers[answer];
            let added = bulk.add(Response::parse(body).unwrap(), *at).await;
            report(bulk.stored().responses);
            added?;
        }
        report(bulk.finish().await?.responses);
        Ok::<_, ArchiveError>(())
    };
    if let Err(error) = result.await {
        said.lock().unwrap().push(Said::Failed(error.to_string()));
    }
}

pub(super) async fn repair(archive: Archive, said: Arc<Mutex<Vec<Said>>>) {
    if let Err(error) = archive.repair(false, |_, _| {}).await {
        said.lock().unwrap().push(Said::Failed(error.to_string()));
    }
}
