//! Signs requests as the service asks: RSA over the request line and some headers.
//!
//! Source: "Request Signatures", docs.oracle.com (version 1, after draft-cavage-http-signatures-08).

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer};
use thiserror::Error;

/// Why a key cannot be used. Never says anything of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No key in PEM.
    #[error("the private key is no PEM of an RSA key")]
    NoKey,
    /// It needs a pass phrase.
    #[error(
        "the private key is encrypted, which is not supported yet: store it without a pass phrase, readable by its owner only"
    )]
    Encrypted,
    /// The library does not take it.
    #[error("the private key was rejected: {0}")]
    Rejected(String),
}

/// Signs in the name of a user, or of a machine.
pub trait Signer: fmt::Debug + Send + Sync {
    /// By which name the service knows the key.
    fn key_id(&self) -> &str;

    /// The signature of a text: RSASSA-PKCS1-v1_5 with SHA-256.
    ///
    /// # Errors
    /// [`KeyError`] if the key does not sign.
    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, KeyError>;
}

/// A key in this process's memory.
pub struct PrivateKey {
    key_id: String,
    pair: KeyPair,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateKey")
    }
}

impl PrivateKey {
    /// Reads a key in PEM: PKCS#1 (`RSA PRIVATE KEY`) or PKCS#8 (`PRIVATE KEY`).
    ///
    /// # Errors
    /// [`KeyError`] if it is none.
    pub fn from_pem(key_id: String, pem: &[u8]) -> Result<Self, KeyError> {
        let text = String::from_utf8_lossy(pem);
        if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let rejected = |error: aws_lc_rs::error::KeyRejected| KeyError::Rejected(error.to_string());
        let pair = match PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::NoKey)? {
            PrivateKeyDer::Pkcs1(key) => {
                let key: PrivatePkcs1KeyDer<'_> = key;
                KeyPair::from_der(key.secret_pkcs1_der()).map_err(rejected)?
            }
            PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(rejected)?,
            _ => return Err(KeyError::NoKey),
        };
        Ok(Self { key_id, pair })
    }
}

impl Signer for PrivateKey {
    fn key_id(&self) -> &str {
        &self.key_id
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature)
            .map_err(|_| KeyError::Rejected("it does not sign".to_owned()))?;
        Ok(signature)
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
    /// The body, where it is signed as well: in every POST and PUT but the one that puts an object.
    pub body: Option<SignedBody<'a>>,
}

/// A body that is signed.
#[derive(Debug, Clone, Copy)]
pub struct SignedBody<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The `Content-Type` header.
    pub content_type: &'a str,
}

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
        if let Some(SignedBody { bytes, content_type }) = body {
            lines.push(("content-length", bytes.len().to_string()));
            lines.push(("content-type", (*content_type).to_owned()));
            lines.push(("x-content-sha256", content_sha256(bytes)));
        }
        let names: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
        let text: Vec<String> = lines.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        (names.join(" "), text.join("\n"))
    }

    /// The `Authorization` header.
    ///
    /// # Errors
    /// [`KeyError`] if the key does not sign.
    pub fn authorization(&self, signer: &dyn Signer) -> Result<String, KeyError> {
        let (names, text) = self.text();
        let signature = BASE64.encode(signer.sign(text.as_bytes())?);
        Ok(format!(
            "Signature version=\"1\",keyId=\"{}\",algorithm=\"rsa-sha256\",headers=\"{names}\",signature=\"{signature}\"",
            signer.key_id()
        ))
    }
}
