//! Refuses folders that lie inside the archive, where their files would pass for its own or make it unsound.

use std::path::{Component, Path, PathBuf, absolute};

use anyhow::anyhow;

use super::{Settings, Value};
use crate::archive::Kind;
use crate::store::StoreAddress;

/// The folders of an archive beside those of each kind of line.
const OWN: [&str; 3] = ["metadata", "repaired", "tables"];

impl Settings {
    /// Refuses settings that name a folder inside the archive.
    pub(super) fn check_folders(&self, values: &[Value]) -> anyhow::Result<()> {
        let Some(archive) = self.store.store.folder() else { return Ok(()) };
        let refuse = |key: &str, reason: &'static str| {
            let value = values.iter().find(|value| value.key == key);
            value.map_or_else(|| anyhow!("{key}: {reason}"), |value| value.refuse(reason))
        };
        let folders = [
            ("metrics_dir", Some(self.records.metrics_dir.as_path())),
            ("health_file", Some(self.health.health_file.as_path())),
            ("state_dir", Some(self.state.state_dir.as_path())),
            ("cache_dir", Some(self.cache.cache_dir.as_path())),
            ("tables_location", self.tables.tables_location.as_ref().and_then(StoreAddress::folder)),
        ];
        for (key, folder) in folders {
            if folder.is_some_and(|folder| is_among_objects(archive, folder)) {
                return Err(refuse(key, "it is inside a folder of the archive"));
            }
        }
        match &self.replica.mirror_to {
            Some(replica) => self.check_apart(replica).map_err(|reason| refuse("mirror_to", reason)),
            None => Ok(()),
        }
    }

    /// Refuses another store inside that of the archive, and the other way round.
    pub(crate) fn check_apart(&self, other: &StoreAddress) -> Result<(), &'static str> {
        let (Some(archive), Some(other)) = (self.store.store.folder(), other.folder()) else { return Ok(()) };
        let [archive, other] = [archive, other].map(resolved);
        let is_nested = archive != other && (other.starts_with(&archive) || archive.starts_with(&other));
        if is_nested { Err("one of the two stores is inside the other") } else { Ok(()) }
    }
}

fn is_among_objects(archive: &Path, folder: &Path) -> bool {
    let (archive, folder) = (resolved(archive), resolved(folder));
    let first = folder.strip_prefix(&archive).ok().and_then(|rest| rest.iter().next()?.to_str());
    first.is_some_and(|first| OWN.contains(&first) || Kind::ALL.iter().any(|kind| kind.name() == first))
}

/// The path without links, as far as it exists, and without `..`.
fn resolved(path: &Path) -> PathBuf {
    let path = absolute(path).unwrap_or_else(|_| path.to_owned());
    let found =
        path.ancestors().find_map(|above| Some((above.canonicalize().ok()?, path.strip_prefix(above).ok()?)));
    let Some((mut resolved, rest)) = found else { return path };
    for part in rest.components() {
        match part {
            Component::ParentDir => _ = resolved.pop(),
            part => resolved.push(part),
        }
    }
    resolved
}
