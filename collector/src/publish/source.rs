//! Reads the messages of an archive in the order of its commits, from any position on.
//!
//! Within a commit the objects follow in the order of their runs, and those of a run as events, revisions, withdrawals. So the
//! messages of an event keep their order, also where one commit holds many runs.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use rustc_hash::FxHashSet;
use tracing::warn;

use super::{Message, MessageKind, Position, PublishError};
use crate::archive::partition::WithdrawnLine;
use crate::archive::{Archive, Change, Cursor, Kind, Place, content_digest};
use crate::event::{self, EventId};
use crate::ledger::CommitKind;
use crate::store::{Key, Listed};

/// Minimum number of changes that are read of the journal at a time.
const CHANGES: usize = 256;
/// Maximum size of the objects that are read at a time, unless it is one.
const READ_BYTES: u64 = 1024 * 1024;
/// Maximum number of objects that are read at a time.
const READ_OBJECTS: usize = 256;

/// From where on messages are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// After a commit, or from the first one on.
    Commit(Option<Cursor>),
    /// After a message.
    Message(Position),
}

/// An object whose lines are published.
#[derive(Debug, Clone)]
struct Pending {
    listed: Listed,
    place: Place,
    change: Change,
    cursor: Cursor,
    number: u32,
    /// Where to begin, and the digest that its content had then.
    after: Option<(u32, String)>,
}

/// The messages of an archive.
#[derive(Debug)]
pub(super) struct Source<'a> {
    archive: &'a Archive,
    kinds: FxHashSet<MessageKind>,
    /// The last commit that was read of the journal.
    cursor: Option<Cursor>,
    pending: VecDeque<Pending>,
    waiting: VecDeque<Message>,
    /// What repairs took out of objects of events, once it matters.
    repaired: Option<Vec<Listed>>,
    /// Lines that are not events.
    pub(super) unreadable: u64,
}

impl<'a> Source<'a> {
    pub(super) async fn open(
        archive: &'a Archive,
        kinds: &[MessageKind],
        start: Start,
    ) -> Result<Self, PublishError> {
        let mut source = Self {
            archive,
            kinds: kinds.iter().copied().collect(),
            cursor: None,
            pending: VecDeque::new(),
            waiting: VecDeque::new(),
            repaired: None,
            unreadable: 0,
        };
        match start {
            Start::Commit(None) => {}
            Start::Commit(Some(cursor)) => {
                // Fails if it is not part of the history.
                archive.changes_at(&cursor).await?;
                source.cursor = Some(cursor);
            }
            Start::Message(last) => {
                source.pending = after(archive, &last).await?;
                source.cursor = Some(last.cursor);
            }
        }
        Ok(source)
    }

    /// The next messages: at most `limit` of them and `limit_bytes` together, at least one if there is one.
    pub(super) async fn next(
        &mut self,
        limit: usize,
        limit_bytes: usize,
    ) -> Result<Vec<Message>, PublishError> {
        let (mut batch, mut size_bytes) = (Vec::new(), 0);
        while batch.len() < limit {
            if self.waiting.is_empty() && !self.fill().await? {
                break;
            }
            let Some(next) = self.waiting.front() else { break };
            size_bytes += next.size_bytes();
            if size_bytes > limit_bytes && !batch.is_empty() {
                break;
            }
            batch.extend(self.waiting.pop_front());
        }
        Ok(batch)
    }

    /// Reads until there is a message. Whether there is one.
    async fn fill(&mut self) -> Result<bool, PublishError> {
        while self.waiting.is_empty() {
            if self.pending.is_empty() {
                let page = self.archive.changes(self.cursor.as_ref(), CHANGES).await?;
                self.pending = objects_of(&page.archive, page.changes).collect();
                self.cursor = Some(page.cursor);
                if self.pending.is_empty() && page.complete {
                    return Ok(false);
                }
            }
            self.read_objects().await?;
        }
        Ok(true)
    }

    async fn read_objects(&mut self) -> Result<(), PublishError> {
        let (mut together, mut size_bytes) = (Vec::new(), 0);
        while let Some(next) = self.pending.front() {
            size_bytes += next.listed.size_bytes;
            if !together.is_empty() && (size_bytes > READ_BYTES || together.len() >= READ_OBJECTS) {
                break;
            }
            together.extend(self.pending.pop_front());
        }
        let (archive, objects) = (self.archive, stream::iter(together).boxed());
        let mut reads = archive.read_in_order(None, objects, |pending: &Pending| Some(&pending.listed));
        // After an error the source is opened anew, so that nothing that was taken out of the queue is passed over.
        while let Some((pending, read)) = reads.next().await {
            let content = match read {
                Some(Ok((content, _))) => content,
                Some(Err(error)) => return Err(error.into()),
                None => None,
            };
            let content = content.ok_or_else(|| PublishError::Absent(pending.listed.key.clone()))?;
            self.take(pending, content.to_vec()).await?;
        }
        Ok(())
    }

