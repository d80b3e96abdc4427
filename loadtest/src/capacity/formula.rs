//! The limit by formula.

use chrono::TimeDelta;

use crate::scenario::BUFFER;

/// The buffer divided by the mean number of events between two polls of which the collector sees both.
#[must_use]
pub fn plain_limit(base_rate: f64, interval: TimeDelta, missed_polls: u32) -> f64 {
    let hours = interval.as_seconds_f64() / 3_600.0 * (1.0 + f64::from(missed_polls));
    BUFFER as f64 / (base_rate * hours)
}

/// The same for events at random times (Poisson): the rate at which the buffer overflows in none of `windows` with a
/// probability of one half. Edits take places in the buffer as well: `movements_per_event`.
#[must_use]
pub fn limit_with_chance(plain: f64, movements_per_event: f64, windows: f64) -> f64 {
    // The mean at which one window overflows with this chance.
    let chance = std::f64::consts::LN_2 / windows.max(1.0);
    let (mut low, mut high) = (0.0, BUFFER as f64);
    for _ in 0..60 {
        let mean = f64::midpoint(low, high);
        if overflow(mean) > chance { high = mean } else { low = mean }
    }
    plain * low / BUFFER as f64 / movements_per_event
}

/// The chance that more than the buffer's size come where `mean` are expected.
fn overflow(mean: f64) -> f64 {
    let log = |count: f64| count * mean.ln() - mean - libm::lgamma(count + 1.0);
    (1..2_000).map(|more| log(BUFFER as f64 + f64::from(more)).exp()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_own_figures_say_270() {
        let limit = plain_limit(3.7, TimeDelta::minutes(30), 0);
        assert!((limit - 270.27).abs() < 0.01, "{limit}");
        assert!((plain_limit(3.7, TimeDelta::minutes(30), 1) - limit / 2.0).abs() < 1e-9);
    }

    #[test]
    fn chance_lowers_the_limit_and_more_so_the_longer_one_looks() {
        // Half of all windows with a mean of 500 hold more: as good as the plain formula for a single one.
        assert!((limit_with_chance(100.0, 1.0, 1.4) - 100.0).abs() < 1.0);
        let month = limit_with_chance(100.0, 1.0, 1_440.0);
        let year = limit_with_chance(100.0, 1.0, 17_520.0);
        assert!(year < month && (84.0..88.0).contains(&month), "{month} {year}");
        assert!((limit_with_chance(100.0, 1.25, 1_440.0) - month / 1.25).abs() < 1e-9);
    }
}
