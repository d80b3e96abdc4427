//! Believes a request only if a known key signed it, not long ago.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, Method, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Account;

/// How far a request's date may be off.
const MOST_SKEW: Duration = Duration::from_mins(5);
/// What every signature must cover.
const COVERED: [&str; 3] = ["date", "(request-target)", "host"];

/// Whether one of the accounts signed the request; otherwise why it is not believed.
pub(super) fn check(
    accounts: &[Account],
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = header("authorization").ok_or("the request is not signed")?;
    let fields = fields(authorization).ok_or("the signature cannot be read")?;
    let field = |name: &str| fields.get(name).copied().ok_or_else(|| format!("the signature lacks {name}"));
    if (field("version")?, field("algorithm")?) != ("1", "rsa-sha256") {
        return Err("the signature is of another kind".to_owned());
    }
    let covered: Vec<&str> = field("headers")?.split(' ').collect();
    if let Some(missing) = COVERED.iter().find(|name| !covered.contains(name)) {
        return Err(format!("the signature does not cover {missing}"));
    }
    let date = header("date").and_then(|date| httpdate::parse_http_date(date).ok()).ok_or("no date")?;
    let now = SystemTime::now();
    let skew = now.duration_since(date).or_else(|_| date.duration_since(now)).unwrap_or(Duration::MAX);
    if skew > MOST_SKEW {
        return Err("the date is off by more than five minutes".to_owned());
    }
    let mut lines = Vec::new();
    for name in covered {
        let value = match name {
            "(request-target)" => {
                let target = uri.path_and_query().map_or("/", |target| target.as_str());
                format!("{} {target}", method.as_str().to_lowercase())
            }
            _ => header(name).ok_or_else(|| format!("{name} is signed and not sent"))?.to_owned(),
        };
        lines.push(format!("{name}: {value}"));
    }
    let signature = BASE64.decode(field("signature")?).map_err(|error| error.to_string())?;
    let key_id = field("keyId")?;
    let account =
        accounts.iter().find(|account| account.key_id() == key_id).ok_or("nobody knows that key")?;
    if account.signed(lines.join("\n").as_bytes(), &signature) {
        Ok(())
    } else {
        Err("the signature does not match".to_owned())
    }
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
