//! Fuzz targets for every parser of foreign bytes, and a runner for stable Rust.
//!
//! A [`Target`] parses one input and checks what must hold for it. A [`batch`] mutates the inputs of the
//! target's [`corpus`], runs them and measures each. The program `fuzz` runs batches in processes of their
//! own, so that a stack overflow or an endless loop ends one batch and not the search.

pub mod batch;
pub mod corpus;
mod meter;
mod mutate;
pub mod targets;

pub use meter::Meter;

/// Maximum of what a parser may allocate for an input.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Bytes for each byte of the input.
    pub per_byte: u64,
    /// Bytes for any input.
    pub constant: u64,
}

impl Bound {
    /// The maximum peak of allocated bytes for an input of `length` bytes.
    #[must_use]
    pub fn peak_bytes(self, length: usize) -> u64 {
        self.constant + self.per_byte * length as u64
    }
}

/// A parser of foreign bytes.
#[derive(Debug)]
pub struct Target {
    /// The name, which is also that of the folder in the corpus.
    pub name: &'static str,
    /// Parses an input and checks what must hold for it.
    ///
    /// Returns a number for the kind of the result. An input with a kind that no earlier input had is mutated further.
    pub run: fn(&[u8], &mut Meter) -> Result<u64, String>,
    /// What the parser may allocate.
    pub bound: Bound,
    /// Texts that the parser knows.
    pub tokens: &'static [&'static str],
    /// Number of inputs in the short run within `cargo test`.
    pub short_run: u64,
}
