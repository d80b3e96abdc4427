//! `loadtest run`.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::ensure;
use chrono::TimeDelta;
use clap::Args;
use loadtest::feed::faults::{Fault, Outage};
use loadtest::report::html::{Axes, Line, Page};
use loadtest::report::table::Table;
use loadtest::scenario::{BUFFER, Gaps, Played, Scenario, StoreKind, Traffic, play_all};
use serde::Serialize;

use super::output;

/// Options of `loadtest run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// How many times more events than at the base rate.
    #[arg(long, value_delimiter = ',', default_value = "1,10,50,100", value_parser = positive, allow_negative_numbers = true)]
    rates: Vec<f64>,
    /// Events an hour at rate 1; the real feed has 2.75.
    #[arg(long, default_value_t = fixtures::DOCUMENTED_EVENTS_PER_HOUR, value_parser = positive, allow_negative_numbers = true)]
    base_rate: f64,
    /// How many days are played.
    #[arg(long, default_value_t = 7.0, value_parser = days, allow_negative_numbers = true)]
    days: f64,
    /// The time between two polls, from 10 s (the provider's rule) to a day.
    #[arg(long, default_value = "30m", value_parser = interval)]
    interval: TimeDelta,
    /// The rhythm of events: flat (random), daily (as in the real feed), or history DIR (recorded responses).
    #[arg(long, num_args = 1..=2, value_names = ["RHYTHM", "DIR"], default_value = "daily")]
    traffic: Vec<String>,
    /// Same seed and options, same result.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Where the collector stores.
    #[arg(long, value_enum, default_value_t = StoreKind::Memory)]
    store: StoreKind,
    /// Share of the calls that fail, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = share, allow_negative_numbers = true)]
    fault_rate: f64,
    /// In which ways calls fail: error, reset, timeout, cut. A timeout takes two seconds of your time.
    #[arg(long, value_delimiter = ',', default_value = "error,reset,timeout,cut", value_parser = str::parse::<Fault>)]
    faults: Vec<Fault>,
    /// A time without a feed, such as 6h@day3 or 90m@day3+7h (time of day: UTC from the first poll); may be repeated.
    #[arg(long, value_name = "TIME@dayN[+TIME]", value_parser = str::parse::<Outage>)]
    outage: Vec<Outage>,
    /// Polls missed in a row, every day from 7 in the morning, when most events come.
    #[arg(long, default_value_t = 0)]
    miss_polls: u32,
    /// How often a failed call is repeated.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=100))]
    retries: u32,
    /// Ask for uncompressed responses.
    #[arg(long)]
    no_compression: bool,
    #[command(flatten)]
    results: output::Results,
    #[command(flatten)]
    baselines: output::Baselines,
    /// Also fail with exit code 1 if an event was lost, not only if a loss was not reported or a report is false.
    #[arg(long)]
    expect_no_loss: bool,
}

pub(super) fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (1e-3..=1e5).contains(&number) { Ok(number) } else { Err("must be from 0.001 to 100,000".to_owned()) }
}

pub(super) fn days(text: &str) -> Result<f64, String> {
    let days = positive(text)?;
    if days <= 3_660.0 { Ok(days) } else { Err("ten years are the most".to_owned()) }
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("must be from 0 to 1".to_owned()) }
}

pub(super) fn interval(text: &str) -> Result<TimeDelta, String> {
    let time = humantime::parse_duration(text).map_err(|_| "not a time such as 30m".to_owned())?;
    let time = TimeDelta::from_std(time).map_err(|error| error.to_string())?;
    let allowed = TimeDelta::seconds(10)..=TimeDelta::days(1);
    if allowed.contains(&time) { Ok(time) } else { Err("must be from 10s to 1day".to_owned()) }
}

#[derive(Serialize)]
struct Output<'a> {
    scenarios: &'a [Played],
}

