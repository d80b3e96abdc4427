//! Files that others put where the programs read and write: nothing blocks, nothing is destroyed, all is reported.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::{Ended, Home, fixture};

/// Runs a command that must end by itself: one that waits for a FIFO is killed and has no exit code.
pub(crate) fn ended(command: &mut Command) -> Ended {
    let mut limited = Command::new("timeout");
    limited.args(["--signal=KILL", "60"]).arg(command.get_program()).args(command.get_args());
    limited.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output: Output = limited
        .current_dir(command.get_current_dir().unwrap())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    output.into()
}

pub(crate) fn collector(home: &Home, arguments: &[&str]) -> Ended {
    ended(&mut home.command(arguments))
}

pub(crate) fn fifo(path: &Path) {
    mkfifo(path, Mode::S_IRWXU).unwrap();
}

const DAY: &str = "data/events/2025/12/30";

fn collected() -> Home {
    let home = Home::new();
    home.run_json(fixture("response.json"));
    home
}

/// The problems that `verify` reports of names that no object may have, or of what is not a file.
#[track_caller]
fn reported(home: &Home) -> Vec<String> {
    let findings = collector(home, &["verify", "--json"]).with(1).json();
    let problems = findings["problems"].as_array().unwrap();
    assert_eq!(findings["foreign"], problems.len(), "{findings}");
    problems.iter().map(|it| format!("{} {}", it["object"], it["problem"]).replace('"', "")).collect()
}

#[test]
fn store_may_be_any_relative_path() {
    let arguments =
        ["run", "--feed", fixture("response.json").to_str().unwrap(), "--store"].map(str::to_owned);
    for store in [".", "./", "..", "./.", "sub/", "sub/..", "a/../b", "../beside", "with space/ä", "sub//x/."]
    {
        let home = Home::new();
        fs::create_dir(home.path("here")).unwrap();
        let mut command = home.command(&arguments.each_ref().map(String::as_str));
        command.arg(store).current_dir(home.path("here"));
        ended(&mut command).with(0);
        assert!(home.path("here").join(store).join("metadata/last_seen.json").is_file(), "{store}");
        let mut verify = home.command(&["verify", "--store", store]);
        ended(verify.current_dir(home.path("here"))).with(0);
    }
}

#[test]
fn what_is_no_file_in_the_archive_is_reported_and_not_read() {
    let home = collected();
    let day = home.path(DAY);
    fifo(&day.join("events-1.jsonl"));
    symlink("nowhere", day.join("events-2.jsonl")).unwrap();
    symlink("events-3.jsonl", day.join("events-3.jsonl")).unwrap();
    symlink("/dev/zero", day.join("events-4.jsonl")).unwrap();
    fs::create_dir(day.join("events-5.jsonl")).unwrap();
    let _socket = UnixListener::bind(day.join("events-6.jsonl")).unwrap();
    home.write(&format!("{DAY}/events 7.jsonl"), "");
    // A sparse file takes no room on the disk, but all of it would be read.
    fs::File::create(day.join("events-8.jsonl")).unwrap().set_len(1 << 40).unwrap();
    let shown = collector(&home, &["query", "--format", "jsonl"]).with(0).stdout;
    assert_eq!(shown.lines().count(), 500);
    let expected = [
        "events-1.jsonl not an object of the archive: a FIFO, not a regular file",
        "events-2.jsonl not an object of the archive: a symbolic link that leads nowhere",
        "events-3.jsonl not an object of the archive: a symbolic link that leads nowhere",
        "events-4.jsonl not an object of the archive: a device, not a regular file",
        "events-5.jsonl not an object of the archive: a folder, not a regular file",
        "events-6.jsonl not an object of the archive: a socket, not a regular file",
        "events-8.jsonl not an object of the archive: larger than any object, 1 GiB",
        "events 7.jsonl not an object of the archive: a name that no object can have",
    ];
    let mut expected = expected.map(|line| format!("{}/{line}", &DAY[5..]));
    expected.sort();
    assert_eq!(reported(&home), expected);
    // Neither a run nor a repair stumbles over it.
    collector(&home, &["run", "--feed", fixture("response-next.json").to_str().unwrap()]).with(0);
    collector(&home, &["repair"]).with(0);
}

#[test]
fn a_day_that_cannot_be_read_is_named_and_the_others_are_read() {
    let home = collected();
    let days = |ended: &Ended| {
        let lines = ended.stdout.lines().map(|line| line.split('"').nth(5).unwrap()[..10].to_owned());
        lines.collect::<std::collections::BTreeSet<String>>()
    };
    let query = |more: &[&str]| collector(&home, &[&["query", "--format", "jsonl"], more].concat());
    let all = days(&query(&[]).with(0));
    let day = home.path(DAY);
    fs::rename(&day, home.path("away")).unwrap();
    // Its disk is away; and it may not be read, which the superuser may always.
    for is_forbidden in [false, true] {
        if !is_forbidden {
            symlink("not mounted", &day).unwrap();
        } else if is_root() {
            break;
        } else {
            fs::remove_file(&day).unwrap();
            fs::create_dir(&day).unwrap();
            fs::set_permissions(&day, fs::Permissions::from_mode(0o000)).unwrap();
        }
        let shown = query(&[]).with(1);
        assert!(shown.error_line().contains(DAY), "{}", shown.stderr);
        assert_eq!(days(&shown).len() + 1, all.len(), "{all:?}");
        let month = query(&["--from", "2025-12-29", "--to", "2025-12-31"]).with(1);
        assert_eq!(days(&month), ["2025-12-29", "2025-12-31"].map(str::to_owned).into());
        // Whoever does not ask for it is not bothered.
        query(&["--from", "2025-12-31"]).with(0);
        let found = collector(&home, &["verify"]).with(1);
        assert!(found.error_line().contains(DAY), "{}", found.stderr);
    }
}

