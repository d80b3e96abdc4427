//! Runs batches in processes of their own, so that each way in which one can die is found and named.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use fuzz::Target;
use fuzz::batch::Report;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

/// Longest time of one batch.
const LONGEST_BATCH: Duration = Duration::from_secs(20);
/// A batch that does not end within this time after it should have is in an endless loop.
const GRACE: Duration = Duration::from_mins(1);
/// How often progress is written to a log.
const LOGGED_EVERY: Duration = Duration::from_mins(1);

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) targets: Vec<&'static Target>,
    /// Maximum duration.
    pub(crate) time: Duration,
    /// After how many inputs the run ends, at the end of a round of the targets.
    pub(crate) inputs: u64,
    pub(crate) jobs: usize,
    pub(crate) seed: u64,
    pub(crate) save: PathBuf,
    pub(crate) json: bool,
}

/// What a process prints of its batch.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BatchResult {
    pub(crate) report: Report,
    pub(crate) violation: Option<String>,
}

/// A target's batches so far.
#[derive(Debug, Default, Clone, Serialize)]
struct Total {
    #[serde(flatten)]
    report: Report,
    batches: u64,
    busy_s: f64,
}

struct Run<'a> {
    plan: &'a Plan,
    began: Instant,
    next: AtomicUsize,
    is_over: AtomicBool,
    totals: Mutex<BTreeMap<&'static str, Total>>,
    /// When progress was last written to a log, in seconds since the beginning.
    logged_s: AtomicU64,
    bar: ProgressBar,
}

/// Runs the targets in turn until the time is over or something is found. Whether nothing was.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<bool> {
    let bar = if io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("{elapsed_precise} {msg}")?);
    let run = Run {
        plan,
        began: Instant::now(),
        next: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
        totals: Mutex::default(),
        logged_s: AtomicU64::new(0),
        bar,
    };
    let found: Vec<anyhow::Result<Option<String>>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.jobs).map(|_| scope.spawn(|| run.work())).collect();
        let ended = workers.into_iter().map(thread::ScopedJoinHandle::join);
        ended.map(|worker| worker.unwrap_or_else(|_| bail!("a worker broke off"))).collect()
    });
    run.bar.finish_and_clear();
    let found: Vec<String> =
        found.into_iter().collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect();
    run.print(&found)?;
    Ok(found.is_empty())
}

