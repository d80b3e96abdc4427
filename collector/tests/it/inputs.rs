//! What a user may name: stores, folders, files, variables. All of it is used or refused, nothing is passed over in silence.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use crate::foreign_files::{collector, ended, fifo};
use crate::support::{Ended, Home, fixture};

fn feed() -> String {
    fixture("response.json").to_str().unwrap().to_owned()
}

#[test]
fn a_store_that_does_not_exist_is_an_error_of_reading_commands() {
    let commands: [&[&str]; 5] =
        [&["query"], &["query", "--id", "1"], &["verify"], &["repair"], &["cache", "stats"]];
    for store in ["nosuch", "a/b/c", "empty"] {
        for arguments in commands {
            let home = Home::new();
            fs::create_dir(home.path("empty")).unwrap();
            let ended = home.collector(&[arguments, &["--store", store]].concat()).with(1);
            assert_eq!(ended.error_line(), format!("error: there is no archive in {store}"));
            assert!(ended.stderr.contains("\nhint: check --store"), "{}", ended.stderr);
            assert!(!home.path("nosuch").exists() && !home.path("a").exists());
            assert_eq!(fs::read_dir(home.path("empty")).unwrap().count(), 0);
        }
    }
    let home = Home::new();
    let findings = home.collector(&["verify", "--json"]).with(1).json();
    assert_eq!(
        (&findings["events"], &findings["problems"][0]["problem"]),
        (&0.into(), &"there is no archive".into())
    );
    // An archive in which nothing is found is not a missing one.
    home.run(feed()).with(0);
    home.collector(&["query", "--from", "1999-01-01", "--to", "1999-01-02"]).with(0);
    home.run(home.write("none.json", "[]")).with(0);
}

#[test]
fn a_store_that_cannot_be_a_folder_is_wrong_usage() {
    let home = Home::new();
    home.write("file", "");
    fifo(&home.path("fifo"));
    symlink("nowhere", home.path("link")).unwrap();
    symlink("loop", home.path("loop")).unwrap();
    let feed = feed();
    for (store, reason) in [
        ("", "must not be empty"),
        ("file", "it is a file, not a folder"),
        ("file/", "Not a directory"),
        ("file/below", "Not a directory"),
        ("fifo", "not a folder"),
        ("/dev/null", "not a folder"),
        ("link", "leads nowhere"),
        ("loop", "symbolic link"),
    ] {
        for arguments in [&["run", "--feed", &feed][..], &["query"], &["verify"]] {
            let ended = home.collector(&[arguments, &["--store", store]].concat()).with(2);
            let line = ended.error_line();
            assert!(line.contains("--store: ") && line.contains(reason), "{store}: {line}");
        }
        let mut command = home.command(&["run", "--feed", &feed]);
        let ended = Ended::from(command.env("COLLECTOR_STORE", store).output().unwrap()).with(2);
        assert!(ended.error_line().contains("$COLLECTOR_STORE"), "{}", ended.stderr);
    }
    assert_eq!(fs::read(home.path("file")).unwrap(), b"");
    let mut command = home.command(&["query", "--store"]);
    command.arg(std::ffi::OsStr::from_bytes(b"\xff"));
    ended(&mut command).with(2);
}

#[test]
fn an_empty_value_is_not_ignored() {
    let home = Home::new();
    for name in [
        "COLLECTOR_STORE",
        "COLLECTOR_METRICS_DIR",
        "COLLECTOR_HEALTH_FILE",
        "COLLECTOR_TIMEOUT",
        "POLISEN_API_URL",
    ] {
        let mut command = home.command(&["config"]);
        let ended = Ended::from(command.env(name, "").output().unwrap()).with(2);
        assert!(ended.error_line().contains(&format!("${name}: ")), "{}", ended.stderr);
    }
    // Where nothing is the default, an empty value means just that.
    for name in ["COLLECTOR_CONTACT", "COLLECTOR_STATE_DIR", "COLLECTOR_PROMETHEUS_FILE", "OCI_REGION"] {
        let mut command = home.command(&["config"]);
        Ended::from(command.env(name, "").output().unwrap()).with(0);
    }
}

fn refused_by_network(variables: &[(&str, &str)], name: &str) {
    let home = Home::new();
    let mut command = home.command(&["run", "--feed", "https://feed.invalid/x", "--retries", "0"]);
    let ended = Ended::from(command.envs(variables.iter().copied()).output().unwrap()).with(2);
    assert!(ended.error_line().contains(&format!("${name}")), "{variables:?}: {}", ended.stderr);
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    // What is not used may be malformed: nothing is called here.
    let feed = feed();
    let mut command = home.command(&["run", "--feed", &feed]);
    Ended::from(command.envs(variables.iter().copied()).output().unwrap()).with(0);
}

#[test]
fn a_proxy_that_cannot_be_used_is_wrong_usage() {
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        refused_by_network(&[(name, "http://user:hunter2#x@127.0.0.1:9")], name);
        refused_by_network(&[(name, "socks5://user:hunter2@127.0.0.1:9")], name);
    }
    refused_by_network(&[("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://hunter2:1")], "HTTPS_PROXY");
    refused_by_network(&[("HTTPS_PROXY", ""), ("https_proxy", "http://b:1")], "HTTPS_PROXY");
    refused_by_network(&[("HTTPS_PROXY", "http://a:1"), ("NO_PROXY", "*.example.org")], "NO_PROXY");
    // One that can be used is: no server listens there.
    let home = Home::new();
    let mut command = home.command(&["run", "--feed", "https://feed.invalid/x", "--retries", "0"]);
    command.env("HTTPS_PROXY", "http://user:p%23ss@127.0.0.1:1").env("NO_PROXY", "localhost,10.0.0.0/8");
    ended(&mut command).with(1);
}

