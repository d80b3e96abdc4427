//! How often a host may be called, counted over all processes of this machine.
//!
//! The provider allows no two calls closer than 10 s, 60 an hour and 1,440 a day, and takes a 404 as final
//! (<https://polisen.se/om-polisen/om-webbplatsen/oppna-data/regler-for-oppna-data/>). Calls are kept in a
//! small file per host under a lock; a call is counted before it is made.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::{FeedError, is_loopback};
use crate::files::private;
use crate::json::from_object;

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A file of calls is not larger: a day's calls of 14 bytes each, and addresses that were not found.
const STATE_LIMIT_BYTES: u64 = 1 << 20;

/// Maximum time to wait for another process that counts a call. One that was stopped may hold the lock for ever.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// How often a host may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// Least time between two calls.
    pub min_interval: Duration,
    /// Most calls in any hour; none if there is no such limit.
    pub per_hour: Option<u32>,
    /// Most calls in any day; none if there is no such limit.
    pub per_day: Option<u32>,
}

impl CallLimits {
    /// No limits.
    pub const NONE: Self = Self { min_interval: Duration::ZERO, per_hour: None, per_day: None };
    /// The rules of polisen.se.
    pub const POLISEN: Self =
        Self { min_interval: Duration::from_secs(10), per_hour: Some(60), per_day: Some(1_440) };

    /// The limits that hold for an address: those of its provider where they are stricter.
    #[must_use]
    pub fn for_url(self, url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        if host == "polisen.se" || host.ends_with(".polisen.se") {
            self.stricter(Self::POLISEN)
        } else {
            self
        }
    }

    fn stricter(self, other: Self) -> Self {
        let fewer = |one: Option<u32>, two: Option<u32>| one.into_iter().chain(two).min();
        Self {
            min_interval: self.min_interval.max(other.min_interval),
            per_hour: fewer(self.per_hour, other.per_hour),
            per_day: fewer(self.per_day, other.per_day),
        }
    }

    /// How long a call at `now` has to wait after these earlier ones, and for which rule.
    fn wait(&self, calls_ms: &[i64], now_ms: i64) -> Option<(Duration, String)> {
        let interval_ms = i64::try_from(self.min_interval.as_millis()).unwrap_or(i64::MAX);
        let spacing = calls_ms
            .iter()
            .max()
            .map(|last| (last.saturating_add(interval_ms), "calls must lie apart".to_owned()));
        let window = |limit: Option<u32>, length_ms: i64, name: &str| {
            let limit = limit? as usize;
            let mut recent: Vec<i64> =
                calls_ms.iter().copied().filter(|call| now_ms.saturating_sub(*call) < length_ms).collect();
            recent.sort_unstable();
            let oldest_that_counts = recent.len().checked_sub(limit)?;
            let free_at = recent.get(oldest_that_counts).map_or(i64::MAX, |call| call + length_ms);
            Some((free_at, format!("{limit} calls {name}")))
        };
        [spacing, window(self.per_hour, HOUR_MS, "an hour"), window(self.per_day, DAY_MS, "a day")]
            .into_iter()
            .flatten()
            .filter(|(free_at, _)| *free_at > now_ms)
            .max_by_key(|(free_at, _)| *free_at)
            .map(|(free_at, rule)| (Duration::from_millis((free_at - now_ms).unsigned_abs()), rule))
    }
}

/// What this machine remembers of its calls to a host.
#[derive(Debug, Clone)]
pub struct CallLog {
    folder: PathBuf,
    limits: CallLimits,
    host: String,
    resource: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// When calls were made, in milliseconds since 1970 (UTC).
    calls_ms: Vec<i64>,
    /// Resources that were not found, and when that was.
    gone: std::collections::BTreeMap<String, String>,
}

