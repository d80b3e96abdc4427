//! What a broker has to do for [`super::Publisher`]: store messages with their positions, and say which one is last.

use async_trait::async_trait;
use thiserror::Error;

use super::{Message, Position};

/// What a broker says of what was published so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// Nothing, ever.
    Nothing,
    /// Everything up to this position.
    UpTo(Position),
    /// There were messages, and the last one is gone: how far they reached is unknown.
    Unknown,
}

/// What a broker says when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What was published so far.
    pub published: Published,
    /// Maximum size of a message with its headers in bytes, if there is one.
    pub max_message_bytes: Option<usize>,
    /// What endangers messages or their position.
    pub warnings: Vec<String>,
}

/// Why a broker did not store messages.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// Another publisher has taken over. This one must end, and not start again by itself.
    #[error("another publisher writes to {target}: {reason}")]
    Fenced {
        /// Where.
        target: String,
        /// How that was noticed.
        reason: String,
    },
    /// It is unknown whether, or how many of, the messages were stored. [`Broker::open`] finds out.
    #[error("the outcome of publishing is unknown: {0}")]
    OutcomeUnknown(String),
    /// It may succeed later. Nothing is known to be stored.
    #[error("{0}")]
    Temporary(String),
    /// It will not succeed until somebody changes something.
    #[error("{message}")]
    Permanent {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: Option<&'static str>,
    },
}

impl BrokerError {
    /// An error that lasts.
    pub(crate) fn permanent(message: impl Into<String>, hint: &'static str) -> Self {
        Self::Permanent { message: message.into(), hint: Some(hint) }
    }
}

/// A broker, as the publisher uses it.
#[async_trait]
pub trait Broker: Send {
    /// Connects anew and finds out how far messages reach. Called first, and after each error.
    ///
    /// # Errors
    /// [`BrokerError`], never [`BrokerError::OutcomeUnknown`].
    async fn open(&mut self) -> Result<Opened, BrokerError>;

    /// Connects anew and finds out how far messages reach, without ending another publisher or writing anything.
    ///
    /// # Errors
    /// As [`Broker::open`].
    async fn examine(&mut self) -> Result<Opened, BrokerError> {
        self.open().await
    }

    /// Stores messages that follow the last stored one, in their order, each with its position: all of them, or after an error
    /// the first few.
    ///
    /// # Errors
    /// [`BrokerError`]. The messages after the ones that are stored are not stored later, or [`Broker::open`] reports them.
    async fn publish(&mut self, messages: &[Message]) -> Result<(), BrokerError>;

    /// Where it publishes, for people.
    fn target(&self) -> String;
}

#[async_trait]
impl Broker for Box<dyn Broker> {
    async fn open(&mut self) -> Result<Opened, BrokerError> {
        (**self).open().await
    }

    async fn examine(&mut self) -> Result<Opened, BrokerError> {
        (**self).examine().await
    }

    async fn publish(&mut self, messages: &[Message]) -> Result<(), BrokerError> {
        (**self).publish(messages).await
    }

    fn target(&self) -> String {
        (**self).target()
    }
}
