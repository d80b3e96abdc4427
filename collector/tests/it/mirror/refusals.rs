//! What is refused: with the reason, and without a change in either store.

use super::*;

/// The update is refused, and neither store has changed.
#[track_caller]
fn assert_refused(from: &Site, to: &Site) -> MirrorError {
    let before = (from.region.objects(), to.region.objects());
    let refused = try_mirror(from, to).unwrap_err();
    assert_eq!(before, (from.region.objects(), to.region.objects()), "{refused}");
    refused
}

#[test]
fn target_with_something_else_is_refused() {
    let (mut a, b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..40));
    for name in
        ["events/2026/01/01/events-1.jsonl", "metadata/last_seen.json", "repaired/x", "docs/notes.txt"]
    {
        let b = Site::new("b");
        let _ = block_on(b.region.inner.create(&Key::new(name).unwrap(), b"{\"seen_ids\":[]}")).unwrap();
        let refused = assert_refused(&a, &b);
        assert!(
            matches!(refused, MirrorError::NotEmpty { .. } | MirrorError::Archive(_)),
            "{name}: {refused}"
        );
    }
    let mut other = Site::at(Arc::new(Region::new("other")));
    other.now += TimeDelta::days(1);
    other.run(&events(3..43));
    mirror(&other, &b);
    let refused = assert_refused(&a, &b);
    assert!(matches!(refused, MirrorError::OtherArchive { .. }), "{refused}");
}

#[test]
fn wrong_direction_is_refused() {
    let (mut a, b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..40));
    mirror(&a, &b);
    let refused = assert_refused(&b, &a);
    assert!(matches!(refused, MirrorError::SourceFollows { .. }), "{refused}");
    assert!(refused.hint().unwrap().contains("exchanged"));
    // Into an archive that accepts runs itself.
    promote(&b, None).unwrap();
    let refused = assert_refused(&a, &b);
    assert!(matches!(refused, MirrorError::TargetIsPrimary { epoch: 2, .. }), "{refused}");
    let refused = assert_refused(&b, &a);
    assert!(matches!(refused, MirrorError::TargetIsPrimary { epoch: 1, .. }), "{refused}");
    assert!(matches!(assert_refused(&a, &a.reached_again(usize::MAX)), MirrorError::SameStore(_)));
}

#[test]
fn source_that_was_restored_is_refused() {
    let (mut a, b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..40));
    let before = a.region.objects();
    a.run(&events(5..45));
    mirror(&a, &b);
    let restored = Site::new("a");
    for (key, bytes) in before {
        let _ = block_on(restored.region.inner.create(&Key::new(key).unwrap(), &bytes)).unwrap();
    }
    let refused = assert_refused(&restored, &b);
    assert!(matches!(refused, MirrorError::SourceIsBehind { found: 2, last: 1, .. }), "{refused}");
    let mut restored = restored;
    restored.now += TimeDelta::hours(3);
    restored.run(&events(9..49));
    let refused = assert_refused(&restored, &b);
    assert!(matches!(refused, MirrorError::Diverged { sequence: 2, .. }), "{refused}");
}

#[test]
fn empty_source_is_refused() {
    let refused = assert_refused(&Site::new("a"), &Site::new("b"));
    assert!(matches!(refused, MirrorError::NoArchive(_)), "{refused}");
    let refused = promote(&Site::new("b"), None).unwrap_err();
    assert!(matches!(refused, MirrorError::NotAReplica(_)), "{refused}");
}

#[test]
fn incomplete_copy_is_promoted_only_by_force() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..40));
    assert!(try_mirror(&a, &b.reached_again(12)).is_err());
    let refused = promote(&b, None).unwrap_err();
    assert!(matches!(refused, MirrorError::IncompleteCopy(_)), "{refused}");
    block_on(adopt(&b.archive, None, None, true)).unwrap();
    b.run(&events(0..42));
    assert_eq!(b.ids(), (0..42).collect::<Vec<_>>());
    b.assert_sound();
}

/// A target that may not be written stays empty; one whose quota is reached in the middle stays sound. The next update finishes.
#[test]
fn target_without_permission_or_space_is_reported_and_left_sound() {
    let mut a = Site::new("a");
    a.run(&events(0..100));
    a.run(&edited(20..120, |id| if id % 9 == 0 { "Stöld" } else { "Brand" }));
    for accepted in 0.. {
        let b = Site::new("b");
        b.region.writes_left.store(accepted, Ordering::SeqCst);
        let ended = try_mirror(&a, &b);
        assert_eq!(accepted == 0, b.region.objects().is_empty());
        b.assert_sound();
        b.region.writes_left.store(usize::MAX, Ordering::SeqCst);
        mirror(&a, &b);
        assert_equal(&a, &b);
        match ended {
            Ok(_) => return assert!(accepted > 20, "{accepted}"),
            Err(refused) => assert!(refused.to_string().contains("the quota is reached"), "{refused}"),
        }
    }
}

