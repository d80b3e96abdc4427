//! Secrets from the Vault. They are kept in memory only, and never shown.
//!
//! Source: "Secret Retrieval API", docs.oracle.com.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::{Method, Url};
use serde::Deserialize;
use thiserror::Error;

use super::client::{Ask, Client, Failure};
use super::key::{KeyError, PrivateKey};
use super::signature::Signer;
use crate::clock::SharedClock;
use crate::json::from_object;
use crate::store::remote::SetupError;

/// Why a secret could not be had. Names the secret, never its content.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The Vault cannot be called.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The Vault does not give it.
    #[error("the {name} cannot be read from the Vault: {source}")]
    Read {
        /// Which of the four.
        name: &'static str,
        /// Why.
        #[source]
        source: Failure,
    },
    /// What it gives is not what is looked for.
    #[error("the {name} in the Vault {reason}")]
    Unusable {
        /// Which of the four.
        name: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The private key is none.
    #[error("in the Vault: {0}")]
    Key(#[from] KeyError),
}

/// The identifiers (OCIDs) of the four secrets that together are somebody who signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretIds {
    /// Holds the user's OCID.
    pub user: String,
    /// Holds the tenancy's OCID.
    pub tenancy: String,
    /// Holds the key's fingerprint.
    pub fingerprint: String,
    /// Holds the private key in PEM.
    pub private_key: String,
}

/// Reads a key from the Vault, in the name of another.
///
/// # Errors
/// [`VaultError`] if one of the four cannot be had.
pub async fn read_key(
    ids: &SecretIds,
    endpoint: Url,
    reader: Arc<dyn Signer>,
    clock: SharedClock,
) -> Result<PrivateKey, VaultError> {
    let client = Client::new(endpoint, reader, clock)?;
    let (user, tenancy, fingerprint, private_key) = tokio::try_join!(
        read(&client, "user", &ids.user),
        read(&client, "tenancy", &ids.tenancy),
        read(&client, "fingerprint", &ids.fingerprint),
        read(&client, "private key", &ids.private_key),
    )?;
    let named = [("user", &user), ("tenancy", &tenancy), ("fingerprint", &fingerprint)];
    for (name, text) in named {
        if !super::credentials::is_plain(text.trim()) {
            return Err(VaultError::Unusable { name, reason: "holds characters that it must not hold" });
        }
    }
    let key_id = format!("{}/{}/{}", tenancy.trim(), user.trim(), fingerprint.trim());
    Ok(PrivateKey::from_pem(key_id, &private_key, None)?)
}

async fn read(client: &Client, name: &'static str, id: &str) -> Result<String, VaultError> {
    let target = format!("/20190301/secretbundles/{id}?stage=CURRENT");
    let answer = client.request(&Ask::plain(Method::GET, target, &[]), true).await;
    let answer = answer.map_err(|source| VaultError::Read { name, source })?;
    secret_in(&answer.body).map_err(|reason| VaultError::Unusable { name, reason })
}

/// The text in a secret bundle.
pub(crate) fn secret_in(body: &[u8]) -> Result<String, &'static str> {
    let Bundle { secret_bundle_content: Content { content_type, content } } =
        from_object(body).map_err(|_| "is not a secret bundle")?;
    if content_type != "BASE64" {
        return Err("is not in base64");
    }
    let bytes = BASE64.decode(content).map_err(|_| "is not in base64")?;
    String::from_utf8(bytes).map_err(|_| "is not text")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    secret_bundle_content: Content,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    content_type: String,
    content: String,
}
