//! Reading a response: into structs that own everything, into values, in place; and merely splitting it.
//! A size is that of the response, give or take an event.

use std::hint::black_box;

use collector::event::Response;
use serde_json::Value;

use super::{Entry, Throughput, Work, entries};
use crate::{OwnedEvent, body_of};

pub(super) const ENTRIES: &[Entry] = entries![
    "json_parse"/"owned_structs"/"15kb", Bytes(15_000), owned(15_000);
    "json_parse"/"owned_structs"/"100kb", Bytes(100_000), owned(100_000);
    "json_parse"/"owned_structs"/"170kb", Bytes(170_000), owned(170_000);
    "json_parse"/"owned_structs"/"1700kb", Bytes(1_700_000), owned(1_700_000);
    "json_parse"/"value"/"15kb", Bytes(15_000), value(15_000);
    "json_parse"/"value"/"100kb", Bytes(100_000), value(100_000);
    "json_parse"/"value"/"170kb", Bytes(170_000), value(170_000);
    "json_parse"/"value"/"1700kb", Bytes(1_700_000), value(1_700_000);
    "json_parse"/"collector"/"15kb", Bytes(15_000), in_place(15_000);
    "json_parse"/"collector"/"100kb", Bytes(100_000), in_place(100_000);
    "json_parse"/"collector"/"170kb", Bytes(170_000), in_place(170_000);
    "json_parse"/"collector"/"1700kb", Bytes(1_700_000), in_place(1_700_000);
    "json_parse"/"split_only"/"170kb", Bytes(170_000), split(170_000);
];

fn owned(size: usize) -> Work {
    let body = body_of(size);
    Box::new(move || {
        let _ = black_box(serde_json::from_slice::<Vec<OwnedEvent>>(black_box(&body)));
    })
}

fn value(size: usize) -> Work {
    let body = body_of(size);
    Box::new(move || {
        let _ = black_box(serde_json::from_slice::<Value>(black_box(&body)));
    })
}

fn in_place(size: usize) -> Work {
    let body = body_of(size);
    Box::new(move || {
        let _ = black_box(Response::parse(black_box(&body)));
    })
}

/// The array's elements, validated, by the fastest parser that is known to us (`sonic-rs`): what it costs at least.
fn split(size: usize) -> Work {
    let body = body_of(size);
    Box::new(move || {
        let elements = sonic_rs::to_array_iter(black_box(&body[..]));
        let bytes: usize = elements.flatten().map(|element| element.as_raw_str().len()).sum();
        black_box(bytes);
    })
}
