//! Counts what an ordinary run does, exactly: blocks and bytes allocated, requests to the store, bytes written.

use std::io::{self, Write as _};

use bench::counts::{Heap, of_an_ordinary_run};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn main() -> anyhow::Result<()> {
    let _profiler = dhat::Profiler::builder().testing().build();
    let counts = of_an_ordinary_run(|| {
        let stats = dhat::HeapStats::get();
        Heap { blocks: stats.total_blocks, bytes: stats.total_bytes, held: stats.curr_bytes as u64 }
    })?;
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&counts)?)?;
    Ok(())
}
