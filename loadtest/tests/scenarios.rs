//! The collector on simulated feeds: what is lost, when, and whether it says so; and the limits that are computed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use chrono::{NaiveDate, TimeDelta};
use loadtest::capacity::{Question, limits, matrix};
use loadtest::feed::faults::Fault;
use loadtest::scenario::{Played, Scenario, StoreKind, Traffic, play_all};
use serde_json::{Value, json};

fn played(scenario: Scenario) -> Played {
    play_all(&[scenario], || {}).unwrap().remove(0)
}

#[track_caller]
fn assert_sound(played: &Played) {
    assert_eq!(played.duplicates, 0);
    assert_eq!(played.lost, played.published - played.stored);
    assert!(played.gaps.are_right(), "{:?}", played.gaps);
    assert_eq!(played.lost_by_hour.iter().map(|loss| loss.lost).sum::<usize>(), played.lost);
    assert_eq!((played.feed.anonymous, played.feed.too_often), (0, 0), "the provider's rules are kept");
}

#[test]
fn an_even_flow_is_stored_whole_until_the_buffer_overflows() {
    let flat = |rate| Scenario { rate, traffic: Traffic::Flat, days: 0.75, ..Scenario::default() };
    let [quiet, busy]: [Played; 2] =
        play_all(&[flat(100.0), flat(400.0)], || {}).unwrap().try_into().unwrap();
    assert_sound(&quiet);
    assert_eq!((quiet.lost, quiet.polls, quiet.gaps.polls_after_loss), (0, 37, 0));
    assert_sound(&busy);
    assert!(busy.lost > 0 && busy.gaps.polls_after_loss > 30, "{:?}", busy.gaps);
}

#[test]
fn the_morning_is_what_loses_events_and_polling_oftener_is_what_helps() {
    let daily = |rate, minutes| Scenario {
        rate,
        interval: TimeDelta::minutes(minutes),
        days: 4.0,
        ..Scenario::default()
    };
    let all = play_all(&[daily(100.0, 30), daily(50.0, 15)], || {}).unwrap();
    all.iter().for_each(assert_sound);
    assert!(all[0].lost > 0);
    let morning = all[0].lost_by_hour.iter().filter(|loss| (6..9).contains(&loss.hour));
    assert_eq!(morning.map(|loss| loss.lost).sum::<usize>(), all[0].lost);
    assert_eq!(all[1].lost, 0);
}

#[test]
fn every_loss_is_reported_at_any_rate() {
    let daily = |rate: f64| Scenario { rate, days: 0.75, seed: 1, ..Scenario::default() };
    let all = play_all(&[500.0, 1_000.0, 5_000.0].map(daily), || {}).unwrap();
    all.iter().for_each(assert_sound);
    assert!(all.iter().all(|played| played.gaps.polls_after_loss > 20), "{:?}", all[0].gaps);
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let scenario = || Scenario {
        days: 0.5,
        fault_rate: 0.2,
        faults: vec![Fault::Error, Fault::Reset, Fault::Cut],
        rate: 20.0,
        ..Scenario::default()
    };
    let values = |played: &Played| {
        let mut value = serde_json::to_value(played).unwrap();
        for measured in ["timings", "peak_rss_bytes", "cpu_s", "elapsed_s"] {
            value[measured] = Value::Null;
        }
        value
    };
    let (one, two) = (played(scenario()), played(scenario()));
    assert_eq!(values(&one), values(&two));
    assert_sound(&one);
    assert!(one.feed.faults > 0);
    assert_ne!(values(&one), values(&played(Scenario { seed: 43, ..scenario() })));
}

#[test]
fn outages_and_missed_polls_lose_nothing_while_the_buffer_holds() {
    let scenario = Scenario {
        days: 3.0,
        outages: vec!["6h@day2".parse().unwrap()],
        miss_polls: 2,
        store: StoreKind::Oci,
        ..Scenario::default()
    };
    let played = played(scenario);
    assert_sound(&played);
    assert_eq!((played.lost, played.missed_polls), (0, 6));
    assert_eq!(played.failed_polls, 12, "six hours without a feed");
}

#[test]
fn what_a_failed_last_poll_left_in_the_feed_is_not_lost() {
    let outage = "2h@day1+2h".parse().unwrap();
    let played = played(Scenario { days: 0.125, rate: 20.0, outages: vec![outage], ..Scenario::default() });
    assert_sound(&played);
    assert_eq!((played.lost, played.polls, played.failed_polls), (0, 7, 3));
    assert!(played.waiting > 0);
}

