//! Promotions, fences and updates that were broken off, and then continued in the other direction.

use super::reconciled::{reconcile, split};
use super::*;

/// A run had claimed names and written some of them when its archive was fenced. What it wrote belongs to no other history,
/// so it is stored again by the new primary, under other names. After the reconciliation each event is stored once.
#[test]
fn run_that_began_before_the_fence_is_settled() {
    let mut fenced = 0;
    for written in 2..40 {
        for left in 1..12 {
            let (mut a, mut b) = (Site::new("a"), Site::new("b"));
            a.run(&events(0..40));
            mirror(&a, &b);
            let mut dying = a.reached_again(written);
            if dying.try_run(&events(5..60)).is_ok() {
                continue;
            }
            promote(&b, Some(&a.reached_again(left))).unwrap();
            b.run(&events(6..61));
            // It may be refused, but nothing may be stored twice by it.
            fenced += usize::from(try_mirror(&b, &a).is_err());
            let reconciled = reconcile(&b, &a).unwrap();
            assert!(reconciled.mirror.is_complete(), "{written} {left}: {reconciled:#?}");
            for site in [&a, &b] {
                site.assert_sound();
                assert_eq!(site.ids(), (0..61).collect::<Vec<_>>(), "{written} {left}");
            }
        }
    }
    println!("updates that were refused: {fenced}");
    assert!(fenced > 20, "{fenced}");
}

/// Whatever request a promotion dies at, the other region may be promoted instead, and both are brought together.
#[test]
fn broken_promotion_is_followed_by_one_of_the_other_region() {
    let mut killed = 0;
    for updated in [4, 9, usize::MAX] {
        for side in 0..2 {
            for left in 0.. {
                let (mut a, mut b) = (Site::new("a"), Site::new("b"));
                a.run(&events(0..60));
                mirror(&a, &b);
                a.run(&events(10..70));
                let _ = try_mirror(&a, &b.reached_again(updated));
                a.run(&edited(20..80, |id| if id % 7 == 0 { "Stöld" } else { "Brand" }));
                let (of_a, of_b) = if side == 0 { (left, usize::MAX) } else { (usize::MAX, left) };
                let ended = promote(&b.reached_again(of_b), Some(&a.reached_again(of_a)));
                // Where the first promotion did not come far enough to fence it, the old primary is at work.
                let (primary, replica) = match promote(&a, Some(&b)) {
                    Ok(_) | Err(MirrorError::NotAReplica(_)) => (&mut a, &mut b),
                    Err(error) => panic!("{updated} {side} {left}: {error}"),
                };
                match reconcile(primary, replica) {
                    Ok(reconciled) => assert!(reconciled.mirror.is_complete(), "{reconciled:#?}"),
                    // The promotion had raised the epoch, and has to be finished.
                    Err(MirrorError::LaterEpoch { .. }) => {
                        promote(replica, Some(primary)).unwrap();
                        reconcile(replica, primary).unwrap();
                        std::mem::swap(primary, replica);
                    }
                    Err(error) => panic!("{updated} {side} {left}: {error}"),
                }
                primary.run(&events(25..85));
                mirror(primary, replica);
                for site in [&*primary, &*replica] {
                    site.assert_sound();
                    assert_eq!(site.ids(), (0..85).collect::<Vec<_>>(), "{updated} {side} {left}");
                }
                if ended.is_ok_and(|adoption| adoption.fence == OldPrimary::Fenced) || left > 200 {
                    break;
                }
                killed += 1;
            }
        }
    }
    println!("promotions killed: {killed}");
    assert!(killed > 60, "{killed}");
}

/// A run, the promotion that fenced it, and one of the same region are broken off one after the other. The other region is promoted
/// then, and both are brought together.
#[test]
fn promotions_of_both_regions_that_were_broken_off_are_brought_together() {
    let (mut reconciled, mut finished) = (0, 0);
    for (written, fenced) in [(8, 5), (10, 5)] {
        for promoted in (8..36).step_by(3) {
            for left in 1..80 {
                let context = format!("{written} {fenced} {promoted} {left}");
                let (mut a, mut b) = (Site::new("a"), Site::new("b"));
                a.run(&events(0..40));
                mirror(&a, &b);
                a.reached_again(written).try_run(&events(5..60)).unwrap_err();
                let _ = promote(&b.reached_again(promoted), Some(&a.reached_again(fenced)));
                let _ = promote(&a.reached_again(left), None);
                promote(&b, None).unwrap();
                let (mut primary, mut replica) = (&mut b, &mut a);
                match reconcile(primary, replica) {
                    Ok(_) => reconciled += 1,
                    Err(MirrorError::LaterEpoch { .. }) => {
                        finished += 1;
                        std::mem::swap(&mut primary, &mut replica);
                        match promote(primary, Some(replica)) {
                            Ok(_) | Err(MirrorError::NotAReplica(_)) => {}
                            Err(error) => panic!("{context}: {error}"),
                        }
                        reconcile(primary, replica).unwrap();
                    }
                    Err(error) => panic!("{context}: {error}"),
                }
                primary.run(&events(6..61));
                mirror(primary, replica);
                for site in [&*primary, &*replica] {
                    site.assert_sound();
                    assert_eq!(site.ids(), (0..61).collect::<Vec<_>>(), "{context}");
                }
            }
        }
    }
    println!("reconciled at once: {reconciled}, after a promotion was finished: {finished}");
    assert!(reconciled > 20 && finished > 20, "{reconciled} {finished}");
}

