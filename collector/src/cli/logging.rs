//! Logs: on stderr, as text or as one JSON object a line. Traces, if the program was built with them.

use std::io::{self, IsTerminal as _};
use std::{env, fmt};

use nix::sys::stat::fstat;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::settings::LogSettings;
use crate::text::{json_for_terminal, printable};

/// The form of a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Starts logging. A level that was chosen beats `RUST_LOG`, which beats the default.
pub(crate) fn start(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = match env::var("RUST_LOG") {
        Ok(wanted) if !wanted.is_empty() && !settings.is_level_chosen => EnvFilter::try_new(wanted)?,
        // The library reports each transaction, and each failure that the publisher reports as well.
        _ if settings.log_level <= LevelFilter::INFO => {
            EnvFilter::default().add_directive(settings.log_level.into()).add_directive("krafka=off".parse()?)
        }
        _ => EnvFilter::default().add_directive(settings.log_level.into()),
    };
    let colour = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let logs = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colour);
    let logs = logs.fmt_fields(debug_fn(write_field).delimited(" "));
    let to_journal = goes_to_journal();
    let logs = match settings.log_format {
        LogFormat::Text if !to_journal => logs.with_target(false).with_filter(filter).boxed(),
        // journald records the time.
        LogFormat::Text => {
            let logs = logs.with_target(false).without_time().with_level(false);
            logs.map_event_format(|inner| Line { inner, to_journal, is_json: false })
                .with_filter(filter)
                .boxed()
        }
        LogFormat::Json => {
            let logs = logs.json().flatten_event(true);
            logs.map_event_format(|inner| Line { inner, to_journal, is_json: true })
                .with_filter(filter)
                .boxed()
        }
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

/// Adds the priority to a line for journald, as sd-daemon(3) describes it, and escapes what is not printable in JSON.
struct Line<F> {
    inner: F,
    to_journal: bool,
    is_json: bool,
}

impl<S, N, F> FormatEvent<S, N> for Line<F>
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
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        if self.to_journal {
            let priority = match *event.metadata().level() {
                Level::ERROR => 3,
                Level::WARN => 4,
                Level::INFO => 6,
                Level::DEBUG | Level::TRACE => 7,
            };
            write!(writer, "<{priority}>")?;
        }
        writer.write_str(&if self.is_json { json_for_terminal(&line) } else { line.into() })
    }
}

/// Sends what is still buffered. Nothing is logged after this.
pub(crate) fn finish() {
    #[cfg(feature = "otlp")]
    super::traces::finish();
}
