//! What of a request is signed, and by whom.
//!
//! Source: "Request Signatures", docs.oracle.com (version 1, after draft-cavage-http-signatures-08).

use std::fmt;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

use super::key::{KeyError, PrivateKey};

/// Why a request could not be signed. Never says anything of a key, a token or a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignError {
    /// The key does not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No session could be begun.
    #[error("no session for this instance: {0}")]
    Session(String),
    /// What was made is no header.
    #[error("the name of the key is no header")]
    Header,
}

/// Signs requests in the name of a user, or of a machine.
#[async_trait]
pub trait Signer: fmt::Debug + Send + Sync {
    /// The headers that make a request a signed one: `Authorization`, and those of a signed body.
    ///
    /// # Errors
    /// [`SignError`] if the request cannot be signed.
    async fn sign(&self, request: &Signed<'_>) -> Result<HeaderMap, SignError>;

    /// A signature was refused. Returns whether the next one comes from a new session and may be accepted.
    async fn was_refused(&self) -> bool {
        false
    }
}

/// What of a request is signed.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `get`, `put`, ….
    pub method: &'a str,
    /// Path and query as they are sent.
    pub target: &'a str,
    /// Host, and the port if it is not the scheme's.
    pub host: &'a str,
    /// The `Date` header.
    pub date: &'a str,
    /// The body.
    pub body: Body<'a>,
}

/// The body of a request.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// None.
    Empty,
    /// An object's content. Putting one is the only request whose body need not be signed.
    Object(&'a [u8]),
    /// JSON; signed.
    Json(&'a [u8]),
}

impl Body<'_> {
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Empty => None,
            Self::Object(bytes) | Self::Json(bytes) => Some(bytes),
        }
    }
}

const JSON: &str = "application/json";

/// `x-content-sha256` of a body.
#[must_use]
pub fn content_sha256(body: &[u8]) -> String {
    BASE64.encode(digest(&SHA256, body))
}

impl Signed<'_> {
    /// The signed headers' names in their order, and the text that is signed.
    #[must_use]
    pub fn text(&self) -> (String, String) {
        let Self { method, target, host, date, body } = self;
        let mut lines = vec![
            ("date", (*date).to_owned()),
            ("(request-target)", format!("{method} {target}")),
            ("host", (*host).to_owned()),
        ];
        if let Body::Json(bytes) = body {
            lines.push(("content-length", bytes.len().to_string()));
            lines.push(("content-type", JSON.to_owned()));
            lines.push(("x-content-sha256", content_sha256(bytes)));
        }
        let names: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
        let text: Vec<String> = lines.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        (names.join(" "), text.join("\n"))
    }

    /// The headers of a signed body, beside its length.
    pub(super) fn body_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Body::Json(bytes) = self.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
            let hash = HeaderValue::try_from(content_sha256(bytes));
            headers.extend(hash.map(|hash| (HeaderName::from_static("x-content-sha256"), hash)));
        }
        headers
    }
}

impl PrivateKey {
    /// The `Authorization` header for a request.
    ///
    /// # Errors
    /// [`KeyError`] if the key does not sign.
    pub fn authorization(&self, request: &Signed<'_>) -> Result<String, KeyError> {
        let (names, text) = request.text();
        let (key_id, signature) = (self.key_id(), self.sign_text(text.as_bytes())?);
        Ok(format!(
            "Signature version=\"1\",keyId=\"{key_id}\",algorithm=\"rsa-sha256\",headers=\"{names}\",signature=\"{signature}\"",
        ))
    }
}

#[async_trait]
impl Signer for PrivateKey {
    async fn sign(&self, request: &Signed<'_>) -> Result<HeaderMap, SignError> {
        let mut headers = request.body_headers();
        headers.insert(AUTHORIZATION, secret_header(&self.authorization(request)?)?);
        Ok(headers)
    }
}

/// A header that is never shown, not even in a trace of the connection.
pub(super) fn secret_header(text: &str) -> Result<HeaderValue, SignError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| SignError::Header)?;
    value.set_sensitive(true);
    Ok(value)
}
