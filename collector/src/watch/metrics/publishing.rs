//! The metrics of publishing. They exist where the service publishes.

use prometheus::{Gauge, IntCounterVec, IntGauge};

use super::{Registrar, seconds_of, whole};
use crate::quantity::Quantity;
use crate::record::RunRecord;
use crate::watch::status::Published;

/// What a run stores to be published.
const PUBLISHED: [Quantity; 4] =
    [Quantity::NewEventsCount, Quantity::RevisionsCount, Quantity::WithdrawnCount, Quantity::ReturnedCount];

#[derive(Debug)]
pub(super) struct Publishing {
    messages: IntCounterVec,
    caught_up: Gauge,
    lag: IntGauge,
    healthy: IntGauge,
}

impl Publishing {
    pub(super) fn new(new: &Registrar<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            messages: new.counters("published_total", "Messages that were published, by kind.", "kind")?,
            caught_up: new.gauge(
                "publishing_caught_up_timestamp_seconds",
                "When everything was last published that was committed.",
            )?,
            lag: new.whole(
                "publishing_lag_messages",
                "Messages that runs of this process stored since everything was last published.",
            )?,
            healthy: new.whole("publishing_healthy", "Whether publishing succeeds: 1 or 0.")?,
        })
    }

    /// A run has stored something.
    pub(super) fn note_run(&self, record: &RunRecord) {
        let stored = PUBLISHED.iter().filter_map(|quantity| record.quantities.count(*quantity));
        self.lag.add(whole(stored.sum()));
    }

    /// Everything is published, or publishing has failed.
    pub(super) fn note(&self, published: Option<Published>) {
        self.healthy.set(published.is_some().into());
        let Some(Published { at, messages }) = published else { return };
        self.caught_up.set(seconds_of(at));
        self.lag.set(0);
        for (kind, count) in messages {
            self.messages.with_label_values(&[kind.name()]).inc_by(count);
        }
    }
}
