//! Runs mutated inputs of one target, in this thread.

use std::any::Any;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::mutate::Mutator;
use crate::{Meter, Target, corpus};

/// Longest time for one input.
pub const LONGEST: Duration = Duration::from_secs(1);
/// Maximum number of allocations for one input: for each byte, and for any input. A bound on work that needs no clock.
const ALLOCATIONS: (u64, u64) = (16, 20_000);
/// Maximum number of inputs that are kept beside the corpus for their new kind of result.
const MOST_KEPT: usize = 512;
/// After how many mutations the clock is read, where only the end of the batch depends on it.
const CHECKED_EVERY: u64 = 64;

/// What a batch did.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Report {
    /// Inputs that were run.
    pub inputs: u64,
    /// Kinds of results that were seen.
    pub kinds: usize,
    /// Longest time for one input, in seconds.
    pub max_time_s: f64,
    /// Largest peak of allocated bytes.
    pub max_peak_bytes: u64,
    /// The largest share of its bound that a peak took.
    pub max_share: f64,
}

/// An input for which something does not hold.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The input.
    pub input: Vec<u8>,
    /// What does not hold.
    pub reason: String,
}

/// When a batch ends.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// After a number of inputs. Times are not judged.
    Inputs(u64),
    /// After a time. An input that takes longer than [`LONGEST`] is a violation.
    Time(Duration),
}

/// Runs one input and judges what it allocated.
///
/// # Errors
/// What does not hold.
pub fn run_input(target: &Target, input: &[u8]) -> Result<(u64, Meter), String> {
    let mut meter = Meter::default();
    let kind = catch_unwind(AssertUnwindSafe(|| (target.run)(input, &mut meter)));
    let kind = kind.map_err(|cause| format!("panic: {}", text_of(cause.as_ref())))??;
    let limit = target.bound.peak_bytes(input.len());
    if meter.peak_bytes > limit {
        return Err(format!("allocated {} bytes at one time, more than {limit}", meter.peak_bytes));
    }
    let limit = ALLOCATIONS.0 * input.len() as u64 + ALLOCATIONS.1;
    if meter.allocations > limit {
        return Err(format!("allocated {} times, more than {limit}", meter.allocations));
    }
    Ok((kind, meter))
}

fn text_of(cause: &(dyn Any + Send)) -> &str {
    let text = cause.downcast_ref::<&str>().copied();
    text.or_else(|| cause.downcast_ref::<String>().map(String::as_str)).unwrap_or("of an unknown kind")
}

/// Runs the corpus of a target and then mutations of it. The same seed makes the same inputs.
///
/// Each input is written to `trace` before it is run, so that it is known if the process dies of it.
///
/// # Errors
/// If the corpus or the trace fails; the violation, if there is one, is returned within.
pub fn run(
    target: &Target,
    seed: u64,
    end: End,
    mut trace: Option<&mut File>,
) -> io::Result<Result<Report, Violation>> {
    let mut pool = corpus::read(target.name)?;
    let examples = pool.len();
    let mut mutator = Mutator::new(seed, target.tokens);
    let mut kinds = HashSet::new();
    let mut report = Report::default();
    let mut input = Vec::new();
    let begin = Instant::now();
    let mut last = begin;
    loop {
        let position = usize::try_from(report.inputs).unwrap_or(usize::MAX);
        let goes_on = match end {
            End::Inputs(inputs) => report.inputs < inputs + examples as u64,
            End::Time(time) => !report.inputs.is_multiple_of(CHECKED_EVERY) || last - begin < time,
        };
        if !goes_on && position >= examples {
            break;
        }
        next_input(&mut input, &pool, position, examples, &mut mutator);
        if let Some(trace) = &mut trace {
            trace.rewind()?;
            trace.set_len(0)?;
            trace.write_all(&input)?;
        }
        let violated = |reason| Ok(Err(Violation { input: input.clone(), reason }));
        let (kind, meter) = match run_input(target, &input) {
            Ok(ran) => ran,
            Err(reason) => return violated(reason),
        };
        if let End::Time(_) = end {
            let now = Instant::now();
            let took = judge_time(target, &input, now - last, report.max_time_s);
            last = if took.is_some() { Instant::now() } else { now };
            if let Some(took) = took {
                report.max_time_s = report.max_time_s.max(took.as_secs_f64());
                if took > LONGEST {
                    return violated(format!("took {:.1} s", took.as_secs_f64()));
                }
            }
        }
        report.note(target, &input, &meter);
        if kinds.insert(kind) && position >= examples && pool.len() < examples + MOST_KEPT {
            pool.push(input.clone());
        }
    }
    report.kinds = kinds.len();
    Ok(Ok(report))
}

/// The examples as they are, then mutations: of kept inputs as often as of examples.
fn next_input(
    input: &mut Vec<u8>,
    pool: &[Vec<u8>],
    position: usize,
    examples: usize,
    mutator: &mut Mutator,
) {
    input.clear();
    if let Some(example) = pool.get(position).filter(|_| position < examples) {
        input.extend_from_slice(example);
        return;
    }
    let source = match pool.len() - examples {
        kept @ 1.. if mutator.below(2) == 0 => examples + mutator.below(kept),
        _ => mutator.below(examples),
    };
    input.extend_from_slice(pool.get(source).map_or(b"", Vec::as_slice));
    let other = mutator.below(pool.len());
    mutator.mutate(input, pool.get(other).map_or(b"", Vec::as_slice));
}

/// The time of an input that seems to take longer than any before: the shortest of three, since others use the machine as well.
fn judge_time(target: &Target, input: &[u8], took: Duration, longest_s: f64) -> Option<Duration> {
    if took.as_secs_f64() <= longest_s {
        return None;
    }
    let again = (0..2).map(|_| {
        let begin = Instant::now();
        let _ = run_input(target, input);
        begin.elapsed()
    });
    again.chain([took]).min()
}

impl Report {
    fn note(&mut self, target: &Target, input: &[u8], meter: &Meter) {
        self.inputs += 1;
        self.max_peak_bytes = self.max_peak_bytes.max(meter.peak_bytes);
        #[expect(clippy::cast_precision_loss, reason = "a share that is shown with two digits")]
        let share = meter.peak_bytes as f64 / target.bound.peak_bytes(input.len()) as f64;
        self.max_share = self.max_share.max(share);
    }

    /// Adds another batch of the same target.
    pub fn add(&mut self, other: &Self) {
        self.inputs += other.inputs;
        self.kinds = self.kinds.max(other.kinds);
        self.max_time_s = self.max_time_s.max(other.max_time_s);
        self.max_peak_bytes = self.max_peak_bytes.max(other.max_peak_bytes);
        self.max_share = self.max_share.max(other.max_share);
    }
}
