//! Text from outside, such as a feed, a server, a claim or a file: as it may be printed, and how it is compared.
//!
//! Such text can hold characters that move a terminal's cursor, reorder or hide what stands around them, or begin a new
//! line of a log. Whatever is printed for people goes through [`printable`]; CSV cells through [`csv_cell`]; JSON through
//! [`json_for_terminal`]; and what a server answers through [`server_text`] first.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

use icu_normalizer::ComposingNormalizerBorrowed;
use thiserror::Error;

/// A text that is not what it should be. It is shown as the reason, without credentials.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ParseError(String);

impl From<String> for ParseError {
    fn from(reason: String) -> Self {
        Self(without_credentials(&reason).into_owned())
    }
}

impl From<&str> for ParseError {
    fn from(reason: &str) -> Self {
        Self(without_credentials(reason).into_owned())
    }
}

/// Maximum number of characters of one text that are printed.
const MAX_CHARS: usize = 2_000;
/// The same of a sentence of a server.
const MAX_SERVER_CHARS: usize = 500;

/// Whether a character is visible, or a space: no control character (C0, C1, DEL), no character that changes the direction
/// of text, none of zero width, no line or paragraph separator, no tag.
#[must_use]
pub fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// A text on one line of at most 2,000 characters, all of them printable. See [`printable`].
#[derive(Debug, Clone, Copy)]
pub struct Printable<T> {
    text: T,
    max_chars: usize,
}

/// A text as it may be printed: a tab or a line break becomes a space, any other character that is not printable its code,
/// and what exceeds 2,000 characters an ellipsis.
///
/// ```
/// use collector::text::printable;
///
/// assert_eq!(printable("a\x1b[31mred\nerror: forged").to_string(), r"a\u{1b}[31mred error: forged");
/// ```
pub fn printable<T: Display>(text: T) -> Printable<T> {
    Printable { text, max_chars: MAX_CHARS }
}

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping { out: formatter, left: self.max_chars }, "{}", self.text)
    }
}

/// Passes on what may be printed.
struct Escaping<W> {
    out: W,
    /// How many characters may follow.
    left: usize,
}

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let character = if matches!(character, '\t' | '\n' | '\r') { ' ' } else { character };
            let length = if is_printable(character) { 1 } else { character.escape_unicode().count() };
            // Room for the ellipsis is always left.
            match self.left {
                0 => return Ok(()),
                left if length >= left => {
                    self.out.write_char('…')?;
                    self.left = 0;
                    return Ok(());
                }
                _ if length == 1 => self.out.write_char(character)?,
                _ => write!(self.out, "{}", character.escape_unicode())?,
            }
            self.left -= length;
        }
        Ok(())
    }
}

/// The same for a text of several lines, each by itself.
#[must_use]
pub fn printable_lines(text: &str) -> String {
    text.split_inclusive('\n').fold(String::with_capacity(text.len()), |mut lines, line| {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let _ = write!(lines, "{}{end}", printable(line));
        lines
    })
}

/// JSON in which every character that is not printable is escaped; the value is the same.
#[must_use]
pub fn json_for_terminal(json: &str) -> Cow<'_, str> {
    // Such characters stand in strings only, but for the line breaks between tokens.
    let must_be_escaped = |character: char| character != '\n' && !is_printable(character);
    if !json.contains(must_be_escaped) {
        return Cow::Borrowed(json);
    }
    Cow::Owned(json.chars().fold(String::with_capacity(json.len()), |mut escaped, character| {
        if matches!(character, '\t' | '\r') {
            // Valid JSON holds them as they are between tokens only, where an escape would be wrong.
            escaped.push(' ');
        } else if must_be_escaped(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
        escaped
    }))
}

/// A cell of a CSV file (RFC 4180): quoted where necessary, and never a formula of a spreadsheet. Line breaks and tabs stay.
#[must_use]
pub fn csv_cell(text: &str) -> String {
    let is_kept = |character: char| matches!(character, '\n' | '\t') || is_printable(character);
    let begins_formula = text
        .trim_start_matches(' ')
        .starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'])
        && text.parse::<f64>().is_err();
    let mut cell = String::from(if begins_formula { "'" } else { "" });
    for character in text.replace("\r\n", "\n").chars() {
        match character {
            '"' => cell.push_str("\"\""),
            character if is_kept(character) => cell.push(character),
            character => cell.extend(character.escape_unicode()),
        }
    }
    if text.contains(['"', ',', '\n']) { format!("\"{cell}\"") } else { cell }
}

/// What a server says, bounded, on one line, and without what could be a secret that it sends back: credentials and
/// queries in addresses, values of `Authorization` and its like, keys and signatures.
#[must_use]
pub fn server_text(text: &str) -> String {
    let end = text.char_indices().nth(16 * MAX_SERVER_CHARS).map_or(text.len(), |(end, _)| end);
    let text = without_keys(&without_named_secrets(&without_address_secrets(&text[..end])));
    Printable { text, max_chars: MAX_SERVER_CHARS }.to_string()
}

