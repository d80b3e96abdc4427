//! What connections to brokers have in common.

use std::path::Path;
use std::{io, net};

use crate::text::printable;

/// Reads a file of a token, a password, a seed or credentials, and warns if others may read it.
///
/// # Errors
/// It cannot be read, or has more than 1 MiB.
pub fn read_secret(path: &Path) -> io::Result<String> {
    crate::store::secret_file::read(path)
}

/// An error and what caused it, on one line.
pub(super) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    printable(&text).to_string()
}

/// Whether a server, `HOST:PORT`, is on this machine.
pub(super) fn is_loopback(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
