//! What this process uses.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeVal;

/// The most memory it ever had, in bytes; 0 where the system does not say.
pub(crate) fn peak_rss_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1_024
}

/// The maximum number of files and connections that this process can have open, raised as far as it may be.
pub(crate) fn max_descriptors() -> u64 {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    getrlimit(Resource::RLIMIT_NOFILE).map_or(hard, |(soft, _)| soft)
}

/// CPU time of this process so far, in seconds; 0 where the system does not say.
pub(crate) fn cpu_s() -> f64 {
    used_s(UsageWho::RUSAGE_SELF)
}

/// CPU time of this thread so far, in seconds; 0 where the system does not say.
pub(crate) fn thread_cpu_s() -> f64 {
    used_s(UsageWho::RUSAGE_THREAD)
}

fn used_s(who: UsageWho) -> f64 {
    let Ok(usage) = getrusage(who) else { return 0.0 };
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
