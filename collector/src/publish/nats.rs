//! The connection to NATS JetStream.
//!
//! One connection serves until the first error; then another one is made. The library would reconnect by itself and send what it
//! still holds: the sequence number that each message states makes that harmless, but its outcome would stay unknown.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use async_nats::jetstream::context::{
    Context, ContextBuilder, PublishAckFuture, PublishError, PublishErrorKind,
};
use async_nats::jetstream::stream::{Config, RawMessageErrorKind, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{ConnectErrorKind, ConnectOptions, Event, HeaderMap, ServerAddr, ServerError, Subject};
use async_trait::async_trait;
use tokio::sync::watch;

use super::connection::{is_loopback, with_causes};
use super::jetstream::{Answer, Stored, Stream, StreamLimits};
use super::{BrokerError, Message};
use crate::text::printable;

/// Maximum time of a connection's beginning.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time until a message or a request is answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of messages without an answer.
pub const MAX_IN_FLIGHT: usize = 4_096;

/// The feed is never without news for longer.
const LEAST_MAX_AGE: Duration = Duration::from_hours(24 * 30);

const OWN_STREAM: &str =
    "the stream must be the publisher's own: this subject alone, no sources, and retention by limits";

/// How the client proves who it is.
#[derive(Clone, Default)]
pub enum NatsAuth {
    /// Not at all.
    #[default]
    Nothing,
    /// A token.
    Token(String),
    /// A name and a password.
    Password(String, String),
    /// The seed of an nkey.
    Nkey(String),
    /// The content of a credentials file: a JWT and the seed of its nkey.
    Credentials(String),
}

impl fmt::Debug for NatsAuth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Token(_) => "Token",
            Self::Password(..) => "Password",
            Self::Nkey(_) => "Nkey",
            Self::Credentials(_) => "Credentials",
        })
    }
}

/// What the server reports beside its answers.
#[derive(Debug)]
struct Reports {
    /// The last refusal, such as a missing permission.
    refusal: Mutex<Option<String>>,
    is_lost: watch::Sender<bool>,
}

impl Reports {
    fn note(&self, event: &Event) {
        match event {
            Event::Disconnected | Event::Closed => _ = self.is_lost.send_replace(true),
            Event::ServerError(ServerError::Other(text)) => {
                *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(printable(text).to_string());
            }
            _ => {}
        }
    }

    fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A connection that is in use.
#[derive(Debug)]
struct Connection {
    context: Context,
    stream: jetstream::stream::Stream<()>,
    stream_name: String,
    reports: Arc<Reports>,
}

/// A subject that a stream of JetStream stores.
#[derive(Debug)]
pub struct NatsStream {
    servers: Vec<String>,
    subject: String,
    tls: bool,
    auth: NatsAuth,
    connection: Option<Connection>,
}

impl NatsStream {
    /// A subject of one of the servers of a cluster, each `HOST:PORT`. Without `tls` only servers on this machine are called
    /// without encryption.
    #[must_use]
    pub fn new(servers: Vec<String>, subject: String, tls: bool, auth: NatsAuth) -> Self {
        Self { servers, subject, tls, auth, connection: None }
    }

    fn options(&self, reports: &Arc<Reports>) -> Result<ConnectOptions, BrokerError> {
        let tls = crate::tls::any_protocol()
            .map_err(|error| BrokerError::Temporary(format!("TLS cannot be set up: {error}")))?;
        let reports = Arc::clone(reports);
        let options = ConnectOptions::new()
            .name("polisen-events-collector")
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(ANSWER_TIMEOUT))
            .max_reconnects(self.servers.len())
            .ignore_discovered_servers()
            .require_tls(self.tls || !self.servers.iter().all(|server| is_loopback(server)))
            .tls_client_config(tls)
            .event_callback(move |event| {
                reports.note(&event);
                std::future::ready(())
            });
        Ok(match &self.auth {
            NatsAuth::Nothing => options,
            NatsAuth::Token(token) => options.token(token.clone()),
            NatsAuth::Password(user, password) => options.user_and_password(user.clone(), password.clone()),
            NatsAuth::Nkey(seed) => options.nkey(seed.clone()),
            NatsAuth::Credentials(content) => options.credentials(content).map_err(|_| {
                // The library's error may quote the file.
                BrokerError::permanent("the credentials file is not valid", "`nsc generate creds` makes one")
            })?,
        })
    }