/// An object that the replica holds with another content is reported, and neither it nor the ledger is touched.
#[test]
fn conflicts_are_reported_and_never_overwritten() {
    let (mut a, b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..40));
    mirror(&a, &b);
    let deposit = a.run(&events(5..45));
    let (key, size) = &deposit.objects[0];
    let other = vec![b'x'; *size];
    let _ = block_on(b.region.inner.create(key, &other)).unwrap();
    let ledger = b.region.objects()["metadata/last_seen.json"].clone();
    let report = try_mirror(&a, &b).unwrap();
    assert_eq!((report.conflicts_total, report.sequence), (1, 1), "{report:?}");
    assert_eq!(report.conflicts[0].object, key.to_string());
    let after = b.region.objects();
    assert_eq!(after[key.as_str()], other);
    let covered = |bytes: &[u8]| {
        let ledger: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        (ledger["lineage"].clone(), ledger["seen_ids"].clone(), ledger["claim"].clone())
    };
    assert_eq!(covered(&after["metadata/last_seen.json"]), covered(&ledger));
}

/// An object of equal size and other content is found by `--verify` among those that were copied before.
#[test]
fn verification_compares_content() {
    let (mut a, b) = (Site::new("a"), Site::new("b"));
    let deposit = a.run(&events(0..40));
    mirror(&a, &b);
    let (key, size) = &deposit.objects[3];
    let version = block_on(b.region.inner.get(key)).unwrap().unwrap().version;
    let _ = block_on(b.region.inner.replace(key, &vec![b' '; *size], &version)).unwrap();
    assert!(try_mirror(&a, &b).unwrap().is_complete());
    let report = mirror_with(&a, &b, MirrorOptions { verify: true, ..MirrorOptions::default() }).unwrap();
    assert_eq!(report.conflicts_total, 1, "{report:?}");
}

/// The old primary is fenced only for a replica that can take its place.
#[test]
fn replica_that_lost_an_object_is_not_promoted_and_gets_it_again() {
    let (mut a, b) = (Site::new("a"), Site::new("b"));
    let deposit = a.run(&events(0..40));
    mirror(&a, &b);
    let (key, _) = &deposit.objects[2];
    block_on(b.region.inner.delete(key)).unwrap();
    let refused = promote(&b, Some(&a)).unwrap_err();
    assert!(refused.hint().unwrap().contains("collector mirror --verify"), "{refused}");
    a.run(&events(5..45));
    let report = mirror_with(&a, &b, MirrorOptions { verify: true, ..MirrorOptions::default() }).unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_equal(&a, &b);
    promote(&b, Some(&a)).unwrap();
}

#[test]
fn promotion_reports_what_it_could_not_copy() {
    let (mut a, b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..40));
    mirror(&a, &b);
    let deposit = a.run(&events(5..45));
    let (key, size) = &deposit.objects[0];
    let _ = block_on(b.region.inner.create(key, &vec![b'x'; *size])).unwrap();
    let adoption = promote(&b, Some(&a)).unwrap();
    assert_eq!((adoption.fence, adoption.conflicts), (OldPrimary::Fenced, 1));
}

/// Others changed an object and `repair` noted that: the replica held the last copy of what was there before.
#[test]
fn content_that_was_changed_in_the_source_is_kept_aside_in_the_replica() {
    let (mut a, b) = (Site::new("a"), Site::new("b"));
    let deposit = a.run(&events(0..40));
    mirror(&a, &b);
    let (key, _) = &deposit.objects[3];
    let Object { bytes, version } = block_on(a.region.inner.get(key)).unwrap().unwrap();
    let lines = bytes.split_inclusive(|&byte| byte == b'\n').collect::<Vec<_>>();
    let (first, rest) = lines.split_first().unwrap();
    let _ = block_on(a.region.inner.replace(key, &rest.concat(), &version)).unwrap();
    block_on(a.archive.repair(false, |_, _| {})).unwrap();
    mirror(&a, &b);
    let kept = &b.region.objects()[&format!("repaired/{key}")];
    assert_eq!(kept.as_slice(), *first);
}

/// What `repair` replaced in the source is replaced in the replica, and what it moved aside is copied.
#[test]
fn repaired_objects_are_replaced_as_the_journal_states() {
    let (mut a, b) = (Site::new("a"), Site::new("b"));
    let deposit = a.run(&events(0..40));
    mirror(&a, &b);
    // A line that stands twice, as another program may have written it.
    let (key, _) = &deposit.objects[3];
    let Object { bytes, version } = block_on(a.region.inner.get(key)).unwrap().unwrap();
    let _ = block_on(a.region.inner.replace(key, &bytes.repeat(2), &version)).unwrap();
    block_on(a.archive.repair(false, |_, _| {})).unwrap();
    a.assert_sound();
    a.run(&events(5..45));
    let report = mirror(&a, &b);
    assert_equal(&a, &b);
    assert!(report.objects > 1, "{report:?}");
}

#[test]
fn epoch_store_stops_an_archive_that_was_taken_over() {
    let (mut a, b) = (Site::new("a"), Site::new("b"));
    let epochs: SharedStore = Arc::new(MemoryStore::default());
    a.archive = a.archive.clone().with_epoch_store(Arc::clone(&epochs));
    a.run(&events(0..40));
    mirror(&a, &b);
    a.run(&events(2..42));
    block_on(adopt(&b.archive, None, Some(&epochs), false)).unwrap();
    let before = a.region.objects();
    let refused = a.try_run(&events(5..45)).unwrap_err();
    assert!(matches!(refused, ArchiveError::TakenOver { epoch: 2, .. }), "{refused}");
    assert_eq!(before, a.region.objects());
}
