//! Where a value comes from. The one place that knows the precedence: an option beats a variable, a variable beats the
//! configuration file, and the file beats the default.

use std::borrow::Cow;
use std::error::Error as _;
use std::fmt::{self, Display};
use std::path::PathBuf;

use anyhow::anyhow;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, ValueHint};

use super::config_file::{ConfigFile, Entry};
use super::{folders, option, parsers, python, variable, variables};
use crate::heartbeat::HeartbeatUrl;
use crate::text::without_credentials;

/// The bucket that the documented collector stores into, where `OCI_NAMESPACE` is set and `OCI_BUCKET_NAME` is not.
const DOCUMENTED_BUCKET: &str = "polisen-events-collector";

/// Where a value comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    #[default]
    Default,
    File {
        path: PathBuf,
        line: usize,
    },
    Variable(String),
    Option(String),
}

impl Origin {
    /// Whether the user chose the value.
    pub(crate) fn is_chosen(&self) -> bool {
        *self != Self::Default
    }

    /// Names the place of a setting's value in an error.
    pub(crate) fn place(&self, key: &str) -> String {
        match self {
            Self::Default => key.to_owned(),
            Self::File { path, line } => format!("{}:{line}: {key}", path.display()),
            origin => origin.to_string(),
        }
    }
}

impl Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File { path, .. } => write!(formatter, "{}", path.display()),
            Self::Variable(name) => write!(formatter, "${name}"),
            Self::Option(name) => formatter.write_str(name),
        }
    }
}

/// The text of a setting's value.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) key: String,
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

impl Value {
    /// An error about this value, which names its origin.
    pub(crate) fn refuse(&self, reason: impl Display) -> anyhow::Error {
        if !self.origin.is_chosen() {
            // The environment is at fault, and the reason names it.
            return anyhow!("{reason}");
        }
        anyhow!("{}: `{}`: {reason}", self.origin.place(&self.key), self.shown())
    }

    /// The text without what is secret in it.
    pub(crate) fn shown(&self) -> Cow<'_, str> {
        match self.key.as_str() {
            "heartbeat_url" if !self.text.is_empty() => match self.text.parse::<HeartbeatUrl>() {
                Ok(url) => url.to_string().into(),
                Err(_) => "***".into(),
            },
            _ => without_credentials(&self.text),
        }
    }

    /// The value as an argument for the full definition; none if it is empty.
    pub(super) fn argument(&self) -> Option<String> {
        (!self.text.is_empty()).then(|| format!("{}={}", option(&self.key), self.text))
    }
}

/// An error of the full definition, as an error about the value that it is about.
pub(super) fn explain(error: &clap::Error, values: &[Value]) -> anyhow::Error {
    let reason = match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(valid))) => format!("not one of {}", valid.join(", ")),
        (None, _) => error.to_string(),
    };
    let invalid = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.split(' ').next(),
        _ => None,
    };
    let value = values.iter().find(|value| Some(option(&value.key).as_str()) == invalid);
    value.map_or_else(|| anyhow!("{reason}"), |value| value.refuse(&reason))
}

/// Everything that a value may come from.
pub(super) struct Sources<'a> {
    pub(super) options: &'a ArgMatches,
    pub(super) file: ConfigFile,
}

impl Sources<'_> {
    /// The value of every setting.
    pub(super) fn values(&self, definition: &Command) -> anyhow::Result<Vec<Value>> {
        let values = definition.get_arguments().map(|setting| self.value(setting));
        let mut values = values.collect::<anyhow::Result<Vec<_>>>()?;
        if values.iter().any(|value| value.key == "store" && value.text.starts_with("s3://")) {
            // The variables `OCI_…` are not meant for S3.
            for (value, setting) in values.iter_mut().zip(definition.get_arguments()) {
                if matches!(&value.origin, Origin::Variable(name) if name.starts_with("OCI_")) {
                    *value = self.value(&setting.clone().env(None))?;
                }
            }
        }
        let interval = values.iter().find(|value| value.key == "interval");
        let interval = interval.and_then(|interval| parsers::interval(&interval.text).ok());
        let max_age =
            values.iter_mut().find(|value| value.key == "max_age_minutes" && !value.origin.is_chosen());
        if let (Some(interval), Some(max_age)) = (interval, max_age) {
            max_age.text = parsers::max_age_minutes(interval).to_string();
        }
        Ok(values)
    }

    fn value(&self, setting: &Arg) -> anyhow::Result<Value> {
        let key = setting.get_id().to_string();
        let default = setting
            .get_default_values()
            .first()
            .map_or_else(String::new, |default| default.to_string_lossy().into_owned());
        let found = match self.option(&key) {
            Some(found) => Some(found),
            None => from_variable(setting, &key)?.or_else(|| self.entry(&key)),
        };
        let (text, origin) = found.unwrap_or_else(|| (default.clone(), Origin::Default));
        let mut value = Value { key, text, origin };
        if value.text.is_empty() && !default.is_empty() {
            // Probably a variable that was not filled in.
            return Err(value.refuse("must not be empty"));
        }
        let hint = setting.get_value_hint();
        if matches!(hint, ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath) {
            value.text = folders::with_home(&value.text)
                .map_err(|reason| anyhow!("{}: `{}`: {reason}", value.key, value.text))?;
        }
        Ok(value)
    }

    fn entry(&self, key: &str) -> Option<(String, Origin)> {
        let Entry { text, line } = self.file.entries.get(key)?.clone();
        Some((text, Origin::File { path: self.file.path.clone(), line }))
    }

    fn option(&self, key: &str) -> Option<(String, Origin)> {
        let text = self.options.try_get_raw(key).ok().flatten()?.next()?.to_str()?.to_owned();
        let is_given = self.options.value_source(key) == Some(ValueSource::CommandLine);
        is_given.then(|| (text, Origin::Option(option(key))))
    }
}

fn from_variable(setting: &Arg, key: &str) -> anyhow::Result<Option<(String, Origin)>> {
    let documented = setting.get_env().and_then(|name| name.to_str()).map(str::to_owned);
    for name in [Some(variable(key)), documented].into_iter().flatten() {
        if let Some(text) = variables::read(&name)? {
            return Ok(Some((text, Origin::Variable(name))));
        }
    }
    if key == "store" {
        return documented_bucket();
    }
    let translated = python::value(key)?;
    Ok(translated.map(|(text, name)| (text, Origin::Variable(name.to_owned()))))
}

/// The store that the variables of the documented collector name.
fn documented_bucket() -> anyhow::Result<Option<(String, Origin)>> {
    let Some(namespace) = variables::read("OCI_NAMESPACE")? else { return Ok(None) };
    let (bucket, names) = match variables::read("OCI_BUCKET_NAME")? {
        Some(bucket) => (bucket, "OCI_NAMESPACE, $OCI_BUCKET_NAME"),
        None => (DOCUMENTED_BUCKET.to_owned(), "OCI_NAMESPACE"),
    };
    Ok(Some((format!("oci://{namespace}/{bucket}"), Origin::Variable(names.to_owned()))))
}
