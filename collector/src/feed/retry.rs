//! When a failed call is repeated, and after how long.

use std::time::Duration;

use super::FeedError;

/// Longest wait that a server may ask for; who asks for more is not called again in this run.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(1);

/// How long to wait before the next call, or nothing if there is to be none.
///
/// `failed` calls were made so far. The wait doubles from `first` on; a server's `Retry-After` is obeyed
/// where it is longer.
pub(super) fn wait_after(error: &FeedError, failed: u32, retries: u32, first: Duration) -> Option<Duration> {
    if failed > retries || !error.is_transient() {
        return None;
    }
    let backoff = first.saturating_mul(2_u32.saturating_pow(failed.saturating_sub(1)));
    match error {
        FeedError::Status { retry_after: Some(asked), .. } => {
            (*asked <= LONGEST_RETRY_AFTER).then(|| backoff.max(*asked))
        }
        _ => Some(backoff),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn status(status: u16, retry_after_s: Option<u64>) -> FeedError {
        FeedError::Status { status, retry_after: retry_after_s.map(Duration::from_secs) }
    }

    #[test]
    fn waits_double_and_end() {
        let waits: Vec<_> = (1..=4).map(|failed| wait_after(&status(500, None), failed, 3, SECOND)).collect();
        assert_eq!(waits, [Some(SECOND), Some(2 * SECOND), Some(4 * SECOND), None]);
    }

    #[test]
    fn a_server_may_ask_for_up_to_a_minute() {
        assert_eq!(wait_after(&status(429, Some(30)), 1, 3, SECOND), Some(30 * SECOND));
        assert_eq!(wait_after(&status(503, Some(0)), 2, 3, SECOND), Some(2 * SECOND));
        assert_eq!(wait_after(&status(429, Some(61)), 1, 3, SECOND), None);
    }

    #[test]
    fn what_will_not_change_is_not_repeated() {
        for error in [status(403, None), status(404, None), status(400, None), FeedError::TooLarge] {
            assert_eq!(wait_after(&error, 1, 3, SECOND), None, "{error}");
        }
    }
}
