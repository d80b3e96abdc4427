//! Configuration, addresses, credentials and keys.

#![expect(clippy::unnecessary_wraps, reason = "all targets have one signature")]

#[path = "../../../collector/src/cli/settings/config_file/document.rs"]
mod document;

use collector::feed::Source;
use collector::fuzzing::{ini_sections, instance_identity, oci_credentials, token_renewal, vault_secret};
use collector::store::oci::BucketPath;
use collector::store::oci::endpoint::Region;
use collector::store::oci::key::{KeyError, PrivateKey};
use collector::store::s3::S3Path;

use super::{ensure, kind_of_result, now, size_of};
use crate::{Bound, Meter, Target};

const KEYS: [&str; 8] =
    ["feed", "store", "metrics_dir", "health_file", "timeout", "retries", "json", "cache_size"];
const PEM_TOKENS: &[&str] = &[
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----BEGIN ENCRYPTED PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----",
    "-----END PRIVATE KEY-----",
    "Proc-Type: 4,ENCRYPTED",
    "DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF",
    "AES-256-CBC",
    "DES-EDE3-CBC",
    "MII",
    "AAAA",
    "////",
    "=",
    "\n",
];

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "config",
        run: config,
        bound: Bound { per_byte: 2048, constant: 64 << 10 },
        tokens: &[
            "feed",
            "store",
            "metrics-dir",
            "timeout",
            " = ",
            "\"",
            "'",
            "\"\"\"",
            "[",
            "[[",
            "]]",
            "{",
            "}",
            "0x",
            "inf",
            "1979-05-27",
            "å",
            "#",
            ".",
        ],
        short_run: 10_000,
    },
    Target {
        name: "address",
        run: address,
        bound: Bound { per_byte: 64, constant: 8 << 10 },
        tokens: &[
            "oci://",
            "s3://",
            "https://",
            "http://",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "@",
            ":",
            "/",
            "-",
            "%2e",
            "xn--",
            "eu-stockholm-1",
        ],
        short_run: 20_000,
    },
    Target {
        name: "oci_config",
        run: oci_config,
        bound: Bound { per_byte: 256, constant: 16 << 10 },
        tokens: &[
            "[DEFAULT]",
            "[",
            "]",
            "user=",
            "tenancy=",
            "fingerprint=",
            "key_content=",
            "pass_phrase=",
            "region=",
            "#",
            "ocid1.user.oc1..a",
            "\n",
        ],
        short_run: 10_000,
    },
    Target {
        name: "private_key",
        run: private_key,
        bound: Bound { per_byte: 64, constant: 33 << 20 },
        tokens: PEM_TOKENS,
        short_run: 1_000,
    },
    Target {
        name: "instance",
        run: instance,
        bound: Bound { per_byte: 256, constant: 64 << 10 },
        tokens: &[
            "-----BEGIN CERTIFICATE-----",
            "-----END CERTIFICATE-----",
            "eyJleHAiOjE3NjczNjI0MDB9",
            ".",
            "x.",
            ".y",
            "MII",
            "=",
            "\n",
        ],
        short_run: 10_000,
    },
    Target {
        name: "vault_secret",
        run: secret,
        bound: Bound { per_byte: 16, constant: 4 << 10 },
        tokens: &[
            "\"secretBundleContent\":",
            "\"contentType\":\"BASE64\"",
            "\"content\":",
            "aGk=",
            "==",
            "gIA=",
        ],
        short_run: 20_000,
    },
];

fn config(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(0) };
    let entries = meter.measure(|| document::entries(text, &KEYS));
    let lines = text.lines().count();
    for (key, entry) in entries.iter().flatten() {
        ensure((1..=lines).contains(&entry.line), || format!("{key} in line {} of {lines}", entry.line))?;
    }
    Ok(kind_of_result(&entries, |entries| {
        size_of(entries.values().map(|entry| entry.text.len()).sum::<usize>())
    }))
}

fn address(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(0) };
    let mut kind = 0;
    if let Ok(path) = meter.measure(|| BucketPath::parse(text)) {
        let written = format!("oci://{}/{}/{}", path.namespace, path.bucket, path.prefix);
        let again = BucketPath::parse(written.trim_end_matches('/'));
        ensure(again.as_ref() == Ok(&path), || format!("{path:?} is read again as {again:?}"))?;
        kind |= 1;
    }
    if let Ok(path) = meter.measure(|| S3Path::parse(text)) {
        let written = format!("s3://{}/{}", path.bucket, path.prefix);
        let again = S3Path::parse(&written);
        ensure(again.as_ref() == Ok(&path), || format!("{path:?} is read again as {again:?}"))?;
        kind |= 2;
    }
    if let Ok(source) = meter.measure(|| Source::parse(text)) {
        if let Source::Http(url) = &source {
            ensure(url.scheme() == "https" || url.host().is_some(), || format!("{url} is fetched"))?;
            kind |= 4;
        }
        kind |= 8;
    }
    kind |= u64::from(meter.measure(|| Region::named(text).address("auth")).is_ok()) << 4;
    Ok(kind)
}

fn oci_config(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(0) };
    let sections = meter.measure(|| ini_sections(text));
    let mut kind = size_of(sections.len());
    for mut section in sections.into_values().take(4) {
        // A path could name any file.
        section.remove("key_file");
        let credentials = meter.measure(|| oci_credentials(&section));
        kind ^= kind_of_result(&credentials, |_| 1);
    }
    Ok(kind)
}

fn private_key(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let Ok(pem) = std::str::from_utf8(input) else { return Ok(0) };
    let key = meter.measure(|| PrivateKey::from_pem("a/b/c".to_owned(), pem, Some("secret")));
    Ok(match key {
        Err(KeyError::UnknownEncryption(_)) => 2,
        key => kind_of_result(&key, |_| 1),
    })
}

/// A certificate and a token.
fn instance(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(0) };
    let identity = meter.measure(|| instance_identity(text));
    let renewal = meter.measure(|| token_renewal(text, now()));
    Ok(kind_of_result(&identity, |_| 1) ^ kind_of_result(&renewal, |_| 2))
}

fn secret(input: &[u8], meter: &mut Meter) -> Result<u64, String> {
    let secret = meter.measure(|| vault_secret(input));
    Ok(kind_of_result(&secret, |secret| size_of(secret.len())))
}
