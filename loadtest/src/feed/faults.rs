//! What goes wrong with calls of the feed: at random, and for a while.

use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// HTTP 500.
    Error,
    /// The connection is cut before an answer.
    Reset,
    /// No answer in time.
    Timeout,
    /// Half a body.
    Cut,
    /// HTTP 503, while an outage lasts.
    Outage,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "error" => Ok(Self::Error),
            "reset" => Ok(Self::Reset),
            "timeout" => Ok(Self::Timeout),
            "cut" => Ok(Self::Cut),
            _ => Err(format!("`{text}` is not a fault; known are error, reset, timeout, cut")),
        }
    }
}

/// A time without a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// How long after the start it begins.
    pub after: TimeDelta,
    /// How long it lasts.
    pub lasts: TimeDelta,
}

impl FromStr for Outage {
    type Err = String;

    /// `6h@day3`, `90m@day3+7h30m`: days are counted from 1.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no outage such as 6h@day3 or 90m@day3+7h");
        let time = |text: &str| {
            let time = humantime::parse_duration(text).map_err(|_| wrong())?;
            TimeDelta::from_std(time).map_err(|_| wrong())
        };
        let (lasts, when) = text.split_once("@day").ok_or_else(wrong)?;
        let (day, into) = when.split_once('+').map_or((when, None), |(day, into)| (day, Some(into)));
        let day: i32 = day.parse().ok().filter(|day| *day > 0).ok_or_else(wrong)?;
        let into = into.map_or(Ok(TimeDelta::zero()), time)?;
        let lasts = time(lasts)?;
        if lasts.is_zero() {
            return Err(wrong());
        }
        Ok(Self { after: TimeDelta::days(1) * (day - 1) + into, lasts })
    }
}

/// When what goes wrong.
#[derive(Debug)]
pub struct FaultPlan {
    start: DateTime<Utc>,
    /// Share of the calls that go wrong at random.
    rate: f64,
    kinds: Vec<Fault>,
    outages: Vec<Outage>,
    rng: Pcg64Mcg,
}

impl FaultPlan {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::new(DateTime::UNIX_EPOCH, 0.0, &[], &[], 0)
    }

    /// A share `rate` of the calls goes wrong in one of these ways, all alike, and every call during an outage.
    #[must_use]
    pub fn new(start: DateTime<Utc>, rate: f64, kinds: &[Fault], outages: &[Outage], seed: u64) -> Self {
        let rng = Pcg64Mcg::seed_from_u64(seed ^ 0x0fa0_17f5);
        Self { start, rate, kinds: kinds.to_vec(), outages: outages.to_vec(), rng }
    }

    pub(super) fn next(&mut self, now: DateTime<Utc>) -> Option<Fault> {
        let since = now - self.start;
        let out = self.outages.iter().any(|out| since >= out.after && since < out.after + out.lasts);
        if out {
            return Some(Fault::Outage);
        }
        if self.kinds.is_empty() || self.unit() >= self.rate {
            return None;
        }
        let drawn = usize::try_from(self.rng.next_u32()).unwrap_or(0);
        self.kinds.get(drawn % self.kinds.len()).copied()
    }

    fn unit(&mut self) -> f64 {
        f64::from(self.rng.next_u32()) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_are_read_and_nonsense_is_not() {
        let outage: Outage = "90m@day3+7h".parse().unwrap();
        assert_eq!(outage, Outage { after: TimeDelta::hours(55), lasts: TimeDelta::minutes(90) });
        for wrong in ["", "6h", "6h@3", "6h@day0", "6h@day-1", "@day1", "0s@day1", "6h@day1+x", "x@day1"] {
            assert!(wrong.parse::<Outage>().is_err(), "{wrong}");
        }
    }
}
