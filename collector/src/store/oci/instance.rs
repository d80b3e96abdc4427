//! Signs in the name of the machine this runs on ("instance principal").
//!
//! The machine's metadata service gives it a certificate; the federation service takes a request signed by
//! that certificate's key and gives a token for a session key made here. The token is renewed before it
//! expires, and when it is refused.
//!
//! Source: "Calling Services from an Instance", docs.oracle.com, and what the official SDKs send.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tracing::debug;
use x509_cert::Certificate;
use x509_cert::der::{DecodePem as _, Encode as _};

use super::client::{Ask, Client};
use super::endpoint::Region;
use super::key::{PrivateKey, public_key_base64};
use super::signature::{Body, SignError, Signed, Signer};
use crate::clock::SharedClock;
use crate::json::from_object;
use crate::store::remote::{
    BodyError, MAX_MESSAGE_BYTES, SetupError, check_address, http_client, innermost, read_bounded,
};
use crate::tls;

/// Where an instance finds its metadata service.
pub const METADATA_URL: &str = "http://169.254.169.254/opc/v2";
/// A token is renewed so long before it expires, or after half of a shorter life.
const RENEWED_BEFORE: TimeDelta = TimeDelta::minutes(10);
const TRIES: u32 = 3;
const BACKOFF: Duration = Duration::from_millis(500);

/// The machine this runs on.
pub struct InstancePrincipal {
    metadata: Metadata,
    federation: Url,
    clock: SharedClock,
    session: Mutex<Option<Session>>,
}

impl fmt::Debug for InstancePrincipal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "InstancePrincipal({})", self.federation)
    }
}

struct Session {
    key: Arc<PrivateKey>,
    renewed_from: DateTime<Utc>,
}

impl InstancePrincipal {
    /// Asks the metadata service where it is. No session is begun yet.
    ///
    /// `federation` is an address to use instead of that of the region's service.
    ///
    /// # Errors
    /// [`SignError::Session`] if this is no instance, or an address must not be called.
    pub async fn find(
        metadata: Url,
        federation: Option<Url>,
        clock: SharedClock,
    ) -> Result<(Self, Region), SignError> {
        let metadata = Metadata::new(metadata, Arc::clone(&clock))?;
        let region: RegionInfo = serde_json::from_str(&metadata.get("instance/regionInfo").await?)
            .map_err(|error| failed(format!("the metadata service names no region: {error}")))?;
        let region = Region { name: region.region_identifier, domain: region.realm_domain_component };
        let federation = match federation {
            Some(address) => address,
            None => region.address("auth").map_err(|error| failed(error.to_string()))?,
        };
        Ok((Self { metadata, federation, clock, session: Mutex::default() }, region))
    }

    /// The key of a session that has not expired.
    async fn key(&self) -> Result<Arc<PrivateKey>, SignError> {
        let mut session = self.session.lock().await;
        let now = self.clock.now();
        if let Some(Session { key, renewed_from }) = &*session
            && now < *renewed_from
        {
            return Ok(Arc::clone(key));
        }
        let next = self.begin().await?;
        let key = Arc::clone(&next.key);
        *session = Some(next);
        Ok(key)
    }

    async fn begin(&self) -> Result<Session, SignError> {
        let (certificate, key, intermediate) = tokio::try_join!(
            self.metadata.get("identity/cert.pem"),
            self.metadata.get("identity/key.pem"),
            self.metadata.get("identity/intermediate.pem"),
        )?;
        let Identity { tenancy, fingerprint, der } = Identity::of(&certificate)?;
        let machine = PrivateKey::from_pem(format!("{tenancy}/fed-x509/{fingerprint}"), &key, None)?;
        let pair = PrivateKey::generate()?;
        let body = json!({
            "certificate": BASE64.encode(der),
            "publicKey": public_key_base64(&pair)?,
            "intermediateCertificates": [one_line(&intermediate)],
        });
        let client = Client::new(self.federation.clone(), Arc::new(machine), Arc::clone(&self.clock))
            .map_err(|error| failed(error.to_string()))?;
        let body = body.to_string();
        let ask = Ask {
            method: Method::POST,
            target: "/v1/x509".to_owned(),
            headers: HeaderMap::new(),
            body: Body::Json(body.as_bytes()),
            expected: &[],
            limit: MAX_MESSAGE_BYTES,
        };
        let answer =
            client.request(&ask, true).await.map_err(|failure| failed(format!("federation: {failure}")))?;
        let Token { token } = from_object(&answer.body)
            .map_err(|_| failed("federation: the answer holds no token".to_owned()))?;
        let renewed_from = renewal_of(&token, self.clock.now())?;
        debug!(%renewed_from, "a session for this instance has begun");
        Ok(Session { key: Arc::new(PrivateKey::of_pair(format!("ST${token}"), pair)), renewed_from })
    }
}