#[test]
fn linked_folders_are_read_once() {
    let home = collected();
    let outside = home.path("outside");
    fs::rename(home.path("data/events/2025"), &outside).unwrap();
    symlink(&outside, home.path("data/events/2025")).unwrap();
    for (target, link) in [
        (".", "data/events/2025/loop"),
        ("..", "data/events/up"),
        ("../outside", "data/events/2024"),
        ("/", "data/events/root"),
        ("2026", "data/events/2027"),
    ] {
        symlink(target, home.path(link)).unwrap();
    }
    fs::remove_file(home.path("data/events/2024")).unwrap();
    symlink(&outside, home.path("data/events/2029")).unwrap();
    let shown = collector(&home, &["query", "--format", "jsonl"]).with(0).stdout;
    assert_eq!(shown.lines().count(), 500);
    let problems = reported(&home);
    assert_eq!(problems.len(), 5, "{problems:?}");
    assert!(
        problems.iter().all(|it| it.contains("a folder that is read under another name")),
        "{problems:?}"
    );
}

#[test]
fn deep_folders_do_not_exhaust_the_stack() {
    let home = collected();
    // Deeper than any path can name, so it is made step by step.
    let script = format!(
        "cd {DAY}; name=$(printf %0200d 0); for i in $(seq 30); do mkdir $name && cd -P $name || exit 1; done"
    );
    let mut command = home.program("/bin/sh");
    assert!(command.env("PATH", "/usr/bin:/bin").args(["-c", &script]).status().unwrap().success());
    let problems = reported(&home);
    assert!(problems[0].ends_with("a folder that is nested too deeply"), "{problems:?}");
    let mut remove = home.program("/bin/rm");
    assert!(remove.args(["-r", DAY]).status().unwrap().success());
}

#[test]
fn a_folder_or_a_fifo_in_place_of_the_stores_own_files_fails_the_run() {
    for (name, reason) in [
        ("metadata/last_seen.json", "it is a FIFO"),
        (".staging", "must not be a link"),
        ("events", "Not a directory"),
    ] {
        let home = collected();
        let path = home.path("data").join(name);
        if path.is_dir() {
            fs::rename(&path, home.path("aside")).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        match name {
            ".staging" => symlink(home.path("aside"), &path).unwrap(),
            "events" => fs::write(&path, "").unwrap(),
            _ => fifo(&path),
        }
        let feed = fixture("response-next.json");
        let ended = collector(&home, &["run", "--feed", feed.to_str().unwrap()]).with(1);
        assert!(ended.error_line().contains(reason), "{name}: {}", ended.stderr);
    }
    let home = collected();
    fs::remove_file(home.path("data/metadata/last_seen.json")).unwrap();
    fs::create_dir(home.path("data/metadata/last_seen.json")).unwrap();
    let ended = collector(&home, &["run", "--feed", fixture("response-next.json").to_str().unwrap()]).with(1);
    assert!(ended.error_line().contains("it is a folder"), "{}", ended.stderr);
}

/// Files that other programs read, with the command that writes them.
fn written_to(home: &Home, option: &str, path: &str) -> Ended {
    let feed = fixture("response.json");
    collector(home, &["run", "--feed", feed.to_str().unwrap(), option, path])
}

#[test]
fn a_fifo_is_written_to_and_not_replaced() {
    for option in ["--health-file", "--prometheus-file"] {
        let home = Home::new();
        let path = home.path("pipe");
        fifo(&path);
        // Both ends at once: what is written stays in the FIFO until it is read here.
        let mut reader = fs::File::options().read(true).write(true).open(&path).unwrap();
        written_to(&home, option, "pipe").with(0);
        let mut bytes = vec![0; 1 << 16];
        let read = reader.read(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..read]);
        assert!(text.contains("last_run"), "{text}");
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
    }
}

#[test]
fn a_fifo_without_a_reader_does_not_block_a_run() {
    let home = Home::new();
    fifo(&home.path("pipe"));
    let ended = written_to(&home, "--health-file", "pipe");
    assert!(ended.code.is_some(), "it hangs");
    assert!(ended.stderr.contains("no process reads the FIFO"), "{}", ended.stderr);
    assert_eq!(home.lines("events").len(), 500);
    collector(&home, &["health", "--health-file", "pipe"]).with(1);
}

