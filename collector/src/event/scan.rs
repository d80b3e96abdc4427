//! Walks a JSON text once and validates every byte of it, without building values.
//!
//! The grammar is RFC 8259. What the walk notices on its way (white space between tokens, line breaks,
//! escapes) is what the caller needs to know before it may use the bytes as they are. It must never
//! accept a text that a strict parser refuses: what it accepts is stored for ever.

use thiserror::Error;
use wide::u8x16;

/// Maximum number of levels of arrays and objects in an event, the array of the response included.
pub const MAX_DEPTH: usize = 128;

/// Why a text is not JSON, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{fault} at byte {offset}")]
pub struct SyntaxError {
    /// What is wrong.
    pub fault: Fault,
    /// Offset of the offending byte, from 0.
    pub offset: usize,
}

/// What can be wrong with a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The text ends inside a value.
    #[error("the text ends early")]
    EndsEarly,
    /// A token that cannot stand here.
    #[error("unexpected character")]
    Unexpected,
    /// A control character inside a string.
    #[error("a control character inside a string")]
    ControlCharacter,
    /// An escape that JSON does not have.
    #[error("an invalid escape")]
    InvalidEscape,
    /// A number that is not one, such as `01` or `1.`.
    #[error("an invalid number")]
    InvalidNumber,
    /// Something behind the value.
    #[error("there is text behind the end of the value")]
    TrailingGarbage,
}

/// A string as it stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawString<'a> {
    /// The bytes between the quotes.
    pub(crate) bytes: &'a [u8],
    /// Whether they hold a backslash.
    pub(crate) escaped: bool,
}

impl RawString<'_> {
    /// Whether the string, escapes resolved, is `name`.
    pub(crate) fn is(&self, name: &str) -> bool {
        if self.escaped {
            self.decode().is_some_and(|text| text == name)
        } else {
            self.bytes == name.as_bytes()
        }
    }

    /// The string with its escapes resolved, or nothing if it holds half a surrogate pair.
    pub(crate) fn decode(&self) -> Option<String> {
        let mut quoted = Vec::with_capacity(self.bytes.len() + 2);
        quoted.push(b'"');
        quoted.extend_from_slice(self.bytes);
        quoted.push(b'"');
        serde_json::from_slice(&quoted).ok()
    }
}

/// What the walk has met since it was last asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    /// A line feed or carriage return between tokens.
    pub(crate) line_break: bool,
    /// More than [`MAX_DEPTH`] levels of arrays and objects.
    pub(crate) too_deep: bool,
}

/// The walk stopped; [`Scanner::error`] knows where and why. Without size, so that the walk stays fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop;

/// The walk: a position in a text.
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    position: usize,
    traits: Traits,
    fault: Fault,
}

