//! Where is published: `kafka://HOST[:PORT][,HOST…]/TOPIC` or `nats://HOST[:PORT][,HOST…]/SUBJECT`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The address of a topic or subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `kafka://HOST[:PORT][,HOST…]/TOPIC`, or `kafka+tls://…` to require TLS.
    Kafka {
        /// Some servers of one cluster, each with its port.
        servers: Vec<String>,
        /// The topic.
        topic: String,
        /// Whether the connection must be encrypted.
        tls: bool,
    },
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

/// A mechanism of SASL for a name and a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// PLAIN: the password itself is sent.
    Plain,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

/// A text that is not a [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0}; it reads kafka://HOST[:PORT][,HOST…]/TOPIC or nats://HOST[:PORT][,HOST…]/SUBJECT, or kafka+tls://… or \
     tls://… where TLS is required"
)]
pub struct InvalidTarget(&'static str);

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidTarget("not an address"))?;
        let (is_kafka, tls) = match scheme {
            "kafka" => (true, false),
            "kafka+tls" => (true, true),
            "nats" => (false, false),
            "tls" => (false, true),
            _ => return Err(InvalidTarget("the scheme is not supported")),
        };
        let (hosts, name) = rest.split_once('/').ok_or(InvalidTarget("the topic or subject is missing"))?;
        if hosts.contains('@') {
            // It would be shown by `ps`, by `collector config` and in logs.
            return Err(InvalidTarget("credentials do not belong in the address, but in a file or variable"));
        }
        let default_port = if is_kafka { 9092 } else { 4222 };
        let servers: Vec<String> = hosts
            .split(',')
            .map(|host| with_port(host, default_port))
            .collect::<Option<_>>()
            .ok_or(InvalidTarget("a host is missing or its port is not a number"))?;
        if is_kafka {
            if !is_topic(name) {
                return Err(InvalidTarget(
                    "the topic is not valid: it has up to 249 letters, digits, dots, hyphens and underscores",
                ));
            }
            return Ok(Self::Kafka { servers, topic: name.to_owned(), tls });
        }
        if !is_subject(name) {
            return Err(InvalidTarget(
                "the subject is not valid: it has no wildcards, spaces, `?`, `#` or empty parts",
            ));
        }
        Ok(Self::Nats { servers, subject: name.to_owned(), tls })
    }
}

fn is_topic(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=249).contains(&name.len()) && !matches!(name, "." | "..") && name.bytes().all(is_allowed)
}

fn is_subject(name: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty()
            && token
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'*' | b'>' | b'/' | b'?' | b'#'))
    };
    name.split('.').all(is_token) && !name.starts_with('$')
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
        let (scheme, servers, name) = match self {
            Self::Kafka { servers, topic, tls: false } => ("kafka", servers, topic),
            Self::Kafka { servers, topic, tls: true } => ("kafka+tls", servers, topic),
            Self::Nats { servers, subject, tls: false } => ("nats", servers, subject),
            Self::Nats { servers, subject, tls: true } => ("tls", servers, subject),
        };
        write!(formatter, "{scheme}://{}/{name}", servers.join(","))
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
            ("kafka://a,b:1/polisen.events", "kafka://a:9092,b:1/polisen.events"),
            ("kafka+tls://[::1]/x_-1", "kafka+tls://[::1]:9092/x_-1"),
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
            "nats://h/a?token=secret",
            "nats://h/a#secret",
            "kafka://h",
            "kafka://h/",
            "kafka://h/..",
            "kafka://h/a/b",
            "kafka://h/händelser",
            "kafka://user:secret@h/x",
        ] {
            let refused = text.parse::<Target>().unwrap_err().to_string();
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
}
