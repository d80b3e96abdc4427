//! Who signs: from `~/.oci/config`, or from environment variables.
//!
//! Nothing of a key or a pass phrase is ever shown: errors name the setting, not its value.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing::warn;

use super::signature::{KeyError, PrivateKey};

/// Why nobody can sign.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no such section.
    #[error("{} has no profile [{profile}]", .path.display())]
    NoProfile {
        /// The file.
        path: PathBuf,
        /// The profile.
        profile: String,
    },
    /// A setting is missing.
    #[error("{origin} lacks `{name}`")]
    Missing {
        /// Where it was looked for.
        origin: String,
        /// Which.
        name: &'static str,
    },
    /// A setting holds what it must not hold.
    #[error("{origin}: `{name}` holds characters that it must not hold")]
    Malformed {
        /// Where it stands.
        origin: String,
        /// Which.
        name: &'static str,
    },
    /// The key cannot be used.
    #[error("{origin}: {source}")]
    Key {
        /// Where it stands.
        origin: String,
        /// Why.
        #[source]
        source: KeyError,
    },
}

/// A user's key, and the region that stands beside it.
pub struct Credentials {
    /// The key.
    pub key: PrivateKey,
    /// The region, if one is named.
    pub region: Option<String>,
    /// Where they come from, for people.
    pub origin: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Looks up an environment variable. Passed in, so that tests need not change the process's own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Credentials {
    /// From variables if `OCI_USER` is set, otherwise from the configuration file.
    ///
    /// Variables: `OCI_USER`, `OCI_TENANCY`, `OCI_FINGERPRINT`, `OCI_KEY_CONTENT` or `OCI_KEY_FILE`,
    /// `OCI_REGION`. File: `OCI_CONFIG_FILE` or `~/.oci/config`, section `OCI_CONFIG_PROFILE` or `DEFAULT`.
    ///
    /// # Errors
    /// [`CredentialsError`] if they are not complete.
    pub fn find(environment: Environment<'_>) -> Result<Self, CredentialsError> {
        if environment("OCI_USER").is_some() {
            return Self::from_environment(environment);
        }
        let home = environment("HOME").map(PathBuf::from).unwrap_or_default();
        let path = environment("OCI_CONFIG_FILE")
            .map_or_else(|| home.join(".oci/config"), |path| expand(&path, &home));
        let profile = environment("OCI_CONFIG_PROFILE").unwrap_or_else(|| "DEFAULT".to_owned());
        Self::from_file(&path, &profile, &home)
    }

    fn from_environment(environment: Environment<'_>) -> Result<Self, CredentialsError> {
        let settings =
            ["user", "tenancy", "fingerprint", "key_content", "key_file", "region"].into_iter().filter_map(
                |name| Some((name.to_owned(), environment(&format!("OCI_{}", name.to_uppercase()))?)),
            );
        let home = environment("HOME").map(PathBuf::from).unwrap_or_default();
        Self::of_settings(&settings.collect(), "the environment (OCI_…)".to_owned(), &home)
    }

    /// From a section of a configuration file; what a section lacks is taken from `[DEFAULT]`.
    ///
    /// # Errors
    /// [`CredentialsError`] if they are not complete.
    pub fn from_file(path: &Path, profile: &str, home: &Path) -> Result<Self, CredentialsError> {
        let text = read(path)?;
        let sections = sections(&text);
        let own = sections.get(profile).ok_or_else(|| CredentialsError::NoProfile {
            path: path.to_owned(),
            profile: profile.to_owned(),
        })?;
        let mut settings = sections.get("DEFAULT").cloned().unwrap_or_default();
        settings.extend(own.clone());
        Self::of_settings(&settings, format!("{} [{profile}]", path.display()), home)
    }

    fn of_settings(
        settings: &BTreeMap<String, String>,
        origin: String,
        home: &Path,
    ) -> Result<Self, CredentialsError> {
        let setting = |name: &'static str| -> Result<&str, CredentialsError> {
            let missing = || CredentialsError::Missing { origin: origin.clone(), name };
            let text = settings.get(name).filter(|text| !text.is_empty()).ok_or_else(missing)?;
            let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-_".contains(&byte));
            if plain { Ok(text) } else { Err(CredentialsError::Malformed { origin: origin.clone(), name }) }
        };
        let key_id = format!("{}/{}/{}", setting("tenancy")?, setting("user")?, setting("fingerprint")?);
        let pem = match (settings.get("key_content"), settings.get("key_file")) {
            (Some(pem), _) => pem.clone(),
            (None, Some(path)) => read(&expand(path, home))?,
            (None, None) => return Err(CredentialsError::Missing { origin, name: "key_file" }),
        };
        let key = PrivateKey::from_pem(key_id, pem.as_bytes())
            .map_err(|source| CredentialsError::Key { origin: origin.clone(), source })?;
        let region = settings.get("region").filter(|region| !region.is_empty()).cloned();
        Ok(Self { key, region, origin })
    }
}

/// Reads a file that only its owner should be able to read.
fn read(path: &Path) -> Result<String, CredentialsError> {
    let failed = |source| CredentialsError::Read { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "others may read this file; chmod 600 it");
    }
    Ok(text)
}

fn expand(path: &str, home: &Path) -> PathBuf {
    path.strip_prefix("~/").map_or_else(|| PathBuf::from(path), |below| home.join(below))
}

/// The sections of an INI file as the service's tools write it.
fn sections(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut current = "DEFAULT".to_owned();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.trim().clone_into(&mut current);
            sections.entry(current.clone()).or_default();
        } else if !line.starts_with(['#', ';'])
            && let Some((name, value)) = line.split_once('=')
        {
            let section = sections.entry(current.clone()).or_default();
            section.insert(name.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    sections
}