    /// Makes messages of the lines of an object.
    async fn take(&mut self, pending: Pending, mut bytes: Vec<u8>) -> Result<(), PublishError> {
        let mut digest = content_digest(&bytes);
        if pending.place.kind == Kind::Events && self.may_be_altered(&pending, &digest).await? {
            bytes.extend_from_slice(&self.misplaced(&pending).await?);
            digest = content_digest(&bytes);
        }
        let first = match &pending.after {
            Some((_, before)) if !digest.starts_with(before.as_str()) => {
                return Err(PublishError::Altered(pending.listed.key));
            }
            Some((line, _)) => *line + 1,
            None => 0,
        };
        let Some(kind) = MessageKind::of(pending.place.kind).filter(|kind| self.kinds.contains(kind)) else {
            return Ok(());
        };
        let bytes = Bytes::from(bytes);
        let lines = || bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let count = u32::try_from(lines().count()).unwrap_or(u32::MAX);
        for (number, line) in (0_u32..).zip(lines()).skip(first as usize) {
            let Some(id) = id_of(kind, line) else {
                warn!(object = %pending.listed.key, line = number + 1, "the line is not an event and is not published");
                self.unreadable += 1;
                continue;
            };
            self.waiting.push_back(Message {
                kind,
                id,
                position: Position::new(pending.cursor.clone(), pending.number, (number, count), &digest),
                epoch: pending.change.epoch,
                committed_at: pending.change.committed_at,
                value: bytes.slice_ref(line),
            });
        }
        Ok(())
    }

    /// Whether a repair may have taken lines out of an object since it was committed.
    async fn may_be_altered(&mut self, pending: &Pending, digest: &str) -> Result<bool, PublishError> {
        if let Some(committed) = &pending.change.digest {
            return Ok(committed != digest);
        }
        // It was there before the journal.
        let stem = format!("repaired/{}", stem_of(&pending.listed.key));
        let repaired = match &mut self.repaired {
            Some(repaired) => repaired,
            unknown => unknown.insert(self.archive.store().list("repaired/events/").await?),
        };
        Ok(repaired.iter().any(|listed| listed.key.as_str().starts_with(&stem)))
    }

    /// The lines that a repair took out of an object because they belong to another day. They are stored anew there, by a commit
    /// of the repair, which is not published.
    async fn misplaced(&self, pending: &Pending) -> Result<Vec<u8>, PublishError> {
        let stem = stem_of(&pending.listed.key);
        let store = self.archive.store();
        let mut misplaced = Vec::new();
        for listed in store.list(&format!("repaired/{stem}")).await? {
            let rest = &listed.key.as_str()["repaired/".len() + stem.len()..];
            let ordinal = rest.trim_end_matches(".jsonl").trim_start_matches('-');
            if !ordinal.bytes().all(|byte| byte.is_ascii_digit()) || rest.matches('-').count() > 1 {
                continue;
            }
            let Some(object) = store.get(&listed.key).await? else { continue };
            for line in object.bytes.split(|&byte| byte == b'\n') {
                if event::parse_line(line).is_ok_and(|event| event.day != pending.place.day) {
                    misplaced.extend_from_slice(line);
                    misplaced.push(b'\n');
                }
            }
        }
        Ok(misplaced)
    }
}

/// The objects of commits whose lines are published, numbered within their commit, in the order of publishing.
///
/// A repair stores nothing new but revisions: what it moves was published by the commit that stored it first.
fn objects_of(archive: &str, changes: Vec<Change>) -> impl Iterator<Item = Pending> {
    let mut objects: Vec<Pending> = changes
        .into_iter()
        .filter_map(|change| {
            let (place, key) = (Place::of(&change.key)?, Key::new(change.key.as_str()).ok()?);
            let is_new = change.size_bytes > 0
                && change.replaces.is_none()
                && (change.kind != CommitKind::Repair || place.kind == Kind::Revisions);
            let cursor = Cursor::of_commit(archive, change.sequence, &change.commit);
            let listed = Listed { key, size_bytes: change.size_bytes };
            (is_new && place.kind != Kind::Rejected).then_some(Pending {
                listed,
                place,
                change,
                cursor,
                number: 0,
                after: None,
            })
        })
        .collect();
    objects.sort_by_cached_key(|it| {
        let (second, ordinal) = it.listed.key.run();
        (it.change.sequence, second, it.place.kind, it.place.day, ordinal)
    });
    let mut numbered = (0, 0);
    objects.into_iter().map(move |object| {
        let number = if numbered.0 == object.change.sequence { numbered.1 } else { 0 };
        numbered = (object.change.sequence, number + 1);
        Pending { number, ..object }
    })
}

/// What of the commit of a message follows after it.
async fn after(archive: &Archive, last: &Position) -> Result<VecDeque<Pending>, PublishError> {
    let changes = archive.changes_at(&last.cursor).await?;
    // Whatever became of an object whose last line was published, the next one follows.
    let is_whole = last.line + 1 == last.lines;
    let first = if is_whole { last.object + 1 } else { last.object };
    let objects = objects_of(last.cursor.archive(), changes);
    let mut rest: VecDeque<_> = objects.filter(|it| it.number >= first).collect();
    if let Some(first) = rest.front_mut().filter(|first| first.number == last.object) {
        first.after = Some((last.line, last.digest.clone()));
    }
    Ok(rest)
}

fn stem_of(key: &Key) -> &str {
    key.as_str().trim_end_matches(".jsonl")
}

fn id_of(kind: MessageKind, line: &[u8]) -> Option<EventId> {
    match kind {
        MessageKind::Withdrawal => serde_json::from_slice::<WithdrawnLine>(line).ok().map(|line| line.id),
        MessageKind::Event | MessageKind::Revision => event::parse_line(line).ok().map(|event| event.id),
    }
}
