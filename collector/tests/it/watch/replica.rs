//! The replica of the archive, as the service shows it.

use chrono::TimeDelta;
use collector::clock::Clock as _;
use collector::mirror::state::MirrorState;
use collector::mirror::{MirrorError, MirrorReport};

use super::{Setup, body, get, pages};

/// When the replica was complete is known after a restart.
#[test]
fn state_of_the_replica_outlives_the_service() {
    let setup = Setup::new();
    let (health_file, now) = (setup.home.path("health.json"), setup.clock.now());
    let complete = now - TimeDelta::hours(10);
    MirrorState::new(complete).write(&health_file).unwrap();
    setup.status.note_mirror(&Err(MirrorError::SameStore("data".to_owned())), 1, &health_file, now);
    assert_eq!(MirrorState::read(&health_file).unwrap().last_success, complete);
    assert!(setup.status.check_health(&health_file, now).lines.contains("complete 600 minutes ago"));
}

/// A replica that cannot be written makes the service unhealthy once it has lacked objects for too long, and says so on the page.
#[tokio::test]
async fn health_covers_the_replica() {
    let mut setup = Setup::new();
    setup.watch(TimeDelta::hours(2), |_, _| ()).await;
    let health_file = setup.home.path("health.json");
    let is_healthy_after_failure = || {
        let now = setup.clock.now();
        setup.status.note_mirror(&Err(MirrorError::SameStore("data".to_owned())), 2, &health_file, now);
        let check = setup.status.check_health(&health_file, now);
        assert_eq!(check.healthy, !check.lines.contains("The replica was complete"), "{}", check.lines);
        check.healthy
    };
    assert!(setup.status.check_health(&health_file, setup.clock.now()).healthy);
    assert!(!is_healthy_after_failure(), "it has not been complete since the service began");
    let page = body(&get(pages(&setup), "/").1).to_owned();
    assert!(page.contains("Replica lacks") && page.contains("2 objects"), "{page}");
    setup.status.note_mirror(&Ok(MirrorReport::default()), 0, &health_file, setup.clock.now());
    assert!(is_healthy_after_failure(), "it was complete a moment ago");
    let kept = MirrorState::read(&health_file).unwrap();
    assert_eq!((kept.last_success, kept.lag_objects), (setup.clock.now(), 2));
    assert!(kept.error.is_some_and(|error| error.contains("data")));
}
