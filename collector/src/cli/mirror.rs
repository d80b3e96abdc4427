//! `collector mirror` and `collector adopt`: a replica in another store, and which of both accepts runs.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use clap::{Args, ValueHint};
use tracing::{error, warn};

use super::commands::{runtime, system_clock};
use super::output::{self, Progress, bytes, counted};
use super::settings::{ArchiveSettings, Settings, positive_time, size};
use super::stores::{open_archive, open_peer};
use super::{Exit, Failure};
use crate::archive::Archive;
use crate::clock::{Clock as _, SharedClock, SystemClock};
use crate::mirror::adopt::{Adoption, OldPrimary, adopt as promote};
use crate::mirror::reconcile::Reconciliation;
use crate::mirror::role::Role;
use crate::mirror::state::MirrorState;
use crate::mirror::{Mirror, MirrorError, MirrorOptions, MirrorReport};
use crate::store::StoreAddress;
use crate::text::printable;

/// Number of conflicts that are printed; `--json` has more of them.
const CONFLICTS_SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(super) struct MirrorArguments {
    /// Where the replica is or is to be: a folder or the address of a bucket, as for --store
    #[arg(long, value_name = "DIR|URL", required = true, value_hint = ValueHint::DirPath)]
    to: StoreAddress,
    /// Update the replica once and end, which is the default
    #[arg(long, conflicts_with = "every")]
    once: bool,
    /// Update the replica again and again, with this time between two updates
    #[arg(long, value_name = "TIME", value_parser = positive_time)]
    every: Option<Duration>,
    /// Compare every object of the replica, also those that were copied before
    #[arg(long)]
    verify: bool,
    /// Maximum number of bytes that are copied in a second, such as 5MB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_rate: Option<u64>,
    /// Bring together what both archives have stored since a fail-over, and make the one named by --to a replica
    #[arg(long, conflicts_with_all = ["every", "verify"])]
    reconcile: bool,
}

#[derive(Debug, Args)]
pub(super) struct AdoptArguments {
    /// Promote the replica although it was never copied completely, or lacks objects that its ledger vouches for
    #[arg(id = "force_adoption", long = "force")]
    force: bool,
}

/// The archive of the settings without a cache: what is compared has to be read.
async fn archive(settings: &Settings, clock: &SharedClock) -> Result<Archive, Failure> {
    open_archive(ArchiveSettings { cache: None, ..settings.archive() }, clock).await
}

/// The mirror that keeps a replica of the archive of the settings.
pub(super) async fn open_mirror(
    settings: &Settings,
    to: &StoreAddress,
    options: MirrorOptions,
    clock: &SharedClock,
) -> Result<Mirror, Failure> {
    let source = archive(settings, clock).await?;
    Ok(Mirror::new(source, open_peer(settings, to, clock).await?, options))
}

pub(super) fn mirror(settings: &Settings, arguments: &MirrorArguments) -> Result<Exit, Failure> {
    settings.check_apart(&arguments.to).map_err(|reason| Failure::Usage(anyhow!("--to: {reason}")))?;
    let (runtime, clock) = (runtime()?, system_clock());
    let options = MirrorOptions { max_rate: arguments.max_rate, verify: arguments.verify };
    let mirror = runtime.block_on(open_mirror(settings, &arguments.to, options, &clock))?;
    let bar = Progress::counting("objects");
    if arguments.reconcile {
        let reconciled = runtime.block_on(mirror.reconcile(|done| bar.count(done)));
        bar.finish();
        let reconciled = reconciled?;
        if settings.output.json {
            output::print_json(&reconciled)?;
        } else {
            print_reconciliation(&reconciled)?;
        }
        return Ok(exit(&reconciled.mirror));
    }
    loop {
        let updated = runtime.block_on(mirror.update(|done| bar.count(done)));
        bar.finish();
        if settings.replica.mirror_to.as_ref() == Some(&arguments.to) {
            keep_state(&settings.health.health_file, updated.as_ref(), clock.now());
        }
        let exit = match (updated, arguments.every) {
            (Ok(report), _) => {
                if settings.output.json {
                    output::print_json(&report)?;
                } else {
                    print_report(&report)?;
                }
                exit(&report)
            }
            // What a store refuses now it may accept in a while; that the roles are wrong does not change by itself.
            (
                Err(error @ (MirrorError::Store(_) | MirrorError::Archive(_) | MirrorError::Interrupted)),
                Some(_),
            ) => {
                error!(%error, "the replica could not be updated; trying again");
                Exit::Failed
            }
            (Err(error), _) => return Err(error.into()),
        };
        match arguments.every {
            Some(every) => runtime.block_on(clock.sleep(every)),
            None => return Ok(exit),
        }
    }
}

/// Keeps how the replica of the settings is, for the health check.
fn keep_state(health_file: &Path, updated: Result<&MirrorReport, &MirrorError>, now: DateTime<Utc>) {
    let mut state = MirrorState::read(health_file).unwrap_or_else(|_| MirrorState::new(now));
    state.note(updated, 0, now);
    if let Err(error) = state.write(health_file) {
        warn!(%error, "the state of the replica cannot be kept beside the health file");
    }
}

fn exit(report: &MirrorReport) -> Exit {
    if report.conflicts_total > 0 { Exit::Failed } else { Exit::Done }
}

fn print_report(report: &MirrorReport) -> io::Result<()> {
    let mut text = format!("Mirrored {} to {}\n", report.source, report.target);
    describe(&mut text, report);
    io::stdout().write_all(text.as_bytes())
}