    async fn connected(&self, reports: &Arc<Reports>) -> Result<async_nats::Client, BrokerError> {
        let servers: Vec<ServerAddr> =
            self.servers.iter().map(|server| server.parse()).collect::<Result<_, _>>().map_err(|_| {
                BrokerError::permanent("the address of a server is not valid", "name HOST:PORT")
            })?;
        self.options(reports)?.connect(servers).await.map_err(|error| {
            let message = format!("cannot connect to {}: {}", self.target(), with_causes(&error));
            match error.kind() {
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                    BrokerError::permanent(message, "check the token, the password, the nkey or the credentials file")
                }
                ConnectErrorKind::Io if is_misunderstanding(&error) => BrokerError::permanent(
                    message,
                    "name a server of NATS with a certificate that is trusted; SSL_CERT_FILE names other root \
                     certificates",
                ),
                ConnectErrorKind::Tls => BrokerError::permanent(
                    message,
                    "servers that are not on this machine must offer TLS; SSL_CERT_FILE names other root certificates",
                ),
                ConnectErrorKind::ServerParse => BrokerError::permanent(message, "name HOST:PORT"),
                _ => BrokerError::Temporary(message),
            }
        })
    }

    /// An error of a request, or what the server has reported meanwhile.
    fn failed(
        &self,
        reports: &Reports,
        what: &str,
        error: &(dyn std::error::Error + 'static),
    ) -> BrokerError {
        match reports.refusal() {
            Some(refusal) => BrokerError::permanent(
                format!("{} refuses: {refusal}", self.target()),
                "the user needs: publish to the subject and to $JS.API.STREAM.NAMES, $JS.API.STREAM.INFO.NAME and \
                 $JS.API.STREAM.MSG.GET.NAME, subscribe to _INBOX.>",
            ),
            None => BrokerError::Temporary(format!("{}: {what}: {}", self.target(), with_causes(error))),
        }
    }

    fn connection(&self) -> Result<&Connection, BrokerError> {
        self.connection.as_ref().ok_or_else(|| BrokerError::Temporary("not connected".to_owned()))
    }
}

#[async_trait]
impl Stream for NatsStream {
    async fn connect(&mut self) -> Result<StreamLimits, BrokerError> {
        self.connection = None;
        let reports = Arc::new(Reports { refusal: Mutex::default(), is_lost: watch::Sender::new(false) });
        let client = self.connected(&reports).await?;
        let max_payload = client.server_info().max_payload;
        let context = ContextBuilder::new()
            .timeout(ANSWER_TIMEOUT)
            .max_ack_inflight(MAX_IN_FLIGHT)
            .build(client.clone());
        let name = context.stream_by_subject(self.subject.clone()).await.map_err(|error| {
            if error.kind() == jetstream::context::GetStreamByNameErrorKind::NotFound {
                return BrokerError::permanent(
                    format!("no stream of {} stores the subject", self.target()),
                    "create one: nats stream add NAME --subjects SUBJECT --storage file --retention limits",
                );
            }
            self.failed(&reports, "cannot look for the stream", &error)
        })?;
        let stream = context
            .get_stream_no_info(&name)
            .await
            .map_err(|error| self.failed(&reports, "cannot open the stream", &error))?;
        let info = stream
            .get_info()
            .await
            .map_err(|error| self.failed(&reports, "cannot ask for the stream", &error))?;
        let config = info.config;
        let is_own = config.subjects == [self.subject.as_str()]
            && config.mirror.is_none()
            && config.sources.as_ref().is_none_or(Vec::is_empty)
            && config.retention == RetentionPolicy::Limits
            && !config.no_ack;
        if !is_own {
            return Err(BrokerError::permanent(
                format!("stream {name} of {} cannot be used", self.target()),
                OWN_STREAM,
            ));
        }
        let of_stream = usize::try_from(config.max_message_size).ok().filter(|&size| size > 0);
        self.connection = Some(Connection { context, stream, stream_name: name, reports });
        let max_message_bytes = Some(of_stream.map_or(max_payload, |size| size.min(max_payload)));
        Ok(StreamLimits { max_message_bytes, warnings: warnings_of(&config) })
    }

