//! What it costs to read a response: into structs that own everything, into values, and in place.

use std::hint::black_box;

use bench::{OwnedEvent, body_of};
use collector::event::Response;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::Value;

const SIZES: [(&str, usize); 4] =
    [("15kb", 15_000), ("100kb", 100_000), ("170kb", 170_000), ("1700kb", 1_700_000)];

fn json_parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("json_parse");
    for (name, size) in SIZES {
        let body = body_of(size);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_with_input(BenchmarkId::new("owned_structs", name), &body, |bencher, body| {
            bencher.iter(|| serde_json::from_slice::<Vec<OwnedEvent>>(black_box(body)));
        });
        group.bench_with_input(BenchmarkId::new("value", name), &body, |bencher, body| {
            bencher.iter(|| serde_json::from_slice::<Value>(black_box(body)));
        });
        group.bench_with_input(BenchmarkId::new("collector", name), &body, |bencher, body| {
            bencher.iter(|| Response::parse(black_box(body)));
        });
    }
    group.finish();
}

criterion_group!(benches, json_parse);
criterion_main!(benches);
