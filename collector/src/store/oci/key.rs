//! A private RSA key in this process's memory, read from PEM: plain or encrypted, PKCS#1 or PKCS#8.

use std::fmt;

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockCipherDecrypt, BlockModeDecrypt as _, KeyInit, KeyIvInit as _};
use aes::{Aes128, Aes192, Aes256};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::Document;
use pkcs8::pkcs5::pbes2::Kdf;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use thiserror::Error;

/// Maximum number of PBKDF2 rounds: about a second. `OpenSSL` makes 2,048, and cautious people a million.
const MOST_ROUNDS: u32 = 2_000_000;
/// Maximum cost of scrypt in blocks of 128 bytes, 32 MiB: twice what `OpenSSL` uses.
const MOST_SCRYPT_BLOCKS: u64 = 1 << 18;

/// Why a key cannot be used. Never says anything of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No key in PEM.
    #[error("the private key is no PEM of an RSA key")]
    NoKey,
    /// It is encrypted.
    #[error("the private key is encrypted, and no pass phrase is given (pass_phrase, OCI_PASS_PHRASE)")]
    NoPassPhrase,
    /// What comes out is no key.
    #[error("the pass phrase does not open the private key")]
    WrongPassPhrase,
    /// Encrypted in a way that is not read here.
    #[error(
        "the private key is encrypted by {0}, which is not supported; \
         `openssl pkcs8 -topk8 -v2 aes256` makes one that is"
    )]
    UnknownEncryption(String),
    /// Its key derivation would take too long or too much memory.
    #[error(
        "the private key is encrypted with a key derivation that is too expensive (more than {MOST_ROUNDS} rounds \
         of PBKDF2, or scrypt with N·r·p above {MOST_SCRYPT_BLOCKS})"
    )]
    TooExpensive,
    /// The library does not take it.
    #[error("the private key was rejected: {0}")]
    Rejected(String),
}

/// A key that signs in somebody's name.
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
    /// Reads a key in PEM; `key_id` is the name that the service knows it by.
    ///
    /// Encrypted keys: PKCS#8 with PBES2, and OpenSSL's older form of PKCS#1 with AES in CBC mode.
    ///
    /// # Errors
    /// [`KeyError`] if it is none, or does not open.
    pub fn from_pem(key_id: String, pem: &str, pass_phrase: Option<&str>) -> Result<Self, KeyError> {
        let der = if pem.contains("BEGIN ENCRYPTED PRIVATE KEY") {
            PrivateKeyDer::Pkcs8(open_pkcs8(pem, pass_phrase)?.into())
        } else if pem.contains("Proc-Type: 4,ENCRYPTED") {
            PrivateKeyDer::Pkcs1(open_pkcs1(pem, pass_phrase)?.into())
        } else {
            PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::NoKey)?
        };
        let opened = |error: aws_lc_rs::error::KeyRejected| KeyError::Rejected(error.to_string());
        let pair = match der {
            PrivateKeyDer::Pkcs1(key) => KeyPair::from_der(key.secret_pkcs1_der()).map_err(opened)?,
            PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(opened)?,
            _ => return Err(KeyError::NoKey),
        };
        Ok(Self { key_id, pair })
    }

    /// A new key of 2,048 bits, for one session.
    pub(super) fn generate() -> Result<KeyPair, KeyError> {
        KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Rejected("none could be made".to_owned()))
    }

    /// A key that was made here, under the name it got.
    pub(super) fn of_pair(key_id: String, pair: KeyPair) -> Self {
        Self { key_id, pair }
    }

    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The only form that the SDK reads.
    #[cfg(feature = "oci-rust-sdk")]
    pub(super) fn to_pkcs8_pem(&self) -> Result<String, KeyError> {
        use aws_lc_rs::encoding::Pkcs8V1Der;
        use pkcs8::LineEnding;

        let der: Pkcs8V1Der<'_> = self.pair.as_der().map_err(|_| KeyError::NoKey)?;
        let document = Document::try_from(der.as_ref()).map_err(|_| KeyError::NoKey)?;
        document.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|_| KeyError::NoKey)
    }

    /// The signature of a text: RSASSA-PKCS1-v1_5 with SHA-256, in base64.
    ///
    /// # Errors
    /// [`KeyError`] if the key does not sign.
    pub fn sign_text(&self, text: &[u8]) -> Result<String, KeyError> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature)
            .map_err(|_| KeyError::Rejected("it does not sign".to_owned()))?;
        Ok(BASE64.encode(signature))
    }
}

