//! What this process has used so far.

use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

/// Memory and processor time of this process since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ProcessUse {
    /// Largest resident set, in bytes.
    pub peak_memory_bytes: u64,
    /// Processor time in user mode, in seconds.
    pub cpu_user_s: f64,
    /// Processor time in the kernel, in seconds.
    pub cpu_system_s: f64,
}

impl ProcessUse {
    /// Asks the system (getrusage(2)); zeros if it does not tell.
    #[must_use]
    pub fn so_far() -> Self {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Self::default() };
        // Linux and the BSDs count in KiB, macOS in bytes.
        let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
        let seconds = |time: nix::sys::time::TimeVal| {
            #[expect(clippy::cast_precision_loss, reason = "seconds and microseconds of a process are small")]
            let (whole, micros) = (time.tv_sec() as f64, time.tv_usec() as f64);
            whole + micros / 1e6
        };
        Self {
            peak_memory_bytes: u64::try_from(usage.max_rss()).unwrap_or(0) * unit,
            cpu_user_s: seconds(usage.user_time()),
            cpu_system_s: seconds(usage.system_time()),
        }
    }
}
