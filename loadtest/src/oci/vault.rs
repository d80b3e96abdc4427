//! The Vault: secrets by their identifier.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use super::answer::Answer;

pub(super) const PATH: &str = "/20190301/secretbundles/";

/// Secrets. They are not shown.
#[derive(Default)]
pub(super) struct Vault(BTreeMap<String, String>);

impl std::fmt::Debug for Vault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Vault({} secrets)", self.0.len())
    }
}

impl Vault {
    pub(super) fn put(&mut self, id: &str, secret: &str) {
        self.0.insert(id.to_owned(), secret.to_owned());
    }

    /// Answers a request on what follows [`PATH`].
    pub(super) fn answer(&self, method: &Method, id: &str, query: &str) -> Answer {
        if *method != Method::GET || !matches!(query, "" | "stage=CURRENT") {
            return Answer::error(StatusCode::BAD_REQUEST, "InvalidParameter", "no such operation");
        }
        let Some(secret) = self.0.get(id) else {
            return Answer::error(StatusCode::NOT_FOUND, "NotAuthorizedOrNotFound", "no such secret");
        };
        Answer::new(StatusCode::OK).with_json(&json!({
            "secretId": id,
            "versionNumber": 1,
            "stages": ["CURRENT", "LATEST"],
            "metadata": {},
            "secretBundleContent": {"contentType": "BASE64", "content": BASE64.encode(secret)},
        }))
    }
}