/// The public half as the service takes it: `SubjectPublicKeyInfo` in base64.
pub(super) fn public_key_base64(pair: &KeyPair) -> Result<String, KeyError> {
    let der = pair.public_key().as_der().map_err(|_| KeyError::NoKey)?;
    Ok(BASE64.encode(der.as_ref()))
}

/// Decrypts a PKCS#8 key.
fn open_pkcs8(pem: &str, pass_phrase: Option<&str>) -> Result<Vec<u8>, KeyError> {
    let (_, document) = Document::from_pem(pem).map_err(|_| KeyError::NoKey)?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
        .map_err(|_| KeyError::UnknownEncryption("an unknown scheme".to_owned()))?;
    let Some(scheme) = encrypted.encryption_algorithm.pbes2() else {
        return Err(KeyError::UnknownEncryption("PBES1".to_owned()));
    };
    if !is_affordable(&scheme.kdf) {
        return Err(KeyError::TooExpensive);
    }
    let opened = encrypted.decrypt(pass_phrase.ok_or(KeyError::NoPassPhrase)?);
    Ok(opened.map_err(|_| KeyError::WrongPassPhrase)?.as_bytes().to_vec())
}

/// Whether a key can be derived in about a second. The file chooses how long it takes.
fn is_affordable(kdf: &Kdf) -> bool {
    match kdf {
        Kdf::Pbkdf2(kdf) => kdf.iteration_count <= MOST_ROUNDS,
        Kdf::Scrypt(kdf) => {
            let blocks = kdf.cost_parameter.saturating_mul(kdf.block_size.into());
            blocks.saturating_mul(kdf.parallelization.into()) <= MOST_SCRYPT_BLOCKS
        }
        _ => true,
    }
}

/// Decrypts a PKCS#1 key in OpenSSL's older form, which names cipher and IV in a header (RFC 1421).
fn open_pkcs1(pem: &str, pass_phrase: Option<&str>) -> Result<Vec<u8>, KeyError> {
    let info = pem.lines().find_map(|line| line.strip_prefix("DEK-Info:")).ok_or(KeyError::NoKey)?;
    let (cipher, iv) = info.trim().split_once(',').ok_or(KeyError::NoKey)?;
    let iv: [u8; 16] = from_hex(iv).and_then(|iv| iv.try_into().ok()).ok_or_else(|| unknown(cipher))?;
    let body: String = pem
        .lines()
        .skip_while(|line| !line.starts_with("DEK-Info:"))
        .skip(1)
        .take_while(|line| !line.starts_with("-----"))
        .map(str::trim)
        .collect();
    let sealed = BASE64.decode(body).map_err(|_| KeyError::NoKey)?;
    let pass_phrase = pass_phrase.ok_or(KeyError::NoPassPhrase)?.as_bytes();
    match cipher {
        "AES-128-CBC" => decrypt::<Aes128>(&derive::<16>(pass_phrase, &iv), &iv, &sealed),
        "AES-192-CBC" => decrypt::<Aes192>(&derive::<24>(pass_phrase, &iv), &iv, &sealed),
        "AES-256-CBC" => decrypt::<Aes256>(&derive::<32>(pass_phrase, &iv), &iv, &sealed),
        other => Err(unknown(other)),
    }
}

fn unknown(cipher: &str) -> KeyError {
    KeyError::UnknownEncryption(cipher.to_owned())
}

/// OpenSSL's `EVP_BytesToKey` with MD5 and one round, which that form is bound to.
fn derive<const LENGTH: usize>(pass_phrase: &[u8], iv: &[u8; 16]) -> [u8; LENGTH] {
    let mut key = [0; LENGTH];
    let mut block: Vec<u8> = Vec::new();
    for part in key.chunks_mut(16) {
        let hash = Md5::new().chain_update(&block).chain_update(pass_phrase).chain_update(&iv[..8]);
        block = hash.finalize().to_vec();
        part.copy_from_slice(&block[..part.len()]);
    }
    key
}

fn decrypt<C>(key: &[u8], iv: &[u8; 16], sealed: &[u8]) -> Result<Vec<u8>, KeyError>
where
    C: BlockCipherDecrypt + KeyInit,
    cbc::Decryptor<C>: aes::cipher::KeyIvInit + aes::cipher::BlockModeDecrypt,
{
    cbc::Decryptor::<C>::new_from_slices(key, iv)
        .map_err(|_| KeyError::WrongPassPhrase)?
        .decrypt_padded_vec::<Pkcs7>(sealed)
        .map_err(|_| KeyError::WrongPassPhrase)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim().as_bytes();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
