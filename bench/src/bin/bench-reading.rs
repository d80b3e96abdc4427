//! What it costs to read an archive: by day, week, month and year, far away, again, and all at once.

#![expect(
    clippy::cast_precision_loss,
    reason = "counts of objects and bytes, far below where a double is not exact"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bench::Case;
use bench::catalog::archive::{LATENCY, PARALLEL, Span, archive_in, count, distant, virtual_time};
use bench::year::{Distant, Year};
use chrono::NaiveDate;
use clap::Parser;
use collector::cache::{Cache, CacheMetrics, CacheOptions};
use collector::clock::SystemClock;
use collector::event::{EventId, Response};
use collector::query::{Cost, Filter, Query};
use collector::store::{MemoryStore, SharedStore};
use collector::tables::{Tables, TablesOptions};
use futures_util::future::join_all;
use serde::Serialize;

/// Measures what it costs to read a year of events: partitions, a store 200 ms away, the cache, many look-ups at once.
///
/// Latency passes in virtual time, so a year's reading one by one does not take an hour; the time of this machine is not in it.
#[derive(Debug, Parser)]
#[command(version)]
struct CommandLine {
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    /// End with 1 if something is worse than it has to be.
    #[arg(long)]
    check: bool,
    /// Write the year as an archive into this folder, and measure nothing.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// With --write: spread the same number of events over some years.
    #[arg(long, value_name = "N", requires = "write", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=50))]
    years: u16,
}

