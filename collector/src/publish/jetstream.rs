//! Publishes to a stream of NATS JetStream so that each message is stored once.
//!
//! Each message states the sequence number of the message before it (`Nats-Expected-Last-Sequence`). The server refuses it if
//! another one is last, so that of messages sent together the first few are stored or all, never one twice and never one without
//! those before it, however late it arrives. That also refuses what an earlier process had under way, and a second publisher.
//! The id of the message (`Nats-Msg-Id`) is its position: within the server's window it also refuses what `--from` would repeat.

use async_trait::async_trait;

use super::{Broker, BrokerError, Message, Opened, Position, Published};

/// Number of times that a publisher which has stored nothing yet looks again at a stream that another one writes to.
const TAKEOVERS: u32 = 5;

/// What a stream takes and keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamLimits {
    /// Maximum size of a message in bytes, if there is one.
    pub max_message_bytes: Option<usize>,
    /// What endangers messages or their position.
    pub warnings: Vec<String>,
}

/// The last message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The header `ce_id`.
    pub position: Option<String>,
    /// The header `publisher`.
    pub publisher: Option<String>,
}

/// What the server says of a message that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is stored under this sequence number.
    Stored(u64),
    /// It is not stored: one with its id was, under this sequence number.
    Duplicate(u64),
    /// It is not stored: another message is last.
    OtherLast,
    /// The answer was lost.
    Lost(String),
    /// It is not stored, but may be later.
    Refused(String),
    /// It is not stored, and will not be.
    Invalid(String),
}

/// A stream, as a connection to its server offers it.
#[async_trait]
pub trait Stream: Send {
    /// Connects anew.
    async fn connect(&mut self) -> Result<StreamLimits, BrokerError>;

    /// The sequence number of the last message, 0 before the first one, and that message if it is still there.
    async fn last(&mut self) -> Result<(u64, Option<Stored>), BrokerError>;

    /// Sends messages in their order; the first one expects that the message of the number `expected` is last, each other one the
    /// one before it. The answers up to the first one that is not [`Answer::Stored`].
    async fn append(&mut self, publisher: &str, expected: u64, messages: &[Message]) -> Vec<Answer>;

    /// Its address.
    fn target(&self) -> String;
}

/// A publisher's view of a stream.
#[derive(Debug)]
pub struct JetStream<S> {
    stream: S,
    /// Names this publisher in each message.
    publisher: String,
    /// The number of the last message.
    last: u64,
    /// Whether this publisher has stored a message.
    has_stored: bool,
    takeovers: u32,
}

impl<S: Stream> JetStream<S> {
    /// Publishes to a stream; `publisher` differs from that of every other process.
    #[must_use]
    pub fn new(stream: S, publisher: String) -> Self {
        Self { stream, publisher, last: 0, has_stored: false, takeovers: 0 }
    }

    /// Another message is last than the one that was expected. Is it one of this publisher, whose answer was lost?
    async fn explain_other_last(&mut self) -> Result<BrokerError, BrokerError> {
        let (_, stored) = self.stream.last().await?;
        let publisher = stored.and_then(|stored| stored.publisher);
        if publisher.as_ref() == Some(&self.publisher) {
            return Ok(BrokerError::OutcomeUnknown("the answer to an earlier message was lost".to_owned()));
        }
        if !self.has_stored && self.takeovers < TAKEOVERS {
            // Messages that an earlier process had under way arrive until it is over.
            self.takeovers += 1;
            return Ok(BrokerError::Temporary("messages of an earlier publisher arrive".to_owned()));
        }
        let reason = match publisher {
            Some(publisher) => {
                format!("its last message is of publisher {publisher}, this is {}", self.publisher)
            }
            None => "its last message is not of a publisher, or gone".to_owned(),
        };
        Ok(BrokerError::Fenced { target: self.stream.target(), reason })
    }

    /// The server knows the id of a message and has not stored it now.
    async fn explain_duplicate(
        &mut self,
        message: &Message,
        number: u64,
    ) -> Result<BrokerError, BrokerError> {
        let (_, stored) = self.stream.last().await?;
        let position = stored.and_then(|stored| stored.position?.parse::<Position>().ok());
        if position.is_some_and(|last| last.order() >= message.position.order()) {
            return Ok(BrokerError::OutcomeUnknown("an earlier attempt has stored a message".to_owned()));
        }
        Ok(BrokerError::permanent(
            format!(
                "{} has stored message {} before, as number {number}, and does not store it again",
                self.stream.target(),
                message.position
            ),
            "the message was purged or --from lies too early; give a later cursor, or wait until the stream's \
             duplicate window is over",
        ))
    }
}

#[async_trait]
impl<S: Stream> Broker for JetStream<S> {
    async fn open(&mut self) -> Result<Opened, BrokerError> {
        let StreamLimits { max_message_bytes, warnings } = self.stream.connect().await?;
        let (last, stored) = self.stream.last().await?;
        self.last = last;
        let published = match stored {
            None if last == 0 => Published::Nothing,
            None => Published::Unknown,
            Some(stored) => {
                let position = stored.position.and_then(|position| position.parse().ok());
                let position = position.ok_or_else(|| {
                    BrokerError::permanent(
                        format!(
                            "the last message of {} was not written by `collector publish`",
                            self.target()
                        ),
                        "the stream must be the publisher's own: no other subjects, sources or publishers",
                    )
                })?;
                Published::UpTo(position)
            }
        };
        Ok(Opened { published, max_message_bytes, warnings })
    }

    async fn publish(&mut self, messages: &[Message]) -> Result<(), BrokerError> {
        let mut answers = self.stream.append(&self.publisher, self.last, messages).await.into_iter();
        for message in messages {
            let answer =
                answers.next().unwrap_or_else(|| Answer::Lost("the server did not answer".to_owned()));
            let explained = match answer {
                Answer::Stored(number) if number == self.last + 1 => {
                    self.last = number;
                    self.has_stored = true;
                    continue;
                }
                Answer::Stored(number) => Ok(BrokerError::Fenced {
                    target: self.stream.target(),
                    reason: format!("a message was stored as number {number} instead of {}", self.last + 1),
                }),
                Answer::Duplicate(number) => self.explain_duplicate(message, number).await,
                Answer::OtherLast => self.explain_other_last().await,
                Answer::Lost(reason) => Ok(BrokerError::OutcomeUnknown(reason)),
                Answer::Refused(reason) => Ok(BrokerError::Temporary(reason)),
                Answer::Invalid(message) => Ok(BrokerError::Permanent { message, hint: None }),
            };
            return Err(explained.unwrap_or_else(|error| error));
        }
        Ok(())
    }

    fn target(&self) -> String {
        self.stream.target()
    }
}
