//! Private parsers of foreign bytes, for the fuzz targets. No part of the public API.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt as _;
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use crate::archive::memory::{self, Document};
use crate::archive::partition::{RejectedLine, rejected_in};
use crate::archive::takeover::withdrawn_in;
use crate::archive::{Remembered, generations, trust};
use crate::cache::disk;
use crate::clock;
use crate::event::{EventId, Fingerprint, RejectReason};
use crate::feed::rules::State;
use crate::feed::{CallLimits, body, http};
use crate::ledger::Ledger;
use crate::python::{Moment, parse};
use crate::record::RunRecord;
use crate::record::history::History;
use crate::record::{Evidence, Limits, check, health};
use crate::store::listing::{self, Pages};
use crate::store::oci::credentials::{Credentials, CredentialsError};
use crate::store::oci::instance::{Identity, renewal_of};
use crate::store::oci::vault::secret_in;
use crate::store::{Key, Listed, cached, oci, s3, secret_file};
use crate::trends::Sample;
use crate::watch::metrics::sample;

/// The delay that a `Retry-After` header asks for.
#[must_use]
pub fn retry_after(value: &[u8], now: DateTime<Utc>) -> Option<Duration> {
    http::retry_after(&header(RETRY_AFTER, value)?, now)
}

/// How far a clock is ahead of a `Date` header.
#[must_use]
pub fn ahead_of_date(value: &[u8], now: DateTime<Utc>) -> Option<TimeDelta> {
    clock::ahead_of(&header(DATE, value)?, now)
}

fn header(name: HeaderName, value: &[u8]) -> Option<HeaderMap> {
    Some(HeaderMap::from_iter([(name, HeaderValue::from_bytes(value).ok()?)]))
}

/// A response body without its content encoding.
///
/// # Errors
/// If the encoding is unknown, the data is invalid, or the body is larger than the limit.
pub fn decode_body(bytes: &[u8], encoding: &str) -> Result<Vec<u8>, String> {
    let decoded = body::decode(bytes, encoding).now_or_never();
    decoded.ok_or("reading from memory waits")?.map_err(|error| match error {
        body::BodyError::Client(error) => error.to_string(),
        body::BodyError::Feed(error) => error.to_string(),
    })
}

/// The record of a run, as reports read it.
///
/// # Errors
/// If it is not a record.
pub fn read_record(text: &[u8], now: DateTime<Utc>) -> Result<RunRecord, String> {
    RunRecord::parse(text, now).map_err(|error| error.to_string())
}

/// A document as Python's `json.load` reads it, printed as `str` prints it.
///
/// # Errors
/// The text of the exception.
pub fn python_json(text: &str) -> Result<String, String> {
    parse(text.as_bytes()).map(|value| value.to_string()).map_err(|error| error.message)
}

/// The age in minutes of a time that `datetime.fromisoformat` reads.
///
/// # Errors
/// The text of the exception.
pub fn python_age(text: &str, now: DateTime<Utc>) -> Result<i64, String> {
    Moment::parse(text).and_then(|moment| moment.minutes_till(now)).map_err(|error| error.message)
}

/// Whether the content of a health file is healthy, and the lines that the check prints.
///
/// # Errors
/// The text of the exception.
pub fn check_health(text: &[u8], now: DateTime<Utc>) -> Result<(bool, String), String> {
    let mut lines = String::new();
    let healthy = check::judge(text, now, &Limits::default(), &mut lines);
    Ok((healthy.map_err(|error| error.message)?, lines))
}

/// When a response was recorded, by the name of its file.
#[must_use]
pub fn recorded_at(name: &str) -> Option<DateTime<Utc>> {
    crate::import::recorded_at(Path::new(name))
}

/// The sections of an INI file.
#[must_use]
pub fn ini_sections(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    secret_file::sections(text, "DEFAULT")
}

/// The credentials in a section of an OCI configuration file, with the key in place.
///
/// # Errors
/// [`CredentialsError`] if they are not complete or the key cannot be used.
pub fn oci_credentials(settings: &BTreeMap<String, String>) -> Result<Credentials, CredentialsError> {
    Credentials::of_settings(settings, "a file".to_owned(), Path::new("/nonexistent"))
}

/// The tenancy and the fingerprint in an instance's certificate.
///
/// # Errors
/// If it is not such a certificate.
pub fn instance_identity(pem: &str) -> Result<(String, String), String> {
    let identity = Identity::of(pem).map_err(|error| error.to_string())?;
    Ok((identity.tenancy, identity.fingerprint))
}

/// When a session's token is to be renewed.
///
/// # Errors
/// If the token does not state when it expires.
pub fn token_renewal(token: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    renewal_of(token, now).map_err(|error| error.to_string())
}

/// A page of a listing: names with sizes, and what to ask for the next page with.
pub type Page = (Vec<(String, u64)>, Option<String>);

/// A page of a listing of S3.
///
/// # Errors
/// What is wrong with it.
pub fn s3_page(body: &[u8], prefix: &str) -> Result<Page, String> {
    s3::listing::parse_page(body, prefix).map(|page| (page.objects, page.next))
}

