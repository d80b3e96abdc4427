//! What a process does: it collects, updates a replica, promotes it, or reconciles.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use chrono::{DateTime, Utc};
use collector::archive::{Archive, ArchiveError, Liveness, Outcome};
use collector::event::Response;
use collector::mirror::adopt::{OldPrimary, adopt};
use collector::mirror::{Mirror, MirrorError, MirrorOptions};

use crate::store::ScheduledStore;
use crate::tape::Tape;

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Collect(usize),
    Update(usize, usize),
    Adopt(usize),
    Reconcile(usize, usize),
}

/// What a process reports.
#[derive(Debug)]
pub(crate) enum Said {
    /// All of the response of this number is stored.
    Stored(usize),
    LeftToAnother,
    /// The replica is the primary; whether the old one is known to be fenced.
    Adopted(bool),
    /// The replica holds everything; whether that is so.
    Updated(bool),
    Failed(String),
}

/// Knows the dead, or knows nothing of them, as on another machine.
#[derive(Debug)]
pub(crate) struct Census {
    pub(crate) name: String,
    pub(crate) dead: Arc<Mutex<BTreeSet<String>>>,
}

impl Liveness for Census {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_gone(&self, owner: &str) -> bool {
        self.dead.lock().unwrap().contains(owner)
    }
}

pub(crate) type Work = Pin<Box<dyn Future<Output = Said>>>;

pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) task: Task,
    /// The position of its beginning among all processes.
    pub(crate) started: usize,
    pub(crate) stores: [ScheduledStore; 2],
    pub(crate) work: Work,
}

impl Process {
    /// Lets it work until it waits. What it reports, if it has ended.
    pub(crate) fn poll(&mut self) -> Option<Said> {
        match self.work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(said) => Some(said),
            std::task::Poll::Pending => None,
        }
    }
}

/// What a process of a task does with the archives of both regions.
pub(crate) fn work(task: Task, archives: [Archive; 2], tape: &'static Tape, now: DateTime<Utc>) -> Work {
    let options = MirrorOptions::default();
    match task {
        Task::Collect(region) => Box::pin(async move {
            match collect(&archives[region], tape, now).await {
                Ok(said) => said,
                Err(error) => Said::Failed(error.to_string()),
            }
        }),
        Task::Update(from, to) => Box::pin(async move {
            let mirror = Mirror::new(archives[from].clone(), archives[to].clone(), options);
            match mirror.update(|_| {}).await {
                Ok(report) if report.conflicts_total > 0 => Said::Failed(format!("{:?}", report.conflicts)),
                Ok(report) => Said::Updated(report.is_complete()),
                Err(error) => failed(&error),
            }
        }),
        Task::Adopt(region) => Box::pin(async move {
            match adopt(&archives[region], Some(&archives[1 - region]), None, false).await {
                Ok(adopted) => Said::Adopted(adopted.fence == OldPrimary::Fenced),
                Err(error) => failed(&error),
            }
        }),
        Task::Reconcile(from, to) => Box::pin(async move {
            let mirror = Mirror::new(archives[from].clone(), archives[to].clone(), options);
            match mirror.reconcile(|_| {}).await {
                Ok(result) if result.mirror.conflicts_total > 0 => {
                    Said::Failed(format!("{:?}", result.mirror.conflicts))
                }
                Ok(result) => Said::Updated(result.mirror.is_complete()),
                Err(error) => failed(&error),
            }
        }),
    }
}

fn failed(error: &MirrorError) -> Said {
    Said::Failed(error.to_string())
}

async fn collect(archive: &Archive, tape: &Tape, start: DateTime<Utc>) -> Result<Said, ArchiveError> {
    let answer = tape.at(start);
    let response = Response::parse(&tape.answers[answer].body).unwrap();
    let snapshot = archive.open().await?;
    let (deposit, _) = archive.deposit(&response, snapshot, start).await?;
    Ok(if deposit.outcome == Outcome::Stored { Said::Stored(answer) } else { Said::LeftToAnother })
}
