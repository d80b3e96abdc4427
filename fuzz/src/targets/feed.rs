//! What servers send around a body, bodies, names of recordings, and the calls that are remembered.

use chrono::DateTime;
use collector::feed::{BODY_LIMIT_BYTES, CallLimits};
use collector::fuzzing::{ahead_of_date, count_call, decode_body, recorded_at, retry_after};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::{ensure, kind_of_result, now, size_of, text};
use crate::{Bound, Meter, Target};

const HEADER_TOKENS: &[&str] = &[
    "Fri, 02 Jan 2026 12:00:00 GMT",
    "Friday, 02-Jan-26 12:00:00 GMT",
    "Fri Jan  2 12:00:00 2026",
    "GMT",
    "Feb",
    "Mon, ",
    "9999",
    "1970",
    "120",
];
/// The encodings, by the first byte of an input.
const ENCODINGS: [&str; 7] = ["gzip", "deflate", "br", "zstd", "identity", "x-gzip", "compress"];

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "retry_after",
        run: after,
        bound: Bound { per_byte: 2, constant: 1 << 10 },
        tokens: HEADER_TOKENS,
        short_run: 20_000,
    },
    Target {
        name: "http_date",
        run: http_date,
        bound: Bound { per_byte: 2, constant: 1 << 10 },
        tokens: HEADER_TOKENS,
        short_run: 20_000,
    },
    // Bodies are bounded by their limit, whatever their compressed size: twice while the last buffer grows.
    Target {
        name: "body",
        run: body,
        bound: Bound { per_byte: 0, constant: 3 * BODY_LIMIT_BYTES + (32 << 20) },
        tokens: &[],
        short_run: 500,
    },
    Target {
        name: "recording",
        run: recording,
        bound: Bound { per_byte: 0, constant: 0 },
        tokens: &["1767225600", "-", "_", ".json", "99999999999", "000000000"],
        short_run: 50_000,
    },
    Target {
        name: "calls",
        run: calls,
        bound: Bound { per_byte: 64, constant: 4 << 10 },
        tokens: &[
            "\"calls_ms\":",
            "\"gone\":",
            "1767355199000",
            "1767355200001",
            "-9223372036854775808",
            "{}",
            ",",
        ],
        short_run: 20_000,
    },
];

fn after(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let delay = meter.measure(|| retry_after(input, now()));
    // Others are no value of a header.
    let text = text(input).into_owned();
    let is_header = text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    let seconds: Option<u64> = text.trim().parse().ok().filter(|_| is_header);
    ensure(seconds.is_none() || delay.map(|delay| delay.as_secs()) == seconds, || {
        format!("{delay:?} instead of {seconds:?} s")
    })?;
    Ok(delay.map_or(0, |delay| 1 + size_of(delay.as_secs())))
}

fn http_date(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let Some(ahead) = meter.measure(|| ahead_of_date(input, now())) else { return Ok(0) };
    let date: DateTime<chrono::Utc> = now() - ahead;
    let written = httpdate::fmt_http_date(date.into());
    let again = ahead_of_date(written.as_bytes(), now());
    ensure(again == Some(ahead), || format!("{date} is written as {written}, which is {again:?} behind"))?;
    Ok(1 + size_of(ahead.num_seconds().unsigned_abs()))
}

fn body(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let (&first, bytes) = input.split_first().unwrap_or((&0, &[]));
    let encoding = ENCODINGS[usize::from(first) % ENCODINGS.len()];
    let decoded = meter.measure(|| decode_body(bytes, encoding));
    if let Ok(decoded) = &decoded {
        ensure(decoded.len() as u64 <= BODY_LIMIT_BYTES, || format!("a body of {} bytes", decoded.len()))?;
    }
    let encoded = match encoding {
        "gzip" => GzEncoder::new(Vec::new(), Compression::fast()).encode(bytes, GzEncoder::finish),
        "deflate" => ZlibEncoder::new(Vec::new(), Compression::fast()).encode(bytes, ZlibEncoder::finish),
        _ => None,
    };
    if let Some(encoded) = encoded {
        let again = decode_body(&encoded, encoding);
        ensure(again.as_deref() == Ok(bytes), || format!("{encoding} is decoded as {again:?}"))?;
    }
    Ok(u64::from(first) << 56 ^ kind_of_result(&decoded, |decoded| size_of(decoded.len())))
}

/// Compresses in one call.
trait Encode: std::io::Write + Sized {
    fn encode(mut self, bytes: &[u8], finish: fn(Self) -> std::io::Result<Vec<u8>>) -> Option<Vec<u8>> {
        self.write_all(bytes).ok()?;
        finish(self).ok()
    }
}

impl Encode for GzEncoder<Vec<u8>> {}
impl Encode for ZlibEncoder<Vec<u8>> {}

fn recording(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let Ok(name) = std::str::from_utf8(input) else { return Ok(0) };
    let Some(time) = meter.measure(|| recorded_at(name)) else { return Ok(1) };
    ensure(name.contains(&time.timestamp().to_string()), || format!("recorded at {time}"))?;
    Ok(2 + size_of(time.timestamp().unsigned_abs()))
}

/// The file in which calls to a host are counted: whatever it holds, calls continue and stay within the limits.
fn calls(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let count =
        |file: &[u8], at| count_call(file, &CallLimits::POLISEN, at).map_err(|error| error.to_string());
    let (file, wait) = meter.measure(|| count(input, now()))?;
    let day = std::time::Duration::from_hours(24);
    ensure(wait.is_none_or(|wait| !wait.is_zero() && wait <= day), || format!("wait {wait:?}"))?;
    let (_, second) = count(&file, now())?;
    ensure(second.is_some(), || "two calls at once are allowed".to_owned())?;
    let later = wait.unwrap_or(CallLimits::POLISEN.min_interval);
    let (_, third) = count(&file, now() + later)?;
    ensure(third.is_none() || wait.is_none(), || format!("after {later:?} wait {third:?}"))?;
    Ok(u64::from(wait.is_some()) << 8 | size_of(file.len()))
}
