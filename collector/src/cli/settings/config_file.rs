//! The settings in a TOML file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::ArgMatches;

use super::{SETTINGS, Setting, variable};

/// Maximum size of the file.
const LIMIT_BYTES: u64 = 1 << 20;
/// The file may be a FIFO that another program fills; that program has this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The file that `--config` or `COLLECTOR_CONFIG` names.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) values: BTreeMap<String, String>,
}

impl ConfigFile {
    pub(super) fn read(matches: &ArgMatches) -> anyhow::Result<Self> {
        let named = matches.try_get_one::<String>("config").ok().flatten().cloned();
        let Some(path) = named.map_or_else(|| variable("COLLECTOR_CONFIG"), |path| Ok(Some(path)))? else {
            return Ok(Self::default());
        };
        let path = PathBuf::from(path);
        let text = collector::files::read_text(&path, LIMIT_BYTES, PATIENCE)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            anyhow!("{} is no valid TOML: {}", path.display(), error.message())
        })?;
        let values = table.into_iter().map(|(key, value)| {
            let setting = SETTINGS.iter().find(|setting| setting.key == key);
            setting.ok_or_else(|| {
                anyhow!("{}: no setting is called `{key}`{}", path.display(), similar_to(&key))
            })?;
            let text = plain(&value).ok_or_else(|| {
                anyhow!("{}: `{key}` must be a text, a number or true or false", path.display())
            })?;
            Ok((key, text))
        });
        let values = values.collect::<anyhow::Result<_>>()?;
        Ok(Self { path, values })
    }
}

fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A hint at a key that differs only in its signs, or begins alike.
fn similar_to(key: &str) -> String {
    let bare = |text: &str| text.replace(['-', '_'], "").to_lowercase();
    let alike = |setting: &&Setting| {
        bare(setting.key) == bare(key) || key.len() > 3 && setting.key.starts_with(&key[..4.min(key.len())])
    };
    SETTINGS
        .iter()
        .find(alike)
        .map_or_else(String::new, |setting| format!("; did you mean `{}`?", setting.key))
}
