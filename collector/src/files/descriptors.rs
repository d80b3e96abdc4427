//! The limit of open files (`ulimit -n`, `LimitNOFILE=`): how many files a command may open at a time.

use std::fs;
use std::io;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit};

/// Descriptors that any command needs: standard streams, the runtime, a connection, a file and its folder.
const LEAST: u64 = 12;
/// Descriptors that the service opens beside the standard streams and the files that [`spare`] is about.
const RUNTIME: u64 = 13;
/// Number of those who may open many files at the same time.
const USERS: u64 = 4;
/// Standard input, output and error.
const STANDARD_STREAMS: u64 = 3;

/// Checks that the process may open enough files for any command. Called before a runtime is built, which panics without them.
///
/// # Errors
/// [`io::Error`] that names the limit and how to raise it.
pub(crate) fn require() -> io::Result<()> {
    let (limit, inherited) = (limit(), inherited());
    let needed = LEAST + inherited;
    if limit >= needed {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the limit of open files is {limit}, but at least {needed} are needed; raise it with `ulimit -n` or \
         LimitNOFILE="
    )))
}

/// How many files each user of many may open at a time (requests, staged files, connections of readers), at least 1: they share
/// what is left by that which every command needs.
pub(crate) fn spare() -> usize {
    static SPARE: OnceLock<usize> = OnceLock::new();
    *SPARE.get_or_init(|| {
        let spare = limit().saturating_sub(STANDARD_STREAMS + RUNTIME + inherited());
        usize::try_from(spare / USERS).unwrap_or(usize::MAX).max(1)
    })
}

fn limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Descriptors that the process was started with, beside the standard streams; 0 where that cannot be seen. Counted once, since
/// those that the process opens later are not inherited.
fn inherited() -> u64 {
    static INHERITED: OnceLock<u64> = OnceLock::new();
    *INHERITED.get_or_init(|| {
        let Ok(open) = fs::read_dir("/proc/self/fd") else { return 0 };
        let numbers = open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
        // Those above the limit leave room below it. Listing the folder takes a descriptor itself.
        (numbers.filter(|number| *number < limit()).count() as u64).saturating_sub(STANDARD_STREAMS + 1)
    })
}
