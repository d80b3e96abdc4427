//! The settings in a TOML file.

mod document;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::ArgMatches;

use super::KEYS;
use super::folders::with_home;
use super::variables;
pub(super) use document::Entry;

/// Maximum size of the file. The parser allocates up to 2 KiB for each byte of dotted keys in nested tables.
const LIMIT_BYTES: u64 = 64 << 10;
/// The file may be a FIFO that another program fills; that program has this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The file that `--config` or `COLLECTOR_CONFIG` names.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) entries: BTreeMap<String, Entry>,
}

impl ConfigFile {
    pub(super) fn read(options: &ArgMatches) -> anyhow::Result<Self> {
        let named = options.try_get_one::<String>("config").ok().flatten().cloned();
        let Some(path) = named.map_or_else(|| variables::read("COLLECTOR_CONFIG"), |path| Ok(Some(path)))?
        else {
            return Ok(Self::default());
        };
        let path = with_home(&path).map_err(|reason| anyhow!("--config: `{path}`: {reason}"))?;
        let path = PathBuf::from(path);
        let text = crate::files::read_text(&path, LIMIT_BYTES, PATIENCE)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let known: Vec<&str> = KEYS.iter().map(String::as_str).collect();
        let entries =
            document::entries(&text, &known).map_err(|error| anyhow!("{}:{error}", path.display()))?;
        Ok(Self { path, entries })
    }
}
