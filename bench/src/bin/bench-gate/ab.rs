//! `bench-gate ab` and `render`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use bench::counts::{CountChange, changes};
use bench::gate::instructions;
use bench::gate::pairs::{Plan, compare};
use bench::gate::programs::Programs;

use crate::Builds;
use crate::output::{Output, Report, progress};

/// A smaller share of additional instructions is ignored.
pub(crate) const LEAST_MORE_INSTRUCTIONS: f64 = 0.01;
/// The result of the last `ab`, in the folder of the builds.
const LAST: &str = "last.json";

#[derive(Debug, clap::Args)]
pub(crate) struct Ab {
    /// The revision that is compared with.
    base: String,
    /// The revision that is judged.
    #[arg(default_value = "HEAD")]
    head: String,
    #[command(flatten)]
    builds: Builds,
    /// Count instructions as well, with valgrind; one per cent more is a regression.
    #[arg(long, conflicts_with = "bench")]
    instructions: bool,
    /// A bench or count that only the base has, on purpose; without this it is a regression. May be repeated.
    #[arg(long, value_name = "NAME")]
    accept_vanished: Vec<String>,
    #[command(flatten)]
    output: Output,
}

impl Ab {
    pub(crate) fn carry_out(self) -> anyhow::Result<u8> {
        let builder = self.builds.open(false)?;
        let repository = builder.repository();
        let dirty = repository.is_dirty()?;
        let commits = [repository.commit(&self.base)?, repository.commit(&self.head)?];
        let [base, head] = commits.map(|commit| {
            progress(&format!("building {commit}"));
            builder.build(&commit)
        });
        let (base, head) = (base?, head?);
        let report = self.compare(&base, &head, dirty)?;
        // What was measured is not lost if it cannot be shown.
        let last = builder.folder().join(LAST);
        fs::write(&last, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("cannot write {}", last.display()))?;
        report.show(&self.output).context("the result is kept: `bench-gate render` prints it again")?;
        Ok(report.exit_code())
    }

    fn compare(&self, base: &Programs, head: &Programs, dirty: bool) -> anyhow::Result<Report> {
        let mut changed: Vec<CountChange> = changes(&base.counts()?, &head.counts()?);
        changed.retain(|change| change.to.is_some() || !self.accept_vanished.contains(&change.name));
        let plan = Plan { accepted: self.accept_vanished.clone(), ..Plan::of(&[&base.build, &head.build])? };
        if self.instructions {
            progress("counting instructions");
            let counted = instructions::count(&base.build, &head.build, &plan.ids)?;
            let more = counted.iter().filter(|it| it.is_more(LEAST_MORE_INSTRUCTIONS));
            changed.extend(more.map(|it| CountChange {
                name: format!("{}: instructions", it.id),
                from: Some(it.base as u64),
                to: Some(it.head as u64),
            }));
        }
        let mut comparison = compare(&base.build, &head.build, &plan, |rounds| {
            if rounds % 7 == 0 {
                progress(&format!("{rounds} rounds"));
            }
        })?;
        if dirty {
            comparison
                .notes
                .push("the working tree has uncommitted changes, which were not measured".to_owned());
        }
        if base.provenance.toolchain != head.provenance.toolchain {
            comparison.notes.push("the revisions are built with different toolchains".to_owned());
        }
        Ok(Report::new(comparison, &changed, format!("bench-gate ab {} {}", self.base, self.head)))
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Render {
    /// Where the builds are kept.
    #[arg(long, value_name = "DIR", default_value = "target/bench-gate/ab")]
    dir: PathBuf,
    #[command(flatten)]
    output: Output,
}

impl Render {
    pub(crate) fn carry_out(self) -> anyhow::Result<u8> {
        let path = self.dir.join(LAST);
        let text = fs::read_to_string(&path).with_context(|| {
            format!("cannot read the last result {}; `bench-gate ab` writes it", path.display())
        })?;
        let report: Report =
            serde_json::from_str(&text).with_context(|| format!("{} is not a result", path.display()))?;
        report.show(&self.output)?;
        Ok(report.exit_code())
    }
}
