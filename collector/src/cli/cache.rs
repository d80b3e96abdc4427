//! `collector cache`: shows what is cached, or removes it.

use std::io::{self, Write as _};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::commands::{runtime, system_clock};
use super::output::{self, bytes};
use super::settings::{Settings, StoreSettings};
use super::stores::open_store;
use super::{Exit, Failure};
use crate::archive::Archive;
use crate::cache::{Cache, KeptOnDisk};

#[derive(Debug, Args)]
pub(super) struct CacheArguments {
    /// Show what is cached of the store and the feed, and how it was used; or remove it
    #[arg(value_name = "ACTION")]
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    Stats,
    Clear,
}

pub(super) fn cache(settings: &Settings, arguments: &CacheArguments) -> Result<Exit, Failure> {
    let clears = arguments.action == Action::Clear;
    let clock = system_clock();
    runtime()?.block_on(async {
        let StoreSettings { store, origin, .. } = &settings.store;
        let opened = open_store(&settings.store.options(), origin, &clock).await?;
        let of_store = settings.cache.of_store(&opened);
        if of_store.is_none() && origin.is_chosen() {
            Archive::new(Arc::clone(&opened.store), Arc::clone(&clock), settings.archive_options())
                .require_existing()
                .await?;
        }
        let feed = format!("feed {}", settings.source.feed);
        let of_feed = Some(settings.cache.between_commands(feed.clone()));
        let mut rows = Vec::new();
        for (name, options) in [(store.to_string(), of_store), (feed, of_feed)] {
            let Some(options) = options else {
                rows.push((name, None));
                continue;
            };
            let cache = Cache::new(options, Arc::clone(&clock));
            let kept = cache.kept_on_disk().await.unwrap_or_default();
            if clears {
                cache.clear().await?;
            }
            rows.push((name, Some(kept)));
        }
        if settings.output.json {
            let rows = rows.iter().map(|(name, kept)| match kept {
                Some(kept) => {
                    json!({"of": name, "cleared": clears, "kept": kept, "hit_rate": kept.used.hit_rate()})
                }
                None => json!({"of": name, "cleared": clears, "kept": null}),
            });
            output::print_json(&rows.collect::<Vec<_>>())?;
        } else {
            print(&rows, clears)?;
        }
        Ok(Exit::Done)
    })
}

fn print(rows: &[(String, Option<KeptOnDisk>)], clears: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (name, kept) in rows {
        let Some(KeptOnDisk { entries, bytes: size, limit_bytes, used }) = kept else {
            writeln!(out, "{name}: a folder of this machine; nothing of it is kept twice")?;
            continue;
        };
        if clears {
            writeln!(out, "{name}: {} ({}) removed", counted(*entries), bytes(*size))?;
            continue;
        }
        writeln!(out, "{name}")?;
        writeln!(out, "  kept        {}, {} of {}", counted(*entries), bytes(*size), bytes(*limit_bytes))?;
        let rate = used
            .hit_rate()
            .map_or_else(|| "never used".to_owned(), |rate| format!("hit rate {:.1} %", rate * 100.0));
        writeln!(
            out,
            "  used        {} hits, {} misses, {} shared, {} evicted; {rate}",
            used.memory_hits + used.disk_hits,
            used.misses,
            used.coalesced,
            used.evictions
        )?;
    }
    Ok(())
}

fn counted(entries: u64) -> String {
    if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") }
}
