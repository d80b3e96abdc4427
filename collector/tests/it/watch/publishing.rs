//! What the service shows of publishing.

use chrono::TimeDelta;
use collector::clock::Clock as _;
use collector::publish::MessageKind;
use collector::watch::status::Published;

use super::{Setup, body, get, metrics, pages};

/// The lag of publishing is what runs stored since everything was published.
#[tokio::test]
async fn lag_of_publishing_is_counted() {
    let mut setup = Setup::new();
    let address = pages(&setup);
    let figure =
        |name: &str| metrics(body(&get(address, "/metrics").1))[&format!("polisen_collector_{name}")];
    setup.status.note_publishing(None);
    setup.watch(TimeDelta::hours(24), |_, _| ()).await;
    let stored: f64 = ["new", "revised", "withdrawn", "returned"]
        .map(|kind| figure(&format!("events_total{{kind=\"{kind}\"}}")))
        .iter()
        .sum();
    assert!(stored > 500.0);
    assert_eq!((figure("publishing_lag_messages"), figure("publishing_healthy")), (stored, 0.0));
    let messages = [(MessageKind::Event, 7), (MessageKind::Revision, 0), (MessageKind::Withdrawal, 0)];
    setup.status.note_publishing(Some(Published { at: setup.clock.now(), messages }));
    assert_eq!((figure("publishing_lag_messages"), figure("publishing_healthy")), (0.0, 1.0));
    setup.status.note_publishing(None);
    assert_eq!((figure("publishing_lag_messages"), figure("publishing_healthy")), (0.0, 0.0));
    assert_eq!(figure("published_total{kind=\"event\"}"), 7.0);
}
