//! An account that may sign.

use std::fmt;
use std::fmt::Write as _;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};

/// The tenancy of everybody.
pub(super) const TENANCY: &str = "ocid1.tenancy.oc1..simulated";

/// A user with a key that was made for this process.
pub struct Account {
    user: String,
    fingerprint: String,
    pkcs8: Vec<u8>,
    public_key: Vec<u8>,
}

impl fmt::Debug for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Account({})", self.key_id())
    }
}

/// No key could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoKey;

impl Account {
    /// A user with a new key of 2,048 bits.
    ///
    /// # Errors
    /// [`NoKey`] if the library makes none.
    pub fn generate(user: &str) -> Result<Self, NoKey> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| NoKey)?;
        let pkcs8 = pair.as_der().map_err(|_| NoKey)?.as_ref().to_vec();
        let public_key = pair.public_key().as_ref().to_vec();
        let digest = Md5::digest(&public_key);
        let mut fingerprint = String::new();
        for (position, byte) in digest.iter().enumerate() {
            let colon = if position > 0 { ":" } else { "" };
            let _ = write!(fingerprint, "{colon}{byte:02x}");
        }
        Ok(Self { user: format!("ocid1.user.oc1..{user}"), fingerprint, pkcs8, public_key })
    }

    /// By which name its key is known.
    #[must_use]
    pub fn key_id(&self) -> String {
        format!("{TENANCY}/{}/{}", self.user, self.fingerprint)
    }

    /// Its private key in PEM (PKCS#8).
    #[must_use]
    pub fn private_key_pem(&self) -> String {
        let encoded = BASE64.encode(&self.pkcs8);
        let mut pem = "-----BEGIN PRIVATE KEY-----\n".to_owned();
        for line in encoded.as_bytes().chunks(64) {
            pem += &String::from_utf8_lossy(line);
            pem.push('\n');
        }
        pem + "-----END PRIVATE KEY-----\n"
    }

    /// A configuration file for it, as the service's tools read it.
    #[must_use]
    pub fn config_file(&self, key_file: &str) -> String {
        let Self { user, fingerprint, .. } = self;
        format!(
            "[DEFAULT]\nuser={user}\nfingerprint={fingerprint}\ntenancy={TENANCY}\nregion=eu-stockholm-1\nkey_file={key_file}\n"
        )
    }

    /// Its user, tenancy, fingerprint and private key, as they are kept in a Vault.
    pub(super) fn secrets(&self) -> [(&'static str, String); 4] {
        [
            ("user", self.user.clone()),
            ("tenancy", TENANCY.to_owned()),
            ("fingerprint", self.fingerprint.clone()),
            ("private_key", self.private_key_pem()),
        ]
    }

    pub(super) fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}
