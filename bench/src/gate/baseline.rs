//! Criterion's own result files: kept under a name, and compared with those of a later run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::machine::{Machine, toolchain};
use super::pairs::{Compared, Comparison, Verdict};
use super::statistics::{Interval, median_interval, ratio_of_medians};

const FORMAT: u32 = 1;
/// Results of one run of criterion are not further apart; older ones were left behind by an earlier run.
const ONE_RUN: Duration = Duration::from_hours(3);

/// Results by the benches' names: nanoseconds for an iteration, sample by sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    format: u32,
    benches: BTreeMap<String, Vec<f64>>,
    /// Missing in results that were kept by an earlier version.
    #[serde(default)]
    origin: Option<Origin>,
    /// Benches whose results are older than those of the run.
    #[serde(default)]
    left_over: Vec<String>,
}

/// Where and when results were measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Origin {
    machine: Machine,
    toolchain: String,
    time: DateTime<Utc>,
}

/// What a bench took once.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Past {
    /// When it was recorded.
    pub time: DateTime<Utc>,
    /// Of which revision.
    pub revision: String,
    /// Which.
    pub id: String,
    /// For an iteration.
    pub nanoseconds: Interval,
}

/// What of criterion's `benchmark.json` is needed.
#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
}

/// What of criterion's `sample.json` is needed.
#[derive(Deserialize)]
struct Sample {
    iters: Vec<f64>,
    times: Vec<f64>,
}

impl Results {
    /// Reads the newest results under criterion's folder (`target/criterion`).
    ///
    /// # Errors
    /// If there are none, they are not as this criterion writes them, or two folders hold a bench of the same name.
    pub fn of_criterion(folder: &Path) -> anyhow::Result<Self> {
        let (mut benches, mut times) = (BTreeMap::new(), BTreeMap::new());
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries =
                fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
            for entry in entries {
                let path = entry?.path();
                if path.file_name().is_some_and(|name| name == "new") && path.join("sample.json").exists() {
                    let (id, samples) = read_bench(&path)?;
                    times.insert(id.clone(), fs::metadata(path.join("sample.json"))?.modified()?);
                    let other = benches.insert(id, samples);
                    ensure!(
                        other.is_none(),
                        "{} is of a bench that another folder has as well",
                        path.display()
                    );
                } else if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        ensure!(
            !benches.is_empty(),
            "{} holds no results; run `cargo bench -p bench` first",
            folder.display()
        );
        let newest = times.values().max().copied().unwrap_or(SystemTime::UNIX_EPOCH);
        let is_old = |time: &SystemTime| newest.duration_since(*time).is_ok_and(|age| age > ONE_RUN);
        let left_over = times.iter().filter(|(_, time)| is_old(time)).map(|(id, _)| id.clone()).collect();
        Ok(Self { format: FORMAT, benches, origin: None, left_over })
    }

    /// The same, with where they were measured: on this machine, with its toolchain, now.
    ///
    /// # Errors
    /// If `rustc` cannot be run.
    pub fn measured_here(self) -> anyhow::Result<Self> {
        let origin = Origin { machine: Machine::this(), toolchain: toolchain()?, time: Utc::now() };
        Ok(Self { origin: Some(origin), ..self })
    }

    /// The samples of a bench, in nanoseconds for an iteration.
    #[must_use]
    pub fn samples(&self, id: &str) -> Option<&[f64]> {
        self.benches.get(id).map(Vec::as_slice)
    }

    /// Keeps them.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(path, serde_json::to_string(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads what was kept.
    ///
    /// # Errors
    /// If there is nothing of that name, or it is of another format.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            format!("there is no baseline {}; make one with `bench-gate record`", path.display())
        })?;
        let results: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is no baseline", path.display()))?;
        if results.format != FORMAT {
            bail!("{} is of format {}, this program knows {FORMAT}", path.display(), results.format);
        }
        Ok(results)
    }

    /// A line a bench, to be appended to a history (JSON Lines): the median and bounds at 99 %.
    #[must_use]
    pub fn history(&self, time: DateTime<Utc>, revision: &str) -> Vec<Past> {
        let past = |(id, samples): (&String, &Vec<f64>)| Past {
            time,
            revision: revision.to_owned(),
            id: id.clone(),
            nanoseconds: median_interval(samples, 0.01),
        };
        self.benches.iter().map(past).collect()
    }

    /// How many benches there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.benches.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.benches.is_empty()
    }
}

