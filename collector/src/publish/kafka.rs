//! The connection to Kafka.
//!
//! One connection serves until the first error; then another one is made, whose producer takes over from the one before.

mod checks;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use krafka::admin::{
    AdminClient, ConfigEntry, ConfigResource, DescribeConfigsOptions, DescribeTopicsOptions,
    DescribeTransactionsOptions, ListOffsetsOptions, OffsetSpec, TopicDescription, TopicPartition,
};
use krafka::auth::{AuthConfig, TlsConfig};
use krafka::consumer::{AutoOffsetReset, Consumer, ConsumerRecord, IsolationLevel};
use krafka::error::ErrorCode;
use krafka::producer::TransactionalProducer;
use krafka::{Kafka, KrafkaError, PartitionId, ProtocolErrorKind, Record};
use tokio::time::Instant;

use super::connection::{is_loopback, with_causes};
use super::transactions::{Ends, Topic, TopicLimits};
use super::{BrokerError, Message, SaslMechanism, Stored};
use crate::text::printable;
use checks::{is_fencing, is_refusal, number, setting, warnings_of, warnings_of_settings};

/// Maximum time of a connection's beginning.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time until a request is answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time until messages are stored, or a transaction is begun or ended, with all attempts.
const TRANSACTION_STEP_TIMEOUT: Duration = Duration::from_secs(12);
/// Time after which the server aborts the transaction of a publisher that is gone. Until then consumers wait.
const TRANSACTION_TIMEOUT: Duration = Duration::from_mins(1);
/// First wait before a request is sent again, such as for the next transaction while the last one is being ended.
const RETRY_WAIT: Duration = Duration::from_millis(5);
/// Maximum size of what is sent together to a partition.
const BATCH_BYTES: usize = 512 * 1024;
/// How many offsets before the end the last message is looked for first, and by which factor further back then.
const LOOK_BACK: i64 = 16;
/// Time that a read waits for messages.
const READ_WAIT: Duration = Duration::from_millis(100);
/// Maximum size of messages that are read together, so that also a search far back is one read.
const READ_BYTES: i32 = 16 * 1024 * 1024;
const UNLIMITED: i32 = -1;
/// Maximum size of a batch where the topic's configuration cannot be read: the default of Kafka.
const DEFAULT_MAX_MESSAGE_BYTES: usize = 1_048_588;
const PERMISSIONS: &str = "the user needs: Read, Write, Describe and DescribeConfigs on the topic, Write and Describe on \
     the transactional id polisen-events-collector.TOPIC";

/// How the client proves who it is.
#[derive(Clone, Default)]
pub enum KafkaAuth {
    /// Not at all.
    #[default]
    Nothing,
    /// A name and a password, by a mechanism of SASL.
    Sasl(SaslMechanism, String, String),
}

impl fmt::Debug for KafkaAuth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => formatter.write_str("Nothing"),
            Self::Sasl(mechanism, ..) => {
                formatter.debug_tuple("Sasl").field(mechanism).finish_non_exhaustive()
            }
        }
    }
}

/// A connection that is in use.
struct Connection {
    kafka: Kafka,
    admin: AdminClient,
    consumer: Consumer,
    partitions: PartitionId,
    batch_bytes: usize,
}

/// A topic of Kafka.
pub struct KafkaTopic {
    servers: Vec<String>,
    topic: String,
    tls: bool,
    auth: KafkaAuth,
    connection: Option<Connection>,
    producer: Option<TransactionalProducer>,
}

impl fmt::Debug for KafkaTopic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KafkaTopic").field("target", &self.target()).finish_non_exhaustive()
    }
}

impl KafkaTopic {
    /// A topic of a cluster, of which some servers are named, each `HOST:PORT`. Without `tls` only servers on this machine are
    /// called without encryption.
    #[must_use]
    pub fn new(servers: Vec<String>, topic: String, tls: bool, auth: KafkaAuth) -> Self {
        let tls = tls || !servers.iter().all(|server| is_loopback(server));
        Self { servers, topic, tls, auth, connection: None, producer: None }
    }

    fn security(&self) -> AuthConfig {
        let auth = match &self.auth {
            KafkaAuth::Nothing => AuthConfig::plaintext(),
            KafkaAuth::Sasl(SaslMechanism::Plain, user, password) => AuthConfig::sasl_plain(user, password),
            KafkaAuth::Sasl(SaslMechanism::ScramSha256, user, password) => {
                AuthConfig::sasl_scram_sha256(user, password)
            }
            KafkaAuth::Sasl(SaslMechanism::ScramSha512, user, password) => {
                AuthConfig::sasl_scram_sha512(user, password)
            }
        };
        if self.tls { auth.with_tls(TlsConfig::new().with_native_roots()) } else { auth }
    }

