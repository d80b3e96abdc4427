//! Variables whose names begin like this program's own: a name that is not one of them is probably a typing mistake.

use std::env;

use anyhow::bail;
use strsim::osa_distance;
use tracing::warn;

use super::{KEYS, variable};

const PREFIX: &str = "COLLECTOR_";
/// Names that differ in more characters are not suggested.
const MAX_SUGGESTED_EDITS: usize = 3;

/// A variable that no setting has, and the most similar one of a setting.
struct Unknown {
    name: String,
    similar: Option<(usize, String)>,
}

/// An environment variable. An empty one is not ignored: its value is the empty text.
pub(super) fn read(name: &str) -> anyhow::Result<Option<String>> {
    match env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => bail!("the environment variable {name} is not UTF-8"),
    }
}

/// Refuses a variable that is one edit (or two exchanged characters) away from one of this program.
pub(super) fn refuse_near_misses() -> anyhow::Result<()> {
    for Unknown { name, similar } in unknown() {
        if let Some((1, similar)) = similar {
            bail!("${name}: no setting has this variable; did you mean {similar}?");
        }
    }
    Ok(())
}

/// Warns of the other unknown variables.
pub(crate) fn warn_of_unknown() {
    for Unknown { name, similar } in unknown() {
        let similar = similar.filter(|(edits, _)| *edits <= MAX_SUGGESTED_EDITS).map(|(_, similar)| similar);
        warn!(variable = name, similar, "no setting has this variable; it is ignored");
    }
}

fn unknown() -> Vec<Unknown> {
    let mut known: Vec<String> = KEYS.iter().map(|key| variable(key)).collect();
    known.extend([variable("config"), variable("env_file")]);
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_ours(name) && !known.contains(name)).collect();
    names.sort();
    let similar = |name: &String| known.iter().map(|own| (osa_distance(own, name), own.clone())).min();
    names.into_iter().map(|name| Unknown { similar: similar(&name), name }).collect()
}

/// Whether a variable is meant for this program. Kubernetes sets variables in the name of each service of a namespace: for one
/// that is called `collector` or `collector-…`, they begin in the same way.
fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| {
        let is_injected = rest.starts_with("SERVICE_")
            || rest.starts_with("PORT")
            || rest.contains("_SERVICE_HOST")
            || rest.contains("_SERVICE_PORT")
            || rest.contains("_PORT_")
            || rest.ends_with("_PORT");
        !is_injected
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_kubernetes_services_are_exempt() {
        for name in [
            "COLLECTOR_SERVICE_HOST",
            "COLLECTOR_SERVICE_PORT_HTTP",
            "COLLECTOR_PORT",
            "COLLECTOR_PORT_9464_TCP_ADDR",
            "COLLECTOR_METRICS_SERVICE_HOST",
            "COLLECTOR_METRICS_PORT",
            "COLLECTOR_METRICS_PORT_9464_TCP",
            "OTHER_STORE",
        ] {
            assert!(!is_ours(name), "{name}");
        }
        for key in &*KEYS {
            assert!(is_ours(&variable(key)), "{key}");
        }
    }
}