/// A page of a listing of OCI Object Storage.
///
/// # Errors
/// What is wrong with it.
pub fn oci_page(body: &[u8]) -> Result<Page, String> {
    oci::parse_page(body).map(|page| (page.objects, page.next))
}

/// The names that the pages of one listing hold, those that no object of ours has left out.
///
/// # Errors
/// What is wrong with the pages.
pub fn join_pages(pages: Vec<Page>, prefix: &str) -> Result<Vec<Listed>, String> {
    let mut joined = Pages::new("", prefix);
    for (objects, next) in pages {
        joined.take(listing::Page { objects, next })?;
    }
    Ok(joined.finish().into_objects("here"))
}

/// A listing as the cache holds it.
#[must_use]
pub fn cached_listing(bytes: &[u8]) -> Vec<Listed> {
    cached::decode(bytes)
}

/// Writes a listing as the cache holds it.
#[must_use]
pub fn cached_listing_written(listing: &[Listed]) -> Vec<u8> {
    cached::encode(listing)
}

/// When an entry of the cache was written and what it holds, if it has this title.
#[must_use]
pub fn cache_entry<'a>(file: &'a [u8], title: &str) -> Option<(i64, &'a [u8])> {
    disk::parse_head(file, title).map(|(written_ms, start)| (written_ms, &file[start..]))
}

/// Writes an entry of the cache.
#[must_use]
pub fn cache_entry_written(written_ms: i64, content: &[u8], title: &str) -> Vec<u8> {
    [disk::head(written_ms, content, title).as_bytes(), content].concat()
}

/// The number of a state of the ledger by its name, and the name of that number.
#[must_use]
pub fn ledger_state(key: &Key) -> Option<(u64, Key)> {
    generations::number_of(key).map(|number| (number, generations::generation_key(number)))
}

/// Whether the name of a trial object shows that it was left behind.
#[must_use]
pub fn is_left_behind(key: &Key, now: DateTime<Utc>) -> bool {
    trust::is_left_behind(key, now)
}

/// Adds a proof of a store's conditions to those that a ledger remembers. Whether it was there before, and is now.
pub fn remember_proof(ledger: &mut Ledger, proof: &str) -> (bool, bool) {
    let before = trust::is_proven(ledger, proof);
    trust::remember(ledger, proof);
    (before, trust::is_proven(ledger, proof))
}

/// Lets go of the tallies that a ledger does not write.
pub fn prune_tallies(ledger: &mut Ledger) {
    ledger.prune_tallies();
}

/// What a machine remembers of archives: the content of a file of its state folder.
///
/// # Errors
/// If it is not such a document.
pub fn remembered(bytes: &[u8]) -> Result<Vec<Remembered>, String> {
    Document::parse(bytes).map(|document| document.archives).map_err(|error| error.to_string())
}

/// Adds an archive to those that are remembered.
pub fn remember(known: &mut Vec<Remembered>, archive: Remembered) {
    memory::add(known, archive);
}

/// Counts a call after those that a file of calls lists. The file as it is written then, and how long to wait.
///
/// # Errors
/// If the file cannot be written.
pub fn count_call(
    bytes: &[u8],
    limits: &CallLimits,
    now: DateTime<Utc>,
) -> serde_json::Result<(Vec<u8>, Option<Duration>)> {
    let mut state = State::parse(bytes);
    let wait = state.count_call(limits, now.timestamp_millis());
    Ok((serde_json::to_vec(&state)?, wait.map(|(wait, _)| wait)))
}

/// The evidence in the content of a health file.
#[must_use]
pub fn evidence_in(text: &[u8]) -> Evidence {
    health::evidence_in(text)
}

/// A rejected element as a line of the archive.
///
/// # Errors
/// If it cannot be written.
pub fn rejected_line(element: &[u8], reason: RejectReason) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&RejectedLine::new(element, reason))
}

/// The fingerprints of the rejected elements that an object of the archive holds.
#[must_use]
pub fn rejected_fingerprints(bytes: &[u8]) -> Vec<Fingerprint> {
    rejected_in(bytes).collect()
}

/// The ids that an object of the archive notes as withdrawn, and as returned.
#[must_use]
pub fn withdrawn_ids(bytes: &[u8]) -> (Vec<EventId>, Vec<EventId>) {
    withdrawn_in(bytes)
}

/// Number of runs and of skipped lines in packed records.
///
/// # Errors
/// If they cannot be read.
pub fn read_packed(lines: &[u8], now: DateTime<Utc>) -> std::io::Result<(usize, usize)> {
    let mut history = History::default();
    history.read_lines(lines, "a file", now)?;
    Ok((history.runs.all().len(), history.skipped.len()))
}

/// Reads a record for the documented trend report.
///
/// # Errors
/// Why it is skipped.
pub fn read_trend(text: &[u8]) -> Result<(), String> {
    parse(text).and_then(|record| Sample::new(&record)).map(drop).map_err(|error| error.message)
}

/// The name with labels and the value in a line of Prometheus' text format.
#[must_use]
pub fn metric_line(line: &str) -> Option<(&str, f64)> {
    sample(line)
}

/// The text in a secret bundle of the Vault.
///
/// # Errors
/// What is wrong with it.
pub fn vault_secret(body: &[u8]) -> Result<String, &'static str> {
    secret_in(body)
}
