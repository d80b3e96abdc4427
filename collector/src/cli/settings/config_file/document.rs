//! Reads the text of a configuration file.
//!
//! The fuzz targets include this file by its path, so it uses nothing else of the program.

use std::collections::BTreeMap;

use toml::Spanned;

/// A value in the file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) text: String,
    /// Its line, counted from 1.
    pub(crate) line: usize,
}

/// The settings in a TOML document, each under one of the `known` keys.
///
/// # Errors
/// The line, and what is wrong with it: its syntax, an unknown key, or a value that is a list or a table.
pub(crate) fn entries(document: &str, known: &[&str]) -> Result<BTreeMap<String, Entry>, String> {
    let line_at = |offset: usize| document.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1;
    let table: BTreeMap<Spanned<String>, Spanned<toml::Value>> =
        toml::from_str(document).map_err(|error| {
            let offset = error.span().map_or(document.len(), |span| span.start);
            format!("{}: invalid TOML: {}", line_at(offset), error.message())
        })?;
    let entry = |(key, value): (Spanned<String>, Spanned<toml::Value>)| {
        let (line, key) = (line_at(key.span().start), key.into_inner());
        if !known.contains(&key.as_str()) {
            return Err(format!("{line}: no setting is called `{key}`{}", similar_to(&key, known)));
        }
        let text = plain(value.into_inner())
            .ok_or_else(|| format!("{line}: `{key}` must be a text, a number, true or false"))?;
        Ok((key, Entry { text, line }))
    };
    table.into_iter().map(entry).collect()
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