impl State {
    /// Reads the content of a file. An unreadable one was cut off by a crash: begin anew rather than never call again.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        from_object(bytes).unwrap_or_default()
    }

    /// Counts a call if it may be made now; otherwise how long to wait, and for which rule.
    pub(crate) fn count_call(&mut self, limits: &CallLimits, now_ms: i64) -> Option<(Duration, String)> {
        // A clock that was set back must not lock calls out: what seems to come is taken as just now.
        self.calls_ms.iter_mut().for_each(|call| *call = now_ms.min(*call));
        self.calls_ms.retain(|call| now_ms.saturating_sub(*call) < DAY_MS);
        let wait = limits.wait(&self.calls_ms, now_ms);
        if wait.is_none() && *limits != CallLimits::NONE {
            self.calls_ms.push(now_ms);
        }
        wait
    }
}

impl CallLog {
    /// The log for an address. `instance` distinguishes users of an address of this machine.
    #[must_use]
    pub fn new(folder: PathBuf, limits: CallLimits, url: &Url, instance: &str) -> Self {
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let port = url.port().map(|port| format!("_{port}")).unwrap_or_default();
        let host: String = host.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '.' }).collect();
        let resource = if is_loopback(url) { format!("{url} for {instance}") } else { url.to_string() };
        Self { folder, limits: limits.for_url(url), host: format!("{host}{port}"), resource }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("calls-{}.json", self.host))
    }

    /// Counts a call at `now` if it may be made now; otherwise how long to wait, and for which rule.
    ///
    /// # Errors
    /// [`FeedError::Gone`] after a 404, unless forced; [`FeedError::CallLog`] if calls cannot be counted.
    pub fn try_call(&self, now: DateTime<Utc>, force: bool) -> Result<Option<(Duration, String)>, FeedError> {
        if self.limits == CallLimits::NONE && !self.path().exists() {
            return Ok(None);
        }
        let now_ms = now.timestamp_millis();
        self.change(|state| {
            if let (Some(since), false) = (state.gone.get(&self.resource), force) {
                return Err(FeedError::Gone { since: since.clone() });
            }
            Ok(state.count_call(&self.limits, now_ms))
        })?
    }

    /// Notes that the resource was not found.
    ///
    /// # Errors
    /// [`FeedError::CallLog`] if it cannot be noted.
    pub fn note_gone(&self, now: DateTime<Utc>) -> Result<(), FeedError> {
        self.change(|state| {
            state.gone.insert(self.resource.clone(), now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        })
    }

    /// Notes that the resource is there.
    ///
    /// # Errors
    /// [`FeedError::CallLog`] if it cannot be noted.
    pub fn note_found(&self) -> Result<(), FeedError> {
        if !self.path().exists() {
            return Ok(());
        }
        self.change(|state| {
            state.gone.remove(&self.resource);
        })
    }

    /// Changes the state under a lock that all processes respect.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, FeedError> {
        let path = self.path();
        let attempt = || -> io::Result<T> {
            let mut file = open_locked(&self.folder, &path)?;
            let mut bytes = Vec::new();
            // Of what is longer the rest is not read, and the state counts as unreadable.
            Read::by_ref(&mut file).take(STATE_LIMIT_BYTES).read_to_end(&mut bytes)?;
            let mut state = State::parse(&bytes);
            let before = serde_json::to_string(&state)?;
            let result = change(&mut state);
            let after = serde_json::to_string(&state)?;
            if after != before {
                file.set_len(0)?;
                file.rewind()?;
                file.write_all(after.as_bytes())?;
                file.sync_data()?;
            }
            Ok(result)
        };
        attempt().map_err(|source| FeedError::CallLog { path: path.display().to_string(), source })
    }
}

