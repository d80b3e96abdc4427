//! Paths as pathlib spells them, files as `open` and `json.load` read them, and the texts of `OSError`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::value::repr_bytes;
use super::{Exception, Value, json};

/// The path as `str(pathlib.Path(path))` writes it: without empty parts and without `.`.
pub(crate) fn normalise(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let root: &[u8] = match bytes {
        [b'/', b'/', b'/', ..] => b"/",
        [b'/', b'/', ..] => b"//",
        [b'/', ..] => b"/",
        _ => b"",
    };
    let parts = bytes.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && part != b".");
    let mut text = root.to_vec();
    text.extend_from_slice(&parts.collect::<Vec<_>>().join(&b'/'));
    if text.is_empty() {
        text.push(b'.');
    }
    OsString::from_vec(text).into()
}

/// `OSError` as text.
pub(crate) fn os_error(error: &io::Error, path: &Path) -> Exception {
    let Exception { kind, message } = read_error(error);
    Exception { kind, message: format!("{message}: {}", repr_bytes(path.as_os_str().as_bytes())) }
}

/// The same where Python does not name the file.
fn read_error(error: &io::Error) -> Exception {
    let Some(number) = error.raw_os_error() else { return Exception::other(error.to_string()) };
    let described = error.to_string();
    let description = described.strip_suffix(&format!(" (os error {number})")).unwrap_or(&described);
    Exception::other(format!("[Errno {number}] {description}"))
}

/// The bytes of a file, if there are at most `max_bytes`.
///
/// # Errors
/// If the file cannot be read or is larger.
pub(crate) fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Exception> {
    let file = File::open(path).map_err(|error| os_error(&error, path))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(os_error(&Errno::EISDIR.into(), path));
    }
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| read_error(&error))?;
    if bytes.len() as u64 > max_bytes {
        return Err(os_error(&Errno::EFBIG.into(), path));
    }
    Ok(bytes)
}

/// `json.loads(bytes)` of a file with a UTF-8 locale.
///
/// # Errors
/// If it is not JSON.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, Exception> {
    let text = std::str::from_utf8(bytes).map_err(|error| not_utf8(bytes, error))?;
    json::parse(text)
}

/// `UnicodeDecodeError`, which is a `ValueError`.
fn not_utf8(bytes: &[u8], error: std::str::Utf8Error) -> Exception {
    let start = error.valid_up_to();
    let (length, reason) = match (error.error_len(), bytes.get(start)) {
        (None, _) => (bytes.len() - start, "unexpected end of data"),
        (Some(length), Some(0xc2..=0xf4)) => (length, "invalid continuation byte"),
        (Some(length), _) => (length, "invalid start byte"),
    };
    let first = bytes.get(start).unwrap_or(&0);
    Exception::value(if length == 1 {
        format!("'utf-8' codec can't decode byte 0x{first:02x} in position {start}: {reason}")
    } else {
        format!("'utf-8' codec can't decode bytes in position {start}-{}: {reason}", start + length - 1)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_lose_what_says_nothing() {
        for (path, spelled) in [
            ("", "."),
            ("./", "."),
            ("./a/./b//c/", "a/b/c"),
            ("/", "/"),
            ("//a", "//a"),
            ("///a/../b", "/a/../b"),
        ] {
            assert_eq!(normalise(Path::new(path)).as_os_str(), spelled, "{path}");
        }
    }

    #[test]
    fn the_name_of_a_file_may_hold_any_byte() {
        let path = Path::new(std::ffi::OsStr::from_bytes(b"a'\xff\n"));
        let error = io::Error::from(Errno::EACCES);
        assert_eq!(os_error(&error, path).message, r#"[Errno 13] Permission denied: "a'\udcff\n""#);
    }

    proptest! {
        #[test]
        fn a_path_that_was_spelled_stays(path in "[a./]{0,12}") {
            let once = normalise(Path::new(&path));
            let twice = normalise(&once);
            prop_assert_eq!(twice.as_os_str(), once.as_os_str());
        }
    }
}
