//! Recorded responses, played back: a folder of files named by the second at which each was recorded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, bail};
use chrono::{DateTime, TimeDelta, Utc};
use collector::event::{Event, Response};

use super::changes::Changes;

/// Days between the first and the last tenth of a sparse response; an ordinary one spans a week.
const SPARSE_SPAN_DAYS: i64 = 30;
/// Events that stood behind one and are still there show that it was withdrawn: at the end of a response the order is
/// not exact.
const WITHDRAWN_DEPTH: usize = 25;

/// A history and where its playback stands.
#[derive(Debug)]
pub struct Recording {
    /// Time in seconds since 1970, and the file.
    files: Vec<(i64, PathBuf)>,
    /// How many times faster than it was recorded.
    speed: f64,
    start: DateTime<Utc>,
    current: usize,
    body: Vec<u8>,
    /// The ids of the last response that was not sparse, in its order.
    order: Vec<u64>,
    ids: BTreeSet<u64>,
    changes: Changes,
    /// Ids that came in since the first response.
    published: u64,
}

impl Recording {
    /// Reads which responses a folder holds. Playback begins with the first at its own time.
    ///
    /// # Errors
    /// If it cannot be read, or holds none.
    pub fn open(folder: &Path, speed: f64) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        find(folder, &mut files).with_context(|| format!("cannot read {}", folder.display()))?;
        files.sort();
        let Some(&(first, _)) = files.first() else {
            bail!(
                "{} holds no recorded response; they are named by their second, such as 1767225600.json",
                folder.display()
            );
        };
        let start = DateTime::from_timestamp(first, 0).context("the first recording has no time")?;
        let mut recording = Self {
            files,
            speed,
            start,
            current: 0,
            body: Vec::new(),
            order: Vec::new(),
            ids: BTreeSet::new(),
            changes: Changes::default(),
            published: 0,
        };
        recording.replay(0);
        Ok(recording)
    }

    /// When the first response was recorded.
    #[must_use]
    pub fn start(&self) -> DateTime<Utc> {
        self.start
    }

    pub(super) fn advance_to(&mut self, now: DateTime<Utc>) {
        while self.played_at(self.current + 1).is_some_and(|at| at <= now) {
            self.current += 1;
            self.replay(self.current);
        }
    }

    /// What cannot be read or parsed is passed over: the feed stays as it was. A sparse response is sent, but what the
    /// feed holds stays as it was, too: the next response shows it again.
    fn replay(&mut self, number: usize) {
        let Some(Ok(body)) = self.files.get(number).map(|(_, path)| fs::read(path)) else { return };
        let Ok(response) = Response::parse(&body) else { return };
        let events: Vec<Event> =
            response.elements().iter().filter_map(|element| element.event.as_ref().ok().copied()).collect();
        let Some(at) = self.played_at(number) else { return };
        if !is_sparse(&events) {
            let order = events.iter().filter_map(|event| event.id.to_string().parse().ok()).collect();
            self.show(order, at, number > 0);
        }
        self.body = body;
    }

    fn show(&mut self, order: Vec<u64>, at: DateTime<Utc>, counts: bool) {
        let ids: BTreeSet<u64> = order.iter().copied().collect();
        let new: Vec<u64> = ids.difference(&self.ids).copied().collect();
        self.published += if counts { new.len() as u64 } else { 0 };
        let mut behind = 0;
        for id in self.order.iter().rev() {
            if ids.contains(id) {
                behind += 1;
            } else if behind >= WITHDRAWN_DEPTH {
                self.changes.appeared.remove(id);
                self.changes.withdrawn.insert(*id);
            }
        }
        for id in new {
            self.changes.withdrawn.remove(&id);
            self.changes.appeared.insert(id, at);
        }
        (self.order, self.ids) = (order, ids);
    }

    /// When a response is played.
    fn played_at(&self, number: usize) -> Option<DateTime<Utc>> {
        let (recorded_at, _) = self.files.get(number)?;
        #[expect(clippy::cast_precision_loss, reason = "seconds of some years")]
        let after_s = (recorded_at - self.start.timestamp()) as f64 / self.speed;
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds of some years")]
        let after = TimeDelta::milliseconds((after_s * 1e3) as i64);
        Some(self.start + after)
    }

    pub(super) fn response(&self) -> Vec<u8> {
        self.body.clone()
    }

    pub(super) fn ids(&self) -> BTreeSet<u64> {
        self.ids.clone()
    }

    pub(super) fn published(&self) -> u64 {
        self.published
    }

    pub(super) fn changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }
}

fn is_sparse(events: &[Event]) -> bool {
    let mut days: Vec<_> = events.iter().map(|event| event.day).collect();
    days.sort_unstable();
    let tenth = days.len() / 10;
    let ends = days.get(tenth).zip(days.iter().nth_back(tenth));
    ends.is_some_and(|(first, last)| (*last - *first).num_days() > SPARSE_SPAN_DAYS)
}

fn find(folder: &Path, files: &mut Vec<(i64, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if let Some(second) = path.file_stem().and_then(|name| name.to_str()?.parse().ok()) {
            files.push((second, path));
        }
    }
    Ok(())
}
