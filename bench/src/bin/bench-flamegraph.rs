//! Draws where a bench, or a whole run with HTTP, spends its time: a flame graph as SVG.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use bench::catalog::{catalog, find};
use chrono::{DateTime, Utc};
use clap::Parser;
use clap::builder::{PathBufValueParser, TypedValueParser as _};
use collector::archive::{Archive, ArchiveOptions};
use collector::clock::VirtualClock;
use collector::feed::{CallLimits, Feed, FeedOptions, Source};
use collector::files::writable;
use collector::record::RecordPaths;
use collector::run::Collector;
use collector::store::LocalStore;
use tempfile::TempDir;

/// Samples a second; a prime, so as not to keep step with anything.
const FREQUENCY: i32 = 997;

/// One iteration.
type Work = Box<dyn FnMut() -> anyhow::Result<()>>;

/// Draws where a bench, or a whole run, spends its time, as a flame graph (SVG).
#[derive(Debug, Parser)]
#[command(version)]
struct CommandLine {
    /// A bench such as `pipeline/two_new/500`, or `run`: a run with HTTP over loopback and a local folder.
    what: String,
    /// Where the graph goes.
    #[arg(value_parser = PathBufValueParser::new().try_map(writable))]
    svg: PathBuf,
    /// For how many seconds it is repeated.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

fn main() -> anyhow::Result<()> {
    let CommandLine { what, svg, seconds } = CommandLine::parse();
    let mut work = if what == "run" { whole_run()? } else { bench(&what)? };
    work()?;
    let profiler = pprof::ProfilerGuardBuilder::default()
        .frequency(FREQUENCY)
        .blocklist(&["libc", "libgcc", "pthread", "vdso"])
        .build()
        .context("nothing can be sampled")?;
    let (began, mut times) = (Instant::now(), 0_u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        work()?;
        times += 1;
    }
    let report = profiler.report().build().context("the samples cannot be read")?;
    let samples: isize = report.data.values().sum();
    let file = File::create(&svg).with_context(|| format!("cannot write {}", svg.display()))?;
    report.flamegraph(file).context("the graph cannot be drawn")?;
    writeln!(io::stdout(), "{}: {what}, {times} times, {samples} samples", svg.display())?;
    Ok(())
}

fn bench(id: &str) -> anyhow::Result<Work> {
    let entry = find(id).with_context(|| {
        let ids: Vec<String> = catalog().iter().map(bench::catalog::Entry::id).collect();
        format!("there is no bench {id}; there are `run` and\n  {}", ids.join("\n  "))
    })?;
    let mut work = (entry.prepare)();
    Ok(Box::new(move || {
        work();
        Ok(())
    }))
}

/// A day of runs, half an hour apart, over and over: each iteration is a run.
fn whole_run() -> anyhow::Result<Work> {
    let responses = bench::responses(48);
    let times: Vec<DateTime<Utc>> = responses.iter().map(|(at, _)| *at).collect();
    let url = serve(responses.into_iter().map(|(_, body)| body).collect())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut today: Option<(Day, std::vec::IntoIter<DateTime<Utc>>)> = None;
    Ok(Box::new(move || {
        let next = today.as_mut().and_then(|(_, times)| times.next());
        let at = next.or_else(|| times.first().copied()).unwrap_or_default();
        if next.is_none() {
            today =
                Some((Day::begin(&url, at)?, times.iter().skip(1).copied().collect::<Vec<_>>().into_iter()));
        }
        let Some((day, _)) = &today else { return Ok(()) };
        day.clock.set(at);
        runtime.block_on(day.collector.run()).result?;
        Ok(())
    }))
}

/// A collector with an archive of its own.
struct Day {
    collector: Collector,
    clock: Arc<VirtualClock>,
    _folder: TempDir,
}

impl Day {
    fn begin(url: &str, at: DateTime<Utc>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let clock = Arc::new(VirtualClock::at(at));
        let options = FeedOptions {
            user_agent: "polisen-events-collector (flamegraph)".to_owned(),
            timeout: Duration::from_secs(10),
            retries: 0,
            limits: CallLimits::POLISEN,
            instance: "flamegraph".to_owned(),
            ..FeedOptions::new(folder.path().join("state"))
        };
        let source = Source::parse(url).map_err(|error| anyhow!(error))?;
        let store = Arc::new(LocalStore::new(folder.path().join("data")));
        let collector = Collector {
            feed: Feed::new(&source, options, clock.clone())?,
            archive: Archive::new(store, clock.clone(), ArchiveOptions::default()),
            paths: RecordPaths {
                metrics_dir: folder.path().join("metrics"),
                health_file: folder.path().join("health.json"),
            },
            clock: clock.clone(),
        };
        Ok(Self { collector, clock, _folder: folder })
    }
}

/// Answers each connection with the next response, over and over, on a thread of its own.
fn serve(bodies: Vec<Vec<u8>>) -> anyhow::Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let url = format!("http://{}/api/events", listener.local_addr()?);
    thread::spawn(move || {
        for (connection, body) in listener.incoming().zip(bodies.iter().cycle()) {
            let _ = connection.and_then(|connection| answer(connection, body));
        }
    });
    Ok(url)
}

fn answer(mut connection: TcpStream, body: &[u8]) -> io::Result<()> {
    let mut request = BufReader::new(connection.try_clone()?);
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    let length = body.len();
    write!(
        connection,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    connection.write_all(body)
}
