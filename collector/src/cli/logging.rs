//! Logs: on stderr, as text or as one JSON object a line. Traces, if the program was built with them.

use std::env;
use std::io::{self, IsTerminal as _};

use anyhow::bail;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::settings::Settings;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Starts logging. A level that was chosen beats `RUST_LOG`, which beats the default.
pub(crate) fn start(settings: &Settings) -> anyhow::Result<()> {
    let level = settings.text("log_level").to_lowercase();
    if !LEVELS.contains(&level.as_str()) {
        bail!("log_level: `{level}` is none of {}", LEVELS.join(", "));
    }
    let filter = match env::var("RUST_LOG") {
        Ok(wanted) if !wanted.is_empty() && !settings.is_chosen("log_level") => EnvFilter::try_new(wanted)?,
        _ => EnvFilter::try_new(level)?,
    };
    let colour = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let logs = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colour);
    let logs = match settings.text("log_format") {
        "text" => logs.with_target(false).with_filter(filter).boxed(),
        "json" => logs.json().flatten_event(true).with_filter(filter).boxed(),
        other => bail!("log_format: `{other}` is neither text nor json"),
    };
    let all = tracing_subscriber::registry().with(logs);
    #[cfg(feature = "otlp")]
    let all = all.with(super::traces::layer()?);
    all.init();
    Ok(())
}

/// Nothing more is said.
pub(crate) fn finish() {
    #[cfg(feature = "otlp")]
    super::traces::finish();
}
