//! Bytes of a program by crate, from its symbols.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use object::{Object as _, ObjectSymbol as _};

use super::{Amounts, demangled};

/// Sizes of the symbols of a program, summed up by crate.
pub(super) fn by_crate(program: &Path) -> anyhow::Result<Amounts> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let file = object::File::parse(&*bytes)?;
    let mut sizes = Amounts::new();
    for symbol in file.symbols().filter(|symbol| symbol.size() > 0) {
        let name = demangled(symbol.name().unwrap_or_default());
        let name = match crate_of(&name) {
            unknown if unknown.is_empty() => "others".to_owned(),
            name => name,
        };
        *sizes.entry(name).or_default() += symbol.size() as f64;
    }
    Ok(sizes)
}

/// The crate that a function is of: the first part of its path, behind `<` and `&`. Nothing for functions without a path.
pub(super) fn crate_of(function: &str) -> String {
    let path = function.trim_start_matches(['<', '&', '*', '(', '[', '$']);
    let path = path.strip_prefix("mut ").or_else(|| path.strip_prefix("dyn ")).unwrap_or(path);
    match path.split_once("::") {
        Some((name, _)) if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
            name.to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crate_is_the_first_part_of_the_path() {
        for (function, name) in [
            ("bench::copy", "bench"),
            ("<alloc::vec::Vec<T> as core::clone::Clone>::clone", "alloc"),
            ("<&mut serde_json::de::Deserializer<R>>::parse", "serde_json"),
            ("memcpy", ""),
        ] {
            assert_eq!(crate_of(function), name, "{function}");
        }
    }
}
