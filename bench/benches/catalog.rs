//! All benches of the catalog, by criterion.

use std::collections::BTreeMap;
use std::time::Duration;

use bench::catalog::{Entry, Throughput, catalog};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// Long enough for a hundred samples; the whole catalog stays below ten minutes.
const MEASUREMENT: Duration = Duration::from_millis(2_500);
const WARM_UP: Duration = Duration::from_millis(500);

fn all(criterion: &mut Criterion) {
    let mut groups: BTreeMap<&'static str, Vec<Entry>> = BTreeMap::new();
    for entry in catalog() {
        groups.entry(entry.group).or_default().push(entry);
    }
    for (name, entries) in groups {
        let mut group = criterion.benchmark_group(name);
        group.warm_up_time(WARM_UP).measurement_time(MEASUREMENT);
        for entry in entries {
            group.throughput(match entry.throughput {
                Throughput::Bytes(bytes) => criterion::Throughput::Bytes(bytes),
                Throughput::Elements(elements) => criterion::Throughput::Elements(elements),
            });
            group.bench_function(BenchmarkId::new(entry.function, entry.parameter), |bencher| {
                let mut work = (entry.prepare)();
                bencher.iter(&mut work);
            });
        }
        group.finish();
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
