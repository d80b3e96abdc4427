//! The program `analyze-metrics`.

use std::process::ExitCode;

fn main() -> ExitCode {
    collector::cli::analyze_metrics()
}
