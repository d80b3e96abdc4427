//! `--env-file`: variables from a file, as the Python collectors keep them in `.env`.
//!
//! The program starts itself again with them, so that they count for everything that reads variables: settings, credentials, proxies.
//! A variable that is set already keeps its value. Values are never printed.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, anyhow};

pub(super) const OPTION: &str = "env-file";
const VARIABLE: &str = "COLLECTOR_ENV_FILE";
/// Maximum size of the file.
const LIMIT_BYTES: u64 = 64 << 10;
/// The file may be a FIFO that another program fills; that program has this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts the program again with the variables of the file that is named, if one is. Returns only if none is.
pub(super) fn apply(named: Option<&String>) -> anyhow::Result<()> {
    let path = named.cloned().or_else(|| env::var(VARIABLE).ok().filter(|path| !path.is_empty()));
    let Some(path) = path.map(PathBuf::from) else { return Ok(()) };
    let text = crate::files::read_text(&path, LIMIT_BYTES, PATIENCE)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let variables = parse(&text).map_err(|(line, reason)| anyhow!("{}:{line}: {reason}", path.display()))?;
    let program = env::current_exe().context("cannot start again")?;
    let mut command = Command::new(program);
    command.args(remaining(env::args_os().skip(1).collect()));
    for (name, value) in variables.into_iter().filter(|(name, _)| env::var_os(name).is_none()) {
        command.env(name, value);
    }
    let error = command.env_remove(VARIABLE).exec();
    Err(anyhow!("cannot start again with the variables of {}: {error}", path.display()))
}

/// The arguments without the option.
fn remaining(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let option = format!("--{OPTION}");
    let with_value = format!("{option}=");
    arguments.retain(|argument| !argument.as_encoded_bytes().starts_with(with_value.as_bytes()));
    if let Some(position) = arguments.iter().position(|argument| *argument == *option) {
        arguments.drain(position..(position + 2).min(arguments.len()));
    }
    arguments
}

/// Reads `NAME=value` lines: `export` and comments are allowed, values may be in quotes. Nothing is expanded.
///
/// # Errors
/// The line and what is wrong with it.
fn parse(text: &str) -> Result<Vec<(String, String)>, (usize, &'static str)> {
    let mut variables = Vec::new();
    let mut lines = text.trim_start_matches('\u{feff}').lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or((number, "not of the form NAME=value"))?;
        let (name, value) = (name.trim(), value.trim_start());
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if name.is_empty() || !is_name || name.starts_with(|first: char| first.is_ascii_digit()) {
            return Err((number, "not a valid name of a variable"));
        }
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                // A private key has many lines.
                let mut quoted = value[1..].to_owned();
                while end_of_quote(&quoted, quote).is_none() {
                    let (next, _) = lines.next().ok_or((number, "the quotation is not closed"))?;
                    quoted.push('\n');
                    quoted.push_str(next);
                }
                let end = end_of_quote(&quoted, quote).unwrap_or(quoted.len());
                let rest = quoted[end + 1..].trim_start();
                if !(rest.is_empty() || rest.starts_with('#')) {
                    return Err((number, "text follows the quotation"));
                }
                quoted.truncate(end);
                if quote == '"' { unescaped(&quoted) } else { quoted }
            }
            _ => value.split(" #").next().unwrap_or(value).trim_end().to_owned(),
        };
        if value.contains("${") {
            return Err((number, "variables in values are not expanded; write the value in full"));
        }
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

/// Where a quotation ends; in double quotes, a backslash escapes.
fn end_of_quote(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, char)| {
        let ends = char == quote && !is_escaped;
        is_escaped = quote == '"' && char == '\\' && !is_escaped;
        ends.then_some(at)
    })
}

fn unescaped(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, char == '\\') {
            (_, true) => match chars.next() {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some(escaped @ ('"' | '\\' | '$')) => value.push(escaped),
                Some(other) => value.extend(['\\', other]),
                None => value.push('\\'),
            },
            (char, false) => value.push(char),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap()
    }

    #[test]
    fn lines_of_the_documented_file_are_read() {
        let text = "\u{feff}# Polisen Events Collector\r\n\r\nOCI_NAMESPACE=ns\r\nexport LOG_LEVEL = INFO # loud\n\
            API_USER_AGENT=Agent/1.0 (Data; Contact: me@example.com)\nA=\"x \\\"y\\\" #z\" # comment\nB='a\\n'\nC=\nD=\"1\n2\"\n";
        let expected = [
            ("OCI_NAMESPACE", "ns"),
            ("LOG_LEVEL", "INFO"),
            ("API_USER_AGENT", "Agent/1.0 (Data; Contact: me@example.com)"),
            ("A", "x \"y\" #z"),
            ("B", "a\\n"),
            ("C", ""),
            ("D", "1\n2"),
        ];
        assert_eq!(values(text), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn invalid_line_is_refused_by_its_number() {
        for (text, line) in [
            ("A=1\nno sign", 2),
            ("=1", 1),
            ("1A=1", 1),
            ("A B=1", 1),
            ("A=\"open", 1),
            ("\nA='x' y", 2),
            ("A=${HOME}/x", 1),
        ] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
    }

    #[test]
    fn option_is_taken_out_of_the_arguments() {
        let arguments = |texts: &[&str]| texts.iter().map(OsString::from).collect::<Vec<_>>();
        let expected = arguments(&["run", "--json"]);
        assert_eq!(remaining(arguments(&["run", "--env-file", ".env", "--json"])), expected);
        assert_eq!(remaining(arguments(&["run", "--env-file=.env", "--json"])), expected);
    }
}