#[test]
fn devices_and_sockets_are_not_replaced() {
    let home = Home::new();
    for option in ["--health-file", "--prometheus-file"] {
        for device in ["/dev/null", "/dev/stderr", "/dev/fd/2"] {
            let ended = written_to(&home, option, device).with(0);
            assert!(!ended.stderr.contains("could not be written"), "{device}: {}", ended.stderr);
        }
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
    let ended = written_to(&home, "--health-file", "/dev/stdout").with(0);
    assert!(ended.stdout.contains("\"last_run\""), "{}", ended.stdout);
    let _socket = UnixListener::bind(home.path("socket")).unwrap();
    for (path, reason) in
        [("socket", "it is a socket"), (".", "it is a folder"), ("/dev/full", "No space left")]
    {
        let ended = written_to(&home, "--health-file", path);
        assert!(ended.stderr.contains(reason), "{path}: {}", ended.stderr);
    }
    assert!(fs::symlink_metadata(home.path("socket")).unwrap().file_type().is_socket());
    assert_eq!(home.lines("events").len(), 500);
}

#[test]
fn a_trusted_link_is_followed_and_stays() {
    let home = Home::new();
    home.write("elsewhere/target.json", "{}");
    symlink("elsewhere/target.json", home.path("link")).unwrap();
    symlink("elsewhere/made.json", home.path("dangling")).unwrap();
    symlink("link", home.path("chain")).unwrap();
    symlink("loop", home.path("loop")).unwrap();
    for (link, target) in [("link", "target"), ("chain", "target"), ("dangling", "made")] {
        written_to(&home, "--health-file", link).with(0);
        assert!(home.path(link).is_symlink());
        let path = home.path(&format!("elsewhere/{target}.json"));
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert!(fs::read_to_string(&path).unwrap().contains("last_run"));
    }
    // Replaced beside the target: nothing else is left there.
    assert_eq!(fs::read_dir(home.path("elsewhere")).unwrap().count(), 2);
    let ended = written_to(&home, "--health-file", "loop");
    assert!(ended.stderr.contains("symbolic link"), "{}", ended.stderr);
}

/// Whether this user may give files away. Nothing can be tried otherwise.
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

const ANOTHER_USER: u32 = 65_534;

#[test]
fn links_of_another_user_are_not_followed() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let target = home.write("target", "precious");
    symlink(&target, home.path("link")).unwrap();
    std::os::unix::fs::lchown(home.path("link"), Some(ANOTHER_USER), None).unwrap();
    fs::create_dir(home.path("shared")).unwrap();
    symlink(&target, home.path("shared/link")).unwrap();
    fs::set_permissions(home.path("shared"), fs::Permissions::from_mode(0o1777)).unwrap();
    chown(home.path("shared"), Some(ANOTHER_USER), None).unwrap();
    fifo(&home.path("shared/pipe"));
    chown(home.path("shared/pipe"), Some(ANOTHER_USER), None).unwrap();
    for option in ["--health-file", "--prometheus-file"] {
        for path in ["link", "shared/link", "shared/pipe"] {
            let ended = written_to(&home, option, path);
            assert!(ended.stderr.contains("another user"), "{path}: {}", ended.stderr);
        }
    }
    assert_eq!(fs::read(target).unwrap(), b"precious");
}

#[test]
fn state_of_another_user_is_not_used() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let call = |state: &str| {
        let arguments =
            ["run", "--feed", "http://127.0.0.1:1/", "--retries", "0", "--min-call-interval", "1ms"];
        collector(&home, &[&arguments[..], &["--state-dir", state]].concat()).with(1)
    };
    let log = "calls-127.0.0.1_1.json";
    assert!(!call("own").stderr.contains("another user"));
    let mode = |path: &str| fs::metadata(home.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("own"), mode(&format!("own/{log}"))), (0o700, 0o600));

    // Root takes the folder of another user, but not where everybody could have made it.
    fs::create_dir(home.path("shared")).unwrap();
    fs::set_permissions(home.path("shared"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::create_dir(home.path("shared/foreign")).unwrap();
    chown(home.path("shared/foreign"), Some(ANOTHER_USER), None).unwrap();
    let precious = home.write("precious", "precious");
    for state in ["linked", "given", "hard"] {
        fs::create_dir(home.path(state)).unwrap();
    }
    symlink(&precious, home.path(&format!("linked/{log}"))).unwrap();
    let given = home.write(&format!("given/{log}"), "");
    chown(given, Some(ANOTHER_USER), None).unwrap();
    fs::hard_link(&precious, home.path(&format!("hard/{log}"))).unwrap();
    for (state, reason) in [
        ("shared/foreign", "belongs to another user"),
        ("given", "belongs to another user"),
        ("linked", "symbolic link"),
        ("hard", "second name"),
    ] {
        let ended = call(state);
        assert!(ended.error_line().contains(reason), "{state}: {}", ended.stderr);
    }
    assert_eq!(fs::read(precious).unwrap(), b"precious");
}
