//! Limits how many bytes are copied in a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

/// A maximum rate that concurrent copies share.
#[derive(Debug)]
pub(super) struct Rate {
    bytes_per_s: Option<u64>,
    /// When the next bytes may be copied, by [`Clock::elapsed`].
    free_at: Mutex<Duration>,
}

impl Rate {
    pub(super) fn new(bytes_per_s: Option<u64>) -> Self {
        Self { bytes_per_s: bytes_per_s.filter(|&rate| rate > 0), free_at: Mutex::default() }
    }

    /// Waits until this number of bytes may be copied.
    pub(super) async fn take(&self, bytes: usize, clock: &dyn Clock) {
        let Some(rate) = self.bytes_per_s else { return };
        #[expect(clippy::cast_precision_loss, reason = "an object has far less than 2^52 bytes")]
        let time = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let now = clock.elapsed();
        let from = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let from = now.max(*free_at);
            *free_at = from + time;
            from
        };
        let wait = from.saturating_sub(now);
        if !wait.is_zero() {
            clock.sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::VirtualClock;

    #[tokio::test]
    async fn copies_share_the_rate() {
        let (rate, clock) = (Rate::new(Some(1_000)), VirtualClock::at(chrono::DateTime::UNIX_EPOCH));
        for _ in 0..5 {
            rate.take(500, &clock).await;
        }
        assert_eq!(clock.elapsed(), Duration::from_secs(2));
        Rate::new(None).take(usize::MAX, &clock).await;
        assert_eq!(clock.elapsed(), Duration::from_secs(2));
    }
}
