//! Listings of object stores, and the cache of them.

use std::fmt::Write as _;

use collector::fuzzing::{
    Page, cache_entry, cache_entry_written, cached_listing, cached_listing_written, join_pages, oci_page,
    s3_page,
};
use serde_json::Value;

use super::{ensure, kind_of_result, size_of};
use crate::{Bound, Meter, Target};

const PREFIX: &str = "events/";
const TITLE: &str = "an owner\tlisting events/";
const END: &[u8] = b"</ListBucketResult>";
const S3_TOKENS: &[&str] = &[
    "<ListBucketResult>",
    "</ListBucketResult>",
    "<Contents>",
    "</Contents>",
    "<Key>",
    "</Key>",
    "<Size>",
    "</Size>",
    "<Prefix>events/</Prefix>",
    "<IsTruncated>false</IsTruncated>",
    "<KeyCount>",
    "<NextContinuationToken>",
    "</NextContinuationToken>",
    "<a/>",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "&amp;",
    "&#x41;",
    "&#0;",
    "&x;",
    "<?xml version=\"1.0\"?>",
    "<!DOCTYPE a [<!ENTITY x \"y\">]>",
    "<html>",
    "events/2026/01/02/events-1767362400.jsonl",
];
const OCI_TOKENS: &[&str] = &[
    "\"objects\":",
    "\"name\":",
    "\"size\":",
    "\"nextStartWith\":",
    "\"prefixes\":",
    "{\"name\":\"a\",\"size\":1}",
    "events/",
];

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "s3_listing",
        run: s3,
        bound: Bound { per_byte: 64, constant: 16 << 10 },
        tokens: S3_TOKENS,
        short_run: 20_000,
    },
    Target {
        name: "oci_listing",
        run: oci,
        bound: Bound { per_byte: 64, constant: 16 << 10 },
        tokens: OCI_TOKENS,
        short_run: 20_000,
    },
    Target {
        name: "cached_listing",
        run: cached,
        bound: Bound { per_byte: 64, constant: 4 << 10 },
        tokens: &["17 ", "events/2026/01/02/events-1767362400.jsonl", "\n", "\r\n", " ", "+1 a"],
        short_run: 20_000,
    },
    Target {
        name: "cache_entry",
        run: entry,
        bound: Bound { per_byte: 4, constant: 1 << 10 },
        tokens: &["0000000000000000 ", "1767362400000", TITLE, "\n", " ", "-"],
        short_run: 20_000,
    },
];

fn s3(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let page = meter.measure(|| s3_page(input, PREFIX));
    if let Ok(page) = &page {
        if input.ends_with(END) {
            let cut = s3_page(&input[..input.len() - 1], PREFIX);
            ensure(cut.is_err(), || format!("without its last byte it is read as {cut:?}"))?;
        }
        joins(page)?;
        let has_control = |text: &String| text.contains(char::is_control);
        let mut texts = page.0.iter().map(|(name, _)| name).chain(&page.1);
        if !texts.any(has_control) {
            let again = s3_page(written(page).as_bytes(), PREFIX);
            ensure(again.as_ref() == Ok(page), || format!("{page:?} is read again as {again:?}"))?;
        }
    }
    Ok(kind_of_result(&page, |(objects, next)| size_of(objects.len()) << 1 | u64::from(next.is_some())))
}

/// A page as the service writes it.
fn written((objects, next): &Page) -> String {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let objects = objects.iter().fold(String::new(), |mut text, (name, size)| {
        let name = escaped(name);
        let _ = write!(text, "<Contents><Key>{name}</Key><Size>{size}</Size></Contents>");
        text
    });
    let token = |token: &String| format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(token));
    let truncated = next.is_some();
    let next = next.as_ref().map(token).unwrap_or_default();
    format!("<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{objects}{next}</ListBucketResult>")
}

fn oci(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let page = meter.measure(|| oci_page(input));
    if let Ok((objects, next)) = &page {
        joins(&(objects.clone(), next.clone()))?;
        let cut = oci_page(&input[..input.len() - 1]);
        let ends_with_space = input.last().is_some_and(u8::is_ascii_whitespace);
        ensure(cut.is_err() || ends_with_space, || format!("cut, it is {cut:?}"))?;
        if let Ok(value) = serde_json::from_slice::<Value>(input) {
            let names =
                value["objects"].as_array().map(|objects| objects.iter().map(|object| &object["name"]));
            let is_same = names.is_some_and(|names| names.eq(objects.iter().map(|(name, _)| name)));
            ensure(is_same, || format!("{value} is read as {objects:?}"))?;
            let stated = value["nextStartWith"].as_str().filter(|stated| !stated.is_empty());
            ensure(stated == next.as_deref(), || format!("{value} continues with {next:?}"))?;
        }
    }
    Ok(kind_of_result(&page, |(objects, next)| size_of(objects.len()) << 1 | u64::from(next.is_some())))
}

/// What pages of a listing become: names in order that begin with the prefix, all of a page or an error.
fn joins(page: &Page) -> Result<(), String> {
    let joined = join_pages(vec![page.clone(), (Vec::new(), None)], PREFIX);
    let Ok(listed) = joined else { return Ok(()) };
    let is_ordered = listed.is_sorted_by(|one, other| one.key < other.key);
    let is_asked_for = listed.iter().all(|object| object.key.as_str().starts_with(PREFIX));
    ensure(is_ordered && is_asked_for, || format!("{page:?} is joined as {listed:?}"))?;
    let twice = join_pages(vec![page.clone(), page.clone()], PREFIX);
    ensure(twice.is_err() || (listed.is_empty() && page.1.is_none()), || format!("{page:?} is taken twice"))
}

fn cached(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let listing = meter.measure(|| cached_listing(input));
    let again = cached_listing(&cached_listing_written(&listing));
    ensure(again == listing, || format!("{listing:?} is read again as {again:?}"))?;
    Ok(size_of(listing.len()))
}

/// An input is a file, and also the content of one.
fn entry(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let found = meter.measure(|| cache_entry(input, TITLE).is_some());
    let written_ms = i64::try_from(input.len()).unwrap_or_default() - 64;
    let file = cache_entry_written(written_ms, input, TITLE);
    let again = meter.measure(|| cache_entry(&file, TITLE));
    ensure(again == Some((written_ms, input)), || format!("an entry is read again as {again:?}"))?;
    ensure(cache_entry(&file[..file.len() - 1], TITLE).is_none(), || {
        "an entry that was cut is read".to_owned()
    })?;
    Ok(u64::from(found) << 8 | size_of(input.len()))
}
