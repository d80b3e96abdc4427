//! `loadtest reliability`.

use clap::Args;
use collector::analysis::statistics::Share;
use loadtest::feed::faults::Fault;
use loadtest::reliability::{Answer, Question, measure, poll_count};
use loadtest::report::html::{Axes, Line, Page};
use loadtest::report::table::Table;

use super::{output, run};

/// Options of `loadtest reliability`.
#[derive(Debug, Args)]
pub(super) struct Reliability {
    /// Shares of the calls that fail, each by itself.
    #[arg(long, value_delimiter = ',', default_value = "0.01,0.02,0.05,0.1,0.2", value_parser = run::share, allow_negative_numbers = true)]
    fault_rates: Vec<f64>,
    /// Runs for each of them.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    runs: u32,
    /// In which ways calls fail: error, reset, timeout, cut. A timeout takes two seconds of your time.
    #[arg(long, value_delimiter = ',', default_value = "error,reset,cut", value_parser = str::parse::<Fault>)]
    faults: Vec<Fault>,
    /// Same seed and options, same result.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    results: output::Results,
}

impl Reliability {
    pub(super) fn carry_out(self) -> anyhow::Result<bool> {
        let Self { fault_rates, runs, faults, seed, results } = self;
        let question = Question { fault_rates: fault_rates.clone(), runs, faults, seed };
        let bar = output::progress(poll_count(&question), "polls");
        let answer = measure(&question, || bar.inc(1))?;
        bar.finish_and_clear();
        let text = || format!("{}\n{}", experiments(&answer), expected(&answer));
        results.write(&answer, || page(&answer, &fault_rates), text)?;
        Ok(true)
    }
}

fn share(Share { value, low, high }: Share) -> String {
    format!("{:.2} % ({:.2} to {:.2})", value * 100.0, low * 100.0, high * 100.0)
}

fn experiments(answer: &Answer) -> Table {
    let mut table =
        Table::new(&["what goes wrong", "runs that succeed without retries", "with three", "events lost"]);
    for experiment in &answer.experiments {
        table.row(vec![
            experiment.what.clone(),
            share(experiment.without_retries),
            share(experiment.with_retries),
            format!("{} and {}", experiment.lost[0], experiment.lost[1]),
        ]);
    }
    table
}

fn expected(answer: &Answer) -> Table {
    let mut table = Table::new(&[
        "expected results",
        "documented before",
        "after",
        "measured: retries and compression off",
        "on",
    ]);
    for row in &answer.expected_results {
        let [before, after] = row.documented;
        let [off, on] = row.measured.clone();
        table.row(vec![row.metric.to_owned(), before.to_owned(), after.to_owned(), off, on]);
    }
    table
}

fn page(answer: &Answer, fault_rates: &[f64]) -> anyhow::Result<String> {
    let mut page = Page::new("How often a run succeeds");
    page.section("Faults", "In brackets: between which bounds the true share lies with 95 % confidence.");
    let line = |name: &str, pick: fn(&loadtest::reliability::Experiment) -> f64| Line {
        name: name.to_owned(),
        points: fault_rates
            .iter()
            .zip(&answer.experiments)
            .map(|(rate, experiment)| (rate * 100.0, pick(experiment) * 100.0))
            .collect(),
    };
    let lines = [
        line("without retries", |experiment| experiment.without_retries.value),
        line("with three", |experiment| experiment.with_retries.value),
    ];
    let axes = Axes {
        title: "Runs that succeed",
        x: "% of calls that fail",
        y: "% of runs that succeed",
        mark: None,
    };
    page.chart(&axes, &lines)?;
    page.table("Runs that succeed", &experiments(answer));
    page.section(
        "The documents' expected results",
        "Run and fetch time with the documented latencies of feed and Object Storage, waited for in full.",
    );
    page.table("Documented beside measured", &expected(answer));
    Ok(page.finish())
}
