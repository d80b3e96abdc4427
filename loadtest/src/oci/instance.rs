//! The metadata of an instance, and the federation service that accepts its certificate.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use super::account::{Account, NoKey, TENANCY};
use super::answer::Answer;

pub(super) const METADATA_PATH: &str = "/opc/v2/";
pub(super) const FEDERATION_PATH: &str = "/v1/x509";

/// An instance with a certificate, and the sessions that were begun with it.
pub(super) struct Instance {
    machine: Account,
    certificate_pem: String,
    certificate_der: Vec<u8>,
    /// How long a session lasts.
    pub(super) token_life: Duration,
    sessions: BTreeMap<String, Session>,
}

/// A token and the public key it stands for.
struct Session {
    public_key: Vec<u8>,
    expires: SystemTime,
}

impl fmt::Debug for Instance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Instance({} sessions)", self.sessions.len())
    }
}

impl Instance {
    pub(super) fn generate() -> Result<Self, NoKey> {
        let machine = Account::generate("instance")?;
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(&machine.private_key_pem(), &PKCS_RSA_SHA256);
        let mut parameters = CertificateParams::default();
        let name = &mut parameters.distinguished_name;
        name.push(DnType::OrganizationalUnitName, format!("opc-tenant:{TENANCY}"));
        name.push(DnType::OrganizationName, "opc-certtype:instance");
        name.push(DnType::CommonName, "ocid1.instance.oc1..simulated");
        let certificate = key.and_then(|key| parameters.self_signed(&key)).map_err(|_| NoKey)?;
        Ok(Self {
            machine,
            certificate_pem: certificate.pem(),
            certificate_der: certificate.der().to_vec(),
            token_life: Duration::from_mins(20),
            sessions: BTreeMap::new(),
        })
    }

    /// The public key behind the name that the machine signs with: tenancy and fingerprint of its certificate.
    pub(super) fn machine_key(&self, key_id: &str) -> Option<&[u8]> {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.certificate_der);
        let fingerprint: Vec<String> = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        (key_id == format!("{TENANCY}/fed-x509/{}", fingerprint.join(":"))).then(|| self.machine.public_key())
    }

    /// The public key behind the token of a session that has not expired.
    pub(super) fn session_key(&self, token: &str) -> Option<&[u8]> {
        let session = self.sessions.get(token)?;
        (SystemTime::now() < session.expires).then_some(session.public_key.as_slice())
    }

    /// From now on no token is accepted.
    pub(super) fn end_sessions(&mut self) {
        self.sessions.clear();
    }

    /// Answers a request on what follows [`METADATA_PATH`].
    pub(super) fn metadata(&self, method: &Method, path: &str, headers: &HeaderMap) -> Answer {
        let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
        if *method != Method::GET || authorization != Some("Bearer Oracle") {
            return Answer::error(StatusCode::UNAUTHORIZED, "NotAuthenticated", "Bearer Oracle is missing");
        }
        match path {
            "instance/region" => Answer::text("eu-stockholm-1".to_owned()),
            "instance/regionInfo" => Answer::new(StatusCode::OK).with_json(&json!({
                "realmDomainComponent": "oraclecloud.com",
                "realmKey": "oc1",
                "regionIdentifier": "eu-stockholm-1",
                "regionKey": "ARN",
            })),
            "identity/cert.pem" | "identity/intermediate.pem" => Answer::text(self.certificate_pem.clone()),
            "identity/key.pem" => Answer::text(self.machine.private_key_pem()),
            _ => Answer::error(StatusCode::NOT_FOUND, "NotFound", "no such metadata"),
        }
    }

    /// Answers a request on [`FEDERATION_PATH`] that the machine's key has signed.
    pub(super) fn federate(&mut self, body: &Bytes) -> Answer {
        match self.begin_session(body) {
            Ok(token) => Answer::new(StatusCode::OK).with_json(&json!({ "token": token })),
            Err(why) => Answer::error(StatusCode::BAD_REQUEST, "InvalidParameter", why),
        }
    }

    fn begin_session(&mut self, body: &Bytes) -> Result<String, &'static str> {
        let asked: Value = serde_json::from_slice(body).map_err(|_| "the body is not valid JSON")?;
        let decoded = |name: &str| BASE64.decode(asked[name].as_str().unwrap_or_default()).ok();
        if decoded("certificate").as_ref() != Some(&self.certificate_der) {
            return Err("the certificate is of no instance");
        }
        let public_key = decoded("publicKey").filter(|key| !key.is_empty()).ok_or("no public key")?;
        let expires = SystemTime::now() + self.token_life;
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let claims = json!({
            "sub": "ocid1.instance.oc1..simulated",
            "iat": seconds(SystemTime::now()),
            "exp": seconds(expires),
            "jti": self.sessions.len(),
        });
        let encoded = |part: String| URL_SAFE_NO_PAD.encode(part);
        let header = json!({"alg": "RS256", "typ": "JWT"}).to_string();
        // Only this service reads it, and it stores its tokens.
        let signature = encoded("simulated".to_owned());
        let token = format!("{}.{}.{signature}", encoded(header), encoded(claims.to_string()));
        self.sessions.insert(token.clone(), Session { public_key, expires });
        Ok(token)
    }
}
