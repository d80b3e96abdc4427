//! The variables of the Python collectors: that of the documents, and the original one that they describe.
//!
//! Each is understood as a setting, or has no effect here and the log names it, or is refused with what replaces it. None is
//! ignored silently.

use std::env;

use anyhow::{anyhow, bail};
use tracing::{info, warn};

use super::values::Value;
use super::variables;
use crate::store::oci::endpoint::Region;

/// What a variable means here.
#[derive(Clone, Copy)]
pub(crate) enum Meaning {
    /// A setting, as it is.
    Same(&'static str),
    /// A setting, after its value was translated.
    Translated(&'static str, fn(&str) -> Result<String, &'static str>),
    /// It has no effect, for this reason.
    Unused(&'static str),
    /// Files or services that a person may look for are elsewhere.
    Elsewhere(&'static str),
    /// It is compared with the settings that replace it.
    Compared,
}

/// A variable of a Python collector.
pub(crate) struct PythonVariable {
    pub(crate) name: &'static str,
    pub(crate) meaning: Meaning,
}

use Meaning::{Compared, Elsewhere, Same, Translated, Unused};

/// Every variable that they read.
pub(crate) const VARIABLES: [PythonVariable; 18] = [
    variable("OCI_NAMESPACE", Same("store")),
    variable("OCI_BUCKET_NAME", Same("store")),
    variable("OCI_REGION", Same("region")),
    variable("OCI_PROFILE", Same("the profile in ~/.oci/config")),
    variable("OCI_COMPARTMENT_ID", Unused("a bucket is addressed by namespace and name")),
    variable("USE_INSTANCE_PRINCIPAL", Translated("auth", auth)),
    variable("USE_VAULT", Compared),
    variable("VAULT_SECRET_ID", Compared),
    variable("OCI_VAULT_NAME", Unused("secrets are named by their OCIDs: secret_user and the other three")),
    variable(
        "OCI_VAULT_COMPARTMENT_ID",
        Unused("secrets are named by their OCIDs: secret_user and the other three"),
    ),
    variable("OCI_VAULT_REGION", Translated("vault_endpoint", vault_endpoint)),
    variable("POLISEN_API_URL", Same("feed")),
    variable("API_CONTACT_EMAIL", Same("contact")),
    variable("API_USER_AGENT", Same("user_agent")),
    variable("LOG_LEVEL", Translated("log_level", log_level)),
    variable(
        "LOG_DIR",
        Elsewhere("the log goes to stderr; systemd keeps it: journalctl -u polisen-events-collector"),
    ),
    variable("POLLING_INTERVAL_MINUTES", Translated("interval", minutes)),
    variable("POLL_INTERVAL", Translated("interval", with_unit)),
];

const fn variable(name: &'static str, meaning: Meaning) -> PythonVariable {
    PythonVariable { name, meaning }
}

/// How to name the four secrets.
const FOUR_SECRETS: &str = "set COLLECTOR_SECRET_USER, COLLECTOR_SECRET_TENANCY, COLLECTOR_SECRET_FINGERPRINT and \
    COLLECTOR_SECRET_PRIVATE_KEY to the OCIDs of the secrets (oci-user-ocid, oci-tenancy-ocid, oci-fingerprint, oci-private-key)";

/// The names of translated variables that stand for a setting.
#[cfg(test)]
pub(super) fn names(key: &str) -> impl Iterator<Item = &'static str> {
    translated(key).map(|(name, _)| name)
}

type Translation = fn(&str) -> Result<String, &'static str>;

fn translated(key: &str) -> impl Iterator<Item = (&'static str, Translation)> {
    VARIABLES.iter().filter_map(move |variable| match variable.meaning {
        Translated(of, translate) if of == key => Some((variable.name, translate)),
        _ => None,
    })
}

/// The value of a setting that a translated variable states, and the name of the variable.
pub(super) fn value(key: &str) -> anyhow::Result<Option<(String, &'static str)>> {
    for (name, translate) in translated(key) {
        if let Some(text) = variables::read(name)? {
            let value = translate(&text).map_err(|reason| anyhow!("${name}: `{text}`: {reason}"))?;
            return Ok(Some((value, name)));
        }
    }
    Ok(None)
}

/// Refuses the variables that the settings contradict or that lack what replaces them.
pub(super) fn check(values: &[Value]) -> anyhow::Result<()> {
    let text = |key: &str| values.iter().find(|value| value.key == key).map_or("", |value| &value.text);
    let names_secrets = !text("secret_user").is_empty();
    let is_chosen = values.iter().any(|value| value.key == "store" && value.origin.is_chosen());
    if !is_chosen && variables::read("OCI_BUCKET_NAME")?.is_some_and(|bucket| !bucket.is_empty()) {
        bail!("$OCI_BUCKET_NAME: a bucket needs its namespace; set OCI_NAMESPACE, or COLLECTOR_STORE");
    }
    // Where events are stored elsewhere, no credentials of Object Storage are needed.
    if !text("store").starts_with("oci://") || names_secrets {
        return Ok(());
    }
    match variables::read("USE_VAULT")?.map(|value| value.to_lowercase()).as_deref() {
        None | Some("false" | "0" | "no" | "off") => {}
        Some(_) => bail!(
            "$USE_VAULT: the Vault is read by the OCIDs of four secrets; {FOUR_SECRETS}, or set USE_VAULT=false to use ~/.oci/config"
        ),
    }
    match variables::read("VAULT_SECRET_ID")? {
        Some(secret) if !secret.is_empty() => {
            bail!(
                "$VAULT_SECRET_ID: one secret does not hold user, tenancy, fingerprint and key; {FOUR_SECRETS}"
            )
        }
        _ => Ok(()),
    }
}

/// Logs which of the variables that are set have no effect.
pub(crate) fn note_unused() {
    for PythonVariable { name, meaning } in VARIABLES {
        if env::var_os(name).is_some_and(|value| !value.is_empty()) {
            match meaning {
                Unused(reason) => info!(variable = name, reason, "the variable is not needed"),
                Elsewhere(reason) => warn!(variable = name, reason, "the variable has no effect"),
                Same(_) | Translated(..) | Compared => {}
            }
        }
    }
}

/// What a variable means, for people.
pub(crate) fn describe(meaning: Meaning) -> String {
    match meaning {
        Same(key) | Translated(key, _) => format!("understood: {key}"),
        Unused(reason) => format!("not needed: {reason}"),
        Elsewhere(reason) => format!("no effect: {reason}"),
        Compared => {
            "understood: secret_user, secret_tenancy, secret_fingerprint, secret_private_key".to_owned()
        }
    }
}

/// Python's names of levels; other names are this program's own.
fn log_level(text: &str) -> Result<String, &'static str> {
    let level = text.to_lowercase();
    Ok(match level.as_str() {
        "warning" => "warn".to_owned(),
        "critical" | "fatal" => "error".to_owned(),
        "notset" => "trace".to_owned(),
        "off" | "error" | "warn" | "info" | "debug" | "trace" => level,
        _ => return Err("not a level such as INFO or WARNING"),
    })
}

fn minutes(text: &str) -> Result<String, &'static str> {
    let minutes: u32 = text.trim().parse().map_err(|_| "not a whole number of minutes")?;
    Ok(format!("{minutes}m"))
}

