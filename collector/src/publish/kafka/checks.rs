//! What errors and the settings of a topic mean for publishing.

use krafka::KrafkaError;
use krafka::admin::{ConfigEntry, TopicDescription};
use krafka::error::ErrorCode;

/// The feed is never without news for longer.
const LEAST_RETENTION_MS: i64 = 1000 * 60 * 60 * 24 * 30;

pub(super) fn is_fencing(error: &KrafkaError) -> bool {
    match error {
        KrafkaError::Fenced { .. } => true,
        KrafkaError::Broker { code, .. } => matches!(
            code,
            ErrorCode::InvalidProducerEpoch
                | ErrorCode::ProducerFenced
                | ErrorCode::TransactionCoordinatorFenced
                | ErrorCode::InvalidTxnState
        ),
        _ => false,
    }
}

pub(super) fn is_refusal(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::TopicAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed
            | ErrorCode::TransactionalIdAuthorizationFailed
    )
}

pub(super) fn setting<'a>(entries: &'a [ConfigEntry], name: &str) -> Option<&'a str> {
    entries.iter().find(|entry| entry.name == name)?.value.as_deref()
}

pub(super) fn number(entries: &[ConfigEntry], name: &str) -> Option<i64> {
    setting(entries, name)?.parse().ok()
}

/// What of a topic endangers messages or their order.
pub(super) fn warnings_of(topic: &TopicDescription) -> Vec<String> {
    let mut warnings = Vec::new();
    let replicas = topic.partitions.iter().map(|partition| partition.replicas.len()).min().unwrap_or(0);
    if replicas <= 1 {
        warnings.push("it has one replica: it is lost with its server".to_owned());
    }
    if topic.partitions.iter().any(|partition| partition.isr.len() < partition.replicas.len()) {
        warnings.push("not all replicas are in sync".to_owned());
    }
    if topic.partitions.len() > 1 {
        warnings.push(format!(
            "it has {} partitions: the messages of an event keep their order, not those of the archive",
            topic.partitions.len()
        ));
    }
    warnings
}

/// What of the settings of a topic endangers messages or their position.
pub(super) fn warnings_of_settings(entries: &[ConfigEntry]) -> Vec<String> {
    let mut warnings = Vec::new();
    if number(entries, "min.insync.replicas").is_some_and(|least| least <= 1) {
        warnings.push(
            "min.insync.replicas is 1: what one server alone has stored is acknowledged, and lost with it"
                .to_owned(),
        );
    }
    if setting(entries, "unclean.leader.election.enable") == Some("true") {
        warnings.push("unclean.leader.election.enable: acknowledged messages may be lost".to_owned());
    }
    if let Some(time @ 0..LEAST_RETENTION_MS) = number(entries, "retention.ms") {
        warnings.push(format!(
            "messages are removed after {} s; after a longer time without news the position is lost",
            time / 1000
        ));
    }
    warnings
}