impl Run<'_> {
    /// Runs one batch after the other; what was found, if anything.
    fn work(&self) -> anyhow::Result<Option<String>> {
        let share = self.plan.time * u32::try_from(self.plan.jobs)? / u32::try_from(self.plan.targets.len())?;
        let longest = LONGEST_BATCH.min(share);
        while !self.is_over.load(Ordering::Relaxed) {
            let left = self.plan.time.saturating_sub(self.began.elapsed());
            if left.is_zero() {
                break;
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number.is_multiple_of(self.plan.targets.len()) && self.inputs() >= self.plan.inputs {
                self.is_over.store(true, Ordering::Relaxed);
                break;
            }
            let target = self.plan.targets[number % self.plan.targets.len()];
            let result = self.batch(target, self.plan.seed + number as u64, longest.min(left));
            if !matches!(result, Ok(None)) {
                self.is_over.store(true, Ordering::Relaxed);
                return result;
            }
        }
        Ok(None)
    }

    fn batch(&self, target: &'static Target, seed: u64, time: Duration) -> anyhow::Result<Option<String>> {
        let begin = Instant::now();
        let found = match self.process(target, seed, time, None)? {
            Ok(BatchResult { report, violation }) => {
                self.note(target, &report, begin.elapsed());
                violation
            }
            Err(how) => Some(self.reproduce(target, seed, time, &how)?),
        };
        Ok(found.map(|reason| format!("{}: {reason}; seed {seed}", target.name)))
    }

    /// Runs a batch again that killed its process, and saves the input at which it died.
    fn reproduce(
        &self,
        target: &'static Target,
        seed: u64,
        time: Duration,
        how: &str,
    ) -> anyhow::Result<String> {
        let trace = std::env::temp_dir().join(format!("fuzz-{}-{}", std::process::id(), target.name));
        // Writing the inputs makes it slower.
        let again = self.process(target, seed, time * 10, Some(&trace))?;
        let input = std::fs::read(&trace).context("cannot read the trace")?;
        let _ = std::fs::remove_file(&trace);
        if again.is_ok() {
            return Ok(format!("{how}, but not when it was run again"));
        }
        let saved = crate::save(&self.plan.save, target, &input)?;
        Ok(format!("{how} (saved as {})", saved.display()))
    }

    /// Runs one batch in a process: its result, or how it died.
    fn process(
        &self,
        target: &Target,
        seed: u64,
        time: Duration,
        trace: Option<&PathBuf>,
    ) -> anyhow::Result<Result<BatchResult, String>> {
        let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
        command.arg(target.name).args([
            "--seed",
            &seed.to_string(),
            "--batch",
            &time.as_millis().to_string(),
        ]);
        command.arg("--save").arg(&self.plan.save);
        if let Some(trace) = trace {
            command.arg("--trace").arg(trace);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start a process")?;
        let Some((status, out, errors)) = wait(&mut child, time + GRACE)? else {
            return Ok(Err("an endless loop".to_owned()));
        };
        if status.code() == Some(2) {
            bail!("a batch of {} cannot run: {}", target.name, errors.trim());
        }
        if !status.success() {
            let last = errors.trim().lines().last().unwrap_or_default();
            return Ok(Err(format!("died of {status}: {last}")));
        }
        Ok(Ok(serde_json::from_str(&out).context("a batch printed no result")?))
    }

    fn note(&self, target: &'static Target, report: &Report, busy: Duration) {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let total = totals.entry(target.name).or_default();
        total.report.add(report);
        total.batches += 1;
        total.busy_s += busy.as_secs_f64();
        let inputs: u64 = totals.values().map(|total| total.report.inputs).sum();
        let progress = format!("{} inputs, last {}", HumanCount(inputs), target.name);
        self.log(&progress);
        self.bar.set_message(progress);
        self.bar.tick();
    }

    /// Writes a line a minute where no progress bar is shown.
    fn log(&self, progress: &str) {
        let elapsed_s = self.began.elapsed().as_secs();
        if self.bar.is_hidden() && elapsed_s >= self.logged_s.load(Ordering::Relaxed) + LOGGED_EVERY.as_secs()
        {
            self.logged_s.store(elapsed_s, Ordering::Relaxed);
            let _ = writeln!(io::stderr(), "{elapsed_s} s: {progress}");
        }
    }

    fn inputs(&self) -> u64 {
        let totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.values().map(|total| total.report.inputs).sum()
    }

    fn print(&self, found: &[String]) -> anyhow::Result<()> {
        let inputs = self.inputs();
        let totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed_s = self.began.elapsed().as_secs_f64();
        let mut out = io::stdout().lock();
        if self.plan.json {
            let document = serde_json::json!({
                "inputs": inputs, "elapsed_s": elapsed_s, "jobs": self.plan.jobs, "seed": self.plan.seed,
                "targets": *totals, "violations": found,
            });
            writeln!(out, "{document:#}")?;
            return Ok(());
        }
        writeln!(
            out,
            "{:<16}{:>15}{:>12}{:>8}{:>12}{:>14}{:>8}",
            "target", "inputs", "inputs/s", "kinds", "max ms", "peak bytes", "bound"
        )?;
        for (name, Total { report, busy_s, .. }) in &*totals {
            #[expect(clippy::cast_precision_loss, reason = "a rate that is shown")]
            let rate = report.inputs as f64 / busy_s.max(1e-9);
            writeln!(
                out,
                "{name:<16}{:>15}{rate:>12.0}{:>8}{:>12.2}{:>14}{:>7.0}%",
                HumanCount(report.inputs).to_string(),
                report.kinds,
                report.max_time_s * 1e3,
                HumanCount(report.max_peak_bytes).to_string(),
                report.max_share * 100.0
            )?;
        }
        writeln!(out, "{} inputs in {elapsed_s:.0} s", HumanCount(inputs))?;
        for violation in found {
            writeln!(io::stderr(), "violation: {violation}")?;
        }
        Ok(())
    }
}

/// Waits for a process and returns how it ended and what it printed. After `longest` it is killed.
fn wait(child: &mut Child, longest: Duration) -> anyhow::Result<Option<(ExitStatus, String, String)>> {
    // Nothing is sent: the channel closes when both pipes have, which is when the process ends.
    let (open, closed) = mpsc::channel();
    let out = read(child.stdout.take(), open.clone());
    let errors = read(child.stderr.take(), open);
    let is_late = closed.recv_timeout(longest) == Err(RecvTimeoutError::Timeout);
    if is_late {
        child.kill()?;
    }
    let status = child.wait()?;
    let text = |reader: JoinHandle<io::Result<String>>| {
        reader.join().unwrap_or_else(|_| Err(io::Error::other("a reader panicked")))
    };
    let (out, errors) = (text(out)?, text(errors)?);
    Ok((!is_late).then_some((status, out, errors)))
}

/// Reads a pipe until it closes, and then drops `open`.
fn read(pipe: Option<impl Read + Send + 'static>, open: Sender<()>) -> JoinHandle<io::Result<String>> {
    thread::spawn(move || {
        let _open = open;
        let mut text = String::new();
        pipe.map(|mut pipe| pipe.read_to_string(&mut text)).transpose()?;
        Ok(text)
    })
}