fn read_bench(folder: &Path) -> anyhow::Result<(String, Vec<f64>)> {
    let read = |name: &str| -> anyhow::Result<(PathBuf, String)> {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path, text))
    };
    let other = |path: &Path| format!("{} is not as criterion 0.8 writes it", path.display());
    let (path, text) = read("benchmark.json")?;
    let Benchmark { full_id } = serde_json::from_str(&text).with_context(|| other(&path))?;
    let (path, text) = read("sample.json")?;
    let Sample { iters, times } = serde_json::from_str(&text).with_context(|| other(&path))?;
    ensure!(!iters.is_empty() && iters.len() == times.len(), "{}", other(&path));
    Ok((full_id, times.iter().zip(&iters).map(|(time, count)| time / count).collect()))
}

/// Compares two sets of results. Slower by more than `tolerance` beyond doubt is slower; whether that fails the gate is
/// said by `fail`.
#[must_use]
pub fn compare(before: &Results, after: &Results, tolerance: f64, accepted: &[String]) -> Comparison {
    let ids: Vec<&String> = before
        .benches
        .keys()
        .chain(after.benches.keys().filter(|id| !before.benches.contains_key(*id)))
        .collect();
    let error = 0.01 / ids.len().max(1) as f64;
    let benches = ids.into_iter().map(|id| {
        let (verdict, ratio) = match (before.benches.get(id), after.benches.get(id)) {
            (Some(before), Some(after)) => {
                let ratio = ratio_of_medians(before, after, error);
                (judge(ratio, tolerance), Some(ratio))
            }
            (Some(_), None) if accepted.contains(id) => (Verdict::Removed, None),
            (Some(_), None) => (Verdict::Vanished, None),
            _ => (Verdict::New, None),
        };
        Compared { id: id.clone(), verdict, ratio, control: None }
    });
    let (notes, disturbed) = different_origins(before, after);
    Comparison {
        benches: benches.collect(),
        rounds: 1,
        control_tripped: false,
        repeated: 0,
        disturbed,
        notes,
    }
}

/// What must be known of two results that are compared, and why they cannot be compared.
fn different_origins(before: &Results, after: &Results) -> (Vec<String>, Option<String>) {
    let mut notes: Vec<String> = after
        .left_over
        .iter()
        .map(|id| format!("the result of {id} was left behind by an earlier run of criterion"))
        .collect();
    let (Some(old), Some(new)) = (&before.origin, &after.origin) else {
        notes.push("the baseline does not state its machine and toolchain; record it again".to_owned());
        return (notes, None);
    };
    let age = (new.time - old.time).num_minutes();
    notes.push(format!("the baseline is {:.1} hours old", age as f64 / 60.0));
    let different = if old.machine != new.machine {
        Some(format!("the baseline is of another machine: {}, and this one is {}", old.machine, new.machine))
    } else if old.toolchain != new.toolchain {
        Some(format!(
            "the baseline is of another toolchain: {}, and this one is {}",
            old.toolchain, new.toolchain
        ))
    } else {
        None
    };
    (notes, different)
}

fn judge(Interval { low, high, .. }: Interval, tolerance: f64) -> Verdict {
    if low > 1.0 + tolerance {
        Verdict::Slower
    } else if high < 1.0 / (1.0 + tolerance) {
        Verdict::Faster
    } else if high <= 1.0 + 2.0 * tolerance {
        Verdict::Same
    } else {
        Verdict::Unsure
    }
}
