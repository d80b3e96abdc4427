//! The real programs, killed at any moment and several at once, between two folders.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use fixtures::{Feed, FeedConfig};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};

use crate::crash::{kill_after, number};
use crate::support::{Ended, Home};

/// Number of kills of each command, and of races, unless the variable `MIRROR_KILLS` is set.
const KILLS: u32 = 20;
const SIDES: [&str; 2] = ["data", "replica"];

/// A feed, and two folders that collect what it publishes.
struct Sites {
    home: Home,
    feed: Feed,
    published: BTreeSet<i64>,
    rng: Pcg64Mcg,
}

impl Sites {
    /// The first folder holds what was published; nothing is copied yet.
    fn new(seed: u64) -> Self {
        let config = FeedConfig { seed, buffer: 60, corrections: 0.1, log: false, ..FeedConfig::quiet(seed) };
        let (home, feed) = (Home::new(), Feed::new(config));
        let rng = Pcg64Mcg::seed_from_u64(seed);
        let mut sites = Self { home, feed, published: BTreeSet::new(), rng };
        for _ in 0..20 {
            sites.run(0);
        }
        sites
    }

    /// One run on the next response of the feed.
    fn run(&mut self, side: usize) {
        self.feed.advance_by(chrono::Duration::minutes(47));
        let response = self.feed.response();
        self.published.extend(response.events().iter().map(|event| event.id().cast_signed()));
        let feed = self.home.write("response.json", response.compact());
        self.home.collector(&["run", "--store", SIDES[side], "--feed", feed.to_str().unwrap()]).with(0);
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.home.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts a command and kills it within a time, again and again until one ends well. How many were killed.
    fn kill_until_done(&mut self, arguments: &[&str], within: Duration) -> u32 {
        for kills in 0.. {
            // After ten kills it is left in peace, on a machine however slow.
            let share = if kills < 10 { f64::from(self.rng.next_u32()) / f64::from(u32::MAX) } else { 1e3 };
            match kill_after(self.start(arguments), within.mul_f64(share)) {
                Some(code) => {
                    assert_eq!(code, 0, "{arguments:?} failed instead of being killed");
                    return kills;
                }
                None => SIDES.iter().for_each(|side| self.home.assert_sound(side)),
            }
        }
        unreachable!("the eleventh is not killed")
    }

    /// Both hold each event that was published, once.
    #[track_caller]
    fn assert_equal(&self) {
        for side in SIDES {
            let verified = self.home.collector(&["verify", "--store", side, "--json"]).with(0).json();
            assert_eq!((verified["duplicates"].as_u64(), verified["ahead"].as_u64()), (Some(0), Some(0)));
            let lines = self.home.collector(&["query", "--store", side, "--format", "jsonl"]).with(0).stdout;
            let id =
                |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_i64().unwrap();
            let ids: Vec<i64> = lines.lines().map(id).collect();
            assert_eq!(ids.len(), self.published.len(), "{side}");
            assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), self.published, "{side}");
        }
    }

    /// How long a command takes that is not disturbed, and a bit.
    fn time(&self, arguments: &[&str]) -> Duration {
        let since = Instant::now();
        self.home.collector(arguments).with(0);
        since.elapsed().mul_f64(1.2)
    }
}

#[test]
fn copies_that_are_killed_leave_a_sound_replica() {
    let (mut sites, wanted) = (Sites::new(1), number("MIRROR_KILLS", KILLS));
    let copy = ["mirror", "--to", "replica"];
    let mut kills = 0;
    let whole = sites.time(&copy);
    while kills < wanted {
        sites.assert_equal();
        if kills % 2 == 0 {
            fs::remove_dir_all(sites.home.path("replica")).unwrap();
        }
        sites.run(0);
        kills += sites.kill_until_done(&copy, whole);
    }
    sites.assert_equal();
    println!("copies killed: {kills}");
}

/// Promoted again and again, each time in the other direction and after a commit that was not copied.
#[test]
fn promotions_that_are_killed_are_finished_by_the_next_one() {
    let (mut sites, wanted) = (Sites::new(2), number("MIRROR_KILLS", KILLS));
    let (mut kills, mut primary, mut whole) = (0, 0, Duration::from_millis(100));
    while kills < wanted {
        let [store, other] = [SIDES[primary], SIDES[1 - primary]];
        sites.home.collector(&["mirror", "--store", store, "--to", other]).with(0);
        sites.run(primary);
        let promote = ["adopt", "--store", other];
        if kills == 0 {
            whole = sites.time(&promote);
        } else {
            kills += sites.kill_until_done(&promote, whole);
        }
        kills = kills.max(1);
        primary = 1 - primary;
        sites.run(primary);
    }
    sites.home.collector(&["mirror", "--store", SIDES[primary], "--to", SIDES[1 - primary]]).with(0);
    sites.assert_equal();
    println!("promotions killed: {kills}");
}

/// Both folders collect, because the promotion did not reach the old primary.
#[test]
fn reconciliations_that_are_killed_are_finished_by_the_next_one() {
    let (mut sites, wanted) = (Sites::new(3), number("MIRROR_KILLS", KILLS));
    let (mut kills, mut primary, mut whole) = (0, 0, None);
    while kills < wanted {
        let [old, new] = [SIDES[primary], SIDES[1 - primary]];
        sites.home.collector(&["mirror", "--store", old, "--to", new]).with(0);
        let away = sites.home.path("away");
        fs::rename(sites.home.path(old), &away).unwrap();
        sites.home.collector(&["adopt", "--store", new]).with(0);
        fs::rename(&away, sites.home.path(old)).unwrap();
        for side in [primary, 1 - primary, primary, 1 - primary] {
            sites.run(side);
        }
        let reconcile = ["mirror", "--store", new, "--to", old, "--reconcile"];
        match whole {
            None => whole = Some(sites.time(&reconcile)),
            Some(whole) => kills += sites.kill_until_done(&reconcile, whole),
        }
        sites.assert_equal();
        primary = 1 - primary;
    }
    println!("reconciliations killed: {kills}");
}

/// Two copies at once, beside a run.
#[test]
fn two_copies_at_once_beside_a_run_end_well() {
    let mut sites = Sites::new(4);
    for race in 0..number("MIRROR_KILLS", KILLS / 2) {
        if race % 2 == 0 {
            let _ = fs::remove_dir_all(sites.home.path("replica"));
        }
        let copies = [0; 2].map(|_| sites.start(&["mirror", "--to", "replica", "--json"]));
        sites.run(0);
        for copy in copies {
            let ended = Ended::from(copy.wait_with_output().unwrap()).with(0);
            assert_eq!(ended.json()["conflicts_total"], 0, "race {race}");
        }
        sites.home.assert_sound("replica");
        sites.home.collector(&["mirror", "--to", "replica"]).with(0);
        sites.assert_equal();
    }
}