fn open_locked(folder: &Path, path: &Path) -> io::Result<File> {
    private::make_folder(folder)?;
    let file = private::open(path)?;
    private::lock(&file, LOCK_PATIENCE)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(folder: &Path, limits: CallLimits) -> CallLog {
        let url = Url::parse("https://example.org/api/events").unwrap();
        CallLog::new(folder.to_owned(), limits, &url, "")
    }

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_362_400 + second, 0).unwrap()
    }

    #[test]
    fn calls_lie_apart_and_count_over_all_logs_of_a_host() {
        let folder = tempfile::tempdir().unwrap();
        let limits = CallLimits { min_interval: Duration::from_secs(10), ..CallLimits::NONE };
        assert!(log(folder.path(), limits).try_call(at(0), false).unwrap().is_none());
        let (wait, _) = log(folder.path(), limits).try_call(at(4), false).unwrap().unwrap();
        assert_eq!(wait, Duration::from_secs(6));
        assert!(log(folder.path(), limits).try_call(at(10), false).unwrap().is_none());
    }

    #[test]
    fn an_hour_and_a_day_hold_so_many_calls() {
        let folder = tempfile::tempdir().unwrap();
        let limits = CallLimits { min_interval: Duration::ZERO, per_hour: Some(3), per_day: Some(5) };
        let log = log(folder.path(), limits);
        for second in [0, 1, 2] {
            assert!(log.try_call(at(second), false).unwrap().is_none());
        }
        let (wait, rule) = log.try_call(at(10), false).unwrap().unwrap();
        assert_eq!((wait, rule.as_str()), (Duration::from_secs(3590), "3 calls an hour"));
        for second in [3600, 3601] {
            assert!(log.try_call(at(second), false).unwrap().is_none());
        }
        let (wait, rule) = log.try_call(at(7300), false).unwrap().unwrap();
        assert_eq!((wait, rule.as_str()), (Duration::from_secs(86_400 - 7300), "5 calls a day"));
    }

    #[test]
    fn a_clock_set_back_does_not_lock_calls_out() {
        let folder = tempfile::tempdir().unwrap();
        let limits = CallLimits { min_interval: Duration::from_secs(10), ..CallLimits::NONE };
        let log = log(folder.path(), limits);
        assert!(log.try_call(at(10_000), false).unwrap().is_none());
        assert_eq!(log.try_call(at(0), false).unwrap().unwrap().0, Duration::from_secs(10));
        assert!(log.try_call(at(10), false).unwrap().is_none());
    }

    #[test]
    fn damaged_files_do_not_stop_calls() {
        let folder = tempfile::tempdir().unwrap();
        let limits = CallLimits { min_interval: Duration::from_secs(10), per_hour: Some(3), per_day: None };
        let log = log(folder.path(), limits);
        let damaged: [&[u8]; 4] =
            [b"{\"calls_ms\":[17", b"\xff\xfe", b"[]", br#"{"calls_ms":[-9223372036854775808]}"#];
        for content in damaged {
            std::fs::write(log.path(), content).unwrap();
            assert!(log.try_call(at(0), false).unwrap().is_none(), "{}", content.escape_ascii());
            assert!(log.try_call(at(1), false).unwrap().is_some(), "{}", content.escape_ascii());
        }
    }

    #[test]
    fn the_providers_rules_win_where_they_are_stricter() {
        let polisen = Url::parse("https://polisen.se/api/events").unwrap();
        assert_eq!(CallLimits::NONE.for_url(&polisen), CallLimits::POLISEN);
        let strict = CallLimits { min_interval: Duration::from_mins(1), per_hour: Some(10), per_day: None };
        let expected = CallLimits { per_day: Some(1_440), ..strict };
        assert_eq!(strict.for_url(&polisen), expected);
        let other = Url::parse("https://notpolisen.se/").unwrap();
        assert_eq!(CallLimits::NONE.for_url(&other), CallLimits::NONE);
    }

    #[test]
    fn after_a_404_nothing_is_called_until_forced() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path(), CallLimits::NONE);
        log.note_gone(at(0)).unwrap();
        assert!(matches!(log.try_call(at(10), false), Err(FeedError::Gone { .. })));
        assert!(log.try_call(at(10), true).unwrap().is_none());
        log.note_found().unwrap();
        assert!(log.try_call(at(20), false).unwrap().is_none());
    }
}