    async fn last(&mut self) -> Result<(u64, Option<Stored>), BrokerError> {
        let Connection { stream, reports, .. } = self.connection()?;
        let info = stream
            .get_info()
            .await
            .map_err(|error| self.failed(reports, "cannot ask for the stream", &error))?;
        let last = info.state.last_sequence;
        if info.state.messages == 0 {
            return Ok((last, None));
        }
        match stream.get_raw_message(last).await {
            Ok(message) => {
                let header = |name: &str| message.headers.get(name).map(ToString::to_string);
                Ok((last, Some(Stored { position: header("ce_id"), publisher: header("publisher") })))
            }
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok((last, None)),
            Err(error) => Err(self.failed(reports, "cannot read the last message", &error)),
        }
    }

    async fn append(&mut self, publisher: &str, expected: u64, messages: &[Message]) -> Vec<Answer> {
        let Some(Connection { context, stream_name, reports, .. }) = &self.connection else {
            return vec![Answer::Refused("not connected".to_owned())];
        };
        let subject = Subject::from(self.subject.as_str());
        let mut under_way = Vec::with_capacity(messages.len());
        for (expected, message) in (expected..).zip(messages) {
            let mut headers = envelope(message);
            headers.insert("publisher", publisher);
            headers.insert("Nats-Msg-Id", message.position.to_string());
            headers.insert("Nats-Expected-Stream", stream_name.as_str());
            headers.insert("Nats-Expected-Last-Sequence", expected.to_string());
            let sent = context.publish_with_headers(subject.clone(), headers, message.value.clone()).await;
            let has_failed = sent.is_err();
            under_way.push(sent);
            if has_failed {
                break;
            }
        }
        let mut answers = Vec::with_capacity(under_way.len());
        for sent in under_way {
            let answer = match sent {
                Ok(answer) => answer_of(answer, reports).await,
                Err(error) => answer_of_error(&error, reports),
            };
            let is_stored = matches!(answer, Answer::Stored(_));
            answers.push(answer);
            if !is_stored {
                break;
            }
        }
        answers
    }

    fn target(&self) -> String {
        format!("nats://{}/{}", self.servers.join(","), self.subject)
    }
}

/// What of the configuration of a stream endangers messages or their position.
fn warnings_of(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.storage == StorageType::Memory {
        warnings.push("it is kept in memory: a restart of the server loses it".to_owned());
    }
    if config.num_replicas <= 1 {
        warnings.push("it has one replica: it is lost with its server".to_owned());
    }
    if !config.max_age.is_zero() && config.max_age < LEAST_MAX_AGE {
        warnings.push(format!(
            "messages are removed after {} s; after a longer time without news the position is lost",
            config.max_age.as_secs()
        ));
    }
    warnings
}

fn envelope(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in message.headers() {
        headers.insert(name, value);
    }
    headers
}

/// The answer to a message; none is waited for once the connection is lost.
async fn answer_of(answer: PublishAckFuture, reports: &Reports) -> Answer {
    let mut is_lost = reports.is_lost.subscribe();
    let answer = tokio::select! {
        biased;
        answer = answer.into_future() => answer,
        _ = is_lost.wait_for(|is_lost| *is_lost) => return Answer::Lost("the connection was lost".to_owned()),
    };
    match answer {
        Ok(answer) if answer.duplicate => Answer::Duplicate(answer.sequence),
        Ok(answer) => Answer::Stored(answer.sequence),
        Err(error) => answer_of_error(&error, reports),
    }
}

fn answer_of_error(error: &PublishError, reports: &Reports) -> Answer {
    let text = with_causes(error);
    match error.kind() {
        PublishErrorKind::WrongLastSequence => Answer::OtherLast,
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => match reports.refusal() {
            Some(refusal) => Answer::Invalid(refusal),
            None => Answer::Lost(text),
        },
        PublishErrorKind::StreamNotFound => Answer::Refused(text),
        PublishErrorKind::MaxPayloadExceeded => Answer::Invalid(text),
        _ => {
            let code = std::error::Error::source(error)
                .and_then(|source| source.downcast_ref::<jetstream::Error>())
                .map(jetstream::Error::error_code);
            match code {
                Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT) => Answer::OtherLast,
                // A full stream, a lack of memory, a change of leaders.
                Some(_) => Answer::Refused(text),
                None => Answer::Lost(text),
            }
        }
    }
}

/// Whether what came is not what a server of NATS sends, or its certificate is not valid.
fn is_misunderstanding(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
        }
        cause = error.source();
    }
    false
}
