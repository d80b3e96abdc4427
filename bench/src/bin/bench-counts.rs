//! Counts what an ordinary run does, exactly: blocks and bytes allocated, requests to the store, bytes written.

use std::io::{self, Write as _};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn main() -> anyhow::Result<()> {
    let _profiler = dhat::Profiler::builder().testing().build();
    let counts = bench::counts::of_an_ordinary_run(|| {
        let stats = dhat::HeapStats::get();
        (stats.total_blocks, stats.total_bytes)
    })?;
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&counts)?)?;
    Ok(())
}