#[test]
fn certificates_that_cannot_be_used_are_wrong_usage() {
    let home = Home::new();
    let (empty, folder) = (home.write("empty.pem", ""), home.path("certificates"));
    fs::create_dir(&folder).unwrap();
    fifo(&folder.join("fifo.pem"));
    let pipe = folder.join("fifo.pem");
    for path in [Path::new("/nonexistent"), &empty, &folder, &pipe] {
        refused_by_network(&[("SSL_CERT_FILE", path.to_str().unwrap())], "SSL_CERT_FILE");
    }
    for path in [Path::new("/nonexistent"), &empty, &folder] {
        refused_by_network(&[("SSL_CERT_DIR", path.to_str().unwrap())], "SSL_CERT_DIR");
    }
}

#[test]
fn folders_of_the_environment_are_used_or_refused() {
    let home = Home::new();
    let file = home.write("file", "");
    for (name, value) in [
        ("STATE_DIRECTORY", "relative"),
        ("CACHE_DIRECTORY", "relative"),
        ("STATE_DIRECTORY", file.to_str().unwrap()),
    ] {
        let mut command = home.command(&["config"]);
        let ended = Ended::from(command.env(name, value).output().unwrap()).with(2);
        assert!(ended.error_line().contains(&format!("${name}")), "{}", ended.stderr);
    }
    let mut command = home.command(&["config"]);
    let ended = Ended::from(command.env("XDG_STATE_HOME", "relative").output().unwrap()).with(0);
    assert!(ended.stderr.contains("XDG_STATE_HOME"), "{}", ended.stderr);
    let mut command = home.command(&["config"]);
    let ended =
        Ended::from(command.env("STATE_DIRECTORY", "/var/lib/a:/var/lib/b").output().unwrap()).with(0);
    assert!(ended.stdout.ends_with("Calls are counted in /var/lib/a\n"), "{}", ended.stdout);
    for option in ["--state-dir", "--cache-dir"] {
        let ended = home.collector(&["config", option, "file"]).with(2);
        assert!(ended.error_line().contains("not a folder"), "{option}: {}", ended.stderr);
    }
}

#[test]
fn a_config_file_may_come_through_a_fifo() {
    let home = Home::new();
    fifo(&home.path("c.toml"));
    let path = home.path("c.toml");
    let writer = std::thread::spawn(move || fs::write(path, "retries = 7\n"));
    let config = collector(&home, &["config", "--json", "--config", "c.toml"]).with(0).json();
    writer.join().unwrap().unwrap();
    assert_eq!(config["retries"]["value"], "7");
    for path in ["/dev/zero", "."] {
        collector(&home, &["config", "--config", path]).with(2);
    }
}

#[test]
fn a_feed_may_come_through_a_fifo_and_ends() {
    let home = Home::new();
    fifo(&home.path("feed"));
    let (path, body) = (home.path("feed"), fs::read(fixture("response.json")).unwrap());
    let writer = std::thread::spawn(move || fs::write(path, body));
    collector(&home, &["run", "--feed", "feed"]).with(0);
    writer.join().unwrap().unwrap();
    assert_eq!(home.lines("events").len(), 500);
    let mut child = home
        .command(&["run", "--feed", "/dev/stdin", "--store", "piped"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(fixture("response.json")).unwrap()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    for (feed, reason) in [("/dev/zero", "64 MiB"), (".", "folder"), ("/dev/null", ""), ("-", "")] {
        let ended = collector(&home, &["run", "--feed", feed]).with(1);
        assert!(ended.error_line().contains(reason), "{feed}: {}", ended.stderr);
    }
}

#[test]
fn recordings_of_the_future_are_refused() {
    let home = Home::new();
    let body = fs::read(fixture("response.json")).unwrap();
    // Year, month, day and hour; a later millennium; before there was a feed; and one as it should be.
    for name in ["2026010112.json", "99999999999.json", "202601011.json", "1767362400.json"] {
        home.write(&format!("polls/{name}"), &body);
    }
    let ended = home.collector(&["import", "--json", "polls"]).with(1);
    assert_eq!(ended.stderr.matches("not imported").count(), 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("2026010112.json") && ended.stderr.contains("2034"), "{}", ended.stderr);
    let summary = ended.json();
    assert_eq!(
        (&summary["responses"], &summary["failed"], &summary["events_new"]),
        (&4.into(), &3.into(), &500.into())
    );
    let other = home.collector(&["import", "--store", "other", "polls/2026010112.json"]).with(1);
    assert!(other.stderr.contains("not imported"), "{}", other.stderr);
    assert!(!home.path("other/events").exists());
}

#[test]
fn recordings_are_found_once_behind_links_and_what_is_no_file_is_passed_over() {
    let home = Home::new();
    home.write("polls/deep/1767362400.json", fs::read(fixture("response.json")).unwrap());
    symlink("..", home.path("polls/deep/up")).unwrap();
    symlink("deep", home.path("polls/again")).unwrap();
    symlink("nowhere", home.path("polls/1767362401.json")).unwrap();
    symlink("/dev/zero", home.path("polls/1767362402.json")).unwrap();
    fifo(&home.path("polls/1767362403.json"));
    let ended = collector(&home, &["import", "--json", "polls"]).with(0);
    assert_eq!(ended.json()["responses"], 1);
    for name in ["1767362401", "1767362402", "1767362403"] {
        assert!(ended.stderr.contains(name), "{}", ended.stderr);
    }
    let ended = collector(&home, &["import", "polls/1767362403.json"]).with(2);
    assert!(ended.error_line().contains("FIFO"), "{}", ended.stderr);
}
