//! System calls by name, counted by strace.

use std::fs;

use anyhow::Context as _;

use super::{Amounts, of_an_iteration, path_in, under};
use crate::gate::slices::Build;

/// Counts the system calls of an iteration.
pub(super) fn count(build: &Build, bench: &str) -> anyhow::Result<Amounts> {
    of_an_iteration(build, |iterations| {
        let folder = tempfile::tempdir()?;
        let file = path_in(folder.path(), "strace.out");
        under("strace", &["-f", "-c", "-o", &file, "--"], build, bench, iterations)?;
        Ok(parse(&fs::read_to_string(&file).context("strace wrote no table")?))
    })
}

/// Reads the table of `strace -c`: `% time, seconds, usecs/call, calls, [errors,] syscall`.
fn parse(table: &str) -> Amounts {
    let row = |line: &str| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let name = *cells.last().filter(|name| **name != "total")?;
        Some((name.to_owned(), cells.get(3)?.parse::<f64>().ok()?))
    };
    table.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_strace_is_read() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n \
            60.00    0.000300         100         3           fsync\n \
            40.00    0.000200          20        10         2 openat\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.000500          38        13         2 total\n";
        let amounts: Vec<(String, f64)> = parse(table).into_iter().collect();
        assert_eq!(amounts, [("fsync".to_owned(), 3.0), ("openat".to_owned(), 10.0)]);
    }
}