fn describe(text: &mut String, report: &MirrorReport) {
    if let Some(owner) = &report.left_to {
        let _ = writeln!(text, "  left      another update ({owner}) is at work on the replica");
    }
    let copied = counted(report.objects, "object");
    let _ = write!(text, "  copied    {copied}, {}", bytes(report.bytes));
    for (count, what) in
        [(report.present, "there already"), (report.replaced, "replaced"), (report.verified, "compared")]
    {
        if count > 0 {
            let _ = write!(text, "; {count} {what}");
        }
    }
    let at = report
        .committed_at
        .map_or_else(String::new, |at| format!(" of {}", at.format("%Y-%m-%d %H:%M:%S UTC")));
    let _ = writeln!(text, "\n  commit    {} of {}{at}", report.sequence, report.source_sequence);
    for conflict in report.conflicts.iter().take(CONFLICTS_SHOWN) {
        let _ =
            writeln!(text, "  conflict  {}: {}", printable(&conflict.object), printable(&conflict.problem));
    }
    if report.conflicts_total > CONFLICTS_SHOWN {
        let _ = writeln!(text, "  and {} more; see --json", report.conflicts_total - CONFLICTS_SHOWN);
    }
    let _ = writeln!(text, "  time      {:.2} s", report.elapsed_s);
}

fn print_reconciliation(reconciled: &Reconciliation) -> io::Result<()> {
    let Reconciliation { commits, events, revisions, rejected, withdrawn, moved, mirror } = reconciled;
    let mut text = format!("Reconciled {} with {}\n", mirror.target, mirror.source);
    let _ = writeln!(
        text,
        "  stored    {}, {}, {rejected} rejected, {withdrawn} withdrawn, which only {} had ({commits} commits)",
        counted(*events, "event"),
        counted(*revisions, "revision"),
        mirror.target
    );
    let _ = writeln!(text, "  moved     {} to repaired/", counted(*moved, "object"));
    describe(&mut text, mirror);
    io::stdout().write_all(text.as_bytes())
}

pub(super) fn adopt(settings: &Settings, arguments: &AdoptArguments) -> Result<Exit, Failure> {
    let (runtime, clock) = (runtime()?, system_clock());
    let adopted = runtime.block_on(async {
        let target = archive(settings, &clock).await?;
        let source = old_primary(settings, &target, &clock).await;
        let epoch_store = match &settings.replica.epoch_store {
            Some(address) => Some(Arc::clone(open_peer(settings, address, &clock).await?.store())),
            None => None,
        };
        let adopted = promote(&target, source.as_ref(), epoch_store.as_ref(), arguments.force).await;
        adopted.map_err(Failure::from)
    })?;
    if settings.output.json {
        output::print_json(&adopted)?;
    } else {
        print_adoption(&adopted)?;
    }
    Ok(Exit::Done)
}

/// The archive that the replica follows, or was copied from, if its store can be opened.
async fn old_primary(settings: &Settings, replica: &Archive, clock: &SharedClock) -> Option<Archive> {
    let source = match replica.primary().await.ok()? {
        Some(primary) => primary,
        None => Role::read(replica.store()).await.ok()??.source?,
    };
    let address =
        source.parse().map_err(|error| warn!(%error, source, "the old primary cannot be looked for"));
    match open_peer(settings, &address.ok()?, clock).await {
        Ok(archive) => Some(archive),
        Err(Failure::Usage(error) | Failure::Failed(error)) => {
            warn!(%error, source, "the old primary cannot be looked for");
            None
        }
    }
}

fn print_adoption(adoption: &Adoption) -> io::Result<()> {
    let mut text = if adoption.was_primary {
        format!("{} accepts runs already, in epoch {}\n", adoption.store, adoption.epoch)
    } else {
        format!("{} accepts runs now, in epoch {}\n", adoption.store, adoption.epoch)
    };
    let time = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S UTC").to_string();
    let old = adoption.old_primary.as_deref().unwrap_or("the old primary");
    let _ = match &adoption.fence {
        OldPrimary::Fenced => {
            let _ = writeln!(
                text,
                "  fenced    {old}; {} copied from it now",
                counted(adoption.copied, "object")
            );
            match adoption.conflicts {
                0 => Ok(()),
                conflicts => writeln!(
                    text,
                    "  conflict  {} of it not copied: {} holds others under their names; reconcile",
                    counted(conflicts, "object"),
                    adoption.store
                ),
            }
        }
        OldPrimary::NotFenced(reason) => writeln!(text, "  not fenced  {old}: {reason}"),
        OldPrimary::NotSought => writeln!(text, "  not fenced  {old} was not looked for"),
    };
    let at = adoption.committed_at.map_or_else(String::new, |at| format!(" of {}", time(at)));
    let _ = writeln!(text, "  commit    {}{at}", adoption.sequence);
    if let Some((day, id)) = adoption.last_event {
        let _ = writeln!(text, "  event     the last one that is stored is {id} of {day}");
    }
    if let Some(mirrored_at) = adoption.mirrored_at.filter(|_| adoption.fence != OldPrimary::Fenced) {
        let age_s = (SystemClock::default().now() - mirrored_at).num_seconds();
        let _ = writeln!(
            text,
            "  mirrored  {}, {age_s} s ago; what was published since is in the feed, as long as its buffer reaches back",
            time(mirrored_at)
        );
    }
    if adoption.fence != OldPrimary::Fenced {
        let _ = writeln!(
            text,
            "Stop the collector of {old}. When it can be reached again:\n  collector mirror --store {} --to {old} --reconcile",
            adoption.store
        );
    }
    io::stdout().write_all(text.as_bytes())
}
