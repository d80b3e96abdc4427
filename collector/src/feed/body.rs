//! Reads a body: counts what came, decompresses it, and stops at a limit.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_compression::tokio::bufread::{
    BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder,
};
use async_compression::zstd::DParameter;
use futures_util::TryStreamExt as _;
use reqwest::Response;
use reqwest::header::CONTENT_ENCODING;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _};
use tokio_util::io::StreamReader;

use super::{BODY_LIMIT_BYTES, FeedError};
use crate::text::server_text;

/// What is asked for where compression is on.
pub(super) const ACCEPT_ENCODING: &str = "gzip, deflate, br, zstd";
/// Largest zstd window: 8 MiB, which RFC 9659 sets as the limit for content encoding.
const ZSTD_WINDOW_LOG: u32 = 23;

/// A body and what was sent for it.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) encoding: Option<String>,
    pub(super) wire_bytes: u64,
}

/// Why a body could not be read.
pub(crate) enum BodyError {
    /// The client's own error: a timeout, a cut connection.
    Client(reqwest::Error),
    /// Everything that this module judges.
    Feed(FeedError),
}

impl From<FeedError> for BodyError {
    fn from(error: FeedError) -> Self {
        Self::Feed(error)
    }
}

pub(super) async fn read(response: Response) -> Result<Body, BodyError> {
    let encoding = stated_encoding(&response);
    let wire_bytes = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&wire_bytes);
    let chunks = response.bytes_stream().map_err(io::Error::other).inspect_ok(move |chunk| {
        counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    });
    let reader = StreamReader::new(chunks);
    let name = encoding.as_deref().unwrap_or("identity");
    let bytes = decode(reader, name).await?;
    Ok(Body { bytes, encoding, wire_bytes: wire_bytes.load(Ordering::Relaxed) })
}

fn stated_encoding(response: &Response) -> Option<String> {
    let stated = response.headers().get(CONTENT_ENCODING)?.to_str().ok()?.trim().to_ascii_lowercase();
    (!stated.is_empty() && stated != "identity").then(|| server_text(&stated))
}

pub(crate) async fn decode<R: AsyncBufRead + Unpin>(
    mut reader: R,
    encoding: &str,
) -> Result<Vec<u8>, BodyError> {
    match encoding {
        "identity" => drain(reader, encoding).await,
        "gzip" | "x-gzip" => {
            let mut decoder = GzipDecoder::new(reader);
            decoder.multiple_members(true);
            drain(decoder, encoding).await
        }
        "deflate" => {
            // The name means zlib, but some servers send the bare stream (RFC 9110, 8.4.1.2).
            let head = reader.fill_buf().await.map_err(|error| judge(error, encoding))?;
            if is_zlib(head) {
                drain_single(ZlibDecoder::new(reader), ZlibDecoder::into_inner, encoding).await
            } else {
                drain_single(DeflateDecoder::new(reader), DeflateDecoder::into_inner, encoding).await
            }
        }
        "br" => drain_single(BrotliDecoder::new(reader), BrotliDecoder::into_inner, encoding).await,
        "zstd" => {
            let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
            drain_single(ZstdDecoder::with_params(reader, &window), ZstdDecoder::into_inner, encoding).await
        }
        other => Err(FeedError::Encoding {
            encoding: other.to_owned(),
            reason: "this encoding was not asked for".to_owned(),
        }
        .into()),
    }
}

/// The header of a zlib stream: method 8, and a check sum of the first two bytes (RFC 1950, 2.2).
fn is_zlib(head: &[u8]) -> bool {
    matches!(head, [method, flags, ..] if method & 0x0f == 8 && (u16::from(*method) << 8 | u16::from(*flags)) % 31 == 0)
}

/// Reads to the end, or to the limit.
async fn drain<R: AsyncRead + Unpin>(reader: R, encoding: &str) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    reader
        .take(BODY_LIMIT_BYTES + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(|error| judge(error, encoding))?;
    within_limit(bytes)
}

/// The same for a decoder that stops at the end of its data: the connection is read to its end as well, so
/// that a cut one is noticed.
async fn drain_single<D, R>(
    mut decoder: D,
    into_inner: fn(D) -> R,
    encoding: &str,
) -> Result<Vec<u8>, BodyError>
where
    D: AsyncRead + Unpin,
    R: AsyncBufRead + Unpin,
{
    let mut bytes = Vec::new();
    let mut limited = (&mut decoder).take(BODY_LIMIT_BYTES + 1);
    limited.read_to_end(&mut bytes).await.map_err(|error| judge(error, encoding))?;
    let bytes = within_limit(bytes)?;
    let mut rest = into_inner(decoder);
    if rest.fill_buf().await.map_err(|error| judge(error, encoding))?.is_empty() {
        return Ok(bytes);
    }
    let reason = "there are bytes behind the end of the compressed data".to_owned();
    Err(FeedError::Encoding { encoding: encoding.to_owned(), reason }.into())
}

fn within_limit(bytes: Vec<u8>) -> Result<Vec<u8>, BodyError> {
    if bytes.len() as u64 > BODY_LIMIT_BYTES { Err(FeedError::TooLarge.into()) } else { Ok(bytes) }
}

fn judge(error: io::Error, encoding: &str) -> BodyError {
    match error.downcast::<reqwest::Error>() {
        Ok(client) => BodyError::Client(client),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            FeedError::Cut(format!("the {encoding} data is not complete")).into()
        }
        Err(error) => FeedError::Encoding { encoding: encoding.to_owned(), reason: error.to_string() }.into(),
    }
}
