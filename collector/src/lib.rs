//! Collects the events that the Swedish police publish, each exactly once, and keeps them for ever.
//!
//! Data flows one way, and each module is one step of it:
//!
//! ```text
//! feed ──► event ──► ledger ──► archive ──► record
//! fetch    parse     what is    partition,   metrics, health
//!          in place  new?       JSONL, put
//!               store carries ledger and archive
//! ```
//!
//! [`query`] reads what is stored, through a [`cache`] where there is one; [`fetch`] asks the feed by its own filters. [`run`] is the list of these steps; [`import`] repeats them over recorded responses; [`analysis`] and
//! [`trends`] read the records that runs leave, whose values [`quantity`] defines; [`heartbeat`] reports runs to a monitor. No step knows the command line, only [`feed`], [`store`] and [`heartbeat`] know the network,
//! and only [`clock`] knows what time it is.

#[cfg(not(unix))]
compile_error!(
    "the local store needs POSIX renames, hard links and synced folders, which this platform does not have: \
     docs/platforms.md"
);

pub mod analysis;
pub mod archive;
pub mod cache;
pub mod clock;
mod concurrency;
pub mod event;
pub mod feed;
pub mod fetch;
pub mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod heartbeat;
mod http_span;
pub mod import;
mod json;
pub mod ledger;
mod python;
pub mod quantity;
pub mod query;
pub mod record;
pub mod run;
pub mod store;
pub mod text;
pub mod trends;
pub mod watch;
