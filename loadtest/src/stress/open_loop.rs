//! Work that is due at a steady rate, whether or not what was due before is done.
//!
//! The latency counts from the instant at which something was due. Otherwise a service that stalls would hold up its own
//! measurement, and the stall would hardly show.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_local;
use tokio::time::{sleep_until, timeout_at};

use crate::latency;

/// After the last piece was due, so long is waited for those that are not done.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something that was done: how long after it was due, how long it took, and whether it succeeded.
struct Done {
    latency: Duration,
    service: Duration,
    succeeded: bool,
}

/// What was done.
pub(super) struct Tally {
    pub(super) due: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) latencies: Histogram<u64>,
    pub(super) services: Histogram<u64>,
    /// From the first that was due to the last that was done.
    pub(super) elapsed: Duration,
}

impl Tally {
    pub(super) fn done(&self) -> u64 {
        self.succeeded + self.failed
    }

    pub(super) fn achieved_per_s(&self, duration: Duration) -> f64 {
        self.done() as f64 / self.elapsed.max(duration).as_secs_f64()
    }
}

/// Lets workers do what is due, `per_s` in a second, for so long. A worker says whether it succeeded.
pub(super) async fn drive<W>(
    workers: Vec<W>,
    per_s: f64,
    duration: Duration,
    progress: impl Fn(),
) -> anyhow::Result<Tally>
where
    W: AsyncFnMut() -> bool + 'static,
{
    let (to_workers, all_due) = mpsc::unbounded_channel::<Instant>();
    let (to_tally, mut done) = mpsc::unbounded_channel::<Done>();
    let all_due = Arc::new(Mutex::new(all_due));
    for mut worker in workers {
        let (all_due, to_tally) = (Arc::clone(&all_due), to_tally.clone());
        spawn_local(async move {
            loop {
                let Some(due) = all_due.lock().await.recv().await else { return };
                let began = Instant::now();
                let succeeded = worker().await;
                let done = Done { latency: due.elapsed(), service: began.elapsed(), succeeded };
                if to_tally.send(done).is_err() {
                    return;
                }
            }
        });
    }
    drop(to_tally);
    let began = Instant::now();
    let schedule = spawn_local(async move {
        let mut count = 0_u64;
        loop {
            let after = Duration::try_from_secs_f64(count as f64 / per_s).unwrap_or(Duration::MAX);
            if after > duration {
                return count;
            }
            let due = began + after;
            sleep_until(due.into()).await;
            if to_workers.send(due).is_err() {
                return count;
            }
            count += 1;
        }
    });
    let mut tally = Tally {
        due: 0,
        succeeded: 0,
        failed: 0,
        latencies: latency::histogram(),
        services: latency::histogram(),
        elapsed: Duration::ZERO,
    };
    let deadline = began + duration + PATIENCE;
    while let Ok(Some(Done { latency, service, succeeded })) = timeout_at(deadline.into(), done.recv()).await
    {
        tally.latencies.saturating_record(latency::nanoseconds(latency.as_secs_f64()));
        tally.services.saturating_record(latency::nanoseconds(service.as_secs_f64()));
        tally.succeeded += u64::from(succeeded);
        tally.failed += u64::from(!succeeded);
        tally.elapsed = began.elapsed();
        progress();
    }
    tally.due = schedule.await.context("the schedule broke off")?;
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rate_near_zero_is_due_once() {
        let due = tokio::task::LocalSet::new();
        let tally = due.run_until(drive(vec![async || true], 1e-300, Duration::from_millis(1), || ())).await;
        assert_eq!(tally.map(|tally| tally.due).ok(), Some(1));
    }
}