    async fn connected(&self) -> Result<(Kafka, Consumer), KrafkaError> {
        let kafka = Kafka::builder(self.servers.join(","))
            .client_id("polisen-events-collector")
            .security(self.security())
            .connect_timeout(CONNECT_TIMEOUT)
            .request_timeout(ANSWER_TIMEOUT)
            .connect()
            .await?;
        let consumer = kafka
            .consumer_without_group()
            .isolation_level(IsolationLevel::ReadCommitted)
            .auto_offset_reset(AutoOffsetReset::Earliest)
            .enable_auto_commit(false)
            .fetch_max_wait(READ_WAIT)
            .fetch_max_bytes(READ_BYTES)
            .max_partition_fetch_bytes(READ_BYTES)
            .max_poll_records(UNLIMITED)
            .max_buffered_records(0)
            .metrics_push(false)
            .build()
            .await?;
        Ok((kafka, consumer))
    }

    /// Without encryption every server of the cluster must be on this machine, not only those that are named.
    async fn check_servers(&self, consumer: &Consumer) -> Result<(), BrokerError> {
        let cluster = consumer.fetch_metadata(None).await;
        let cluster = cluster.map_err(|error| self.failed("cannot ask for the servers", &error))?;
        match cluster.brokers.iter().find(|server| !self.tls && !is_loopback(server.address())) {
            None => Ok(()),
            Some(server) => Err(BrokerError::permanent(
                format!(
                    "{} names the server {}, which is not on this machine",
                    self.target(),
                    printable(server.address())
                ),
                "servers on other machines must offer TLS: kafka+tls://…",
            )),
        }
    }

    async fn described(&self, admin: &AdminClient) -> Result<TopicDescription, BrokerError> {
        let described = admin.describe_topics([&self.topic], DescribeTopicsOptions::default()).await;
        let described = described.and_then(|mut topics| {
            topics.remove(&self.topic).unwrap_or_else(|| Err(KrafkaError::unknown_topic(&self.topic)))
        });
        let topic = described.map_err(|error| self.failed("cannot ask for the topic", &error))?;
        // The numbers of the operations Read and Write in Kafka's protocol.
        let needed = 1 << 3 | 1 << 4;
        if topic.authorized_operations.is_some_and(|allowed| allowed & needed != needed) {
            let message = format!("{} does not permit to read and write", self.target());
            return Err(BrokerError::permanent(message, PERMISSIONS));
        }
        Ok(topic)
    }

    /// Whether the transactional id may be used, as far as that can be asked.
    async fn check_transactional_id(&self, admin: &AdminClient) -> Result<(), BrokerError> {
        let id = self.transactional_id();
        let described = admin.describe_transactions([&id], DescribeTransactionsOptions::default()).await;
        match described.map(|mut found| found.remove(&id)) {
            Ok(Some(Err(
                error @ KrafkaError::Broker { code: ErrorCode::TransactionalIdAuthorizationFailed, .. },
            ))) => Err(self.failed("cannot use the transactional id", &error)),
            _ => Ok(()),
        }
    }

    async fn configuration(&self, admin: &AdminClient) -> Result<Vec<ConfigEntry>, KrafkaError> {
        let resource = ConfigResource::topic(&self.topic);
        let mut found = admin.describe_configs([resource.clone()], DescribeConfigsOptions::default()).await?;
        found.remove(&resource).unwrap_or_else(|| Err(KrafkaError::unknown_topic(&self.topic)))
    }

    /// The name by which the cluster knows the publisher of this topic, whoever it is.
    fn transactional_id(&self) -> String {
        format!("polisen-events-collector.{}", self.topic)
    }

    fn connection(&self) -> Result<&Connection, BrokerError> {
        self.connection.as_ref().ok_or_else(not_connected)
    }

