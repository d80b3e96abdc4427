//! What makes a measurement worthless although the clock of the process did not notice: a suspended machine, a clock that
//! was set, a processor that was throttled.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// A larger difference between the time of day and the monotonic clock is a clock that was set, or a suspended machine.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(250);

/// Where the system reports throttling.
#[derive(Debug, Clone)]
pub struct Conditions {
    root: PathBuf,
    time_of_day: fn() -> SystemTime,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    throttled: u64,
    too_hot: u64,
    monotonic: Instant,
    time_of_day: SystemTime,
}

impl Default for Conditions {
    fn default() -> Self {
        Self::at(Path::new("/"))
    }
}

impl Conditions {
    /// The conditions that the system reports below a root folder.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), time_of_day: SystemTime::now }
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            throttled: self.throttled(),
            too_hot: self.too_hot(),
            monotonic: Instant::now(),
            time_of_day: (self.time_of_day)(),
        }
    }

    /// Why what was measured since a snapshot does not count.
    #[must_use]
    pub fn disturbance_since(&self, before: &Snapshot) -> Option<String> {
        let after = self.snapshot();
        let elapsed = after.monotonic - before.monotonic;
        let apart = match after.time_of_day.duration_since(before.time_of_day) {
            Ok(by_day) => by_day.abs_diff(elapsed),
            Err(backwards) => backwards.duration() + elapsed,
        };
        if apart > CLOCK_TOLERANCE {
            return Some("the clock was set, or the machine was suspended".to_owned());
        }
        if after.throttled > before.throttled {
            return Some("the control group ran out of its CPU quota (nr_throttled in cpu.stat)".to_owned());
        }
        (after.too_hot > before.too_hot)
            .then(|| "the processor was throttled because it was too hot (thermal_throttle)".to_owned())
    }

    /// Periods in which a control group of this process was throttled, those above it included.
    fn throttled(&self) -> u64 {
        let groups = fs::read_to_string(self.root.join("proc/self/cgroup")).unwrap_or_default();
        let group = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let counts = controllers.is_empty() || controllers.split(',').any(|it| it == "cpu");
            counts.then(|| path.trim_start_matches('/').to_owned())
        });
        let group = PathBuf::from(group.unwrap_or_default());
        let folders = ["sys/fs/cgroup", "sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"];
        let files = group.ancestors().flat_map(|group| folders.map(|folder| Path::new(folder).join(group)));
        files.map(|folder| counter(&self.root.join(folder).join("cpu.stat"), "nr_throttled ")).sum()
    }

    fn too_hot(&self) -> u64 {
        let cpus = fs::read_dir(self.root.join("sys/devices/system/cpu")).into_iter().flatten().flatten();
        let counters = cpus.flat_map(|cpu| {
            let folder = cpu.path().join("thermal_throttle");
            ["core_throttle_count", "package_throttle_count"].map(|file| folder.join(file))
        });
        counters.map(|file| counter(&file, "")).sum()
    }
}

/// The number after a prefix in a file of counters; 0 if there is none.
fn counter(file: &Path, prefix: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(prefix)?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn quota_and_heat_are_recognised() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let conditions = Conditions::at(root);
        write(root, "proc/self/cgroup", "0::/jobs/one\n");
        write(root, "sys/fs/cgroup/jobs/cpu.stat", "usage_usec 1\nnr_periods 9\nnr_throttled 4\n");
        let before = conditions.snapshot();
        assert_eq!(conditions.disturbance_since(&before), None);
        write(root, "sys/fs/cgroup/jobs/cpu.stat", "usage_usec 1\nnr_periods 9\nnr_throttled 5\n");
        assert!(conditions.disturbance_since(&before).is_some_and(|why| why.contains("quota")));

        let before = conditions.snapshot();
        write(root, "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "1\n");
        assert!(conditions.disturbance_since(&before).is_some_and(|why| why.contains("too hot")));
        write(root, "proc/self/cgroup", "4:cpu,cpuacct:/old\n");
        let before = conditions.snapshot();
        write(root, "sys/fs/cgroup/cpu,cpuacct/old/cpu.stat", "nr_throttled 1\n");
        assert!(conditions.disturbance_since(&before).is_some_and(|why| why.contains("quota")));
    }

    #[test]
    fn clock_that_jumps_is_recognised() {
        let root = tempfile::tempdir().unwrap();
        let ahead = || SystemTime::now() + Duration::from_hours(1);
        let before = Conditions::at(root.path()).snapshot();
        for time_of_day in [ahead, || SystemTime::now() - Duration::from_mins(1)] {
            let later = Conditions { time_of_day, ..Conditions::at(root.path()) };
            assert!(later.disturbance_since(&before).is_some_and(|why| why.contains("the clock was set")));
        }
    }
}