const HIDDEN: &str = "***";

/// Hides `user:password@` and `?query` of addresses.
fn without_address_secrets(text: &str) -> String {
    let is_end = |character: char| character.is_whitespace() || matches!(character, '"' | '\'' | '<' | '>');
    let (mut safe, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("://") {
        let (before, address) = rest.split_at(at + 3);
        safe.push_str(before);
        let (address, after) = address.split_at(address.find(is_end).unwrap_or(address.len()));
        let (main, query) = address.split_at(address.find(['?', '#']).unwrap_or(address.len()));
        let (host, path) = main.split_at(main.find('/').unwrap_or(main.len()));
        match host.rsplit_once('@') {
            Some((_, host)) => safe.extend([HIDDEN, "@", host]),
            None => safe.push_str(host),
        }
        safe.push_str(path);
        safe.push_str(if query.is_empty() { "" } else { "?***" });
        rest = after;
    }
    safe + rest
}

/// How names of secrets begin, or what they hold.
const NAMES: [&str; 13] = [
    "authorization",
    "signature",
    "credential",
    "password",
    "passphrase",
    "passwd",
    "secret",
    "token",
    "keyid",
    "api-key",
    "apikey",
    "cookie",
    "private",
];
/// What stands before a secret without a sign between them.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];

/// Hides the values of `name: value`, `name=value` and `<name>value</name>`.
fn without_named_secrets(text: &str) -> String {
    // Of the same length, byte by byte.
    let lowercase = text.to_ascii_lowercase();
    let (mut safe, mut done) = (String::with_capacity(text.len()), 0);
    while let Some((begin, end)) = next_secret(&lowercase, done) {
        safe.push_str(&text[done..begin]);
        safe.push_str(HIDDEN);
        done = end;
    }
    safe + &text[done..]
}

/// Where the next secret begins and ends.
fn next_secret(text: &str, from: usize) -> Option<(usize, usize)> {
    let named = NAMES.iter().flat_map(|name| text[from..].match_indices(name).map(|it| (it, false)));
    let schemes = SCHEMES.iter().flat_map(|name| text[from..].match_indices(name).map(|it| (it, true)));
    named
        .chain(schemes)
        .filter_map(|((at, name), is_scheme)| {
            let value = if is_scheme {
                Some(&text[from + at + name.len()..])
            } else {
                value_after(&text[from + at..])
            };
            let begin = text.len() - value?.len();
            // A header has spaces.
            let is_header = matches!(name, "authorization" | "cookie");
            let is_end = |character: char| match character {
                '\n' | '\r' | '<' => true,
                ' ' | '\t' | '"' | '\'' | ',' | ';' | '&' | ')' | '\\' => !is_header,
                _ => false,
            };
            let end = text[begin..].find(is_end).map_or(text.len(), |length| begin + length);
            (end > begin).then_some((begin, end))
        })
        .min()
}

/// What follows a name and the sign behind it.
fn value_after(name: &str) -> Option<&str> {
    let quotes = [' ', '\t', '"', '\'', '\\'];
    let sign = name.trim_start_matches(|it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_'));
    let value = sign.trim_start_matches(quotes).strip_prefix([':', '=', '>'])?;
    Some(value.trim_start_matches(quotes))
}

/// Hides what looks like a key, a signature or a token by itself: 40 hexadecimal digits, or 32 letters of both cases and
/// digits, as base64 has them.
fn without_keys(text: &str) -> String {
    let is_part = |character: char| {
        character.is_ascii_alphanumeric() || matches!(character, '+' | '/' | '=' | '_' | '-')
    };
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(|it| !is_part(it)).unwrap_or(rest.len()));
        let has = |test: fn(&char) -> bool| word.chars().any(|it| test(&it));
        let is_mixed =
            has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase) && has(char::is_ascii_digit);
        let is_hex = word.len() >= 40 && word.chars().all(|it| it.is_ascii_hexdigit());
        safe.push_str(if is_hex || word.len() >= 32 && is_mixed { HIDDEN } else { word });
        let next = after.chars().next().map_or(0, char::len_utf8);
        safe.push_str(&after[..next]);
        rest = &after[next..];
    }
    safe
}

