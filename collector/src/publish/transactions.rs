//! Publishes to a topic of Kafka so that each message is stored once.
//!
//! Messages are stored in transactions, of each all or none. A publisher takes over first (`InitProducerId`): that fences every
//! earlier one, and commits or aborts what it had under way. Then the last committed message of the topic says how far publishing has
//! come; whatever goes wrong, both are done again, and nothing is concluded from a lost answer.
//!
//! A publisher never ends a transaction while a message of it is under way: it commits after all answers, and does not abort. So
//! a message can only arrive late where the one who took over has aborted its transaction, whose partitions then refuse it.

use async_trait::async_trait;

use super::{Broker, BrokerError, Message, Opened, Position, Published, Stored};

/// Number of times in a row that a publisher takes over from another one that has stored nothing.
const TAKEOVERS: u32 = 5;

/// What a topic takes and keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicLimits {
    /// Maximum size of a message in bytes, if there is one.
    pub max_message_bytes: Option<usize>,
    /// What endangers messages or their position.
    pub warnings: Vec<String>,
}

/// The ends of a partition, as offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Of the first message that is kept.
    pub first: i64,
    /// Up to which every transaction is decided.
    pub stable: i64,
    /// After the last message.
    pub end: i64,
}

impl Ends {
    fn is_undecided(&self) -> bool {
        self.stable < self.end
    }
}

/// A topic, as a connection to its cluster offers it. [`BrokerError::Fenced`] of its methods means that another producer has
/// begun with the same transactional id.
#[async_trait]
pub trait Topic: Send {
    /// Connects anew, and changes nothing.
    async fn connect(&mut self) -> Result<TopicLimits, BrokerError>;

    /// Begins as the only producer: earlier ones are fenced, and what they had under way is committed or aborted.
    async fn take_over(&mut self) -> Result<(), BrokerError>;

    /// The ends of each partition.
    async fn ends(&mut self) -> Result<Vec<Ends>, BrokerError>;

    /// The last committed message of a partition between its first and its stable offset.
    async fn last(&mut self, partition: usize, ends: Ends) -> Result<Option<Stored>, BrokerError>;

    /// Stores messages in one transaction, in their order, which is committed when all are stored, and never aborted.
    async fn commit(&mut self, publisher: &str, messages: &[Message]) -> Result<(), BrokerError>;

    /// Its address.
    fn target(&self) -> String;
}

/// The last message of a topic, and its publisher.
type Last = Option<(Position, Option<String>)>;

/// A publisher's view of a topic.
#[derive(Debug)]
pub struct Transactions<T> {
    topic: T,
    /// Names this publisher in each message.
    publisher: String,
    /// The last message that is known to be stored.
    last: Option<Position>,
    takeovers: u32,
}

impl<T: Topic> Transactions<T> {
    /// Publishes to a topic; `publisher` differs from that of every other process.
    #[must_use]
    pub fn new(topic: T, publisher: String) -> Self {
        Self { topic, publisher, last: None, takeovers: 0 }
    }

    /// How far messages reach.
    async fn find_last(&mut self, ends: &[Ends]) -> Result<(Last, Published), BrokerError> {
        let (mut last, mut is_lost): (Last, bool) = (None, false);
        for (partition, ends) in ends.iter().enumerate() {
            let Some(stored) = self.topic.last(partition, *ends).await? else {
                is_lost |= ends.first > 0;
                continue;
            };
            let position = stored.position.and_then(|position| position.parse::<Position>().ok());
            let Some(position) = position else {
                return Err(BrokerError::permanent(
                    format!("the last message of {} was not written by `collector publish`", self.target()),
                    "the topic must be the publisher's own: no other producers",
                ));
            };
            if last.as_ref().is_some_and(|(other, _)| other.cursor.archive() != position.cursor.archive()) {
                return Err(BrokerError::permanent(
                    format!("the partitions of {} hold messages of different archives", self.target()),
                    "the topic must be the publisher's own: one archive for each topic",
                ));
            }
            if last.as_ref().is_none_or(|(other, _)| other.order() < position.order()) {
                last = Some((position, stored.publisher));
            }
        }
        let published = match &last {
            _ if is_lost => Published::Unknown,
            Some((position, _)) => Published::UpTo(position.clone()),
            None => Published::Nothing,
        };
        Ok((last, published))
    }

    async fn take_over(&mut self) -> Result<Published, BrokerError> {
        self.topic.take_over().await?;
        let ends = self.topic.ends().await?;
        if ends.iter().any(Ends::is_undecided) {
            // What follows an open transaction cannot be read, so that the last message may be unknown.
            return Err(BrokerError::Temporary(format!(
                "a transaction of another program is open in {}; the topic must be the publisher's own",
                self.target()
            )));
        }
        let (last, published) = self.find_last(&ends).await?;
        self.last = last.map(|(position, _)| position);
        Ok(published)
    }

    /// Another producer has begun: another publisher, or this one by a request that arrived late.
    async fn explain(&mut self, error: BrokerError) -> BrokerError {
        let BrokerError::Fenced { target, reason } = error else { return error };
        let last = match self.topic.ends().await {
            Ok(ends) => self.find_last(&ends).await.map(|(last, _)| last),
            Err(error) => Err(error),
        };
        let (position, publisher) = match last {
            Ok(last) => last.map_or((None, None), |(position, publisher)| (Some(position), publisher)),
            Err(error) => return error,
        };
        let is_unchanged = position == self.last;
        if !is_unchanged && publisher.as_ref() == Some(&self.publisher) {
            return BrokerError::OutcomeUnknown("the answer to a commit was lost".to_owned());
        }
        if is_unchanged && self.takeovers < TAKEOVERS {
            self.takeovers += 1;
            return BrokerError::Temporary(format!(
                "another publisher has begun, and has stored nothing yet: {reason}"
            ));
        }
        let reason = match publisher {
            Some(publisher) if publisher != self.publisher => {
                format!("its last message is of publisher {publisher}, this is {}", self.publisher)
            }
            _ => reason,
        };
        BrokerError::Fenced { target, reason }
    }
}

#[async_trait]
impl<T: Topic> Broker for Transactions<T> {
    async fn open(&mut self) -> Result<Opened, BrokerError> {
        let TopicLimits { max_message_bytes, warnings } = self.topic.connect().await?;
        let published = match self.take_over().await {
            Ok(published) => published,
            Err(error) => return Err(self.explain(error).await),
        };
        Ok(Opened { published, max_message_bytes, warnings })
    }

    async fn examine(&mut self) -> Result<Opened, BrokerError> {
        let TopicLimits { max_message_bytes, warnings } = self.topic.connect().await?;
        let ends = self.topic.ends().await?;
        let (_, published) = self.find_last(&ends).await?;
        Ok(Opened { published, max_message_bytes, warnings })
    }

    async fn publish(&mut self, messages: &[Message]) -> Result<(), BrokerError> {
        if let Err(error) = self.topic.commit(&self.publisher, messages).await {
            return Err(self.explain(error).await);
        }
        self.takeovers = 0;
        if let Some(message) = messages.last() {
            self.last = Some(message.position.clone());
        }
        Ok(())
    }

    fn target(&self) -> String {
        self.topic.target()
    }
}
