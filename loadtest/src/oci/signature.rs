//! Believes a request only if a known key signed it, not long ago.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use axum::http::{HeaderMap, Method, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::instance::FEDERATION_PATH;

/// How far a request's date may be off.
const MOST_SKEW: Duration = Duration::from_mins(5);
/// What every signature must cover.
const COVERED: [&str; 3] = ["date", "(request-target)", "host"];
/// What the federation service asks for, whose host clients do not sign.
const COVERED_FOR_FEDERATION: [&str; 2] = ["date", "(request-target)"];

/// The parts of a signature that are verified.
pub(super) struct Claimed {
    /// By which name the key is known.
    pub(super) key_id: String,
    text: String,
    signature: Vec<u8>,
    /// What the body's hash must be, if it was signed.
    content_sha256: Option<String>,
}

impl Claimed {
    /// Reads the signature of a request; an error names what is missing or malformed.
    pub(super) fn read(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Self, String> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let authorization = header("authorization").ok_or("the request is not signed")?;
        let fields = fields(authorization).ok_or("the signature cannot be read")?;
        let field =
            |name: &str| fields.get(name).copied().ok_or_else(|| format!("the signature lacks {name}"));
        if (field("version")?, field("algorithm")?) != ("1", "rsa-sha256") {
            return Err("the signature is of another kind".to_owned());
        }
        let covered: Vec<&str> = field("headers")?.split(' ').collect();
        let wanted: &[&str] = if uri.path() == FEDERATION_PATH { &COVERED_FOR_FEDERATION } else { &COVERED };
        if let Some(missing) = wanted.iter().find(|name| !covered.contains(name)) {
            return Err(format!("the signature does not cover {missing}"));
        }
        check_date(header("date").unwrap_or_default())?;
        let mut lines = Vec::new();
        for name in &covered {
            let value = match *name {
                "(request-target)" => {
                    let target = uri.path_and_query().map_or("/", |target| target.as_str());
                    format!("{} {target}", method.as_str().to_lowercase())
                }
                _ => header(name).ok_or_else(|| format!("{name} is signed and not sent"))?.to_owned(),
            };
            lines.push(format!("{name}: {value}"));
        }
        let content_sha256 = covered.contains(&"x-content-sha256").then(|| header("x-content-sha256"));
        if *method == Method::POST && content_sha256.is_none() {
            return Err("the signature does not cover the body".to_owned());
        }
        Ok(Self {
            key_id: field("keyId")?.to_owned(),
            text: lines.join("\n"),
            signature: BASE64.decode(field("signature")?).map_err(|error| error.to_string())?,
            content_sha256: content_sha256.flatten().map(str::to_owned),
        })
    }

    /// Whether the signature is by this key (as `RSAPublicKey` or `SubjectPublicKeyInfo`).
    pub(super) fn is_by(&self, public_key: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key);
        key.verify(self.text.as_bytes(), &self.signature).is_ok()
    }

    /// Whether the body is the one that was signed, if it was.
    pub(super) fn covers(&self, body: &[u8]) -> bool {
        let hash = || BASE64.encode(digest(&SHA256, body));
        self.content_sha256.as_ref().is_none_or(|signed| *signed == hash())
    }
}

fn check_date(date: &str) -> Result<(), String> {
    let date = httpdate::parse_http_date(date).map_err(|_| "no date")?;
    let now = SystemTime::now();
    let skew = now.duration_since(date).or_else(|_| date.duration_since(now)).unwrap_or(Duration::MAX);
    if skew > MOST_SKEW { Err("the date is off by more than five minutes".to_owned()) } else { Ok(()) }
}

/// `Signature version="1",keyId="…",…`
fn fields(authorization: &str) -> Option<BTreeMap<&str, &str>> {
    let fields = authorization.strip_prefix("Signature ")?;
    fields
        .split(',')
        .map(|field| {
            let (name, value) = field.trim().split_once('=')?;
            Some((name, value.strip_prefix('"')?.strip_suffix('"')?))
        })
        .collect()
}
