//! Reports whether the process that owns a claim has ended.
//!
//! A hint, not a guarantee: taking over the claim of a process that still runs is safe (its writes are fenced) and only costs
//! that process its run. An owner is reported as gone only where that can be known.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};
use nix::errno::Errno;
use nix::sys::signal;
use nix::unistd::Pid;

/// Names claims' owners and judges them.
pub trait Liveness: Debug + Send + Sync {
    /// How this owner is called in claims. No two owners share a name.
    fn name(&self) -> String;

    /// Whether the owner of that name is known to be gone.
    fn is_gone(&self, owner: &str) -> bool;
}

/// A run of this process, from its beginning to its end.
///
/// A claim of this process that belongs to no such run was left behind by one that failed.
#[derive(Debug)]
pub(crate) struct ActiveRun {
    name: String,
}

static ACTIVE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
static RUNS: AtomicU64 = AtomicU64::new(0);

impl ActiveRun {
    pub(crate) fn begin(start: DateTime<Utc>) -> Self {
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let name = format!("{} {number}", start.to_rfc3339_opts(SecondsFormat::Micros, true));
        active().insert(name.clone());
        Self { name }
    }

    /// What claims call it. No two runs of a process share a name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether `name` is another run of this process that has not ended.
    pub(crate) fn is_another(&self, name: &str) -> bool {
        self.name != name && active().contains(name)
    }
}

impl Drop for ActiveRun {
    fn drop(&mut self) {
        active().remove(&self.name);
    }
}

fn active() -> MutexGuard<'static, BTreeSet<String>> {
    ACTIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Owners are processes, identified by machine, boot, PID namespace, number and start. Without `/proc` (macOS): by machine and
/// number.
#[derive(Debug, Clone)]
pub struct ThisProcess {
    machine: String,
    boot: String,
    name_space: String,
    process: u32,
    started: String,
    has_proc: bool,
}

impl Default for ThisProcess {
    fn default() -> Self {
        let process = std::process::id();
        Self {
            machine: nix::unistd::gethostname()
                .ok()
                .and_then(|name| name.into_string().ok())
                .unwrap_or_default(),
            boot: read_trimmed("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            name_space: fs::read_link("/proc/self/ns/pid")
                .map(|link| link.to_string_lossy().into_owned())
                .unwrap_or_default(),
            process,
            started: start_of(process).unwrap_or_default(),
            has_proc: cfg!(target_os = "linux"),
        }
    }
}

impl ThisProcess {
    /// This process, whose facts are looked up once.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: LazyLock<Arc<ThisProcess>> = LazyLock::new(Arc::default);
        Arc::clone(&SHARED)
    }
}

impl Liveness for ThisProcess {
    fn name(&self) -> String {
        let Self { machine, boot, name_space, process, started, has_proc: _ } = self;
        format!("{machine} {boot} {name_space} {process} {started}")
    }

    fn is_gone(&self, owner: &str) -> bool {
        let fields: Vec<&str> = owner.split(' ').collect();
        let [machine, boot, name_space, process, started] = fields[..] else { return false };
        let known = |own: &str, other: &str| !own.is_empty() && own == other;
        if !known(&self.machine, machine) {
            return false;
        }
        if !self.has_proc {
            return process.parse().is_ok_and(has_ended);
        }
        if self.boot.is_empty() || boot.is_empty() {
            return false;
        }
        if self.boot != boot {
            return true; // the machine was started anew since
        }
        if !known(&self.name_space, name_space) || started.is_empty() {
            return false;
        }
        process.parse().is_ok_and(|process| start_of(process).as_deref() != Some(started))
    }
}

/// When a process was started, in clock ticks since boot: the 22nd field of `/proc/PID/stat` (proc(5)).
/// Nothing if there is no such process, or if it is dead and only waits for its parent to notice.
fn start_of(process: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field, the command's name, stands in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

/// Whether no process has this number. One that was started since may have it: then the claim's lease is waited for.
fn has_ended(process: i32) -> bool {
    process > 0 && signal::kill(Pid::from_raw(process), None) == Err(Errno::ESRCH)
}

fn read_trimmed(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_not_gone() {
        let process = ThisProcess::default();
        assert!(!process.is_gone(&process.name()));
    }

    /// As on macOS.
    #[test]
    fn without_proc_a_process_that_ended_is_gone() {
        let bare = ThisProcess {
            boot: String::new(),
            name_space: String::new(),
            started: String::new(),
            has_proc: false,
            ..ThisProcess::default()
        };
        assert!(!bare.is_gone(&bare.name()));
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let other = ThisProcess { process: child.id(), ..bare.clone() };
        assert!(!bare.is_gone(&other.name()));
        child.wait().unwrap();
        assert!(bare.is_gone(&other.name()));
        let elsewhere = ThisProcess { machine: "elsewhere".into(), ..other };
        assert!(!bare.is_gone(&elsewhere.name()));
        for number in ["0", "-1", "4294967295", "x"] {
            assert!(!bare.is_gone(&format!("{}   {number} ", bare.machine)), "{number}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_ended_is_gone() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let number = child.id();
        let name =
            ThisProcess { process: number, started: start_of(number).unwrap(), ..ThisProcess::default() };
        // It reads until its input ends, which `wait` closes.
        child.wait().unwrap();
        assert!(ThisProcess::default().is_gone(&name.name()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_zombie_is_gone() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let number = child.id();
        let name =
            ThisProcess { process: number, started: start_of(number).unwrap(), ..ThisProcess::default() };
        assert!(!ThisProcess::default().is_gone(&name.name()));
        child.kill().unwrap();
        while !ThisProcess::default().is_gone(&name.name()) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn processes_of_other_machines_are_not_gone() {
        let process = ThisProcess::default();
        let elsewhere = ThisProcess { machine: "elsewhere".into(), process: 1, ..process.clone() };
        assert!(!process.is_gone(&elsewhere.name()));
        assert!(!process.is_gone("c1"));
        let before_boot = ThisProcess { boot: "another".into(), ..process.clone() };
        assert!(process.is_gone(&before_boot.name()));
    }
}