#[test]
fn a_recorded_history_is_played_back() {
    let folder = tempfile::tempdir().unwrap();
    let event = |id: u64| {
        json!({"id": id, "datetime": "2026-01-02 19:56:53 +01:00", "name": "n", "summary": "s", "url": "/u",
               "type": "t", "location": {"name": "l", "gps": "1,2"}})
    };
    for number in 0..6_u64 {
        let events: Vec<Value> = (number * 3..number * 3 + 10).rev().map(event).collect();
        let path = folder.path().join(format!("{}.json", 1_767_362_400 + number * 1_800));
        std::fs::write(path, Value::from(events).to_string()).unwrap();
    }
    let history = |rate| Scenario {
        rate,
        traffic: Traffic::History(folder.path().to_owned()),
        days: 0.125,
        ..Scenario::default()
    };
    assert_sound(&played(history(1.0)));
    assert_eq!(played(history(1.0)).published, 25);
    let nothing = Scenario { traffic: Traffic::History("none".into()), ..Scenario::default() };
    assert!(play_all(&[nothing], || {}).unwrap_err().to_string().contains("none"));
}

#[test]
fn a_recorded_event_that_was_withdrawn_or_sparse_is_no_loss() {
    let folder = tempfile::tempdir().unwrap();
    let response = |ids: &mut dyn Iterator<Item = u64>, day: fn(u64) -> u64| {
        let events = ids.map(|id| {
            let day = NaiveDate::from_ymd_opt(2026, 1, 2).unwrap() - chrono::Days::new(day(id));
            json!({"id": id, "datetime": format!("{day} 12:00:00 +01:00"), "name": "n"})
        });
        Value::from(events.collect::<Vec<_>>()).to_string()
    };
    for (minute, body) in [
        (0, response(&mut (100..600).rev(), |_| 0)),
        (10, response(&mut (101..601).rev(), |_| 0)),
        // Between two polls: one event appears and is withdrawn, and a sparse response comes and goes.
        (15, response(&mut (1..501), |id| id)),
        (20, response(&mut (100..600).rev(), |_| 0)),
        (50, response(&mut (105..605).rev().filter(|id| *id != 600), |_| 0)),
    ] {
        std::fs::write(folder.path().join(format!("{}.json", 1_767_362_400 + minute * 60)), body).unwrap();
    }
    let traffic = Traffic::History(folder.path().to_owned());
    let played = played(Scenario { traffic, days: 0.05, ..Scenario::default() });
    assert_sound(&played);
    assert_eq!((played.lost, played.withdrawn_unseen, played.gaps.polls_after_loss), (0, 1, 0));
}

#[test]
fn the_limits_agree_with_the_formula_for_an_even_flow_and_the_rhythm_lowers_them() {
    let question = Question {
        intervals: [15, 30].map(TimeDelta::minutes).to_vec(),
        missed_polls: vec![0, 2],
        days: 20,
        seeds: 2,
        ..Question::default()
    };
    let limits = limits(&question, || {}).unwrap();
    assert_eq!(limits.len(), 8);
    for limit in &limits {
        let ratio = limit.max_rate_simulated / limit.max_rate_formula;
        if limit.traffic == "flat" {
            assert!((0.95..1.05).contains(&ratio), "{limit:?}");
        } else {
            assert!(ratio < 0.5, "{limit:?}");
        }
    }
    let rows = matrix(question.base_rate, &limits);
    assert!(rows.iter().any(|row| row.verdict.contains("events are lost")));
    assert!(rows.iter().any(|row| row.verdict == "nothing lost"));

    // The real collector agrees on both sides of the limit.
    let limit = limits
        .iter()
        .find(|limit| (limit.traffic, limit.interval_s, limit.missed_polls) == ("flat", 1_800, 0));
    let limit = limit.unwrap().max_rate_simulated;
    let flat = |share: f64| Scenario {
        rate: limit * share,
        traffic: Traffic::Flat,
        days: 0.5,
        ..Scenario::default()
    };
    let all = play_all(&[flat(0.9), flat(1.35)], || {}).unwrap();
    assert_eq!(all[0].lost, 0);
    assert!(all[1].lost > 0);
}
