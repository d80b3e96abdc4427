//! `collector mirror` and `collector adopt` as they are typed.

use std::fs;
use std::process::Command;

use chrono::{DateTime, TimeDelta, Utc};

use crate::support::{Home, fixture};

/// Folders: copied, promoted, and the other way round.
#[test]
fn fail_over_and_back_between_folders() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    let report = home.collector(&["mirror", "--to", "replica", "--json"]).with(0).json();
    assert_eq!((report["conflicts_total"].as_u64(), report["sequence"].as_u64()), (Some(0), Some(1)));
    let verified = home.collector(&["verify", "--store", "replica", "--json"]).with(0).json();
    assert_eq!((verified["events"].as_u64(), verified["ahead"].as_u64()), (Some(500), Some(0)));

    let feed = fixture("response-next.json");
    let feed = feed.to_str().unwrap();
    let refused = home.collector(&["run", "--feed", feed, "--store", "replica"]).with(1);
    assert!(refused.error_line().contains("collector adopt --store replica"), "{}", refused.stderr);

    let adopted = home.collector(&["adopt", "--store", "replica"]).with(0).stdout;
    assert!(adopted.contains("accepts runs now, in epoch 2") && adopted.contains("fenced"), "{adopted}");
    let fenced = home.collector(&["run", "--feed", feed]).with(1);
    assert!(fenced.error_line().contains("accepts no runs"), "{}", fenced.stderr);
    home.collector(&["run", "--feed", feed, "--store", "replica"]).with(0);
    home.collector(&["verify", "--store", "replica"]).with(0);

    home.collector(&["mirror", "--store", "replica", "--to", "data", "--reconcile"]).with(0);
    home.collector(&["verify"]).with(0);
    home.collector(&["adopt", "--store", "data"]).with(0);
    home.run(feed).with(0);
}

/// The refusal of the old primary names the command that promotes it again; the other one is fenced then.
#[test]
fn fail_over_is_taken_back_before_anything_was_copied() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    home.collector(&["mirror", "--to", "replica"]).with(0);
    home.collector(&["adopt", "--store", "replica"]).with(0);
    let adopted = home.collector(&["adopt", "--store", "data"]).with(0).stdout;
    assert!(adopted.contains("in epoch 3") && adopted.contains("  fenced  "), "{adopted}");
    let feed = fixture("response-next.json");
    let feed = feed.to_str().unwrap();
    home.collector(&["run", "--feed", feed, "--store", "replica"]).with(1);
    home.run(feed).with(0);
    home.collector(&["mirror", "--to", "replica"]).with(0);
    home.collector(&["verify", "--store", "replica"]).with(0);
}

/// What a run would refuse, the examination before it reports.
#[test]
fn doctor_reports_an_archive_that_accepts_no_runs() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    let copied = Command::new("cp").args(["-r", "data", "out-of-reach"]).current_dir(home.path(".")).status();
    assert!(copied.unwrap().success());
    home.collector(&["mirror", "--to", "replica"]).with(0);
    home.collector(&["adopt", "--store", "replica"]).with(0);
    for (arguments, said) in [
        (["--store", "data", "--epoch-store", "data"], "promote this one"),
        (["--store", "out-of-reach", "--epoch-store", "replica"], "was taken over by"),
    ] {
        let examined = home.collector(&[&["doctor", "--offline"], &arguments[..]].concat()).with(1);
        assert!(examined.stdout.contains(said), "{}", examined.stdout);
    }
}

/// The health check covers a replica that the configuration names, whoever updates it.
#[test]
fn health_covers_the_replica_that_is_configured() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    home.collector(&["mirror", "--to", "replica"]).with(0);
    let state_file = home.path("health-replica.json");
    assert!(!state_file.exists(), "a replica that is not configured left a state");
    home.collector(&["health"]).with(0);

    fs::write(home.path("config.toml"), "mirror_to = \"replica\"\n").unwrap();
    let health = |code: i32| home.collector(&["health", "--config", "config.toml"]).with(code).stdout;
    let mirror = || home.collector(&["mirror", "--to", "replica", "--config", "config.toml"]);
    let never = health(1);
    assert!(
        never.starts_with("ERROR: How the replica is cannot be read at") && !never.contains("OK"),
        "{never}"
    );
    mirror().with(0);
    assert!(health(0).starts_with("OK: "));

    // The replica was complete two hours ago, and something else is in its place now.
    let state = fs::read_to_string(&state_file).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let last_success: DateTime<Utc> = state["last_success"].as_str().unwrap().parse().unwrap();
    let earlier = (last_success - TimeDelta::hours(2)).to_rfc3339();
    let earlier = state.to_string().replace(state["last_success"].as_str().unwrap(), &earlier);
    fs::write(&state_file, earlier).unwrap();
    assert!(health(1).starts_with("ERROR: The replica was complete 12"), "{}", health(1));
    fs::rename(home.path("replica"), home.path("away")).unwrap();
    home.collector(&["run", "--store", "replica", "--feed", fixture("response.json").to_str().unwrap()])
        .with(0);
    mirror().with(1);
    let failed = health(1);
    assert!(failed.contains("replica was complete 12") && !failed.contains("not updated since"), "{failed}");
    fs::remove_dir_all(home.path("replica")).unwrap();
    fs::rename(home.path("away"), home.path("replica")).unwrap();
    mirror().with(0);
    assert!(health(0).starts_with("OK: "));
}

#[test]
fn exchanged_addresses_are_refused_with_a_hint() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    home.collector(&["mirror", "--to", "replica"]).with(0);
    let refused = home.collector(&["mirror", "--store", "replica", "--to", "data"]).with(1);
    assert!(refused.error_line().contains("is not the primary"), "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: are --store and --to exchanged?"), "{}", refused.stderr);
    home.collector(&["mirror", "--to", "data"]).with(1);
    home.collector(&["mirror"]).with(2);
}
