//! Results that are kept under a name, and compared with those of a later run of the same command on the same machine.
//!
//! A single run of a load test is noisy; `--fail-on` states by how much a metric may differ. Must not know which command
//! measured: a metric is any number in the result's JSON, named by its path.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::report::table::Table;

const FORMAT: u32 = 1;

/// Numbers by their paths in the result's JSON: `latency_s.p99`.
pub type Metrics = BTreeMap<String, f64>;

/// A result that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    format: u32,
    /// The command with the options that decide what is measured.
    pub command: Vec<String>,
    /// Platform and number of processors.
    machine: String,
    time: DateTime<Utc>,
    metrics: Metrics,
}

/// By how much a metric may differ from the baseline: `latency_s.p99>10%`, `achieved_per_s<5%`.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// The metric's path; `*` is any part of it.
    pattern: String,
    /// Whether more is worse.
    more: bool,
    share: f64,
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not of the form METRIC>10% or METRIC<10%");
        let at = text.find(['>', '<']).ok_or_else(wrong)?;
        let (pattern, share) = (text[..at].trim(), text[at + 1..].trim());
        let percent: f64 = share.strip_suffix('%').and_then(|it| it.trim().parse().ok()).ok_or_else(wrong)?;
        if pattern.is_empty() || !(0.0..=100_000.0).contains(&percent) {
            return Err(wrong());
        }
        Ok(Self { pattern: pattern.to_owned(), more: text[at..].starts_with('>'), share: percent / 100.0 })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.more { '>' } else { '<' };
        write!(formatter, "{}{sign}{}%", self.pattern, self.share * 100.0)
    }
}

impl Limit {
    fn is_for(&self, metric: &str) -> bool {
        let (mut pattern, mut parts) = (self.pattern.split('.'), metric.split('.'));
        loop {
            match (pattern.next(), parts.next()) {
                (None, None) => return true,
                (Some(one), Some(other)) if one == "*" || one == other => {}
                _ => return false,
            }
        }
    }

    /// Whether a metric is beyond it. A metric that is not measured any more is.
    fn is_broken(&self, before: f64, now: Option<f64>) -> bool {
        let Some(now) = now else { return true };
        if self.more { now > before * (1.0 + self.share) } else { now < before * (1.0 - self.share) }
    }
}

/// The numbers of a result. Lists of numbers, such as curves, are left out.
#[must_use]
pub fn metrics(result: &Value) -> Metrics {
    let mut metrics = Metrics::new();
    collect(result, "", &mut metrics);
    metrics
}