/// After a split, a promotion of the older archive was broken off after it raised the epoch: a reconciliation that took it back
/// would leave neither of them able to end.
#[test]
fn promotion_that_has_begun_is_finished_before_a_reconciliation() {
    let (a, b) = split();
    promote(&b, Some(&a)).unwrap();
    let epoch = || {
        let ledger: serde_json::Value =
            serde_json::from_slice(&a.region.objects()["metadata/last_seen.json"]).unwrap();
        ledger["lineage"]["epoch"].as_u64().unwrap()
    };
    for left in 1.. {
        let ended = promote(&a.reached_again(left), None);
        assert!(ended.is_err(), "it was not broken off in time");
        if epoch() > 2 {
            break;
        }
    }
    let refused = reconcile(&b, &a).unwrap_err();
    assert!(matches!(refused, MirrorError::LaterEpoch { found: 3, epoch: 2, .. }), "{refused}");
    promote(&a, Some(&b)).unwrap();
    reconcile(&a, &b).unwrap();
    for site in [&a, &b] {
        site.assert_sound();
        assert_eq!(site.ids(), (0..155).collect::<Vec<_>>());
    }
}

/// A promotion that was broken off has written to the journal, and the run that it had fenced is committed under the same number.
#[test]
fn record_that_no_ledger_covers_is_followed() {
    let mut committed = 0;
    for written in 8..30 {
        let (mut a, mut b) = (Site::new("a"), Site::new("b"));
        a.run(&events(0..40));
        mirror(&a, &b);
        if a.reached_again(written).try_run(&events(5..60)).is_ok() {
            break;
        }
        promote(&b, None).unwrap();
        b.run(&events(6..50));
        let first = &b.region.objects()["metadata/journal/000000/001.json"];
        let mut record: serde_json::Value = serde_json::from_slice(first).unwrap();
        (record["sequence"], record["objects"]) = (2.into(), serde_json::json!([]));
        record["commit"] = "0123456789abcdef".into();
        let key = Key::new("metadata/journal/000000/002.json").unwrap();
        let _ = block_on(a.region.inner.create(&key, record.to_string().as_bytes())).unwrap();
        let reconciled = reconcile(&b, &a).unwrap();
        assert!(reconciled.mirror.is_complete(), "{written}: {reconciled:#?}");
        // The record, and what the run had written.
        committed += usize::from(reconciled.commits > 1);
        // Under names that the run had claimed, since the clocks of both agree.
        b.run(&events(6..61));
        assert!(reconcile(&b, &a).unwrap().mirror.is_complete());
        for site in [&a, &b] {
            site.assert_sound();
            assert_eq!(site.ids(), (0..61).collect::<Vec<_>>(), "{written}");
        }
    }
    assert!(committed > 0);
}

/// Both were promoted without reaching each other, or one is a copy of the other's folder: both accept runs in one epoch.
#[test]
fn archives_of_the_same_epoch_are_reconciled() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..60));
    for (key, bytes) in a.region.objects() {
        let _ = block_on(b.region.inner.create(&Key::new(key).unwrap(), &bytes)).unwrap();
    }
    a.run(&events(10..70));
    b.run(&events(15..75));
    let refused = try_mirror(&a, &b).unwrap_err();
    assert!(matches!(refused, MirrorError::TargetIsPrimary { epoch: 1, .. }), "{refused}");
    reconcile(&a, &b).unwrap();
    let refused = b.try_run(&events(16..76)).unwrap_err();
    assert!(matches!(refused, ArchiveError::Replica { .. }), "{refused}");
    for site in [&a, &b] {
        site.assert_sound();
        assert_eq!(site.ids(), (0..75).collect::<Vec<_>>());
    }
    assert_eq!(promote(&b, Some(&a)).unwrap().epoch, 3);
}

/// Who finds a revision takes its event for stored, so it is not copied where its event cannot be.
#[test]
fn revision_is_not_copied_before_its_event() {
    let (mut a, b) = (Site::new("a"), Site::new("b"));
    a.run(&events(0..40));
    mirror(&a, &b);
    let deposit = a.run(&events(5..41));
    a.run(&edited(5..41, |id| if id == 40 { "Stöld" } else { "Brand" }));
    let (key, _) = &deposit.objects[0];
    let _ = block_on(b.region.inner.create(key, b"")).unwrap();
    let report = try_mirror(&a, &b).unwrap();
    assert_eq!((report.conflicts_total, report.sequence), (1, 1), "{report:?}");
    assert!(a.region.objects().keys().any(|key| key.starts_with("revisions/")));
    assert!(!b.region.objects().keys().any(|key| key.starts_with("revisions/")));
    b.assert_sound();
}
