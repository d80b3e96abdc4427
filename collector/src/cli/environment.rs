//! Checks the environment variables of other programs that this one follows: proxies, certificates, traces. A value that cannot be
//! used is an error, or at least a warning.

use std::env::{self, VarError};
use std::ffi::OsString;
use std::path::Path;
use std::{fs, iter};

use anyhow::{anyhow, bail};
use hyper::Uri;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tracing::warn;

/// The variables that name a proxy, in the two spellings. The first one that is set counts.
const PROXIES: [[&str; 2]; 3] =
    [["HTTPS_PROXY", "https_proxy"], ["HTTP_PROXY", "http_proxy"], ["ALL_PROXY", "all_proxy"]];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// Maximum size of a file of certificates.
const CERTIFICATES_LIMIT_BYTES: u64 = 64 << 20;

/// Checks the variables that decide how calls reach the network.
///
/// # Errors
/// A text that names the variable, but not its value, which may hold a password.
pub(super) fn check_network() -> anyhow::Result<()> {
    let mut is_proxied = false;
    for names in PROXIES {
        if let Some((name, value)) = one_spelling(names)? {
            check_proxy(&value)
                .map_err(|reason| anyhow!("${name} is not a proxy that can be used: {reason}"))?;
            is_proxied = true;
        }
    }
    if let Some((name, value)) = one_spelling(NO_PROXY)?.filter(|_| is_proxied) {
        for entry in value.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            check_no_proxy(entry).map_err(|reason| anyhow!("${name}: `{entry}`: {reason}"))?;
        }
    }
    check_certificates()
}

/// The spelling of a variable that is set, and its value.
///
/// # Errors
/// Both spellings are set, to different values.
fn one_spelling(names: [&'static str; 2]) -> anyhow::Result<Option<(&'static str, String)>> {
    let mut found: Option<(&str, String)> = None;
    for name in names {
        let value = match env::var(name) {
            Ok(value) => value,
            Err(VarError::NotPresent) => continue,
            Err(VarError::NotUnicode(_)) => bail!("${name} is not UTF-8"),
        };
        match &found {
            Some((first, other)) if *other != value => bail!("${first} and ${name} contradict each other"),
            Some(_) => {}
            None => found = Some((name, value)),
        }
    }
    // An empty value means no proxy.
    Ok(found.filter(|(_, value)| !value.is_empty()))
}

/// Checks that the HTTP client can use a value as a proxy, and does not ignore a part of it.
fn check_proxy(value: &str) -> Result<(), String> {
    let malformed = || {
        "not an address such as http://host:3128; in a user name or password, characters such as # / @ : % are \
         written as %23 %2F %40 %3A %25"
            .to_owned()
    };
    let uri: Uri = value.parse().map_err(|_| malformed())?;
    match uri.scheme_str() {
        None | Some("http" | "https") => {}
        Some(scheme @ ("socks4" | "socks4a" | "socks5" | "socks5h")) => {
            return Err(format!("`{scheme}://` is not supported; use http:// or https://"));
        }
        Some(_) => return Err("its scheme is not supported; use http:// or https://".to_owned()),
    }
    let authority = uri.authority().ok_or_else(malformed)?.as_str();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    // An IPv6 address has colons of its own.
    let port = host.rsplit_once(']').map_or(host, |(_, rest)| rest).split_once(':').map(|(_, port)| port);
    let is_whole = value.trim_end_matches('/').ends_with(authority);
    let is_escaped = !user.contains('@') && user.split('%').skip(1).all(|rest| is_hexadecimal(rest.get(..2)));
    let has_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if is_whole && is_escaped && has_port && uri.host().is_some_and(|host| !host.is_empty()) {
        Ok(())
    } else {
        Err(malformed())
    }
}

fn is_hexadecimal(digits: Option<&str>) -> bool {
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Checks that the HTTP client understands an entry of `NO_PROXY`: a domain, an address, a network in CIDR notation, or `*`.
fn check_no_proxy(entry: &str) -> Result<(), &'static str> {
    if entry == "*" {
        return Ok(());
    }
    if entry.contains('*') {
        return Err("wildcards are not supported; `.example.org` means all hosts of a domain");
    }
    let (address, prefix) =
        entry.split_once('/').map_or((entry, None), |(address, bits)| (address, Some(bits)));
    let address = address.trim_start_matches('[').trim_end_matches(']');
    match (address.parse::<std::net::IpAddr>(), prefix) {
        (Ok(address), Some(bits)) => {
            let most = if address.is_ipv4() { 32 } else { 128 };
            let is_valid = bits.parse::<u8>().is_ok_and(|bits| bits <= most);
            if is_valid { Ok(()) } else { Err("not a network in CIDR notation") }
        }
        (Err(_), Some(_)) => Err("not a domain, an address or a network"),
        (Err(_), None) if entry.contains(':') => Err("ports are not supported; name the host alone"),
        (_, None) => Ok(()),
    }
}

/// Checks the variables that name certificates of authorities.
fn check_certificates() -> anyhow::Result<()> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(file) = set("SSL_CERT_FILE") {
        let unusable = |reason: String| anyhow!("$SSL_CERT_FILE: {}: {reason}", Path::new(&file).display());
        let text = crate::files::read_regular(Path::new(&file), CERTIFICATES_LIMIT_BYTES);
        let text = text.map_err(|error| unusable(error.to_string()))?;
        if !holds_certificate(&text) {
            return Err(unusable("it holds no certificate in PEM format".to_owned()));
        }
    }
    let Some(folders) = set("SSL_CERT_DIR") else { return Ok(()) };
    check_certificate_folders(&folders)
}

