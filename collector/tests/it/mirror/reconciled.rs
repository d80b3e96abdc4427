//! After a split: the union of both, each event once, versions kept, nothing deleted.

use std::collections::BTreeSet;

use collector::mirror::reconcile::Reconciliation;
use fixtures::{Feed, FeedConfig};

use super::*;

pub(super) fn reconcile(from: &Site, to: &Site) -> Result<Reconciliation, MirrorError> {
    let mirror = Mirror::new(from.archive.clone(), to.archive.clone(), MirrorOptions::default());
    block_on(mirror.reconcile(|_| {}))
}

/// Both regions collect after the fail-over, and see different parts of what the feed publishes.
pub(super) fn split() -> (Site, Site) {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..60));
    mirror(&a, &b);
    a.run(&events(10..70));
    promote(&b, None).unwrap();
    a.run(&edited(20..80, |id| if id == 75 { "Stöld" } else { "Brand" }));
    b.run(&events(30..90));
    a.run(&edited(40..100, |id| if id % 10 == 5 { "Rån" } else { "Brand" }));
    b.run(&edited(95..155, |id| if id % 10 == 5 { "Inbrott" } else { "Brand" }));
    b.run(r#"[{"id": "x"}, 7]"#);
    a.run(r#"[{"id": "x"}, 8]"#);
    (a, b)
}

/// Each line under a folder, wherever it stands.
fn lines(site: &Site, folder: &str) -> Vec<String> {
    let of_folder = site.region.objects().into_iter().filter(|(key, _)| key.starts_with(folder));
    let mut lines: Vec<String> = of_folder
        .flat_map(|(_, bytes)| {
            String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn union_holds_each_event_and_version_once() {
    let (a, b) = split();
    let before =
        ["events/", "revisions/", "rejected/"].map(|folder| [lines(&a, folder), lines(&b, folder)].concat());
    let reconciled = reconcile(&b, &a).unwrap();
    assert!(reconciled.mirror.is_complete() && reconciled.commits > 0, "{reconciled:#?}");
    for site in [&a, &b] {
        site.assert_sound();
        assert_eq!(site.ids(), (0..155).collect::<Vec<_>>());
        // Every line that was stored is stored: as the event or as a version of it.
        let versions = [lines(site, "events/"), lines(site, "revisions/")].concat();
        for line in before[0].iter().chain(&before[1]) {
            assert!(versions.contains(line), "{} lacks {line}", site.region.name);
        }
        let mut unique = versions.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), versions.len());
        assert_eq!(lines(site, "rejected/").len(), 3);
    }
    // Nothing of the older archive was deleted.
    let kept =
        [lines(&a, "events/"), lines(&a, "revisions/"), lines(&a, "rejected/"), lines(&a, "repaired/")]
            .concat();
    assert!(before.iter().flatten().all(|line| kept.contains(line)));
}

/// Both collect for a week at ten times the usual rate: the union is what the feed published, each version once.
#[test]
fn week_apart_at_ten_times_the_rate_is_brought_together() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let config =
        FeedConfig { start: a.now, rate: 10.0, corrections: 0.05, log: false, ..FeedConfig::quiet(3) };
    let (mut feed, mut published) = (Feed::new(config), BTreeSet::new());
    let mut poll = |site: &mut Site| {
        feed.advance_by(TimeDelta::minutes(15));
        let body = String::from_utf8(feed.full_response().compact()).unwrap();
        let response = Response::parse(body.as_bytes()).unwrap();
        let events = response.elements().iter().map(|element| element.event.as_ref().unwrap());
        published.extend(events.map(|event| (event.id, event.fingerprint)));
        site.now = feed.now() - TimeDelta::minutes(30);
        site.run(&body);
    };
    poll(&mut a);
    mirror(&a, &b);
    promote(&b, None).unwrap();
    for _ in 0..7 * 48 {
        poll(&mut b);
        poll(&mut a);
    }
    let reconciled = reconcile(&b, &a).unwrap();
    assert!(reconciled.mirror.is_complete() && reconciled.commits > 250, "{reconciled:#?}");
    for site in [&a, &b] {
        site.assert_sound();
        let stored: Vec<_> = ["events/", "revisions/"]
            .iter()
            .flat_map(|folder| lines(site, folder))
            .map(|line| collector::event::parse_line(line.as_bytes()).unwrap())
            .map(|event| (event.id, event.fingerprint))
            .collect();
        assert_eq!(stored.len(), published.len(), "{}", site.region.name);
        assert_eq!(stored.into_iter().collect::<BTreeSet<_>>(), published, "{}", site.region.name);
    }
}

#[test]
fn roles_are_exchanged_again() {
    let (mut a, mut b) = split();
    reconcile(&b, &a).unwrap();
    assert!(matches!(a.try_run(&events(150..160)), Err(ArchiveError::Replica { .. })));
    b.run(&events(100..160));
    mirror(&b, &a);
    assert_eq!(promote(&a, Some(&b)).unwrap().epoch, 3);
    a.run(&events(105..165));
    a.assert_sound();
    assert_eq!(a.ids(), (0..165).collect::<Vec<_>>());
    mirror(&a, &b);
    b.assert_sound();
    assert_eq!(b.ids(), a.ids());
}

#[test]
fn repeating_changes_nothing() {
    let (a, b) = split();
    reconcile(&b, &a).unwrap();
    let events = |site: &Site| {
        let mut objects = site.region.objects();
        objects.retain(|key, _| !key.starts_with("metadata/"));
        objects
    };
    let before = (events(&a), events(&b));
    let again = reconcile(&b, &a).unwrap();
    assert_eq!((again.commits, again.mirror.objects), (0, 0), "{again:?}");
    assert_eq!(before, (events(&a), events(&b)));
}

#[test]
fn only_a_later_epoch_is_followed() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..60));
    mirror(&a, &b);
    promote(&b, None).unwrap();
    a.run(&events(10..70));
    b.run(&events(15..75));
    let before = (a.region.objects(), b.region.objects());
    let refused = reconcile(&a, &b).unwrap_err();
    assert!(matches!(refused, MirrorError::LaterEpoch { found: 2, epoch: 1, .. }), "{refused}");
    assert_eq!(before, (a.region.objects(), b.region.objects()));
}

/// Whatever request of either side it dies at, the next one finishes it, and nothing is lost or doubled.
#[test]
fn killed_reconciliations_are_finished_by_the_next_one() {
    let mut killed = 0;
    for side in 0..2 {
        for left in (0..).step_by(3) {
            let (a, b) = split();
            let (dying_a, dying_b) = match side {
                0 => (a.reached_again(left), b.reached_again(usize::MAX)),
                _ => (a.reached_again(usize::MAX), b.reached_again(left)),
            };
            let ended = reconcile(&dying_b, &dying_a);
            a.assert_sound();
            b.assert_sound();
            let reconciled = reconcile(&b, &a).unwrap();
            assert!(reconciled.mirror.is_complete(), "{left}: {reconciled:#?}");
            for site in [&a, &b] {
                site.assert_sound();
                assert_eq!(site.ids(), (0..155).collect::<Vec<_>>(), "{left} requests of side {side}");
            }
            if ended.is_ok() {
                break;
            }
            killed += 1;
        }
    }
    println!("reconciliations killed: {killed}");
    assert!(killed > 50, "{killed}");
}
