//! Work that is due at a steady rate, whether or not what was due before is done.
//!
//! The latency counts from the instant at which something was due. Otherwise a service that stalls would hold up its own
//! measurement, and the stall would hardly show.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::latency;

/// After the last piece was due, so long is waited for those that are not done.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something that was done: which it is, how long after it was due, how long it took, and whether it succeeded.
struct Done {
    number: u64,
    latency: Duration,
    service: Duration,
    succeeded: bool,
}

/// What was done.
pub(super) struct Tally {
    pub(super) due: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    /// From the instant at which something was due; to the end for what was not done, so that a service that stalls shows.
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
    let (to_workers, all_due) = mpsc::unbounded_channel::<(u64, Instant)>();
    let (to_tally, mut done) = mpsc::unbounded_channel::<Done>();
    let all_due = Arc::new(Mutex::new(all_due));
    for worker in workers {
        spawn_local(work(worker, Arc::clone(&all_due), to_tally.clone()));
    }
    drop(to_tally);
    let began = Instant::now();
    let schedule = spawn_local(async move {
        let mut count = 0_u64;
        loop {
            let after = due_after(count, per_s);
            if after > duration {
                return count;
            }
            let due = began + after;
            sleep_until(due).await;
            if to_workers.send((count, due)).is_err() {
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
    let mut finished = HashSet::new();
    while let Ok(Some(Done { number, latency, service, succeeded })) = timeout_at(deadline, done.recv()).await
    {
        finished.insert(number);
        tally.latencies.saturating_record(latency::nanoseconds(latency.as_secs_f64()));
        tally.services.saturating_record(latency::nanoseconds(service.as_secs_f64()));
        tally.succeeded += u64::from(succeeded);
        tally.failed += u64::from(!succeeded);
        tally.elapsed = began.elapsed();
        progress();
    }
    tally.due = schedule.await.context("the schedule broke off")?;
    for number in (0..tally.due).filter(|number| !finished.contains(number)) {
        let waited = began.elapsed().saturating_sub(due_after(number, per_s));
        tally.latencies.saturating_record(latency::nanoseconds(waited.as_secs_f64()));
    }
    Ok(tally)
}

/// Lets a worker do what is due until nothing more comes.
async fn work<W>(
    mut worker: W,
    all_due: Arc<Mutex<mpsc::UnboundedReceiver<(u64, Instant)>>>,
    to_tally: mpsc::UnboundedSender<Done>,
) where
    W: AsyncFnMut() -> bool + 'static,
{
    loop {
        let Some((number, due)) = all_due.lock().await.recv().await else { return };
        let began = Instant::now();
        let succeeded = worker().await;
        let done = Done { number, latency: due.elapsed(), service: began.elapsed(), succeeded };
        if to_tally.send(done).is_err() {
            return;
        }
    }
}

/// When a piece is due, from the first one on.
fn due_after(number: u64, per_s: f64) -> Duration {
    Duration::try_from_secs_f64(number as f64 / per_s).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_done_counts_in_the_percentiles() {
        let mut number = 0;
        let worker = async move || {
            number += 1;
            // Nine are done at once; the tenth never ends, and those behind it wait.
            if number > 9 {
                std::future::pending::<()>().await;
            }
            true
        };
        let stalled = tokio::task::LocalSet::new();
        let driven = stalled.run_until(drive(vec![worker], 20.0, Duration::from_millis(950), || ()));
        let tally = driven.await.unwrap();
        assert_eq!((tally.due, tally.done()), (20, 9));
        assert_eq!(tally.latencies.len(), 20);
        // The tenth was due after 0.45 s and was waited for until 10.95 s.
        let longest_s = latency::seconds(tally.latencies.max());
        assert!((longest_s - 10.5).abs() < 0.1, "{longest_s}");
        assert!(latency::percentiles(&tally.latencies).p50 > 9.0);
    }

    #[tokio::test]
    async fn rate_near_zero_is_due_once() {
        let due = tokio::task::LocalSet::new();
        let tally = due.run_until(drive(vec![async || true], 1e-300, Duration::from_millis(1), || ())).await;
        assert_eq!(tally.map(|tally| tally.due).ok(), Some(1));
    }
}
