//! Runs benches in short slices, for the gate: reads `ID ITERATIONS` a line, answers with nanoseconds a line. `benches` is answered
//! with the benches that a gate compares by default, as JSON.

use std::collections::HashMap;
use std::io::{self, BufRead as _, Write as _};
use std::time::Instant;

use bench::catalog::{QUICK, Work, find};

fn main() -> io::Result<()> {
    let mut prepared: HashMap<String, Work> = HashMap::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut stdout = io::stdout().lock();
        if line == "benches" {
            writeln!(stdout, "{}", serde_json::to_string(&QUICK)?)?;
            stdout.flush()?;
            continue;
        }
        let Some((id, iterations)) =
            line.rsplit_once(' ').and_then(|(id, count)| Some((id, count.parse::<u64>().ok()?)))
        else {
            writeln!(stdout, "error: `{line}` is not of the form ID ITERATIONS")?;
            stdout.flush()?;
            continue;
        };
        if !prepared.contains_key(id) {
            let Some(entry) = find(id) else {
                writeln!(stdout, "unknown")?;
                stdout.flush()?;
                continue;
            };
            prepared.insert(id.to_owned(), (entry.prepare)());
        }
        let Some(work) = prepared.get_mut(id) else { continue };
        let began = Instant::now();
        for _ in 0..iterations {
            work();
        }
        writeln!(stdout, "{}", began.elapsed().as_nanos())?;
        stdout.flush()?;
    }
    Ok(())
}
