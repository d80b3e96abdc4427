//! Folders of this program where none is chosen, and whether one that is chosen can be used.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{anyhow, bail};

/// Where state that outlives a run belongs: systemd's `StateDirectory=`, or the user's by the XDG rules.
pub(super) fn state() -> anyhow::Result<PathBuf> {
    default_folder("STATE_DIRECTORY", "XDG_STATE_HOME", ".local/state")
}

/// Where what can be had again belongs: systemd's `CacheDirectory=`, or the user's by the XDG rules.
pub(super) fn cache() -> anyhow::Result<PathBuf> {
    default_folder("CACHE_DIRECTORY", "XDG_CACHE_HOME", ".cache")
}

fn default_folder(of_service: &'static str, of_user: &'static str, in_home: &str) -> anyhow::Result<PathBuf> {
    const NAME: &str = "polisen-events-collector";
    // systemd lists them all where a service has several.
    let listed = env::var_os(of_service).filter(|folders| !folders.is_empty());
    if let Some(folder) = listed.as_ref().and_then(|folders| env::split_paths(folders).next()) {
        if folder.is_relative() {
            bail!("${of_service}: `{}`: must be an absolute path", folder.display());
        }
        check(&folder).map_err(|reason| anyhow!("${of_service}: `{}`: {reason}", folder.display()))?;
        return Ok(folder);
    }
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    Ok(absolute(of_user)
        .map(|folder| folder.join(NAME))
        .or_else(|| Some(absolute("HOME")?.join(in_home).join(NAME)))
        .unwrap_or_else(|| Path::new("/var/tmp").join(format!("{NAME}-{}", nix::unistd::getuid()))))
}

/// Whether something is a folder, or can become one.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let error = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(metadata) if metadata.is_file() => return Err("it is a file, not a folder".to_owned()),
        Ok(_) => return Err("it is a FIFO, socket or device, not a folder".to_owned()),
        Err(error) => error,
    };
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    match error.kind() {
        io::ErrorKind::NotFound if is_link => Err("it is a symbolic link that leads nowhere".to_owned()),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Ok(()),
        _ => Err(error.to_string()),
    }
}