/// A text in which the credentials of each address are hidden: what stands before its `@`, also where the scheme was
/// forgotten, and the values of its query that have no name or that of a secret. What stands between backticks, or begins with
/// a scheme, is one address, spaces or not.
#[must_use]
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    if !text.contains(['@', '?']) {
        return Cow::Borrowed(text);
    }
    if is_address(text) {
        return Cow::Owned(without_secrets(&without_user(text)));
    }
    let mut safe = String::with_capacity(text.len());
    for (number, part) in text.split('`').enumerate() {
        safe.push_str(if number == 0 { "" } else { "`" });
        if number % 2 == 1 && is_address(part) {
            safe.push_str(&without_secrets(&without_user(part)));
        } else {
            let words = part.split_inclusive(char::is_whitespace);
            safe.extend(words.map(|word| without_secrets(&without_user(word))));
        }
    }
    Cow::Owned(safe)
}

/// Whether a text begins with a scheme, such as `https://`.
fn is_address(text: &str) -> bool {
    let is_scheme = |scheme: &str| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+');
    text.split_once("://").is_some_and(|(scheme, _)| !scheme.is_empty() && is_scheme(scheme))
}

fn without_user(word: &str) -> Cow<'_, str> {
    let (Some(at), colon) = (word.rfind('@'), word.find(':')) else { return word.into() };
    let begin = match word.find("//") {
        Some(slashes) => slashes + 2,
        None if word.contains("mailto:") || colon.is_none_or(|colon| at < colon) => return word.into(),
        None => word.find(char::is_alphanumeric).unwrap_or(at),
    };
    if begin <= at { format!("{}***{}", &word[..begin], &word[at..]).into() } else { word.into() }
}

fn without_secrets(word: &str) -> String {
    let Some((address, query)) = word.split_once('?') else { return word.to_owned() };
    let mut safe = format!("{address}?");
    // What follows a semicolon may be more of the value before it; what has no name may be a token.
    let (mut is_hidden, mut is_more) = (false, false);
    for pair in query.split_inclusive(['&', ';']) {
        let (name, value) = pair.split_at(pair.find('=').map_or(0, |sign| sign + 1));
        if !name.is_empty() {
            is_hidden = is_secret(name);
        } else if !is_more {
            is_hidden = is_address(address);
        }
        let end =
            value.find(['&', ';', '`', '\'', '"', ')', '<', '>', ',']).unwrap_or(value.trim_end().len());
        safe.push_str(name);
        safe.push_str(if is_hidden && end > 0 { HIDDEN } else { &value[..end] });
        safe.push_str(&value[end..]);
        is_more = pair.ends_with(';');
    }
    safe
}

/// Whether the name of a value in a query is that of a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["auth", "code", "cred", "key", "pass", "pwd", "secret", "sig", "token"]
        .iter()
        .any(|part| name.contains(part))
}

/// A text in which a letter and its combining marks are one character where Unicode has one for them (NFC).
pub(crate) fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() { text.into() } else { ComposingNormalizerBorrowed::new_nfc().normalize(text) }
}

pub(crate) fn lowercase(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

/// Whether two texts are the same but for the case of letters, composed or not.
pub(crate) fn is_same_ignoring_case(one: &str, other: &str) -> bool {
    one == other || lowercase(&composed(one)).eq(lowercase(&composed(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_addresses_are_hidden() {
        for (text, shown) in [
            ("https://user:secret@host:9/x", "https://***@host:9/x"),
            ("https://user:se@cr/et@host", "https://***@host"),
            ("cannot call `s3://key:secret@b` now", "cannot call `s3://***@b` now"),
            (
                "agent/1 (+https://example.org; me@example.org)",
                "agent/1 (+https://example.org; me@example.org)",
            ),
            ("me@example.org", "me@example.org"),
            ("mailto:me@example.org", "mailto:me@example.org"),
            ("at 09:30 to me@example.org", "at 09:30 to me@example.org"),
            ("feed: `user:secret@host/x`: no scheme", "feed: `***@host/x`: no scheme"),
            ("https://host/x?token=secret", "https://host/x?token=***"),
            (
                "`https://host/x?a=1&X-Amz-Signature=secret&b=2`: no",
                "`https://host/x?a=1&X-Amz-Signature=***&b=2`: no",
            ),
            ("open https://u:p@host/?API_KEY=secret now", "open https://***@host/?API_KEY=*** now"),
            ("https://host/?API_KEY=se cret", "https://host/?API_KEY=***"),
            ("https://user:se cret@host/x", "https://***@host/x"),
            ("f.toml:1: feed: `https://user:se cret@host/x`: no", "f.toml:1: feed: `https://***@host/x`: no"),
            ("https://host/x?secret", "https://host/x?***"),
            ("https://host/x?a=1&secret", "https://host/x?a=1&***"),
            ("https://host/x?a=1;token=secret;more&b=2", "https://host/x?a=1;token=***;***&b=2"),
            ("is it me@example.org? yes", "is it me@example.org? yes"),
            (
                "https://host/x?locationname=Stockholm;Uppsala&type=Brand",
                "https://host/x?locationname=Stockholm;Uppsala&type=Brand",
            ),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
    }
}