impl<'a> Scanner<'a> {
    /// Starts at the first byte of `text`, which must be UTF-8.
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, position: 0, traits: Traits::default(), fault: Fault::Unexpected }
    }

    /// Offset of the next byte.
    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Passes over bytes that another has validated.
    #[inline]
    pub(crate) fn skip(&mut self, length: usize) {
        self.position += length;
    }

    /// What was met since the last call.
    #[inline]
    pub(crate) fn take_traits(&mut self) -> Traits {
        std::mem::take(&mut self.traits)
    }

    /// What stopped the walk.
    pub(crate) fn error(&self) -> SyntaxError {
        let fault = if self.position >= self.text.len() { Fault::EndsEarly } else { self.fault };
        SyntaxError { fault, offset: self.position }
    }

    #[cold]
    fn stop<T>(&mut self, fault: Fault) -> Result<T, Stop> {
        self.fault = fault;
        Err(Stop)
    }

    /// The next byte, not consumed.
    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    /// Passes over white space.
    #[inline]
    pub(crate) fn skip_space(&mut self) {
        if self.peek().is_some_and(|byte| byte <= b' ') {
            self.skip_space_slowly();
        }
    }

    #[cold]
    fn skip_space_slowly(&mut self) {
        while let Some(byte @ (b' ' | b'\t' | b'\n' | b'\r')) = self.peek() {
            self.traits.line_break |= matches!(byte, b'\n' | b'\r');
            self.position += 1;
        }
    }

    /// Consumes `byte` if it is the next one.
    #[inline]
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.position += usize::from(found);
        found
    }

    /// Consumes `byte`, or stops.
    #[inline]
    pub(crate) fn expect(&mut self, byte: u8) -> Result<(), Stop> {
        if self.eat(byte) { Ok(()) } else { self.stop(Fault::Unexpected) }
    }

    /// Consumes white space, and stops if more text follows.
    pub(crate) fn expect_end(&mut self) -> Result<(), Stop> {
        self.skip_space();
        if self.peek().is_none() { Ok(()) } else { self.stop(Fault::TrailingGarbage) }
    }

    /// Consumes a string, quotes included.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<RawString<'a>, Stop> {
        self.expect(b'"')?;
        let rest = &self.text[self.position..];
        let length = plain_length(rest);
        if rest.get(length) == Some(&b'"') {
            self.position += length + 1;
            return Ok(RawString { bytes: &rest[..length], escaped: false });
        }
        self.string_with_escapes()
    }

    #[cold]
    fn string_with_escapes(&mut self) -> Result<RawString<'a>, Stop> {
        let start = self.position;
        loop {
            self.position += plain_length(&self.text[self.position..]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                _ => return self.stop(Fault::ControlCharacter),
            }
        }
        let bytes = &self.text[start..self.position];
        self.position += 1;
        Ok(RawString { bytes, escaped: true })
    }

    fn escape(&mut self) -> Result<(), Stop> {
        self.position += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.position += 1,
            Some(b'u') => {
                self.position += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return self.stop(Fault::InvalidEscape);
                    }
                    self.position += 1;
                }
            }
            _ => return self.stop(Fault::InvalidEscape),
        }
        Ok(())
    }

    /// Consumes a number and returns its text.
    pub(crate) fn number(&mut self) -> Result<&'a [u8], Stop> {
        let start = self.position;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        } else if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return self.stop(Fault::InvalidNumber);
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.position])
    }

    fn digits(&mut self) -> Result<(), Stop> {
        let count = self.text[self.position..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return self.stop(Fault::InvalidNumber);
        }
        self.position += count;
        Ok(())
    }

    fn literal(&mut self, literal: &'static [u8]) -> Result<(), Stop> {
        literal.iter().try_for_each(|&byte| self.expect(byte))
    }

    /// Consumes a number or a literal and returns its text.
    pub(crate) fn scalar(&mut self) -> Result<&'a [u8], Stop> {
        let start = self.position;
        match self.peek() {
            Some(b't') => self.literal(b"true")?,
            Some(b'f') => self.literal(b"false")?,
            Some(b'n') => self.literal(b"null")?,
            Some(b'-' | b'0'..=b'9') => drop(self.number()?),
            _ => return self.stop(Fault::Unexpected),
        }
        Ok(&self.text[start..self.position])
    }

    /// Consumes one value of any kind, which already stands `depth` levels deep.
    #[inline]
    pub(crate) fn value(&mut self, depth: usize) -> Result<(), Stop> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{' | b'[') => self.nested(depth),
            _ => self.scalar().map(drop),
        }
    }

    /// Consumes an array or an object with all it holds. A loop, so that depth costs no stack.
    fn nested(&mut self, outside: usize) -> Result<(), Stop> {
        let mut open = Brackets::default();
        loop {
            // A value begins here.
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    self.traits.too_deep |= outside + open.depth >= MAX_DEPTH;
                    self.position += 1;
                    self.skip_space();
                    let object = bracket == b'{';
                    if !self.eat(if object { b'}' } else { b']' }) {
                        open.push(object);
                        if object {
                            self.member_name()?;
                        }
                        continue;
                    }
                }
                _ => self.value(outside)?,
            }
            // It ended: close what ends with it, up to the next member.
            loop {
                let Some(object) = open.innermost() else { return Ok(()) };
                self.skip_space();
                if self.eat(b',') {
                    self.skip_space();
                    if object {
                        self.member_name()?;
                    }
                    break;
                }
                self.expect(if object { b'}' } else { b']' })?;
                open.pop();
            }
        }
    }

    /// Consumes a member's name and its colon.
    #[inline]
    pub(crate) fn member_name(&mut self) -> Result<RawString<'a>, Stop> {
        let name = self.string()?;
        self.skip_space();
        self.expect(b':')?;
        self.skip_space();
        Ok(name)
    }
}

/// Which brackets are open: a bit a level, set for an object.
#[derive(Default)]
struct Brackets {
    /// The innermost ones.
    objects: u128,
    /// Those outside of them, 128 each.
    outer: Vec<u128>,
    depth: usize,
}

impl Brackets {
    const BITS: usize = u128::BITS as usize;

    fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(Self::BITS) {
            self.outer.push(self.objects);
        }
        self.objects = self.objects << 1 | u128::from(object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.objects >>= 1;
        self.depth -= 1;
        if self.depth > 0 && self.depth.is_multiple_of(Self::BITS) {
            self.objects = self.outer.pop().unwrap_or_default();
        }
    }

    fn innermost(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.objects & 1 == 1)
    }
}

/// How many bytes stand before the first quote, backslash or control character.
#[inline]
pub(crate) fn plain_length(text: &[u8]) -> usize {
    let mut length = 0;
    while let Some(chunk) = text[length..].first_chunk::<16>() {
        let chunk = u8x16::new(*chunk);
        let quotes = chunk.simd_eq(u8x16::splat(b'"'));
        let backslashes = chunk.simd_eq(u8x16::splat(b'\\'));
        let controls = chunk.min(u8x16::splat(0x1f)).simd_eq(chunk);
        let marks = (quotes | backslashes | controls).to_bitmask();
        if marks != 0 {
            return length + marks.trailing_zeros() as usize;
        }
        length += 16;
    }
    let rest = &text[length..];
    length + rest.iter().position(|&byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len())
}
