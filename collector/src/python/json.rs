//! Reads JSON as `json.load` does, and refuses it in its words.

use num_bigint::BigInt;

use super::{Dict, Exception, Kind, Number, Value};

/// How deep lists and objects may be nested. Python counts the callers as well; this is what they leave to the
/// trend report, and one more than to the health check.
const MAX_DEPTH: usize = 993;
/// Longest integer, in digits.
const MAX_DIGITS: usize = 4300;

/// Reads a document.
///
/// # Errors
/// If it is not JSON, or too deep, or has an integer that is too long.
pub(super) fn parse(text: &str) -> Result<Value, Exception> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    if text.starts_with('\u{feff}') {
        return Err(reader.refuse("Unexpected UTF-8 BOM (decode using utf-8-sig)", 0));
    }
    reader.skip_space();
    let value = reader.value()?;
    reader.skip_space();
    if reader.at < text.len() {
        return Err(reader.refuse("Extra data", reader.at));
    }
    Ok(value)
}

struct Reader<'a> {
    text: &'a str,
    /// How many bytes are read.
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.bytes().get(at).copied()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, expected: u8) -> bool {
        let found = self.byte(self.at) == Some(expected);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte(self.at) {
            self.at += 1;
        }
    }

    /// `JSONDecodeError`: counts characters, after each line break became one character.
    fn refuse(&self, reason: &str, at: usize) -> Exception {
        let (mut line, mut column, mut position) = (1, 1, 0);
        let mut before = self.text.get(..at).unwrap_or(self.text).chars().peekable();
        while let Some(character) = before.next() {
            if character == '\r' {
                before.next_if_eq(&'\n');
            }
            position += 1;
            column += 1;
            if let '\r' | '\n' = character {
                (line, column) = (line + 1, 1);
            }
        }
        let message = format!("{reason}: line {line} column {column} (char {position})");
        Exception { kind: Kind::Syntax, message }
    }

    fn value(&mut self) -> Result<Value, Exception> {
        match self.byte(self.at) {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'{') => self.nested("object", Self::object),
            Some(b'[') => self.nested("array", Self::array),
            _ => self.constant().map_or_else(|| self.number(), Ok),
        }
    }

    fn constant(&mut self) -> Option<Value> {
        let constants = [
            ("null", Value::None),
            ("true", Value::Number(Number::Bool(true))),
            ("false", Value::Number(Number::Bool(false))),
            ("NaN", Value::Number(Number::Float(f64::NAN))),
            ("Infinity", Value::Number(Number::Float(f64::INFINITY))),
            ("-Infinity", Value::Number(Number::Float(f64::NEG_INFINITY))),
        ];
        let (name, value) = constants.into_iter().find(|(name, _)| self.rest().starts_with(name))?;
        self.at += name.len();
        Some(value)
    }

    fn nested(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self) -> Result<Value, Exception>,
    ) -> Result<Value, Exception> {
        if self.depth == MAX_DEPTH {
            return Err(Exception::other(format!(
                "maximum recursion depth exceeded while decoding a JSON {name} from a unicode string"
            )));
        }
        self.depth += 1;
        self.at += 1;
        self.skip_space();
        let value = read(self);
        self.depth -= 1;
        value
    }

    /// After an element: whether there is another one.
    fn goes_on(&mut self, end: u8) -> Result<bool, Exception> {
        self.skip_space();
        if self.take(end) {
            return Ok(false);
        }
        if !self.take(b',') {
            return Err(self.refuse("Expecting ',' delimiter", self.at));
        }
        self.skip_space();
        Ok(true)
    }

    fn array(&mut self) -> Result<Value, Exception> {
        let mut items = Vec::new();
        let mut more = !self.take(b']');
        while more {
            items.push(self.value()?);
            more = self.goes_on(b']')?;
        }
        Ok(Value::List(items))
    }

    fn object(&mut self) -> Result<Value, Exception> {
        let mut members = Dict::new();
        let mut more = !self.take(b'}');
        while more {
            if self.byte(self.at) != Some(b'"') {
                return Err(self.refuse("Expecting property name enclosed in double quotes", self.at));
            }
            let key = self.string()?;
            self.skip_space();
            if !self.take(b':') {
                return Err(self.refuse("Expecting ':' delimiter", self.at));
            }
            self.skip_space();
            let value = self.value()?;
            members.insert(key, value);
            more = self.goes_on(b'}')?;
        }
        Ok(Value::Dict(members))
    }

    fn digits(&self, mut at: usize) -> usize {
        while self.byte(at).is_some_and(|byte| byte.is_ascii_digit()) {
            at += 1;
        }
        at
    }

    fn number(&mut self) -> Result<Value, Exception> {
        let start = self.at;
        let first = start + usize::from(self.byte(start) == Some(b'-'));
        let whole = match self.byte(first) {
            Some(b'0') => first + 1,
            Some(b'1'..=b'9') => self.digits(first),
            _ => return Err(self.refuse("Expecting value", start)),
        };
        let mut end = whole;
        if self.byte(end) == Some(b'.') && self.digits(end + 1) > end + 1 {
            end = self.digits(end + 1);
        }
        if let Some(b'e' | b'E') = self.byte(end) {
            let sign = usize::from(matches!(self.byte(end + 1), Some(b'+' | b'-')));
            let exponent = end + 1 + sign;
            if self.digits(exponent) > exponent {
                end = self.digits(exponent);
            }
        }
        self.at = end;
        let text = self.text.get(start..end).unwrap_or_default();
        if end > whole {
            return Ok(Value::Number(Number::Float(text.parse().unwrap_or(f64::NAN))));
        }
        if whole - first > MAX_DIGITS {
            return Err(Exception::value(format!(
                "Exceeds the limit ({MAX_DIGITS} digits) for integer string conversion: value has {} digits; \
                 use sys.set_int_max_str_digits() to increase the limit",
                whole - first
            )));
        }
        Ok(Value::Number(Number::Int(text.parse::<BigInt>().unwrap_or_default())))
    }

    fn string(&mut self) -> Result<String, Exception> {
        let begin = self.at;
        let mut found = String::new();
        self.at += 1;
        loop {
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..=0x1f);
            let rest = self.rest();
            let length = rest.as_bytes().iter().position(special).unwrap_or(rest.len());
            found.push_str(rest.get(..length).unwrap_or_default());
            self.at += length;
            match self.byte(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(found);
                }
                Some(b'\\') if self.at + 1 < self.text.len() => found.push(self.escape()?),
                Some(b'\\') | None => return Err(self.refuse("Unterminated string starting at", begin)),
                Some(_) => return Err(self.refuse("Invalid control character at", self.at)),
            }
        }
    }

    /// What an escape stands for; a lone half of a surrogate pair for U+FFFD.
    fn escape(&mut self) -> Result<char, Exception> {
        let character = match self.byte(self.at + 1) {
            Some(b'u') => return self.unicode_escape(),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(plain @ (b'"' | b'\\' | b'/')) => char::from(plain),
            _ => return Err(self.refuse("Invalid \\escape", self.at)),
        };
        self.at += 2;
        Ok(character)
    }

    fn unicode_escape(&mut self) -> Result<char, Exception> {
        let first = self.hex(self.at)?;
        self.at += 6;
        if (0xd800..0xdc00).contains(&first)
            && self.rest().starts_with("\\u")
            && self.at + 6 < self.text.len()
        {
            let second = self.hex(self.at)?;
            if (0xdc00..0xe000).contains(&second) {
                self.at += 6;
                let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    /// The four digits of the escape at a place. Something must follow them.
    fn hex(&self, at: usize) -> Result<u32, Exception> {
        let digits = self.bytes().get(at + 2..at + 6).filter(|_| at + 6 < self.text.len());
        let value = digits.and_then(|digits| {
            digits.iter().try_fold(0, |value, &digit| Some(value * 16 + char::from(digit).to_digit(16)?))
        });
        value.ok_or_else(|| self.refuse("Invalid \\uXXXX escape", at + 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(text: &str) -> String {
        parse(text).map_or_else(|error| error.to_string(), |value| value.to_string())
    }

    #[test]
    fn refuses_in_the_words_of_python() {
        for (text, words) in [
            ("", "Expecting value: line 1 column 1 (char 0)"),
            ("[1,", "Expecting value: line 1 column 4 (char 3)"),
            ("-", "Expecting value: line 1 column 1 (char 0)"),
            (r#""\u1234"#, r"Invalid \uXXXX escape: line 1 column 3 (char 2)"),
            (r#""\ud83d\u12g4""#, r"Invalid \uXXXX escape: line 1 column 9 (char 8)"),
            (r#""å\x""#, r"Invalid \escape: line 1 column 3 (char 2)"),
            ("\"abc\\", "Unterminated string starting at: line 1 column 1 (char 0)"),
            ("\"a\r\n\"", "Invalid control character at: line 1 column 3 (char 2)"),
            ("[\r\n\r1\n2]", "Expecting ',' delimiter: line 4 column 1 (char 5)"),
            ("{\"a\":1,}", "Expecting property name enclosed in double quotes: line 1 column 8 (char 7)"),
            ("01", "Extra data: line 1 column 2 (char 1)"),
        ] {
            assert_eq!(said(text), words, "{text}");
        }
    }

    #[test]
    fn takes_what_python_takes() {
        for (text, printed) in [
            ("[NaN, Infinity, -Infinity, 1e999]", "[nan, inf, -inf, inf]"),
            (
                "[-0, -0.0, 1E2, 123456789012345678901234567890]",
                "[0, -0.0, 100.0, 123456789012345678901234567890]",
            ),
            (r#"{"a": 1, "b": null, "a": true}"#, "{'a': True, 'b': None}"),
            (r#"["\ud83d\ude00", "\u0007\u00ad", "it's", "\"'"]"#, r#"['😀', '\x07\xad', "it's", '"\'']"#),
        ] {
            assert_eq!(said(text), printed, "{text}");
        }
    }

    #[test]
    fn depth_and_length_have_limits() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert!(said(&nested(MAX_DEPTH + 1)).starts_with("maximum recursion depth exceeded"));
        assert!(parse(&"9".repeat(MAX_DIGITS)).is_ok());
        assert!(said(&"9".repeat(MAX_DIGITS + 1)).starts_with("Exceeds the limit (4300 digits)"));
    }

    /// Documents, some of them broken.
    fn document() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            r#"[\[\]{},: \r\n"]"#,
            r#""[a-zå]{0,3}""#,
            "-?[0-9]{1,3}(\\.[0-9])?([eE][+-]?[0-9])?",
            "true|false|null|\\\\u0[0-9a-f]{3}",
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn agrees_with_serde_on_what_json_is(text in document()) {
            let known: Result<serde_json::Value, _> = serde_json::from_str(&text);
            // Numbers beyond all floats are infinite here.
            prop_assume!(!known.as_ref().is_err_and(|error| error.to_string().contains("out of range")));
            prop_assert_eq!(parse(&text).is_ok(), known.is_ok(), "{}", text);
        }

        #[test]
        fn strings_are_read_as_they_were_written(string in any::<String>()) {
            let written = serde_json::to_string(&string).unwrap();
            prop_assert_eq!(parse(&written), Ok(Value::Text(string)));
        }

        #[test]
        fn any_text_gets_an_answer(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