fn collect(value: &Value, path: &str, metrics: &mut Metrics) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Number(number) => {
            metrics.extend(number.as_f64().map(|number| (path.to_owned(), number)));
        }
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| collect(value, &below(name), metrics));
        }
        Value::Array(values) => {
            for (number, value) in values.iter().enumerate().filter(|(_, value)| value.is_object()) {
                collect(value, &below(&number.to_string()), metrics);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// A line of JSON a metric, as the JSON output of k6 has them.
#[must_use]
pub fn json_lines(command: &str, metrics: &Metrics, time: DateTime<Utc>) -> String {
    let line = |(metric, value): (&String, &f64)| {
        let data = json!({"time": time.to_rfc3339(), "value": value, "tags": {"command": command}});
        format!("{}\n", json!({"type": "Point", "metric": metric, "data": data}))
    };
    metrics.iter().map(line).collect()
}

impl Baseline {
    /// A result of a command, measured on this machine now.
    #[must_use]
    pub fn new(command: Vec<String>, result: &Value) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let machine = format!("{}-{}, {cpus} CPUs", std::env::consts::OS, std::env::consts::ARCH);
        Self { format: FORMAT, command, machine, time: Utc::now(), metrics: metrics(result) }
    }

    /// Where a baseline of a name is kept.
    ///
    /// # Errors
    /// If the name is not usable as a file's name.
    pub fn path(folder: &Path, name: &str) -> Result<PathBuf, String> {
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(usual) {
            return Err(format!("`{name}` may have letters, digits, `-`, `_` and `.` only"));
        }
        Ok(folder.join(format!("{name}.json")))
    }

    /// Keeps it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", path.display());
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).with_context(cannot)?;
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n").with_context(cannot)
    }

    /// Reads what was kept.
    ///
    /// # Errors
    /// If there is none, or it is of another format.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!("there is no baseline {}\nhint: make one with --save-baseline", path.display())
        })?;
        let baseline: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is not a baseline", path.display()))?;
        ensure!(baseline.format == FORMAT, "{} is of format {}", path.display(), baseline.format);
        Ok(baseline)
    }

    /// Checks that a limit is for a metric that this has.
    ///
    /// # Errors
    /// If it is not; the message lists the metrics.
    pub fn check(&self, limit: &Limit) -> Result<(), String> {
        if self.metrics.keys().any(|metric| limit.is_for(metric)) {
            return Ok(());
        }
        let names: Vec<&str> = self.metrics.keys().map(String::as_str).collect();
        Err(format!("the baseline has no metric for {limit}; it has {}", names.join(", ")))
    }

    /// Compares a later result with this one: a table, and the limits that are broken.
    ///
    /// # Errors
    /// If the later one is of another command, other options or another machine.
    pub fn compare(&self, later: &Self, limits: &[Limit]) -> anyhow::Result<(Table, Vec<String>)> {
        ensure!(
            self.command == later.command,
            "the baseline is of `{}`, and this is `{}`",
            self.command.join(" "),
            later.command.join(" ")
        );
        ensure!(
            self.machine == later.machine,
            "the baseline is of another machine: {}, and this one is {}",
            self.machine,
            later.machine
        );
        let mut table = Table::new(&["metric", "baseline", "now", "change"]);
        let mut broken = Vec::new();
        for (metric, &before) in &self.metrics {
            let now = later.metrics.get(metric).copied();
            let shown = now.map_or_else(|| "not measured".to_owned(), |now| format!("{now:.4}"));
            let change =
                now.filter(|_| before != 0.0).map(|now| format!("{:+.1} %", (now / before - 1.0) * 100.0));
            let change = change.unwrap_or_else(|| "–".to_owned());
            for limit in limits.iter().filter(|limit| limit.is_for(metric) && limit.is_broken(before, now)) {
                broken.push(format!("{metric} was {before:.4} and is {shown}: {limit}"));
            }
            table.row(vec![metric.clone(), format!("{before:.4}"), shown, change]);
        }
        Ok((table, broken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(p99: f64, rate: f64) -> Baseline {
        let result = json!({"latency_s": {"p99": p99}, "achieved_per_s": rate, "curve": [[0.0, 1.0]], "limit": "none"});
        Baseline::new(vec!["stress".to_owned()], &result)
    }

    #[test]
    fn limits_are_broken_in_their_direction_only() {
        let before = baseline(0.010, 100.0);
        assert_eq!(before.metrics.keys().collect::<Vec<_>>(), ["achieved_per_s", "latency_s.p99"]);
        let limits: Vec<Limit> =
            ["latency_s.*>10%", "achieved_per_s<5%"].map(|text| text.parse().unwrap()).to_vec();
        let broken = |later: &Baseline| before.compare(later, &limits).unwrap().1.len();
        assert_eq!(broken(&baseline(0.0109, 96.0)), 0);
        assert_eq!(broken(&baseline(0.0111, 96.0)), 1);
        assert_eq!(broken(&baseline(0.005, 94.0)), 1);
        let without = Baseline { metrics: Metrics::new(), ..baseline(0.0, 0.0) };
        assert_eq!(broken(&without), 2, "a metric that is not measured any more");
        let none = baseline(0.0, 100.0);
        assert_eq!(none.compare(&baseline(0.001, 100.0), &limits).unwrap().1.len(), 1, "from nothing");
    }

    #[test]
    fn other_commands_and_machines_are_not_compared() {
        let before = baseline(1.0, 1.0);
        let other = Baseline { command: vec!["timeline".to_owned()], ..before.clone() };
        assert!(before.compare(&other, &[]).is_err());
        let other = Baseline { machine: "plan9".to_owned(), ..before.clone() };
        assert!(before.compare(&other, &[]).is_err());
        assert!(
            before.check(&"latency_s.p50>1%".parse().unwrap()).is_err_and(|it| it.contains("latency_s.p99"))
        );
        for wrong in ["p99", ">5%", "p99>", "p99>5", "p99>-1%", "p99>NaN%"] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong}");
        }
        for wrong in ["", "../x", "a/b", ".hidden"] {
            assert!(Baseline::path(Path::new("x"), wrong).is_err(), "{wrong}");
        }
    }
}
