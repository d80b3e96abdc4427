//! Logs: on stderr, as text or as one JSON object a line. Traces, if the program was built with them.

use std::io::{self, IsTerminal as _};
use std::{env, fmt};

use anyhow::bail;
use collector::text::{json_for_terminal, printable};
use nix::sys::stat::fstat;
use tracing::field::Field;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
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
    let logs = logs.fmt_fields(debug_fn(write_field).delimited(" "));
    let logs = match (settings.text("log_format"), goes_to_journal()) {
        ("text", false) => logs.with_target(false).with_filter(filter).boxed(),
        // journald notes the time.
        ("text", true) => {
            let logs = logs.with_target(false).without_time().with_level(false);
            logs.map_event_format(WithPriority).with_filter(filter).boxed()
        }
        ("json", to_journal) => {
            let logs = logs.json().flatten_event(true).map_event_format(Escaped);
            if to_journal {
                logs.map_event_format(WithPriority).with_filter(filter).boxed()
            } else {
                logs.with_filter(filter).boxed()
            }
        }
        (other, _) => bail!("log_format: `{other}` is neither text nor json"),
    };
    let all = tracing_subscriber::registry().with(logs);
    #[cfg(feature = "otlp")]
    let all = all.with(super::traces::layer()?);
    all.init();
    Ok(())
}

/// Whether stderr is read by journald: systemd.exec(5) on `JOURNAL_STREAM`.
pub(super) fn goes_to_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|it| stream == format!("{}:{}", it.st_dev, it.st_ino))
}

/// Writes a field of a log line in text. Its value may come from a feed, a server or a claim.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = printable(format!("{value:?}"));
    match field.name() {
        "message" => write!(writer, "{value}"),
        name if writer.has_ansi_escapes() => write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}"),
        name => write!(writer, "{name}={value}"),
    }
}

/// Lines of JSON in which every character that is not printable is escaped.
struct Escaped<F>(F);

impl<S, N, F> FormatEvent<S, N> for Escaped<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&json_for_terminal(&line))
    }
}

/// Lines that tell journald how much they matter: sd-daemon(3).
struct WithPriority<F>(F);

impl<S, N, F> FormatEvent<S, N> for WithPriority<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

/// Nothing more is said.
pub(crate) fn finish() {
    #[cfg(feature = "otlp")]
    super::traces::finish();
}
