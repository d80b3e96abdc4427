//! Mutations that know numbers, escapes, and the tokens of JSON and of the target.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};

/// Maximum length of a mutated input, in bytes.
const LONGEST: usize = 4096;
const NUMBERS: [&str; 24] = [
    "0",
    "-0",
    "1",
    "-1",
    "00",
    "60",
    "61",
    "127",
    "128",
    "255",
    "256",
    "1000",
    "9999",
    "10000",
    "65536",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "1e999",
    "1.7976931348623157e308",
];
const TOKENS: [&str; 30] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "null",
    "true",
    "false",
    "\\u0000",
    "\\ud800",
    "\\udfff",
    "\\ud83d\\ude00",
    "\\/",
    "\\n",
    "\u{feff}",
    "\u{202e}",
    "å",
    "😀",
    "\0",
    "\n",
    "\r\n",
    "\t",
    " ",
    "/",
    "..",
    "%",
    "=",
];
const BYTES: [u8; 10] = [0, 0x1b, b' ', b'0', b'9', 0x7f, 0x80, 0xc0, 0xed, 0xff];

/// A reproducible source of mutations.
#[derive(Debug)]
pub(crate) struct Mutator {
    random: Pcg64Mcg,
    tokens: &'static [&'static str],
}

impl Mutator {
    /// The same seed and tokens make the same mutations.
    pub(crate) fn new(seed: u64, tokens: &'static [&'static str]) -> Self {
        Self { random: Pcg64Mcg::seed_from_u64(seed), tokens }
    }

    /// A number below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let product = u128::from(self.random.next_u64()) * end as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    fn choose<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> Option<&'a T> {
        from.get(self.below(from.len())).copied()
    }

    /// Changes an input in one to eight ways; `other` is one to take parts from.
    pub(crate) fn mutate(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let times = 1 << self.below(4);
        for _ in 0..times {
            self.mutate_once(input, other);
        }
        input.truncate(LONGEST);
    }

    fn mutate_once(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(input.len() + 1);
        match self.below(16) {
            0 => self.change_byte(input, |byte, random| byte ^ (1 << (random % 8))),
            1 => {
                self.change_byte(input, |byte, random| byte.wrapping_add(random % 17).wrapping_sub(8));
            }
            2 => self.change_byte(input, |_, random| BYTES[usize::from(random) % BYTES.len()]),
            3 => input.insert(at, self.random.next_u32().to_le_bytes()[0]),
            4 => input.truncate(at),
            5 => drop(input.drain(self.range(input.len()))),
            6 => self.repeat(input),
            7 => self.splice(input, other),
            8 | 9 => self.change_number(input),
            10 => self.escape_character(input),
            11 => self.replace_token(input),
            12 => self.nest(input),
            13 => self.swap(input),
            14 => insert(input, at, self.token().as_bytes()),
            _ => {
                let range = self.range(input.len());
                let token = self.token();
                input.splice(range, token.bytes());
            }
        }
    }

    fn token(&mut self) -> &'static str {
        let known = self.below(3) > 0 && !self.tokens.is_empty();
        let token = if known { self.choose(self.tokens) } else { self.choose(&TOKENS) };
        token.unwrap_or_default()
    }

    /// A range within a length, mostly a short one.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let longest = if self.below(4) == 0 { length - start } else { (length - start).min(8) };
        start..start + self.below(longest + 1)
    }

    fn change_byte(&mut self, input: &mut [u8], change: fn(u8, u8) -> u8) {
        let random = self.random.next_u32().to_le_bytes()[3];
        let at = self.below(input.len());
        if let Some(byte) = input.get_mut(at) {
            *byte = change(*byte, random);
        }
    }

    fn repeat(&mut self, input: &mut Vec<u8>) {
        let range = self.range(input.len());
        let part = input[range.clone()].to_vec();
        let times = if self.below(8) == 0 { 64 } else { 1 };
        insert(input, range.end, &part.repeat(times));
    }

    fn splice(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let from = self.range(other.len());
        let to = self.range(input.len());
        input.splice(to, other[from].iter().copied());
    }

    /// Replaces a run of digits, or changes one digit of it.
    fn change_number(&mut self, input: &mut Vec<u8>) {
        let start = self.below(input.len());
        let Some(first) = input[start..].iter().position(u8::is_ascii_digit) else { return };
        let first = start + first;
        let length = input[first..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if self.below(2) == 0 {
            let number = self.choose(&NUMBERS).unwrap_or_default();
            input.splice(first..first + length, number.bytes());
        } else {
            let at = first + self.below(length);
            input[at] = b'0' + self.random.next_u32().to_le_bytes()[3] % 10;
        }
    }

    /// Writes a byte as an escape of JSON.
    fn escape_character(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len());
        if let Some(&byte) = input.get(at) {
            input.splice(at..=at, format!("\\u{byte:04x}").bytes());
        }
    }

    /// Removes, doubles or replaces a word or a sign.
    fn replace_token(&mut self, input: &mut Vec<u8>) {
        let start = self.below(input.len());
        let is_word = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
        let word = input[start..].iter().take_while(is_word).count();
        let range = start..(start + word.max(1)).min(input.len());
        match self.below(3) {
            0 => drop(input.drain(range)),
            1 => {
                let word = input[range.clone()].to_vec();
                insert(input, range.end, &word);
            }
            _ => {
                let token = self.token();
                input.splice(range, token.bytes());
            }
        }
    }

    fn nest(&mut self, input: &mut Vec<u8>) {
        let depth = [1, 2, 126, 127, 128, 129, 1000][self.below(7)];
        let (open, close) = [("[", "]"), ("{\"a\":", "}"), ("(", ")")][self.below(3)];
        let range = self.range(input.len());
        insert(input, range.end, close.repeat(depth).as_bytes());
        insert(input, range.start, open.repeat(depth).as_bytes());
    }

    fn swap(&mut self, input: &mut [u8]) {
        let (one, another) = (self.below(input.len()), self.below(input.len()));
        if !input.is_empty() {
            input.swap(one, another);
        }
    }
}

fn insert(input: &mut Vec<u8>, at: usize, part: &[u8]) {
    input.splice(at..at, part.iter().copied());
}