fn with_unit(text: &str) -> Result<String, &'static str> {
    let has_unit = text.trim_end().ends_with(|last: char| last.is_ascii_alphabetic());
    if has_unit {
        Ok(text.to_owned())
    } else {
        Err("minutes or seconds? set COLLECTOR_INTERVAL with a unit, as in 30m")
    }
}

fn auth(text: &str) -> Result<String, &'static str> {
    match text.to_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok("instance".to_owned()),
        "false" | "0" | "no" | "off" | "" => Ok("api-key".to_owned()),
        _ => Err("not true or false"),
    }
}

fn vault_endpoint(text: &str) -> Result<String, &'static str> {
    let address = Region::named(text).address("secrets.vaults");
    address.map(|address| address.to_string()).map_err(|_| "not a region such as eu-frankfurt-1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_translated() {
        assert_eq!(log_level("WARNING"), Ok("warn".to_owned()));
        assert_eq!(log_level("CRITICAL"), Ok("error".to_owned()));
        assert_eq!(log_level("INFO"), Ok("info".to_owned()));
        assert_eq!(minutes("30"), Ok("30m".to_owned()));
        assert!(minutes("half an hour").is_err());
        assert_eq!(with_unit("30m"), Ok("30m".to_owned()));
        assert!(with_unit("1800").is_err());
        assert_eq!(auth("True"), Ok("instance".to_owned()));
        assert!(auth("maybe").is_err());
        let address = "https://secrets.vaults.eu-frankfurt-1.oci.oraclecloud.com/";
        assert_eq!(vault_endpoint("eu-frankfurt-1"), Ok(address.to_owned()));
        assert!(vault_endpoint("Frankfurt").is_err());
    }
}