    async fn offsets(&self, spec: OffsetSpec, read_committed: bool) -> Result<Vec<i64>, BrokerError> {
        let Connection { admin, partitions, .. } = self.connection()?;
        let options = ListOffsetsOptions::default().read_committed(read_committed);
        let all = (0..*partitions).map(|partition| (TopicPartition::new(&*self.topic, partition), spec));
        let failed = |error: &KrafkaError| self.failed("cannot ask for offsets", error);
        let mut found = admin.list_offsets(all, options).await.map_err(|error| failed(&error))?;
        let offset_of = |partition| match found.remove(&TopicPartition::new(&*self.topic, partition)) {
            Some(listed) => listed.map(|listed| listed.offset).map_err(|error| failed(&error)),
            None => Err(BrokerError::Temporary(format!("{} names no offset", self.target()))),
        };
        (0..*partitions).map(offset_of).collect()
    }

    /// The last committed message of a partition between two offsets.
    async fn last_between(
        &self,
        partition: PartitionId,
        from: i64,
        until: i64,
    ) -> Result<Option<ConsumerRecord>, KrafkaError> {
        let Ok(Connection { consumer, .. }) = self.connection() else { return Ok(None) };
        consumer.seek(&self.topic, partition, from).await?;
        let (mut last, begun) = (None, Instant::now());
        while consumer.position(&self.topic, partition).await.is_none_or(|position| position < until) {
            if begun.elapsed() > ANSWER_TIMEOUT {
                return Err(KrafkaError::timeout("reading the last message"));
            }
            let records = consumer.poll(READ_WAIT).await?;
            last = records.into_iter().rfind(|record| record.offset < until).or(last);
        }
        Ok(last)
    }

    fn record(&self, publisher: &str, message: &Message) -> Record {
        let record = Record::new(&*self.topic, message.value.clone())
            .key(message.id.to_string())
            .header("publisher", publisher.to_owned());
        message.headers().into_iter().fold(record, |record, (name, value)| record.header(name, value))
    }

    /// Sends messages in a transaction that is not ended, and waits until they are stored.
    async fn send(
        &self,
        producer: &TransactionalProducer,
        records: impl Iterator<Item = Record>,
    ) -> Result<(), KrafkaError> {
        producer.begin()?;
        let mut under_way = Vec::new();
        for record in records {
            under_way.push(producer.enqueue(record).await?);
        }
        producer.flush().await?;
        for answer in under_way {
            let _ = answer.await?;
        }
        Ok(())
    }

    /// An error before which nothing was committed.
    fn failed(&self, what: &str, error: &KrafkaError) -> BrokerError {
        let message = format!("{}: {what}: {}", self.target(), with_causes(error));
        match error {
            _ if is_fencing(error) => BrokerError::Fenced { target: self.target(), reason: message },
            KrafkaError::Auth { source: Some(_), .. } => BrokerError::permanent(
                message,
                "name servers of Kafka with a certificate that is trusted; SSL_CERT_FILE names other root certificates",
            ),
            KrafkaError::Auth { .. } => {
                BrokerError::permanent(message, "check publish_sasl, the user and the password")
            }
            KrafkaError::UnknownTopic { .. }
            | KrafkaError::Broker { code: ErrorCode::UnknownTopicOrPartition, .. } => BrokerError::permanent(
                format!("{} does not exist", self.target()),
                "create the topic: kafka-topics.sh --create --topic TOPIC --partitions 1 --replication-factor 3",
            ),
            KrafkaError::Broker { code, .. } if is_refusal(*code) => {
                BrokerError::permanent(message, PERMISSIONS)
            }
            KrafkaError::Broker {
                code:
                    ErrorCode::UnsupportedSaslMechanism
                    | ErrorCode::IllegalSaslState
                    | ErrorCode::SaslAuthenticationFailed,
                ..
            } => BrokerError::permanent(message, "check publish_sasl, the user and the password"),
            KrafkaError::Protocol { kind: ProtocolErrorKind::UnknownApiVersion, .. } => {
                BrokerError::permanent(message, "name servers of Kafka 3.9 or later")
            }
            KrafkaError::Broker {
                code:
                    ErrorCode::MessageTooLarge
                    | ErrorCode::RecordListTooLarge
                    | ErrorCode::InvalidRecord
                    | ErrorCode::InvalidTransactionTimeout
                    | ErrorCode::PolicyViolation,
                ..
            }
            | KrafkaError::Config { .. } => BrokerError::Permanent { message, hint: None },
            _ => BrokerError::Temporary(message),
        }
    }
}

