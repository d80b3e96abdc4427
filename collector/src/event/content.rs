//! The content of a JSON value: its text in one canonical form.
//!
//! Two texts have the same content if they differ only in white space between tokens, in the order of members, and in
//! the way in which characters of a string are escaped. Numbers are compared as they are spelled, because a value in
//! double precision would lose digits; members that share a name keep their order, because readers disagree on which
//! of them counts.

use super::scan::{MAX_DEPTH, Scanner, Stop, plain_length};

/// The members of an event in the order in which the feed sends them, and which the canonical form keeps: the usual
/// event is its own canonical form. Other members follow in the order of their names.
const FEED_ORDER: [&[u8]; 8] =
    [b"id", b"datetime", b"name", b"summary", b"url", b"type", b"location", b"gps"];

/// The canonical form of a JSON value.
///
/// A value that is nested more than [`MAX_DEPTH`] levels deep keeps the order of its members.
///
/// ```
/// use collector::event::content;
///
/// assert_eq!(content(br#"{ "b": 1.50, "a": "\u00f6" }"#), content(r#"{"a":"ö","b":1.50}"#.as_bytes()));
/// assert_ne!(content(b"9007199254740992"), content(b"9007199254740993"));
/// ```
#[must_use]
pub fn content(json: &[u8]) -> Vec<u8> {
    let mut canonical = Canonical::default();
    canonical.write(json);
    canonical.bytes
}

/// A canonical form, and whether every string in it is text. Its memory is used again for the next one.
#[derive(Default)]
pub(super) struct Canonical {
    pub(super) bytes: Vec<u8>,
    /// Whether some string holds half a surrogate pair.
    pub(super) half_surrogate: bool,
    /// The members of the objects that are being written, the outer ones first.
    members: Vec<Member>,
}

impl Canonical {
    /// Writes the canonical form of a value in the place of the one before.
    pub(super) fn write(&mut self, json: &[u8]) {
        self.clear();
        self.bytes.reserve(json.len());
        if self.write_value(&mut Scanner::new(json), 0).is_err() {
            self.clear();
            self.write_tokens(json);
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.members.clear();
        self.half_surrogate = false;
    }

    fn write_value(&mut self, scanner: &mut Scanner<'_>, depth: usize) -> Result<(), Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop);
        }
        scanner.skip_space();
        match scanner.peek() {
            Some(b'{') => self.write_object(scanner, depth),
            Some(b'[') => self.write_array(scanner, depth),
            Some(b'"') => {
                let string = scanner.string()?;
                self.write_string(string.bytes);
                Ok(())
            }
            _ => {
                let token = scanner.scalar()?;
                self.bytes.extend_from_slice(token);
                Ok(())
            }
        }
    }

    fn write_array(&mut self, scanner: &mut Scanner<'_>, depth: usize) -> Result<(), Stop> {
        self.write_sequence(scanner, [b'[', b']'], |it, scanner| it.write_value(scanner, depth + 1))
    }

    fn write_object(&mut self, scanner: &mut Scanner<'_>, depth: usize) -> Result<(), Stop> {
        let first = self.members.len();
        let inside = self.bytes.len() + 1;
        self.write_sequence(scanner, [b'{', b'}'], |it, scanner| {
            let start = it.bytes.len();
            let name = scanner.member_name()?;
            it.write_string(name.bytes);
            let name_end = it.bytes.len();
            it.bytes.push(b':');
            it.write_value(scanner, depth + 1)?;
            it.members.push(Member { start, name_end, end: it.bytes.len() });
            Ok(())
        })?;
        self.sort_members(inside, first);
        Ok(())
    }

