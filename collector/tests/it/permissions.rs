//! What commands leave behind for others: the owners and modes of files, and what they need of the limit of open files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use nix::unistd::geteuid;

use crate::http::Server;
use crate::support::{Ended, Home, fixture};

/// A user without any right of its own.
const OTHER: u32 = 65_534;

/// A command as a shell starts it, after `first`.
fn shell(home: &Home, first: &str, arguments: &[&str]) -> Ended {
    let mut command = home.program("/bin/sh");
    command.args(["-c", &format!("{first}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_collector")]);
    command.args(arguments).output().unwrap().into()
}

/// The files and folders below a folder, and itself, by their paths.
fn below(folder: &Path) -> BTreeMap<String, fs::Metadata> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(path) = folders.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            folders.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path.strip_prefix(folder).unwrap().display().to_string(), metadata);
    }
    found
}

#[test]
fn root_leaves_everything_to_the_owner_of_the_folder() {
    if !geteuid().is_root() {
        return;
    }
    let home = Home::new();
    let folder = home.path("service");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(OTHER), Some(OTHER)).unwrap();
    let (first, second) = (fixture("response.json"), fixture("response-next.json"));
    let server =
        Server::new([wiremock::ResponseTemplate::new(200).set_body_bytes(fs::read(second).unwrap())]);
    let (first, url) = (first.to_str().unwrap(), server.url());
    let records = ["--metrics-dir", "service/m", "--health-file", "service/h/health.json"];
    let store = ["--store", "service/new/data", "--state-dir", "service/state"];
    let all = [&records[..], &store[..]].concat();
    let cache = ["--cache-dir", "service/cache"];
    let counted = ["--max-calls-per-hour", "9"];
    let textfile = ["--prometheus-file", "service/textfile/c.prom"];
    for command in [
        &[&["doctor", "--feed", first], &all[..]].concat()[..],
        &[&["run", "--feed", first], &all[..], &textfile].concat(),
        &[&["run", "--feed", &url], &all[..], &counted, &textfile].concat(),
        &[&["repair"], &store[..]].concat(),
        &[&["verify"], &store[..2]].concat(),
        &[&["query", "--limit", "1"], &store[..2]].concat(),
        &[
            &["fetch", "--feed", &url, "--date", "2026-01-02", "--state-dir", "service/state"],
            &counted[..],
            &cache,
        ]
        .concat(),
        &[&["run", "--feed", first], &all[..], &textfile].concat(),
    ] {
        home.collector(command).with(0);
    }
    let found = below(&folder);
    for name in
        ["new/data/events", "m", "h/health.json", "textfile/c.prom", "cache", "state", "new/data/.staging"]
    {
        assert!(found.contains_key(name), "{name} was not made: {:?}", found.keys());
    }
    let foreign: Vec<_> = found.iter().filter(|(_, it)| (it.uid(), it.gid()) != (OTHER, OTHER)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

#[test]
fn doctor_tries_as_the_user_of_the_service() {
    let home = Home::new();
    let refused = home.collector(&["doctor", "--offline", "--user", "no-such-user"]).with(2);
    assert!(refused.error_line().contains("no such user"), "{}", refused.stderr);
    if !geteuid().is_root() {
        let refused = home.collector(&["doctor", "--offline", "--user", "root"]).with(2);
        assert!(refused.error_line().contains("only root can"), "{}", refused.stderr);
        return;
    }
    fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let store =
        ["--store", "s/data", "--metrics-dir", "s/m", "--health-file", "s/h.json", "--state-dir", "s/st"];
    let doctor =
        || home.collector(&[&["doctor", "--offline", "--user", "nobody", "--json"], &store[..]].concat());
    fs::create_dir(home.path("s")).unwrap();
    let verdict = |ended: &Ended| ended.json()["checks"].to_string();
    let ended = doctor().with(1);
    assert!(verdict(&ended).contains("Permission denied"), "{}", ended.stdout);
    chown(home.path("s"), Some(OTHER), Some(OTHER)).unwrap();
    doctor().with(0);
    assert_eq!(fs::read_dir(home.path("s")).unwrap().count(), 0, "something is left");
}

/// The file was there before, in a folder of root.
#[test]
fn replaced_file_keeps_its_owner() {
    if !geteuid().is_root() {
        return;
    }
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    chown(home.path("health.json"), Some(OTHER), Some(OTHER)).unwrap();
    home.run(fixture("response.json")).with(0);
    let metadata = fs::metadata(home.path("health.json")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (OTHER, OTHER));
    assert_eq!(fs::metadata(home.path("data")).unwrap().uid(), 0);
}

#[test]
fn modes_follow_the_umask_but_state_is_private() {
    let home = Home::new();
    let feed = fixture("response.json");
    let arguments = ["run", "--feed", feed.to_str().unwrap(), "--state-dir", "state"];
    for umask in [0o027, 0o002, 0o077] {
        shell(&home, &format!("umask {umask:03o}"), &arguments).with(0);
        for top in ["data", "metrics", "health.json"] {
            for (name, metadata) in below(&home.path(top)) {
                let full = if metadata.is_dir() { 0o777 } else { 0o666 };
                assert_eq!(metadata.mode() & 0o777, full & !umask, "umask {umask:03o}: {top}/{name}");
            }
        }
        for (name, metadata) in below(&home.path("state")) {
            assert_eq!(metadata.mode() & 0o077, 0, "state/{name}");
        }
        for folder in ["data", "metrics", "state"] {
            fs::remove_dir_all(home.path(folder)).unwrap();
        }
    }
}

/// A folder with the setgid bit gives its group to what is made in it.
#[test]
fn backup_group_can_read_an_archive() {
    if !geteuid().is_root() {
        return;
    }
    let home = Home::new();
    for owner in [0, OTHER] {
        let shared = home.path(&format!("shared-{owner}"));
        fs::create_dir(&shared).unwrap();
        chown(&shared, Some(owner), Some(OTHER)).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o2750)).unwrap();
        let (feed, store) = (fixture("response.json"), format!("shared-{owner}/data"));
        let arguments = ["run", "--feed", feed.to_str().unwrap(), "--store", &store];
        shell(&home, "umask 027", &arguments).with(0);
        for (name, metadata) in below(&shared) {
            let mode = if metadata.is_dir() { 0o2750 } else { 0o640 };
            let found = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
            assert_eq!(found, (owner, OTHER, mode), "{owner}: {name}: {:o}", found.2);
        }
    }
}

#[test]
fn few_descriptors_are_enough_or_named() {
    let home = Home::new();
    let feed = fixture("response.json");
    let run = |limit: u32, store: &str| {
        let arguments = ["run", "--feed", feed.to_str().unwrap(), "--store", store];
        shell(&home, &format!("ulimit -n {limit}"), &arguments)
    };
    for limit in [5, 6, 8, 10] {
        let ended = run(limit, "too-few").with(1);
        assert!(
            ended.error_line().contains(&format!("the limit of open files is {limit}")),
            "{}",
            ended.stderr
        );
    }
    for limit in [16, 18, 20, 30] {
        let store = format!("store-{limit}");
        run(limit, &store).with(0);
        let verify = ["verify", "--store", &store];
        shell(&home, &format!("ulimit -n {limit}"), &verify).with(0);
    }
}
