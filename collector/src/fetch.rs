//! Asks the feed for a part of what it shows, by its own filters, and stores nothing.
//!
//! The filter goes to the provider instead of everything coming here. Several calls may be under way at once, as far as the
//! provider's rules allow; equal ones become one, and with a cache also those shortly after. What comes back is checked: the
//! provider's filters are not always exact.

use std::sync::Arc;

use chrono::NaiveDate;
use futures_util::FutureExt as _;
use futures_util::stream::StreamExt as _;
use rustc_hash::FxHashSet;
use serde::Serialize;
use thiserror::Error;

use crate::cache::{Cache, Content, Freshness, Origin};
use crate::concurrency::buffered;
use crate::event::{EventId, Fields, Response, ResponseError};
use crate::feed::{Feed, FetchFailure, Selection};

/// Why a selection was not answered.
#[derive(Debug, Error)]
pub enum SelectError {
    /// No response was fetched.
    #[error("{0}")]
    Fetch(Arc<FetchFailure>),
    /// What was fetched is not a valid response.
    #[error(transparent)]
    Response(#[from] ResponseError),
}

/// An event as the feed shows it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its number.
    pub id: EventId,
    /// Its local day.
    pub day: NaiveDate,
    /// Its JSON.
    pub json: Box<str>,
}

/// What asking cost, and what came that was not asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FetchCost {
    /// Selections that differ.
    pub selections: usize,
    /// Calls made, repetitions included.
    pub calls: u32,
    /// Selections that were answered without a call.
    pub from_cache: usize,
    /// Bytes of bodies, decompressed.
    pub bytes: u64,
    /// Events that were asked for, each once.
    pub found: usize,
    /// Events that came and were not asked for.
    pub not_asked_for: usize,
    /// Elements that are not valid events.
    pub rejected: usize,
}

/// The answer to several selections.
#[derive(Debug, Default)]
pub struct Selected {
    /// Each event once, in the order of the selections and of the feed.
    pub events: Vec<Shown>,
    /// Selections that were not answered.
    pub failures: Vec<(Selection, SelectError)>,
    /// What it cost.
    pub cost: FetchCost,
}

/// Asks for each selection, at most `parallel` at a time. `progress` hears how many are answered.
pub async fn select(
    feed: &Feed,
    selections: &[Selection],
    parallel: usize,
    cache: Option<&Cache>,
    mut progress: impl FnMut(usize),
) -> Selected {
    let mut seen = FxHashSet::default();
    let different: Vec<&Selection> = selections.iter().filter(|selection| seen.insert(*selection)).collect();
    let mut selected = Selected::default();
    selected.cost.selections = different.len();
    let mut ids = FxHashSet::default();
    // A recording has no filters: it is read once, and every selection looks at the same.
    let once = if matches!(feed, Feed::Http(_)) { None } else { Some(body_of(feed, cache).await) };
    let answers = different.iter().map(|&selection| {
        let once = once.clone();
        async move {
            let body = match once {
                Some(body) => body,
                None => body_of(&feed.selecting(selection), cache).await,
            };
            (selection, body)
        }
        .boxed()
    });
    let mut answers = buffered(parallel, answers);
    let mut answered = 0;
    while let Some((selection, body)) = answers.next().await {
        let outcome = match body {
            Ok(body) => selected.take(selection, &body, &mut ids),
            Err(failure) => {
                selected.cost.calls += failure.report.attempts;
                Err(SelectError::Fetch(failure))
            }
        };
        if let Err(error) = outcome {
            selected.failures.push((selection.clone(), error));
        }
        answered += 1;
        progress(answered);
    }
    selected
}

#[derive(Debug, Clone)]
struct Body {
    content: Content,
    calls: u32,
    origin: Origin,
}

async fn body_of(feed: &Feed, cache: Option<&Cache>) -> Result<Body, Arc<FetchFailure>> {
    let calls = std::sync::atomic::AtomicU32::new(0);
    let fetch = || async {
        let fetched = feed.fetch().await?;
        let made = fetched.http.map_or(0, |report| report.attempts);
        calls.store(made, std::sync::atomic::Ordering::Relaxed);
        Ok::<_, FetchFailure>(Some(fetched.body))
    };
    let (content, origin) = match (cache, feed) {
        (Some(cache), Feed::Http(http)) => {
            cache.get(http.address().as_str(), Freshness::Brief, fetch).await?
        }
        _ => (fetch().await?.map(Content::new), Origin::Source),
    };
    let calls = calls.into_inner();
    Ok(Body { content: content.unwrap_or_default(), calls, origin })
}

impl Selected {
    fn take(
        &mut self,
        selection: &Selection,
        body: &Body,
        ids: &mut FxHashSet<EventId>,
    ) -> Result<(), SelectError> {
        let cost = &mut self.cost;
        cost.calls += body.calls;
        cost.from_cache += usize::from(body.origin.is_cache());
        cost.bytes += body.content.len() as u64;
        let response = Response::parse(&body.content)?;
        for element in response.elements() {
            let line = response.line(element);
            let event = element.event.ok().zip(std::str::from_utf8(&line).ok());
            let Some((event, json)) = event else {
                cost.rejected += 1;
                continue;
            };
            if !Fields::of(json).is_ok_and(|fields| selection.accepts(event.day, &fields)) {
                cost.not_asked_for += 1;
            } else if ids.insert(event.id) {
                cost.found += 1;
                self.events.push(Shown { id: event.id, day: event.day, json: json.into() });
            }
        }
        Ok(())
    }
}