impl Run {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let traffic = match self.traffic.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["flat"] => Traffic::Flat,
            ["daily"] => Traffic::Daily,
            ["history", folder] => Traffic::History(PathBuf::from(folder)),
            _ => output::usage("--traffic is one of flat, daily, history DIR"),
        };
        let length = TimeDelta::seconds((self.days * 86_400.0) as i64);
        if let Some(outage) = self.outage.iter().find(|outage| outage.after > length) {
            let day = outage.after.num_days() + 1;
            output::usage(&format!("an outage begins on day {day}, but {} days are simulated", self.days));
        }
        let missed = i32::try_from(self.miss_polls).ok().and_then(|polls| self.interval.checked_mul(polls));
        if missed.is_none_or(|missed| missed > TimeDelta::days(1)) {
            output::usage(&format!("--miss-polls {} is longer than the day that it is for", self.miss_polls));
        }
        let scenarios: Vec<Scenario> = self
            .rates
            .iter()
            .map(|&rate| Scenario {
                rate,
                base_rate: self.base_rate,
                traffic: traffic.clone(),
                interval: self.interval,
                days: self.days,
                seed: self.seed,
                store: self.store,
                fault_rate: self.fault_rate,
                faults: self.faults.clone(),
                outages: self.outage.clone(),
                miss_polls: self.miss_polls,
                retries: self.retries,
                compression: !self.no_compression,
            })
            .collect();
        let comparing = self.baselines.prepare()?;
        let bar = output::progress(scenarios.iter().map(Scenario::poll_count).sum(), "polls");
        let played = play_all(&scenarios, || bar.inc(1))?;
        bar.finish_and_clear();
        let output = Output { scenarios: &played };
        self.results.write(&output, || page(&played), || text(&played))?;
        let within = comparing.finish(&output)?;
        let lost: usize = played.iter().map(|played| played.lost).sum();
        ensure!(!self.expect_no_loss || lost == 0, "{lost} events were lost, and none was expected to be");
        played.iter().try_for_each(|played| check_gaps(played.rate, played.gaps))?;
        Ok(within)
    }
}

/// Fails if a loss was not reported or a report was false.
fn check_gaps(rate: f64, gaps: Gaps) -> anyhow::Result<()> {
    let Gaps { polls_after_loss, reported, false_reports, .. } = gaps;
    ensure!(
        gaps.are_right(),
        "possible_gap is wrong at {rate}x: {reported} of {polls_after_loss} polls after a loss reported it, false reports: \
         {false_reports}"
    );
    Ok(())
}

fn text(played: &[Played]) -> String {
    let mut text = summary(played).to_string();
    for played in played.iter().filter(|played| played.lost > 0) {
        let hours: Vec<String> =
            played.lost_by_hour.iter().map(|loss| format!("{:02}h {}", loss.hour, loss.lost)).collect();
        let _ = writeln!(
            text,
            "at {}x, {} of {} published events are lost, by the hour in Stockholm: {}",
            played.rate,
            played.lost,
            played.published,
            hours.join(", ")
        );
    }
    for Played { rate, gaps, .. } in played {
        let Gaps { polls_after_loss, reported, beside_edits, false_reports, false_reports_beyond } = gaps;
        let false_reports = false_reports + false_reports_beyond;
        if polls_after_loss + false_reports > 0 {
            let _ = writeln!(
                text,
                "at {rate}x, {reported} of {polls_after_loss} polls after a loss reported possible_gap ({beside_edits} held \
                 edited events); false reports: {false_reports}"
            );
        }
    }
    text
}

