//! From a response's bytes to the archive's lines: parse, compare with the ledger, partition by day,
//! serialize.

use bench::Case;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    for buffer in [500, 5_000, 50_000] {
        for (name, new) in [("all_seen", 0), ("two_new", 2), ("all_new", buffer)] {
            let case = Case::new(buffer, new);
            group.throughput(Throughput::Elements(buffer as u64));
            group.bench_with_input(BenchmarkId::new(name, buffer), &case, |bencher, case| {
                bencher.iter(|| case.objects());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
