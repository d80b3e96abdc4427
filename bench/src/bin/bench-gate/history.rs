//! `bench-gate history`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use bench::gate::pairs::{Plan, measure};
use bench::gate::programs::Builder;
use bench::gate::work_tree::{Commit, Repository};
use bench::history::backfill::{middle_of_step, missing};
use bench::history::branch::Branch;
use bench::history::document::document;
use bench::history::findings::{Finding, findings};
use bench::history::measurement::{Blessing, FORMAT, Skipped, record};
use bench::history::simulation::{Injected, Noise, Outcome, simulate};
use bench::history::storage::Storage;
use chrono::Utc;
use clap::Subcommand;
use clap::builder::{PathBufValueParser, TypedValueParser as _};
use collector::analysis::document::Format;
use collector::files::writable;

use crate::Builds;
use crate::calibrate::own_build;
use crate::output::{print, progress};

/// Rounds of fresh processes of a measurement.
const ROUNDS: usize = 28;

#[derive(Debug, Subcommand)]
pub(crate) enum History {
    /// Measure a revision against the reference.
    Record(Record),
    /// Print what is recorded, and what changed.
    Show(Show),
    /// Write a page with a chart for each bench; it needs no network.
    Report(Report),
    /// Fail with exit code 3 if a bench has become slower, a count rose, or a bench vanished, and no blessing covers it.
    Check(Place),
    /// Accept a change.
    Bless(Bless),
    /// Measure the revisions of a range that are not measured yet.
    Backfill(Backfill),
    /// Measure a build against itself many times, and keep the noise for `simulate`.
    Noise(RecordNoise),
    /// Simulate histories from recorded noise: how often an unchanged bench is reported, and a changed one is found.
    Simulate(Simulate),
}

/// Where a history is kept.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// Keep it in a folder.
    #[arg(long, value_name = "DIR", default_value = "target/bench-gate/history", conflicts_with = "branch")]
    folder: PathBuf,
    /// Keep it on a branch of the repository instead.
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// The remote that the branch is fetched from before reading, and pushed to after writing, without force.
    #[arg(long, value_name = "NAME", requires = "branch")]
    remote: Option<String>,
}

impl Place {
    fn open(&self) -> anyhow::Result<Storage> {
        let Some(branch) = &self.branch else { return Ok(Storage::Folder(self.folder.clone())) };
        let repository = Repository::find(&std::env::current_dir()?)?;
        Ok(Storage::Branch(Branch::new(repository, branch, self.remote.clone())?))
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Record {
    /// The revision.
    #[arg(default_value = "HEAD")]
    revision: String,
    #[command(flatten)]
    measuring: Measuring,
    #[command(flatten)]
    place: Place,
}

/// How revisions are measured.
#[derive(Debug, clap::Args)]
struct Measuring {
    /// The revision to measure against [default: the reference of the newest measurement, else the first revision].
    #[arg(long, value_name = "REVISION")]
    reference: Option<String>,
    /// Rounds of fresh processes.
    #[arg(long, default_value_t = ROUNDS, value_parser = rounds)]
    rounds: usize,
    #[command(flatten)]
    builds: Builds,
}

fn rounds(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|rounds| (8..=1_000).contains(rounds))
        .ok_or_else(|| "must be from 8 to 1000".to_owned())
}

/// Records revisions one after the other.
struct Recorder<'a> {
    builder: Builder,
    storage: &'a Storage,
    rounds: usize,
    reference: Commit,
}

impl<'a> Recorder<'a> {
    fn new(measuring: &Measuring, storage: &'a Storage, first: &str) -> anyhow::Result<Self> {
        let builder = measuring.builds.open(false)?;
        let kept = storage.load()?.reference().cloned();
        let reference = match (&measuring.reference, &kept) {
            (Some(revision), _) => builder.repository().commit(revision)?,
            (None, Some(reference)) => reference.clone(),
            (None, None) => builder.repository().commit(first)?,
        };
        let mut recorder = Self { builder, storage, rounds: measuring.rounds, reference };
        // A new reference is measured against the old one, which links the series.
        if let Some(old) = kept.filter(|old| old.id != recorder.reference.id) {
            let new = std::mem::replace(&mut recorder.reference, old);
            if !storage.load()?.has(&new.id, &recorder.reference.id) {
                progress(&format!(
                    "the reference changes from {} to {new}: both are measured",
                    recorder.reference
                ));
                recorder.record(&new)?;
            }
            recorder.reference = new;
        }
        Ok(recorder)
    }

