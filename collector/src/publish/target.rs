//! Where is published: `nats://HOST[:PORT][,HOST…]/SUBJECT`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The address of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `nats://HOST[:PORT][,HOST…]/SUBJECT`, or `tls://…` to require TLS.
    Nats {
        /// The servers of one cluster, each with its port.
        servers: Vec<String>,
        /// The subject.
        subject: String,
        /// Whether the connection must be encrypted.
        tls: bool,
    },
}

/// A text that is not a [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}; it reads nats://HOST[:PORT][,HOST…]/SUBJECT, or tls://… where TLS is required")]
pub struct InvalidTarget(&'static str);

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidTarget("not an address"))?;
        let tls = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err(InvalidTarget("the scheme is not supported")),
        };
        let (hosts, subject) = rest.split_once('/').ok_or(InvalidTarget("the subject is missing"))?;
        if hosts.contains('@') {
            // It would be shown by `ps`, by `collector config` and in logs.
            return Err(InvalidTarget("credentials do not belong in the address, but in a file or variable"));
        }
        let servers: Vec<String> = hosts
            .split(',')
            .map(|host| with_port(host, 4222))
            .collect::<Option<_>>()
            .ok_or(InvalidTarget("a host is missing or its port is not a number"))?;
        let is_token = |token: &str| {
            !token.is_empty()
                && token.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'*' | b'>' | b'/'))
        };
        if !subject.split('.').all(is_token) || subject.starts_with('$') {
            return Err(InvalidTarget(
                "the subject is not valid: it has no wildcards, spaces or empty parts",
            ));
        }
        Ok(Self::Nats { servers, subject: subject.to_owned(), tls })
    }
}

/// A host with its port, or the default one.
fn with_port(host: &str, default: u16) -> Option<String> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') && !port.ends_with(']') => (name, port.parse().ok()?),
        _ => (host, default),
    };
    let is_name =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    (!name.is_empty() && name.bytes().all(is_name)).then(|| format!("{name}:{port}"))
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Nats { servers, subject, tls } = self;
        let scheme = if *tls { "tls" } else { "nats" };
        write!(formatter, "{scheme}://{}/{subject}", servers.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, shown) in [
            ("nats://localhost/polisen.events", "nats://localhost:4222/polisen.events"),
            ("tls://a:1,b/x", "tls://a:1,b:4222/x"),
            ("nats://[::1]:4223/x", "nats://[::1]:4223/x"),
            ("nats://[::1]/x", "nats://[::1]:4222/x"),
        ] {
            assert_eq!(text.parse::<Target>().map(|target| target.to_string()).as_deref(), Ok(shown));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "x",
            "nats://",
            "nats://h",
            "nats://h/",
            "nats:///x",
            "http://h/x",
            "nats://h/a.>",
            "nats://h/*",
            "nats://h/a..b",
            "nats://h/$JS.x",
            "nats://user:secret@h/x",
            "nats://h:99999/x",
            "nats://h,,i/x",
            "nats://h/a b",
        ] {
            let refused = text.parse::<Target>().unwrap_err().to_string();
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
}