fn main() -> anyhow::Result<ExitCode> {
    let CommandLine { json, check, write, years } = CommandLine::parse();
    if let Some(folder) = write {
        let written = Year::make(years);
        written.write(&folder)?;
        let Year { objects, ids } = written;
        writeln!(io::stdout(), "{} events in {} objects in {}", ids.len(), objects.len(), folder.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    let measured = Measured::take()?;
    let text = if json { serde_json::to_string_pretty(&measured)? + "\n" } else { measured.to_text() };
    io::stdout().write_all(text.as_bytes())?;
    let faults = measured.faults();
    for fault in &faults {
        writeln!(io::stderr(), "error: {fault}")?;
    }
    Ok(if check && !faults.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What a query of some days costs, against reading everything.
#[derive(Debug, Serialize)]
struct Partition {
    span: &'static str,
    found: usize,
    cost: Cost,
    /// How many times fewer objects and bytes are read than there are.
    fewer_objects: f64,
    fewer_bytes: f64,
}

/// How long some days take from far away.
#[derive(Debug, Serialize)]
struct Far {
    span: &'static str,
    requests: usize,
    sequential_s: f64,
    concurrent_s: f64,
    /// The lower bound: the listing, then all other requests at the given concurrency.
    bound_s: f64,
    times: f64,
}

/// How long an answer from tables takes from far away.
#[derive(Debug, Serialize)]
struct FromTables {
    query: &'static str,
    found: usize,
    requests: usize,
    seconds: f64,
    max_seconds: f64,
}

/// A month asked for ten times.
#[derive(Debug, Serialize)]
struct Again {
    first_s: f64,
    /// The mean of the other nine.
    repeated_s: f64,
    /// The same in the time of this machine, in milliseconds.
    repeated_ms_here: f64,
    requests_without: usize,
    requests_with: usize,
    cache: CacheMetrics,
    hit_rate: f64,
}

/// Events looked up by their numbers.
#[derive(Debug, Serialize)]
struct LookUps {
    events: usize,
    one_by_one: usize,
    at_once: usize,
    at_once_s: f64,
}

#[derive(Debug, Serialize)]
struct Measured {
    events: usize,
    objects: usize,
    latency_s: f64,
    parallel: usize,
    partitions: Vec<Partition>,
    far: Vec<Far>,
    from_tables: Vec<FromTables>,
    again: Again,
    /// Requests to the store of a hundred equal queries for a day at once, and of one.
    hundred_at_once: (usize, usize),
    look_ups: Vec<LookUps>,
    /// A first run's 500 events over their days, objects written one by one and several at a time.
    first_run_s: (f64, f64),
}

impl Measured {
    fn take() -> anyhow::Result<Self> {
        let Year { objects, ids } = Year::shared();
        Ok(Self {
            events: ids.len(),
            objects: objects.len(),
            latency_s: LATENCY.as_secs_f64(),
            parallel: PARALLEL,
            partitions: partitions()?,
            far: far()?,
            from_tables: from_tables()?,
            again: again()?,
            hundred_at_once: hundred_at_once()?,
            look_ups: look_ups()?,
            first_run_s: (first_run(1)?, first_run(PARALLEL)?),
        })
    }

    /// What is worse than it has to be.
    fn faults(&self) -> Vec<String> {
        let Self { far, from_tables, again, hundred_at_once, partitions, look_ups, .. } = self;
        let mut faults = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                faults.push(what);
            }
        };
        for Far { span, sequential_s, concurrent_s, times, .. } in far {
            must(
                *times >= 3.0,
                format!("a {span}: {concurrent_s} s is not 3 times as fast as {sequential_s} s"),
            );
        }
        for FromTables { query, seconds, max_seconds, .. } in from_tables {
            must(
                seconds <= max_seconds,
                format!("{query} from tables takes {seconds} s, not {max_seconds} s"),
            );
        }
        must(again.hit_rate > 0.7, format!("the hit rate is {}", again.hit_rate));
        must(again.repeated_s <= again.first_s / 2.0, format!("again takes {} s", again.repeated_s));
        let fewer = again.requests_with * 10 <= again.requests_without * 7;
        must(fewer, format!("{} requests of {}", again.requests_with, again.requests_without));
        must(hundred_at_once.0 == hundred_at_once.1, format!("{hundred_at_once:?} requests at once"));
        for (Partition { span, fewer_bytes, .. }, least) in partitions.iter().zip([200.0, 40.0, 10.0, 1.0]) {
            must(*fewer_bytes >= least, format!("a {span} reads {fewer_bytes} times fewer bytes"));
        }
        for LookUps { events, one_by_one, at_once, .. } in look_ups {
            must(at_once <= one_by_one, format!("{events} look-ups at once take {at_once} requests"));
        }
        faults
    }

    fn to_text(&self) -> String {
        let Self { events, objects, latency_s, parallel, .. } = self;
        let mut text = format!("A year: {events} events in {objects} objects\n\n");
        let _ = writeln!(
            text,
            "{:<8}{:>8}{:>10}{:>8}{:>10}{:>12}{:>10}{:>10}",
            "span", "events", "listings", "listed", "read", "bytes", "objects", "bytes"
        );
        for Partition { span, found, cost, fewer_objects, fewer_bytes } in &self.partitions {
            let Cost { listings, objects_listed, objects_read, bytes_read, .. } = cost;
            let _ = writeln!(
                text,
                "{span:<8}{found:>8}{listings:>10}{objects_listed:>8}{objects_read:>10}{bytes_read:>12}{fewer_objects:>9.1}x{fewer_bytes:>9.1}x"
            );
        }
        let _ = writeln!(text, "\nA store {latency_s} s away, {parallel} requests at a time\n");
        let _ = writeln!(
            text,
            "{:<8}{:>10}{:>14}{:>14}{:>10}{:>9}",
            "span", "requests", "one by one", "concurrent", "bound", "times"
        );
        for Far { span, requests, sequential_s, concurrent_s, bound_s, times } in &self.far {
            let _ = writeln!(
                text,
                "{span:<8}{requests:>10}{sequential_s:>12.1} s{concurrent_s:>12.1} s{bound_s:>8.1} s{times:>8.1}x"
            );
        }
        text.push('\n');
        for FromTables { query, found, requests, seconds, .. } in &self.from_tables {
            let _ =
                writeln!(text, "From tables, {query}: {seconds:.1} s, {requests} requests, {found} events");
        }
        let Again {
            first_s, repeated_s, repeated_ms_here, requests_without, requests_with, hit_rate, ..
        } = &self.again;
        let _ = writeln!(
            text,
            "\nA month ten times: first {first_s:.1} s, then {repeated_s:.1} s (and {repeated_ms_here:.1} ms of this machine); \
             {requests_with} requests instead of {requests_without}, hit rate {:.0} %",
            hit_rate * 100.0
        );
        let (together, alone) = self.hundred_at_once;
        let _ = writeln!(text, "A hundred equal queries of a day at once: {together} requests; one: {alone}");
        for LookUps { events, one_by_one, at_once, at_once_s } in &self.look_ups {
            let _ = writeln!(
                text,
                "Look-ups by number, {events:>3}: {at_once} requests at once ({at_once_s:.1} s), {one_by_one} one by one"
            );
        }
        let (sequential_s, concurrent_s) = self.first_run_s;
        let _ = writeln!(
            text,
            "A first run with 500 events: {sequential_s:.1} s one by one, {concurrent_s:.1} s several at a time"
        );
        text
    }
}

fn partitions() -> anyhow::Result<Vec<Partition>> {
    let runtime = virtual_time()?;
    runtime.block_on(async {
        let archive = distant(Duration::ZERO, PARALLEL).await;
        let cost_of = async |query: &Query| {
            let mut answer = archive.query(query);
            while answer.next().await.is_some() {}
            answer.cost()
        };
        let all = cost_of(&Query::default()).await;
        let mut partitions = Vec::new();
        for span in Span::ALL {
            let cost = cost_of(&span.query()).await;
            partitions.push(Partition {
                span: span.name(),
                found: cost.found,
                cost,
                fewer_objects: ratio(all.objects_read, cost.objects_read),
                fewer_bytes: all.bytes_read as f64 / cost.bytes_read as f64,
            });
        }
        Ok(partitions)
    })
}

fn ratio(one: usize, other: usize) -> f64 {
    one as f64 / other.max(1) as f64
}

/// What a query finds.
type Events = BTreeSet<(NaiveDate, EventId)>;

/// What a query finds, what it costs, and how long that takes from far away.
fn from_far(query: &Query, parallel: usize) -> anyhow::Result<(Events, Cost, f64)> {
    virtual_time()?.block_on(async {
        let archive = distant(LATENCY, parallel).await;
        let since = tokio::time::Instant::now();
        let (mut answer, mut found) = (archive.query(query), BTreeSet::new());
        while let Some(event) = answer.next().await {
            let event = event?;
            ensure!(found.insert((event.day, event.id)), "{} was returned twice", event.id);
        }
        Ok((found, answer.cost(), since.elapsed().as_secs_f64()))
    })
}

fn far() -> anyhow::Result<Vec<Far>> {
    let mut rows = Vec::new();
    for span in Span::ALL {
        let (one_by_one, _, sequential_s) = from_far(&span.query(), 1)?;
        let (concurrent, cost, concurrent_s) = from_far(&span.query(), PARALLEL)?;
        ensure!(one_by_one == concurrent, "a {} has other events when it is read at once", span.name());
        let rounds = cost.listings.div_ceil(PARALLEL) + cost.objects_read.div_ceil(PARALLEL);
        rows.push(Far {
            span: span.name(),
            requests: cost.requests(),
            sequential_s,
            concurrent_s,
            bound_s: rounds as f64 * LATENCY.as_secs_f64(),
            times: sequential_s / concurrent_s,
        });
    }
    Ok(rows)
}

/// Tables of the year, asked from far away; the answers are those of the objects.
fn from_tables() -> anyhow::Result<Vec<FromTables>> {
    let runtime = virtual_time()?;
    let text = Filter { text: Some("mordbrand".to_owned()), ..Filter::default() };
    let by_text = |span: Span| Query { filter: text.clone(), ..span.query() };
    runtime.block_on(async {
        let store = Year::shared().in_memory().await;
        let near = archive_in(Arc::clone(&store), PARALLEL);
        near.repair(false, |_, _| ()).await?;
        Tables::new(near.clone(), Arc::clone(&store)).update(&TablesOptions::default()).await?;
        let distant: SharedStore = Arc::new(Distant::new(store, LATENCY));
        let far = archive_in(Arc::clone(&distant), PARALLEL).with_tables(distant);
        let mut rows = Vec::new();
        for (name, query, max_seconds) in [
            ("a year by text", by_text(Span::Year), 3.0),
            ("a month by text", by_text(Span::Month), 1.5),
            ("a month", Span::Month.query(), 1.5),
        ] {
            let since = tokio::time::Instant::now();
            let (mut answer, mut found) = (far.query(&query), 0);
            while let Some(event) = answer.next().await {
                event?;
                found += 1;
            }
            let seconds = since.elapsed().as_secs_f64();
            ensure!(!answer.tables().months.is_empty(), "{name}: the tables were not used");
            ensure!(found == count(&near, &query).await, "{name}: the objects hold other events");
            rows.push(FromTables {
                query: name,
                found,
                requests: answer.cost().requests(),
                seconds,
                max_seconds,
            });
        }
        Ok(rows)
    })
}

fn again() -> anyhow::Result<Again> {
    const TIMES: u32 = 10;
    virtual_time()?.block_on(async {
        let cache = Arc::new(Cache::new(CacheOptions::default(), Arc::new(SystemClock::default())));
        let archive = distant(LATENCY, PARALLEL).await.with_cache(Arc::clone(&cache));
        let (mut times, mut here, mut requests) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TIMES {
            let (since, since_here) = (tokio::time::Instant::now(), Instant::now());
            let mut answer = archive.query(&Span::Month.query());
            while let Some(event) = answer.next().await {
                event?;
            }
            times.push(since.elapsed().as_secs_f64());
            here.push(since_here.elapsed().as_secs_f64() * 1e3);
            requests.push(answer.cost().requests());
        }
        let mean_of_rest = |values: &[f64]| values[1..].iter().sum::<f64>() / f64::from(TIMES - 1);
        let cache = cache.metrics().await;
        Ok(Again {
            first_s: times[0],
            repeated_s: mean_of_rest(&times),
            repeated_ms_here: mean_of_rest(&here),
            requests_without: requests[0] * TIMES as usize,
            requests_with: requests.iter().sum(),
            cache,
            hit_rate: cache.hit_rate().unwrap_or_default(),
        })
    })
}

fn hundred_at_once() -> anyhow::Result<(usize, usize)> {
    virtual_time()?.block_on(async {
        let cache = || Arc::new(Cache::new(CacheOptions::default(), Arc::new(SystemClock::default())));
        let query = Span::Day.query();
        let mut requests = Vec::new();
        for clients in [100, 1] {
            let cache = cache();
            let archive = distant(LATENCY, PARALLEL).await.with_cache(Arc::clone(&cache));
            let found = join_all((0..clients).map(|_| count(&archive, &query))).await;
            ensure!(
                found[0] > 0 && found.iter().all(|&count| count == found[0]),
                "answers differ: {found:?}"
            );
            requests.push(usize::try_from(cache.metrics().await.misses)?);
        }
        Ok((requests[0], requests[1]))
    })
}

fn look_ups() -> anyhow::Result<Vec<LookUps>> {
    let ids = &Year::shared().ids;
    let mut rows = Vec::new();
    for events in [1, 10, 100] {
        let wanted: Vec<EventId> =
            (0..events).map(|number| ids[(number * 7_919 + 4_711) % ids.len()]).collect();
        let row = virtual_time()?.block_on(async {
            let archive = distant(LATENCY, PARALLEL).await;
            let mut one_by_one = 0;
            for &id in &wanted {
                one_by_one += archive.get_many([id]).await.cost.requests();
            }
            let since = tokio::time::Instant::now();
            let found = archive.get_many(wanted.iter().copied()).await;
            ensure!(found.found.len() == wanted.len(), "{} of {events} were found", found.found.len());
            let (at_once, at_once_s) = (found.cost.requests(), since.elapsed().as_secs_f64());
            Ok(LookUps { events, one_by_one, at_once, at_once_s })
        });
        rows.push(row?);
    }
    Ok(rows)
}

/// The virtual time of a run that stores all of a full response.
fn first_run(parallel: usize) -> anyhow::Result<f64> {
    let case = Case::new(500, 500);
    virtual_time()?.block_on(async {
        let store = Arc::new(Distant::new(Arc::new(MemoryStore::default()), LATENCY));
        let archive = archive_in(store, parallel);
        let since = tokio::time::Instant::now();
        let response = Response::parse(&case.body)?;
        let snapshot = archive.open().await?;
        archive.deposit(&response, snapshot, case.at).await?;
        Ok(since.elapsed().as_secs_f64())
    })
}