    fn record(&self, commit: &Commit) -> anyhow::Result<()> {
        progress(&format!("building {}", self.reference));
        let reference = self.builder.build(&self.reference)?;
        progress(&format!("building {commit}"));
        let revision = self.builder.build(commit)?;
        let measurement = record(&reference, &revision, self.rounds, |rounds| {
            if rounds % 7 == 0 {
                progress(&format!("{rounds} of {} rounds", self.rounds));
            }
        })?;
        let name = self.storage.add_measurement(&measurement)?;
        print(&format!("{commit}: {} benches are recorded in {name}\n", measurement.benches.len()))
    }

    /// Records a revision, or records that it does not build.
    fn record_or_skip(&self, id: &str) -> anyhow::Result<()> {
        let commit = self.builder.repository().commit(id)?;
        let Err(error) = self.builder.build(&commit) else { return self.record(&commit) };
        let reason = format!("{error:#}");
        print(&format!("{commit}: skipped: {reason}\n"))?;
        let skipped = Skipped { format: FORMAT, time: Utc::now(), commit, reason };
        self.storage.add_skipped(&skipped).map(drop)
    }
}

impl History {
    pub(crate) fn carry_out(self) -> anyhow::Result<u8> {
        match self {
            Self::Record(it) => {
                let storage = it.place.open()?;
                let recorder = Recorder::new(&it.measuring, &storage, &it.revision)?;
                let commit = recorder.builder.repository().commit(&it.revision)?;
                recorder.record(&commit).map(|()| 0)
            }
            Self::Show(show) => show.carry_out(),
            Self::Report(report) => report.carry_out(),
            Self::Check(place) => check(&place.open()?),
            Self::Bless(bless) => bless.carry_out(),
            Self::Backfill(backfill) => backfill.carry_out(),
            Self::Noise(noise) => noise.carry_out(),
            Self::Simulate(simulate) => simulate.carry_out(),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// In which form.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    place: Place,
}

impl Show {
    fn carry_out(self) -> anyhow::Result<u8> {
        let history = self.place.open()?.load()?;
        print(&document(&history, &findings(&history)).show(self.format))?;
        Ok(0)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Report {
    /// The page.
    #[arg(value_parser = PathBufValueParser::new().try_map(writable))]
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

impl Report {
    fn carry_out(self) -> anyhow::Result<u8> {
        let history = self.place.open()?.load()?;
        let page = document(&history, &findings(&history)).show(Format::Html);
        fs::write(&self.file, page).with_context(|| format!("cannot write {}", self.file.display()))?;
        Ok(0)
    }
}

fn check(storage: &Storage) -> anyhow::Result<u8> {
    let history = storage.load()?;
    for file in &history.unreadable {
        progress(&format!("warning: not readable: {file}"));
    }
    let findings = findings(&history);
    let failing: Vec<&Finding> = findings.iter().filter(|finding| finding.fails()).collect();
    for finding in &findings {
        let word = if finding.fails() { "FAILS" } else { "passes" };
        print(&format!("{word:<7} {}\n", finding.sentence()))?;
    }
    print(&format!(
        "{} measurements, {} changes, {} of them fail\n",
        history.measurements.len(),
        findings.len(),
        failing.len()
    ))?;
    Ok(if failing.is_empty() { 0 } else { 3 })
}

#[derive(Debug, clap::Args)]
pub(crate) struct Bless {
    /// The revision that made the change.
    revision: String,
    /// The bench or count that changed; `all` for each of them.
    bench: String,
    /// Why the change is accepted.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    place: Place,
}

impl Bless {
    fn carry_out(self) -> anyhow::Result<u8> {
        ensure!(!self.reason.trim().is_empty(), "a blessing needs a reason");
        let storage = self.place.open()?;
        let known = storage.load()?.measurements;
        let is_known = known
            .iter()
            .any(|it| it.benches.contains_key(&self.bench) || it.counts.contains_key(&self.bench));
        ensure!(
            self.bench == "all" || is_known,
            "no bench or count `{}` is recorded\nhint: `bench-gate history show` lists them",
            self.bench
        );
        let commit = Repository::find(&std::env::current_dir()?)?.commit(&self.revision)?;
        let blessing =
            Blessing { format: FORMAT, time: Utc::now(), commit, bench: self.bench, reason: self.reason };
        let name = storage.add_blessing(&blessing)?;
        print(&format!("{}: {} is accepted in {name}\n", blessing.commit, blessing.bench))?;
        Ok(0)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Backfill {
    /// The range, such as v1..HEAD, on the line of first parents.
    range: String,
    /// The distance between revisions that are measured; the newest one is measured as well.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    every: u64,
    /// Then measure between the revisions around each step, until the commit is found.
    #[arg(long)]
    bisect: bool,
    #[command(flatten)]
    measuring: Measuring,
    #[command(flatten)]
    place: Place,
}

impl Backfill {
    fn carry_out(self) -> anyhow::Result<u8> {
        let storage = self.place.open()?;
        let revisions = Repository::find(&std::env::current_dir()?)?.range(&self.range)?;
        let first = revisions.first().with_context(|| format!("{} contains no revisions", self.range))?;
        let recorder = Recorder::new(&self.measuring, &storage, first)?;
        let every = usize::try_from(self.every)?;
        let open = missing(&revisions, every, &storage.load()?, &recorder.reference.id);
        print(&format!("{} of {} revisions are to be measured\n", open.len(), revisions.len()))?;
        for id in &open {
            recorder.record_or_skip(id)?;
        }
        loop {
            let history = storage.load()?;
            let found = findings(&history);
            let middle = |finding| middle_of_step(&revisions, finding, &history, &recorder.reference.id);
            match found.iter().find_map(middle) {
                Some(next) if self.bisect => recorder.record_or_skip(&next)?,
                _ => return Ok(0),
            }
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct RecordNoise {
    /// Where it is kept, a line a measurement (JSON Lines); continued if it exists.
    #[arg(value_parser = PathBufValueParser::new().try_map(writable))]
    file: PathBuf,
    /// How many measurements.
    #[arg(long, default_value_t = 100)]
    measurements: usize,
    /// Rounds of fresh processes of each measurement.
    #[arg(long, default_value_t = ROUNDS, value_parser = rounds)]
    rounds: usize,
}

impl RecordNoise {
    fn carry_out(self) -> anyhow::Result<u8> {
        use std::io::Write as _;
        let build = own_build()?;
        let mut file = fs::File::options().create(true).append(true).open(&self.file)?;
        for number in 0..self.measurements {
            let seed = u64::try_from(Utc::now().timestamp_micros()).unwrap_or(0);
            let plan = Plan { rounds: [self.rounds, self.rounds], seed, ..Plan::default() };
            let measured = measure(&build, &build, &plan, |_| {})?;
            let medians: BTreeMap<String, f64> = measured
                .iter()
                .map(|it| (it.id.clone(), bench::history::measurement::ratio(&it.head).value.ln()))
                .collect();
            writeln!(file, "{}", serde_json::to_string(&medians)?)?;
            if (number + 1) % 10 == 0 {
                progress(&format!("{} of {} measurements", number + 1, self.measurements));
            }
        }
        Ok(0)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Simulate {
    /// Noise that `bench-gate history noise` recorded.
    noise: PathBuf,
    /// Revisions of a history.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(20..=2_000))]
    revisions: u16,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Simulate {
    fn carry_out(self) -> anyhow::Result<u8> {
        let noise = read_noise(&self.noise)?;
        let cases = [
            (Injected::Nothing, 200),
            (Injected::Step(0.01), 100),
            (Injected::Step(0.02), 100),
            (Injected::Step(0.05), 100),
            (Injected::Drift(0.001), 100),
        ];
        let outcomes: Vec<Outcome> = cases
            .into_iter()
            .map(|(injected, histories)| simulate(&noise, injected, histories, usize::from(self.revisions)))
            .collect();
        if self.json {
            print(&(serde_json::to_string_pretty(&outcomes)? + "\n"))?;
            return Ok(0);
        }
        print("injected                 histories  found  within 2 revisions  false alarms\n")?;
        for Outcome { injected, histories, found, near, false_alarms } in outcomes {
            let name = match injected {
                Injected::Nothing => "nothing".to_owned(),
                Injected::Step(share) => format!("step of {:.0} %", share * 100.0),
                Injected::Drift(share) => format!("drift of {:.1} % each", share * 100.0),
            };
            print(&format!("{name:<23}  {histories:>9}  {found:>5}  {near:>18}  {false_alarms:>12}\n"))?;
        }
        Ok(0)
    }
}

fn read_noise(path: &Path) -> anyhow::Result<Noise> {
    let file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut noise = Noise::new();
    for line in BufReader::new(file).lines() {
        let medians: BTreeMap<String, f64> = serde_json::from_str(&line?)?;
        for (bench, log) in medians {
            noise.entry(bench).or_default().push(log);
        }
    }
    ensure!(noise.values().all(|logs| logs.len() >= 20), "{} holds too little noise", path.display());
    Ok(noise)
}
