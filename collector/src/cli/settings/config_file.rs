//! The settings in a TOML file.

mod document;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::ArgMatches;

use super::folders::with_home;
use super::{SETTINGS, variable};

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
        let path = with_home(&path).map_err(|reason| anyhow!("--config: `{path}`: {reason}"))?;
        let path = PathBuf::from(path);
        let text = collector::files::read_text(&path, LIMIT_BYTES, PATIENCE)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        let values =
            document::values(&text, &known).map_err(|reason| anyhow!("{}: {reason}", path.display()))?;
        Ok(Self { path, values })
    }
}
