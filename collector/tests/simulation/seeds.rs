//! Seeds of simulated schedules: which ones are asked for, and the lowest whose schedule fails.

use std::env;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// A number that a variable names.
pub(crate) fn number(variable: &str) -> Option<u64> {
    env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// The lowest seed whose schedule fails, and why.
pub(crate) fn first_failure(
    seeds: Range<u64>,
    run: impl Fn(u64) -> Result<(), String> + Sync,
) -> Option<(u64, String)> {
    let (next, found) = (AtomicU64::new(seeds.start), Mutex::new(None::<(u64, String)>));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || found.lock().unwrap().as_ref().is_some_and(|(least, _)| *least < seed) {
                return;
            }
            if let Err(reason) = run(seed) {
                let mut found = found.lock().unwrap();
                if found.as_ref().is_none_or(|(least, _)| seed < *least) {
                    *found = Some((seed, reason));
                }
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    found.into_inner().unwrap()
}
