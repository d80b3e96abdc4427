//! Reports each run to a monitor of scheduled tasks, which raises an alarm when no report comes: also when the machine is down.
//!
//! The address usually holds a secret. It is never logged, nor are errors that could name it, and redirects are not followed.

use std::fmt::{self, Debug, Display};
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tracing::{debug, warn};

use crate::archive::Outcome;
use crate::feed::{FeedError, is_loopback};
use crate::record::Limits;
use crate::run::RunReport;
use crate::tls;

/// Maximum time of a report. The next run repeats what is lost.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The address of a monitor. `Display` and `Debug` show its host only.
#[derive(Clone, PartialEq, Eq)]
pub struct HeartbeatUrl(Url);

impl FromStr for HeartbeatUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| "not a valid address")?;
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if is_loopback(&url) => Ok(Self(url)),
            "http" => Err("plain http is only valid for this machine (127.0.0.1, ::1, localhost); use https"),
            _ => Err("not an https address"),
        }
    }
}

impl Display for HeartbeatUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}/***", self.0.scheme(), self.0.host_str().unwrap_or_default())
    }
}

impl Debug for HeartbeatUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, formatter)
    }
}

/// What is reported of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    /// Every event of the response is stored, and the evidence shows health.
    Success,
    /// It failed, or the evidence does not show health.
    Failure,
}

/// Reports runs to a monitor.
#[derive(Debug)]
pub struct Heartbeat {
    url: HeartbeatUrl,
    client: Client,
}

impl Heartbeat {
    /// Prepares to report. Nothing is called yet.
    ///
    /// # Errors
    /// [`FeedError::Setup`] if no HTTP client can be made.
    pub fn new(url: &HeartbeatUrl) -> Result<Self, FeedError> {
        let builder = Client::builder()
            .timeout(TIMEOUT)
            .redirect(Policy::none())
            .referer(false)
            .user_agent(crate::feed::USER_AGENT)
            .pool_max_idle_per_host(0);
        let mut builder = tls::secure(builder);
        if is_loopback(&url.0) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| FeedError::Setup(error.without_url().to_string()))?;
        Ok(Self { url: url.clone(), client })
    }

    /// Reports a run: at the address itself if everything is stored, at `/fail` below it if it failed or the evidence does not show
    /// health, and not at all if it left the work to another run. A report that cannot be delivered is logged.
    pub async fn report(&self, report: &RunReport, now: DateTime<Utc>, limits: &Limits) {
        let Some(signal) = signal(report, now, limits) else { return };
        let mut url = self.url.0.clone();
        if signal == Signal::Failure
            && let Ok(mut path) = url.path_segments_mut()
        {
            path.pop_if_empty().push("fail");
        }
        let monitor = &self.url;
        match self.client.get(url).send().await {
            Ok(response) if response.status().is_success() => debug!(%monitor, ?signal, "heartbeat sent"),
            Ok(response) => {
                warn!(%monitor, ?signal, status = response.status().as_u16(), "the heartbeat was refused");
            }
            Err(error) => {
                let error = error.without_url();
                let reason = if error.is_timeout() {
                    format!("no answer within {} s", TIMEOUT.as_secs())
                } else {
                    innermost(&error)
                };
                warn!(%monitor, ?signal, reason, "the heartbeat could not be sent");
            }
        }
    }
}

fn signal(report: &RunReport, now: DateTime<Utc>, limits: &Limits) -> Option<Signal> {
    let is_unhealthy = report.health_error.is_some() || !report.evidence.judge(now, limits).is_empty();
    match &report.result {
        Err(_) => Some(Signal::Failure),
        Ok(_) if is_unhealthy => Some(Signal::Failure),
        Ok(deposit) => (deposit.outcome == Outcome::Stored).then_some(Signal::Success),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_https_or_on_this_machine_and_its_path_is_hidden() {
        let url: HeartbeatUrl = "https://user:pass@hc.example/secret?key=secret".parse().unwrap();
        assert_eq!(
            (url.to_string(), format!("{url:?}")),
            ("https://hc.example/***".to_owned(), "https://hc.example/***".to_owned())
        );
        for valid in ["http://127.0.0.1:8/x", "http://[::1]/x", "http://localhost/x", "https://10.0.0.1/"] {
            assert!(valid.parse::<HeartbeatUrl>().is_ok(), "{valid}");
        }
        for invalid in ["http://hc.example/x", "http://localhost.example/", "ftp://127.0.0.1/", "/secret", ""]
        {
            let error = invalid.parse::<HeartbeatUrl>().unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
