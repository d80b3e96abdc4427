//! What a JSON document becomes, and how `str` and `repr` print it.

use std::fmt::{self, Display, Write as _};

use indexmap::IndexMap;

use super::{Exception, Number};

/// A `dict`: in the order in which keys first came, with the value that came last.
pub(crate) type Dict = IndexMap<String, Value>;

/// A value of a JSON document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    None,
    Number(Number),
    Text(String),
    List(Vec<Self>),
    Dict(Dict),
}

impl Value {
    /// The name of its type.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::None => "NoneType",
            Self::Number(number) => number.type_name(),
            Self::Text(_) => "str",
            Self::List(_) => "list",
            Self::Dict(_) => "dict",
        }
    }

    /// Why `value[text]` fails for what is no `dict`.
    pub(crate) fn not_subscriptable(&self) -> Exception {
        Exception::other(match self {
            Self::List(_) => "list indices must be integers or slices, not str".to_owned(),
            Self::Text(_) => "string indices must be integers, not 'str'".to_owned(),
            _ => format!("'{}' object is not subscriptable", self.type_name()),
        })
    }

    /// Why `value[text] = …` fails for what is no `dict`.
    pub(crate) fn not_assignable(&self) -> Exception {
        match self {
            Self::List(_) => self.not_subscriptable(),
            _ => Exception::other(format!("'{}' object does not support item assignment", self.type_name())),
        }
    }

    /// `repr(value)`.
    fn write_repr(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => out.write_str("None"),
            Self::Number(number) => write!(out, "{number}"),
            Self::Text(text) => out.write_str(&repr(text)),
            Self::List(items) => {
                out.write_char('[')?;
                for (index, item) in items.iter().enumerate() {
                    out.write_str(if index == 0 { "" } else { ", " })?;
                    item.write_repr(out)?;
                }
                out.write_char(']')
            }
            Self::Dict(members) => {
                out.write_char('{')?;
                for (index, (key, value)) in members.iter().enumerate() {
                    write!(out, "{}{}: ", if index == 0 { "" } else { ", " }, repr(key))?;
                    value.write_repr(out)?;
                }
                out.write_char('}')
            }
        }
    }
}

/// `str(value)`.
impl Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Text(text) = self { out.write_str(text) } else { self.write_repr(out) }
    }
}

/// `repr(text)`.
pub(crate) fn repr(text: &str) -> String {
    repr_of(text.chars().map(Ok))
}

/// `repr` of a path or file name, whose bytes may be no UTF-8.
pub(crate) fn repr_bytes(bytes: &[u8]) -> String {
    repr_of(
        bytes.utf8_chunks().flat_map(|chunk| {
            chunk.valid().chars().map(Ok).chain(chunk.invalid().iter().map(|&byte| Err(byte)))
        }),
    )
}

/// Characters, and bytes that stand for none.
fn repr_of(pieces: impl Iterator<Item = Result<char, u8>> + Clone) -> String {
    let has = |wanted: char| pieces.clone().any(|piece| piece == Ok(wanted));
    let quote = if has('\'') && !has('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for piece in pieces {
        // Writing to a string cannot fail.
        let _ = match piece {
            Err(byte) => write!(out, "\\udc{byte:02x}"),
            Ok('\n') => out.write_str("\\n"),
            Ok('\r') => out.write_str("\\r"),
            Ok('\t') => out.write_str("\\t"),
            Ok(character) if character == quote || character == '\\' => write!(out, "\\{character}"),
            Ok(character) if is_printable(character) => out.write_char(character),
            Ok(character) => match u32::from(character) {
                code @ ..0x100 => write!(out, "\\x{code:02x}"),
                code @ ..0x1_0000 => write!(out, "\\u{code:04x}"),
                code => write!(out, "\\U{code:08x}"),
            },
        };
    }
    out.push(quote);
    out
}

/// `str.isprintable`, by this compiler's version of Unicode.
fn is_printable(character: char) -> bool {
    match character {
        ' '..='~' => true,
        '\0'..='\u{a0}' | '\u{ad}' => false,
        // Behind another character, combining marks are not escaped.
        _ => format!("a{character}").escape_debug().count() == 2,
    }
}