#[async_trait]
impl Topic for KafkaTopic {
    async fn connect(&mut self) -> Result<TopicLimits, BrokerError> {
        (self.producer, self.connection) = (None, None);
        let (kafka, consumer) =
            self.connected().await.map_err(|error| self.failed("cannot connect", &error))?;
        self.check_servers(&consumer).await?;
        let admin = kafka.admin().default_api_timeout(TRANSACTION_STEP_TIMEOUT);
        let topic = self.described(&admin).await?;
        self.check_transactional_id(&admin).await?;
        let (mut limit, mut warnings) = (DEFAULT_MAX_MESSAGE_BYTES, warnings_of(&topic));
        match self.configuration(&admin).await {
            Ok(entries) => {
                if setting(&entries, "cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
                    return Err(BrokerError::permanent(
                        format!("{} is compacted, which removes events", self.target()),
                        "set cleanup.policy=delete",
                    ));
                }
                limit = number(&entries, "max.message.bytes")
                    .and_then(|limit| usize::try_from(limit).ok())
                    .unwrap_or(limit);
                warnings.extend(warnings_of_settings(&entries));
            }
            Err(error) => warnings.push(format!("its configuration cannot be read: {}", with_causes(&error))),
        }
        let partitions = PartitionId::try_from(topic.partitions.len()).unwrap_or(PartitionId::MAX);
        let batch_bytes = BATCH_BYTES.min(limit);
        self.connection = Some(Connection { kafka, admin, consumer, partitions, batch_bytes });
        Ok(TopicLimits { max_message_bytes: Some(limit), warnings })
    }

    async fn take_over(&mut self) -> Result<(), BrokerError> {
        let Connection { kafka, batch_bytes, .. } = self.connection()?;
        let producer = kafka
            .producer()
            .batch_size(*batch_bytes)
            .delivery_timeout(TRANSACTION_STEP_TIMEOUT)
            .max_block(TRANSACTION_STEP_TIMEOUT)
            .retry_backoff(RETRY_WAIT)
            .transaction_timeout(TRANSACTION_TIMEOUT)
            .metrics_push(false)
            .build_transactional(self.transactional_id())
            .await;
        self.producer = Some(producer.map_err(|error| self.failed("cannot take over", &error))?);
        Ok(())
    }

    async fn ends(&mut self) -> Result<Vec<Ends>, BrokerError> {
        let first = self.offsets(OffsetSpec::Earliest, false).await?;
        let end = self.offsets(OffsetSpec::Latest, false).await?;
        let stable = self.offsets(OffsetSpec::Latest, true).await?;
        let all = first.into_iter().zip(stable).zip(end);
        Ok(all.map(|((first, stable), end)| Ends { first, stable, end }).collect())
    }

    async fn last(&mut self, partition: usize, ends: Ends) -> Result<Option<Stored>, BrokerError> {
        let partition = PartitionId::try_from(partition).unwrap_or(PartitionId::MAX);
        let consumer = &self.connection()?.consumer;
        let assigned = consumer.assign(&self.topic, vec![partition]).await;
        assigned.map_err(|error| self.failed("cannot read the last message", &error))?;
        let (mut from, mut back) = (ends.stable, LOOK_BACK);
        while from > ends.first {
            from = ends.stable.saturating_sub(back).max(ends.first);
            let found = self.last_between(partition, from, ends.stable).await;
            if let Some(record) =
                found.map_err(|error| self.failed("cannot read the last message", &error))?
            {
                return Ok(Some(stored(&record)));
            }
            // Only transactions that were aborted.
            back = back.saturating_mul(LOOK_BACK);
        }
        Ok(None)
    }

    async fn commit(&mut self, publisher: &str, messages: &[Message]) -> Result<(), BrokerError> {
        let producer = self.producer.as_ref().ok_or_else(not_connected)?;
        let records = messages.iter().map(|message| self.record(publisher, message));
        let sent = self.send(producer, records).await;
        sent.map_err(|error| self.failed("cannot publish", &error))?;
        producer.commit().await.map_err(|error| match self.failed("cannot commit", &error) {
            BrokerError::Temporary(reason) => BrokerError::OutcomeUnknown(reason),
            error => error,
        })
    }

    fn target(&self) -> String {
        format!("kafka://{}/{}", self.servers.join(","), self.topic)
    }
}

fn not_connected() -> BrokerError {
    BrokerError::Temporary("not connected".to_owned())
}

fn stored(record: &ConsumerRecord) -> Stored {
    let header = |name: &str| {
        let (_, value) = record.headers.iter().find(|(key, _)| key == name)?;
        String::from_utf8(value.as_ref()?.to_vec()).ok()
    };
    Stored { position: header("ce_id"), publisher: header("publisher") }
}
