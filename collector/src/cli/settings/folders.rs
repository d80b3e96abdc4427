//! Folders of this program where none is chosen, and whether one that is chosen can be used.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};

use crate::files::check_folder;

/// Where state that outlives a run belongs: systemd's `StateDirectory=`, or the user's by the XDG rules.
pub(super) fn state() -> anyhow::Result<PathBuf> {
    default_folder("STATE_DIRECTORY", "XDG_STATE_HOME", ".local/state")
}

/// Where what can be had again belongs: systemd's `CacheDirectory=`, or the user's by the XDG rules.
pub(super) fn cache() -> anyhow::Result<PathBuf> {
    default_folder("CACHE_DIRECTORY", "XDG_CACHE_HOME", ".cache")
}

/// A path in which `~` at the beginning is replaced by the home folder, as a shell does.
pub(super) fn with_home(path: &str) -> Result<String, &'static str> {
    let Some(rest) = path.strip_prefix('~') else { return Ok(path.to_owned()) };
    if !(rest.is_empty() || rest.starts_with('/')) {
        return Err("the home folder of another user is not looked up; write the path in full");
    }
    match env::var("HOME") {
        Ok(home) if home.starts_with('/') => Ok(format!("{}{rest}", home.trim_end_matches('/'))),
        _ => Err("~ is the home folder, but HOME is not an absolute path; write the path in full"),
    }
}

fn default_folder(of_service: &'static str, of_user: &'static str, in_home: &str) -> anyhow::Result<PathBuf> {
    const NAME: &str = "polisen-events-collector";
    // systemd lists them all where a service has several: the one with the name of this program, or else the first.
    let listed = env::var_os(of_service).filter(|folders| !folders.is_empty()).unwrap_or_default();
    let mut folders: Vec<PathBuf> =
        env::split_paths(&listed).filter(|it| !it.as_os_str().is_empty()).collect();
    folders.sort_by_key(|folder| !folder.ends_with(NAME));
    if let Some(folder) = folders.into_iter().next() {
        if folder.is_relative() {
            bail!("${of_service}: `{}`: must be an absolute path", folder.display());
        }
        check_folder(&folder).map_err(|reason| anyhow!("${of_service}: `{}`: {reason}", folder.display()))?;
        return Ok(folder);
    }
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    Ok(absolute(of_user)
        .map(|folder| folder.join(NAME))
        .or_else(|| Some(absolute("HOME")?.join(in_home).join(NAME)))
        .unwrap_or_else(|| Path::new("/var/tmp").join(format!("{NAME}-{}", nix::unistd::getuid()))))
}
