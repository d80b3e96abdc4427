//! Who signs: from `~/.oci/config`, or from environment variables.
//!
//! Nothing of a key or a pass phrase is ever shown: errors name the setting, not its value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::key::{KeyError, PrivateKey};
use crate::store::secret_file::{self, Environment, expand, home, sections};

/// Why requests cannot be signed.
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

impl Credentials {
    /// From variables if `OCI_USER` is set, otherwise from the configuration file.
    ///
    /// Variables: `OCI_USER`, `OCI_TENANCY`, `OCI_FINGERPRINT`, `OCI_KEY_CONTENT` or `OCI_KEY_FILE`,
    /// `OCI_PASS_PHRASE`, `OCI_REGION`. File: `OCI_CONFIG_FILE` or `~/.oci/config`, section
    /// `OCI_CONFIG_PROFILE`, `OCI_PROFILE` (the Python collector's) or `DEFAULT`.
    ///
    /// # Errors
    /// [`CredentialsError`] if they are not complete.
    pub fn find(environment: Environment<'_>) -> Result<Self, CredentialsError> {
        if environment("OCI_USER").is_some() {
            return Self::from_environment(environment);
        }
        let home = home(environment);
        let path = environment("OCI_CONFIG_FILE")
            .map_or_else(|| home.join(".oci/config"), |path| expand(&path, &home));
        let profile = environment("OCI_CONFIG_PROFILE").or_else(|| environment("OCI_PROFILE"));
        let profile = profile.unwrap_or_else(|| "DEFAULT".to_owned());
        Self::from_file(&path, &profile, &home)
    }

    fn from_environment(environment: Environment<'_>) -> Result<Self, CredentialsError> {
        let settings = ["user", "tenancy", "fingerprint", "key_content", "key_file", "pass_phrase", "region"];
        let settings = settings.into_iter().filter_map(|name| {
            Some((name.to_owned(), environment(&format!("OCI_{}", name.to_uppercase()))?))
        });
        let home = home(environment);
        Self::of_settings(&settings.collect(), "the environment (OCI_…)".to_owned(), &home)
    }

    /// From a section of a configuration file; what a section lacks is taken from `[DEFAULT]`.
    ///
    /// # Errors
    /// [`CredentialsError`] if they are not complete.
    pub fn from_file(path: &Path, profile: &str, home: &Path) -> Result<Self, CredentialsError> {
        let text = read(path)?;
        let sections = sections(&text, "DEFAULT");
        let own = sections.get(profile).ok_or_else(|| CredentialsError::NoProfile {
            path: path.to_owned(),
            profile: profile.to_owned(),
        })?;
        let mut settings = sections.get("DEFAULT").cloned().unwrap_or_default();
        settings.extend(own.clone());
        Self::of_settings(&settings, format!("{} [{profile}]", path.display()), home)
    }

    pub(crate) fn of_settings(
        settings: &BTreeMap<String, String>,
        origin: String,
        home: &Path,
    ) -> Result<Self, CredentialsError> {
        let setting = |name: &'static str| -> Result<&str, CredentialsError> {
            let missing = || CredentialsError::Missing { origin: origin.clone(), name };
            let text = settings.get(name).filter(|text| !text.is_empty()).ok_or_else(missing)?;
            if is_plain(text) {
                Ok(text)
            } else {
                Err(CredentialsError::Malformed { origin: origin.clone(), name })
            }
        };
        let key_id = format!("{}/{}/{}", setting("tenancy")?, setting("user")?, setting("fingerprint")?);
        let pem = match (settings.get("key_content"), settings.get("key_file")) {
            (Some(pem), _) => pem.clone(),
            (None, Some(path)) => read(&expand(path, home))?,
            (None, None) => return Err(CredentialsError::Missing { origin, name: "key_file" }),
        };
        let pass_phrase = settings.get("pass_phrase").map(String::as_str);
        let key = PrivateKey::from_pem(key_id, &pem, pass_phrase)
            .map_err(|source| CredentialsError::Key { origin: origin.clone(), source })?;
        let region = settings.get("region").filter(|region| !region.is_empty()).cloned();
        Ok(Self { key, region, origin })
    }
}

fn read(path: &Path) -> Result<String, CredentialsError> {
    secret_file::read(path).map_err(|source| CredentialsError::Read { path: path.to_owned(), source })
}

/// Whether a text can stand in a header: an identifier (OCID) or a fingerprint.
pub(super) fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-_".contains(&byte))
}