fn check_certificate_folders(folders: &OsString) -> anyhow::Result<()> {
    let mut is_found = false;
    for folder in env::split_paths(folders) {
        let entries =
            fs::read_dir(&folder).map_err(|error| anyhow!("$SSL_CERT_DIR: {}: {error}", folder.display()))?;
        let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        is_found |= files.any(|file| {
            let text = crate::files::read_regular(&file, CERTIFICATES_LIMIT_BYTES);
            text.is_ok_and(|text| holds_certificate(&text))
        });
    }
    if is_found { Ok(()) } else { bail!("$SSL_CERT_DIR: no folder holds a certificate in PEM format") }
}

fn holds_certificate(text: &[u8]) -> bool {
    CertificateDer::pem_slice_iter(text).any(|certificate| certificate.is_ok())
}

/// Warns of variables that are meant for this program and that it ignores.
pub(super) fn warn_of_ignored() {
    for name in ["XDG_STATE_HOME", "XDG_CACHE_HOME"] {
        if env::var_os(name).is_some_and(|folder| !folder.is_empty() && Path::new(&folder).is_relative()) {
            warn!(variable = name, "a relative path is not valid here and is ignored");
        }
    }
    let endpoints = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let without_traces = iter::once(endpoints).filter(|_| !cfg!(feature = "otlp")).flatten();
    for name in without_traces.filter(|name| env::var_os(name).is_some_and(|value| !value.is_empty())) {
        warn!(variable = name, "no traces are sent: this program was built without the feature otlp");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_accepted_as_the_client_accepts_them() {
        for good in [
            "http://proxy:3128",
            "http://proxy:3128/",
            "https://proxy.example.org",
            "proxy:3128",
            "127.0.0.1:9",
            "http://[::1]:3128",
            "http://user:p%40ss@proxy:3128",
            "user@proxy:1",
        ] {
            assert_eq!(check_proxy(good), Ok(()), "{good}");
        }
        for bad in [
            "http://user:pa#ss@127.0.0.1:9",
            "http://user:pa/ss@127.0.0.1:9",
            "http://user:pa?ss@127.0.0.1:9",
            "http://user:p@ss@127.0.0.1:9",
            "http://user:p%ss@127.0.0.1:9",
            "http://proxy:99999",
            "http://proxy:0",
            "http://proxy:",
            "http://proxy/path",
            "http://",
            "http:// proxy",
            " http://proxy:1",
            "http:proxy",
            "socks5://proxy:1080",
            "socks5h://proxy:1080",
            "ftp://proxy:21",
            "/",
            "ä",
        ] {
            assert!(check_proxy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exceptions_from_the_proxy_are_accepted_as_the_client_understands_them() {
        for good in ["*", "localhost", ".example.org", "10.0.0.0/8", "10.1.2.3", "::1", "[::1]", "fd00::/8"] {
            assert_eq!(check_no_proxy(good), Ok(()), "{good}");
        }
        for bad in ["*.example.org", "localhost:8080", "10.0.0.0/33", "10.0/8", "example.org/8"] {
            assert!(check_no_proxy(bad).is_err(), "{bad}");
        }
    }
}
