//! JSON documents that others may have written or damaged.

use serde::de::{DeserializeOwned, Error as _};

/// Reads a JSON object. serde would fill a struct from an array as well, one member after the other: `[[]]` would be an
/// empty listing, and `[[1]]` a ledger.
pub(crate) fn from_object<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(serde_json::Error::custom("invalid type: array, expected an object"));
    }
    serde_json::from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Document {
        ids: Vec<i64>,
    }

    #[test]
    fn array_is_not_an_object() {
        assert_eq!(from_object::<Document>(br#" {"ids":[1]}"#).unwrap().ids, [1]);
        for wrong in ["[[1]]", "\n [[1]]", "1", "", "{"] {
            assert!(from_object::<Document>(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
