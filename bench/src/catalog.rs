//! Every bench there is: its name, what it is worth, and how it is made. Criterion, the gate and the tables measure the
//! same ones.

pub mod archive;
mod dedup;
mod reading;
mod steps;

/// What a bench gets through in one iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throughput {
    /// Bytes of a response or a document.
    Bytes(u64),
    /// Events or ids.
    Elements(u64),
}

/// One iteration, ready to be repeated.
pub type Work = Box<dyn FnMut()>;

/// A bench: `group/function/parameter`.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// What is compared with each other.
    pub group: &'static str,
    /// In which way it is done.
    pub function: &'static str,
    /// On how much.
    pub parameter: &'static str,
    /// What one iteration gets through.
    pub throughput: Throughput,
    /// Makes the input, and what is measured on it.
    pub prepare: fn() -> Work,
}

impl Entry {
    /// `group/function/parameter`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}/{}", self.group, self.function, self.parameter)
    }
}

/// Every bench there is.
#[must_use]
pub fn catalog() -> Vec<Entry> {
    [reading::ENTRIES, dedup::ENTRIES, steps::ENTRIES, archive::ENTRIES].concat()
}

/// A bench by its name.
#[must_use]
pub fn find(id: &str) -> Option<Entry> {
    catalog().into_iter().find(|entry| entry.id() == id)
}

/// Those that a gate looks at by default: every step of a run once, at its ordinary size.
pub const QUICK: [&str; 7] = [
    "json_parse/collector/170kb",
    "dedup/collector/500",
    "date_group/collector/500",
    "jsonl/collector/500",
    "metadata/parse/1000",
    "metadata/serialize/1000",
    "pipeline/two_new/500",
];

/// Rows of the table of benches.
macro_rules! entries {
    ($($group:literal / $function:literal / $parameter:literal, $kind:ident($count:expr), $prepare:expr;)*) => {
        &[$(Entry {
            group: $group,
            function: $function,
            parameter: $parameter,
            throughput: Throughput::$kind($count),
            prepare: || $prepare,
        }),*]
    };
}
use entries;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_quick_ones_exist() {
        let mut ids: Vec<String> = catalog().iter().map(Entry::id).collect();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert!(QUICK.iter().all(|id| find(id).is_some()));
    }

    #[test]
    fn each_bench_works() {
        for entry in catalog().into_iter().filter(|entry| !entry.parameter.ends_with("0000")) {
            (entry.prepare)()();
        }
    }
}
