//! Measures what a parser allocates.

use allocation_counter::AllocationInfo;

/// What the measured code allocated, at most, for one input.
#[derive(Debug, Default)]
pub struct Meter {
    /// Largest sum of bytes allocated at one time.
    pub peak_bytes: u64,
    /// Largest number of allocations.
    pub allocations: u64,
}

impl Meter {
    /// Runs `code` and takes its allocations into account. Nothing outside such a call is measured.
    pub fn measure<T>(&mut self, code: impl FnOnce() -> T) -> T {
        let mut result = None;
        let AllocationInfo { bytes_max, count_total, .. } =
            allocation_counter::measure(|| result = Some(code()));
        self.peak_bytes = self.peak_bytes.max(bytes_max);
        self.allocations = self.allocations.max(count_total);
        let Some(result) = result else { unreachable!("the closure was run") };
        result
    }
}
