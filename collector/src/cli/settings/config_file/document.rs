//! Reads the text of a configuration file.
//!
//! The fuzz targets include this file by its path, so it uses nothing else of the program.

use std::collections::BTreeMap;

/// The settings in a TOML document as text, each under one of the `known` keys.
///
/// # Errors
/// What is wrong with the document: its syntax, an unknown key, or a value that is a list or a table.
pub(crate) fn values(document: &str, known: &[&str]) -> Result<BTreeMap<String, String>, String> {
    let table: toml::Table =
        document.parse().map_err(|error: toml::de::Error| format!("invalid TOML: {}", error.message()))?;
    let value = |(key, value): (String, toml::Value)| {
        if !known.contains(&key.as_str()) {
            return Err(format!("no setting is called `{key}`{}", similar_to(&key, known)));
        }
        let text = plain(value).ok_or_else(|| format!("`{key}` must be a text, a number, true or false"))?;
        Ok((key, text))
    };
    table.into_iter().map(value).collect()
}

fn plain(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A hint at a key that differs only in its signs, or begins alike.
fn similar_to(key: &str, known: &[&str]) -> String {
    let bare = |text: &str| text.replace(['-', '_'], "").to_lowercase();
    let begins_alike = |known: &str| key.get(..4).is_some_and(|beginning| known.starts_with(beginning));
    known
        .iter()
        .find(|known| bare(known) == bare(key) || begins_alike(known))
        .map_or_else(String::new, |known| format!("; did you mean `{known}`?"))
}