    /// Writes what stands between two brackets, an item at a time.
    fn write_sequence(
        &mut self,
        scanner: &mut Scanner<'_>,
        [open, close]: [u8; 2],
        mut write_item: impl FnMut(&mut Self, &mut Scanner<'_>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        scanner.expect(open)?;
        self.bytes.push(open);
        scanner.skip_space();
        if !scanner.eat(close) {
            loop {
                write_item(self, scanner)?;
                scanner.skip_space();
                if !scanner.eat(b',') {
                    break;
                }
                self.bytes.push(b',');
                scanner.skip_space();
            }
            scanner.expect(close)?;
        }
        self.bytes.push(close);
        Ok(())
    }

    /// Brings the members that were written from `inside` on into their order, and forgets them. Members of one name
    /// keep theirs.
    fn sort_members(&mut self, inside: usize, first: usize) {
        let Self { bytes, members, .. } = self;
        let order = |member: &Member| {
            // Without the quotes.
            let name = &bytes[member.start + 1..member.name_end - 1];
            (FEED_ORDER.iter().position(|known| *known == name).unwrap_or(FEED_ORDER.len()), name)
        };
        let own = &mut members[first..];
        if !own.is_sorted_by_key(order) {
            own.sort_by_key(order);
            let spans = own.iter().map(|member| &bytes[member.start..member.end]);
            let sorted = spans.collect::<Vec<_>>().join(&b',');
            bytes[inside..inside + sorted.len()].copy_from_slice(&sorted);
        }
        members.truncate(first);
    }

    /// Writes a text token by token, for what is nested too deep to be sorted.
    fn write_tokens(&mut self, json: &[u8]) {
        let mut scanner = Scanner::new(json);
        loop {
            scanner.skip_space();
            match scanner.peek() {
                None => return,
                Some(b'"') => match scanner.string() {
                    Ok(string) => self.write_string(string.bytes),
                    Err(Stop) => return,
                },
                Some(byte) => {
                    self.bytes.push(byte);
                    scanner.skip(1);
                }
            }
        }
    }

    /// Writes a string with only the escapes that JSON demands, and those of half surrogate pairs.
    fn write_string(&mut self, inside: &[u8]) {
        self.bytes.push(b'"');
        let mut rest = inside;
        loop {
            let (plain, escape) = rest.split_at(plain_length(rest));
            self.bytes.extend_from_slice(plain);
            if escape.is_empty() {
                break;
            }
            rest = self.write_escape(escape);
        }
        self.bytes.push(b'"');
    }

    /// Writes the character that an escape stands for; returns what follows the escape.
    fn write_escape<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        let (character, rest) = match text {
            [b'\\', b'u', rest @ ..] => return self.write_code_unit(rest),
            [b'\\', b'b', rest @ ..] => ('\u{8}', rest),
            [b'\\', b'f', rest @ ..] => ('\u{c}', rest),
            [b'\\', b'n', rest @ ..] => ('\n', rest),
            [b'\\', b'r', rest @ ..] => ('\r', rest),
            [b'\\', b't', rest @ ..] => ('\t', rest),
            // A quote, a backslash or a slash; nothing else has passed the scanner.
            [_, byte, rest @ ..] => (char::from(*byte), rest),
            _ => return &[],
        };
        self.write_char(character);
        rest
    }

    fn write_code_unit<'a>(&mut self, digits: &'a [u8]) -> &'a [u8] {
        let (unit, rest) = code_unit(digits);
        let low = rest.strip_prefix(br"\u").map(code_unit);
        let pair = low.and_then(|(low, rest)| Some((surrogate_pair(unit, low)?, rest)));
        let (character, rest) = match (pair, char::from_u32(unit)) {
            (Some((character, rest)), _) => (character, rest),
            (None, Some(character)) => (character, rest),
            (None, None) => {
                self.half_surrogate = true;
                self.bytes.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                return rest;
            }
        };
        self.write_char(character);
        rest
    }

    fn write_char(&mut self, character: char) {
        match character {
            '"' | '\\' => self.bytes.extend([b'\\', character as u8]),
            '\u{8}' => self.bytes.extend(br"\b"),
            '\u{c}' => self.bytes.extend(br"\f"),
            '\n' => self.bytes.extend(br"\n"),
            '\r' => self.bytes.extend(br"\r"),
            '\t' => self.bytes.extend(br"\t"),
            '\0'..='\u{1f}' => self.bytes.extend(format!("\\u{:04x}", u32::from(character)).as_bytes()),
            _ => self.bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Where a member was written.
struct Member {
    start: usize,
    name_end: usize,
    end: usize,
}

/// The UTF-16 code unit of four hexadecimal digits, and what follows them.
fn code_unit(text: &[u8]) -> (u32, &[u8]) {
    let (digits, rest) = text.split_at(text.len().min(4));
    let unit = digits.iter().fold(0, |unit, digit| unit << 4 | char::from(*digit).to_digit(16).unwrap_or(0));
    (unit, rest)
}

fn surrogate_pair(high: u32, low: u32) -> Option<char> {
    let is_pair = (0xd800..0xdc00).contains(&high) && (0xdc00..0xe000).contains(&low);
    is_pair.then(|| char::from_u32(0x1_0000 + ((high & 0x3ff) << 10 | low & 0x3ff))).flatten()
}