fn summary(played: &[Played]) -> Table {
    let mut table = Table::new(&[
        "rate",
        "published",
        "stored",
        "lost",
        "duplicates",
        "polls",
        "failed",
        "maximum new",
        "minimum overlap",
        "run p50",
        "run p99",
        "memory",
        "time",
    ]);
    for played in played {
        let run = |pick: fn(&loadtest::latency::Percentiles) -> f64| {
            let seconds: f64 = played.timings.values().map(pick).sum();
            format!("{:.1} ms", seconds * 1e3)
        };
        table.row(vec![
            format!("{}x", played.rate),
            played.published.to_string(),
            played.stored.to_string(),
            played.lost.to_string(),
            played.duplicates.to_string(),
            played.polls.to_string(),
            played.failed_polls.to_string(),
            played.max_new_per_poll.to_string(),
            played.min_overlap.map_or_else(|| "–".to_owned(), |overlap| overlap.to_string()),
            run(|times| times.p50),
            run(|times| times.p99),
            format!("{} MB", played.peak_rss_bytes / 1_000_000),
            format!("{:.1} s", played.elapsed_s),
        ]);
    }
    table
}

fn page(played: &[Played]) -> anyhow::Result<String> {
    let mut page = Page::new("How much the collector can take");
    let first = &played[0];
    let rhythm = match &first.traffic {
        Traffic::Flat => "events at every hour alike".to_owned(),
        Traffic::Daily => "the day's and week's rhythm of the real feed".to_owned(),
        Traffic::History(folder) => format!("the history recorded in {}", folder.display()),
    };
    page.section(
        "Scenarios",
        &format!(
            "{} days, a poll every {} minutes, {} events an hour at rate 1, {rhythm}, seed {}.",
            first.days,
            first.interval_s as f64 / 60.0,
            first.base_rate,
            first.seed
        ),
    );
    page.table("Results", &summary(played));
    let axes = Axes {
        title: "New events in the buffer at each poll",
        x: "day",
        y: "new since the poll before",
        mark: Some((BUFFER as f64, "the buffer")),
    };
    let fill = played.iter().map(|played| Line {
        name: format!("{}x", played.rate),
        points: played.fill.iter().map(|fill| (fill.day, fill.new as f64)).collect(),
    });
    page.chart(&axes, &fill.collect::<Vec<_>>())?;
    let axes = Axes { title: "Loss by rate", x: "rate", y: "% of all published events", mark: None };
    let share = |played: &Played| 100.0 * played.lost as f64 / played.published.max(1) as f64;
    let loss =
        Line { name: "lost".to_owned(), points: played.iter().map(|it| (it.rate, share(it))).collect() };
    page.chart(&axes, &[loss])?;
    let axes = Axes { title: "Loss by the hour", x: "hour in Stockholm", y: "events lost", mark: None };
    let by_hour = played.iter().filter(|it| it.lost > 0).map(|it| Line {
        name: format!("{}x", it.rate),
        points: it.lost_by_hour.iter().map(|loss| (f64::from(loss.hour), loss.lost as f64)).collect(),
    });
    page.chart(&axes, &by_hour.collect::<Vec<_>>())?;
    let mut times = Table::new(&["rate", "step", "p50", "p95", "p99"]);
    for it in played {
        for (step, at) in &it.timings {
            let ms = |seconds: f64| format!("{:.2} ms", seconds * 1e3);
            times.row(vec![format!("{}x", it.rate), (*step).to_owned(), ms(at.p50), ms(at.p95), ms(at.p99)]);
        }
    }
    page.table("How long the steps of a run took, on this machine", &times);
    Ok(page.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreported_loss_or_a_false_report_fails_the_run() {
        let right = Gaps { polls_after_loss: 2, reported: 2, beside_edits: 1, ..Gaps::default() };
        assert!(check_gaps(1.0, right).is_ok());
        assert!(
            check_gaps(1.0, Gaps { reported: 1, ..right })
                .is_err_and(|error| error.to_string().contains("1 of 2"))
        );
        assert!(check_gaps(1.0, Gaps { false_reports: 1, ..right }).is_err());
        assert!(check_gaps(1_000.0, Gaps { false_reports_beyond: 1, ..right }).is_ok());
    }
}
