//! What this process has used so far.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

/// Memory and processor time of this process since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessUse {
    /// Largest resident set, in bytes.
    pub peak_memory_bytes: u64,
    /// Processor time in user mode, in seconds.
    pub cpu_user_s: f64,
    /// Processor time in the kernel, in seconds.
    pub cpu_system_s: f64,
}

/// Linux and the BSDs count the resident set in KiB, macOS in bytes.
const RSS_UNIT_BYTES: u64 = if cfg!(target_vendor = "apple") { 1 } else { 1024 };

/// What `/proc/self/status` says (proc(5)): unlike getrusage(2), it does not count the memory of the process
/// that this one was forked from.
fn high_water_mark() -> Option<u64> {
    kib_of("VmHWM:")
}

fn kib_of(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Memory that this process has now, in bytes; nothing if the system does not report it.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    kib_of("VmRSS:")
}

impl ProcessUse {
    /// Asks the system; zeros if it does not answer.
    #[must_use]
    pub fn so_far() -> Self {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Self::default() };
        let seconds = |time: nix::sys::time::TimeVal| {
            #[expect(clippy::cast_precision_loss, reason = "seconds and microseconds of a process are small")]
            let (whole, micros) = (time.tv_sec() as f64, time.tv_usec() as f64);
            whole + micros / 1e6
        };
        Self {
            peak_memory_bytes: high_water_mark()
                .unwrap_or_else(|| u64::try_from(usage.max_rss()).unwrap_or(0) * RSS_UNIT_BYTES),
            cpu_user_s: seconds(usage.user_time()),
            cpu_system_s: seconds(usage.system_time()),
        }
    }
}
