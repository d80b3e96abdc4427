//! What differs between two `Cargo.lock`, and between the settings of two builds.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde::Deserialize;

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
}

/// The packages that changed, and how.
pub(super) fn changes(before: &str, after: &str) -> anyhow::Result<Vec<(String, String)>> {
    let versions = |text: &str| -> anyhow::Result<BTreeMap<String, String>> {
        let Lock { package } = toml::from_str(text).context("Cargo.lock is not readable")?;
        let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for Package { name, version } in package {
            versions.entry(name).or_default().push(version);
        }
        Ok(versions.into_iter().map(|(name, versions)| (name, versions.join(" and "))).collect())
    };
    Ok(differing(&versions(before)?, &versions(after)?))
}

/// Settings that changed: lines of a profile or of the configuration.
pub(super) fn settings(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<(String, String)> {
    differing(before, after)
}

fn differing(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let change = |name: &String| {
        let change = match (before.get(name), after.get(name)) {
            (Some(from), Some(to)) if from == to => return None,
            (Some(from), Some(to)) => format!("{from}, now {to}"),
            (None, Some(to)) => format!("new: {to}"),
            (Some(from), None) => format!("removed: {from}"),
            (None, None) => return None,
        };
        Some((name.clone(), change))
    };
    names.into_iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_differ_are_listed() {
        let lock = |packages: &[(&str, &str)]| -> String {
            let package = |(name, version): &(&str, &str)| {
                format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n")
            };
            packages.iter().map(package).collect::<Vec<_>>().concat()
        };
        let before = lock(&[("a", "1.0.0"), ("b", "1.0.0"), ("b", "2.0.0"), ("c", "1.0.0")]);
        let after = lock(&[("a", "1.0.0"), ("b", "2.0.0"), ("d", "0.1.0")]);
        let found = changes(&before, &after).unwrap();
        let expected = [("b", "1.0.0 and 2.0.0, now 2.0.0"), ("c", "removed: 1.0.0"), ("d", "new: 0.1.0")];
        assert_eq!(found, expected.map(|(name, change)| (name.to_owned(), change.to_owned())));
        assert_eq!(changes("", "").unwrap(), []);
    }
}