#[async_trait]
impl Signer for InstancePrincipal {
    async fn sign(&self, request: &Signed<'_>) -> Result<HeaderMap, SignError> {
        self.key().await?.sign(request).await
    }

    async fn was_refused(&self) -> bool {
        self.session.lock().await.take().is_some()
    }
}

/// The metadata service of an instance, reached over a link-local address.
struct Metadata {
    base: Url,
    http: reqwest::Client,
    clock: SharedClock,
}

impl Metadata {
    fn new(base: Url, clock: SharedClock) -> Result<Self, SignError> {
        let link_local = base.host_str() == Some("169.254.169.254") && base.scheme() == "http";
        if !link_local {
            check_address(&base).map_err(|SetupError(reason)| failed(reason))?;
        }
        let http = if link_local {
            tls::secure(reqwest::Client::builder())
                .no_proxy()
                .connect_timeout(Duration::from_secs(3))
                .timeout(Duration::from_secs(10))
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|error| failed(innermost(&error)))?
        } else {
            http_client(&base).map_err(|SetupError(reason)| failed(reason))?
        };
        Ok(Self { base, http, clock })
    }

    async fn get(&self, path: &str) -> Result<String, SignError> {
        let mut tried = 1;
        loop {
            match self.get_once(path).await {
                Ok(text) => return Ok(text),
                Err(reason) if tried >= TRIES => {
                    return Err(failed(format!("the metadata service does not give {path}: {reason}")));
                }
                Err(_) => self.clock.sleep(BACKOFF * tried).await,
            }
            tried += 1;
        }
    }

    async fn get_once(&self, path: &str) -> Result<String, String> {
        let address = format!("{}/{path}", self.base.as_str().trim_end_matches('/'));
        let request = self.http.get(address).header(AUTHORIZATION, HeaderValue::from_static("Bearer Oracle"));
        let response = request.send().await.map_err(|error| innermost(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("HTTP {status}"));
        }
        let text = match read_bounded(response.bytes_stream(), MAX_MESSAGE_BYTES).await {
            Ok(text) => text,
            Err(BodyError::Broken(error)) => return Err(innermost(&error)),
            Err(error) => return Err(error.to_string()),
        };
        String::from_utf8(text).map_err(|_| "the answer is not UTF-8".to_owned())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RegionInfo {
    region_identifier: String,
    realm_domain_component: String,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

/// Whom a machine's certificate stands for.
pub(crate) struct Identity {
    pub(crate) tenancy: String,
    /// SHA-1 of the certificate, as the service names keys.
    pub(crate) fingerprint: String,
    der: Vec<u8>,
}

impl Identity {
    pub(crate) fn of(pem: &str) -> Result<Self, SignError> {
        let unusable = |_| failed("the machine's certificate cannot be read".to_owned());
        let certificate = Certificate::from_pem(pem).map_err(unusable)?;
        let der = certificate.to_der().map_err(unusable)?;
        let subject = certificate.tbs_certificate().subject();
        let mut names =
            subject.iter().map(|attribute| String::from_utf8_lossy(attribute.value.value()).into_owned());
        let tenancy = names
            .find_map(|name| {
                let tenancy = name.strip_prefix("opc-tenant:").or_else(|| name.strip_prefix("opc-identity:"));
                tenancy.map(str::to_owned)
            })
            .ok_or_else(|| failed("the machine's certificate names no tenancy".to_owned()))?;
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &der);
        let fingerprint: Vec<String> = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(Self { tenancy, fingerprint: fingerprint.join(":"), der })
    }
}

/// When a token is to be renewed. What it says of itself is not verified: that is for those who take it.
pub(crate) fn renewal_of(token: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, SignError> {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let expires = claims
        .and_then(|claims| serde_json::from_slice(&claims).ok())
        .and_then(|Claims { exp }| DateTime::from_timestamp(exp, 0))
        .ok_or_else(|| failed("federation: the token does not say when it expires".to_owned()))?;
    Ok(expires - RENEWED_BEFORE.min((expires - now) / 2))
}

/// A PEM without its frame, in one line.
fn one_line(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect()
}

fn failed(reason: String) -> SignError {
    SignError::Session(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(exp: i64) -> String {
        format!("x.{}.y", URL_SAFE_NO_PAD.encode(json!({ "exp": exp }).to_string()))
    }

    #[test]
    fn a_token_is_renewed_well_before_it_expires() {
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let after = |life: i64| (renewal_of(&token(1_000_000 + life), now).unwrap() - now).num_seconds();
        assert_eq!(after(3_600), 3_000);
        assert_eq!(after(60), 30);
        assert_eq!(after(0), 0);
        for wrong in ["", "x", "x.y.z", "a.e30.b"] {
            assert!(renewal_of(wrong, now).is_err(), "{wrong}");
        }
    }
}
