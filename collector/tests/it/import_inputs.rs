//! What `collector import` reads beside files and folders: tar archives and git repositories.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use fixtures::{Feed, FeedConfig};
use flate2::Compression;
use flate2::write::GzEncoder;
use lzma_rust2::{XzOptions, XzWriter};
use tar::{Builder, EntryType, Header};

use crate::support::Home;

/// Responses by the second of their recording.
fn recorded() -> Vec<(i64, Vec<u8>)> {
    let mut feed = Feed::new(FeedConfig {
        seed: 5,
        buffer: 30,
        corrections: 0.2,
        withdrawals: 0.05,
        log: false,
        ..FeedConfig::default()
    });
    let mut recorded = Vec::new();
    for _ in 0..12 {
        feed.advance_by(chrono::Duration::minutes(130));
        recorded.push((feed.now().timestamp(), feed.response().compact()));
    }
    recorded
}

/// The archive's objects but for `metadata/`.
fn objects(home: &Home) -> BTreeMap<String, Vec<u8>> {
    let mut objects = home.store();
    objects.retain(|key, _| !key.starts_with(['.', 'm']));
    objects
}

fn imported_from_files(recorded: &[(i64, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
    let home = Home::new();
    for (second, body) in recorded {
        home.write(&format!("polls/{second}.json"), body);
    }
    home.collector(&["import", "polls"]).with(0);
    objects(&home)
}

fn append(builder: &mut Builder<Vec<u8>>, name: &str, body: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_size(body.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, body).unwrap();
}

/// An archive with the newest response first, and with members that are not responses.
fn archived(recorded: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    append(&mut builder, "polls/README.md", b"Recorded by hand.");
    append(&mut builder, "polls/latest.json", b"[]");
    for (second, body) in recorded.iter().rev() {
        // The second name is longer than a header has room for.
        let folder =
            if second % 2 == 0 { "polls".to_owned() } else { format!("polls/{}", "long".repeat(40)) };
        append(&mut builder, &format!("{folder}/response-{second}.json"), body);
    }
    let mut link = Header::new_gnu();
    link.set_entry_type(EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "polls/1767225600.json", "/etc/passwd").unwrap();
    builder.into_inner().unwrap()
}

fn compressed(archive: &[u8], name: &str) -> Vec<u8> {
    match name.rsplit_once('.').unwrap().1 {
        "gz" | "tgz" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(archive).unwrap();
            encoder.finish().unwrap()
        }
        "xz" => {
            let mut encoder = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).unwrap();
            encoder.write_all(archive).unwrap();
            encoder.finish().unwrap()
        }
        "zst" => zstd::bulk::compress(archive, 1).unwrap(),
        _ => archive.to_vec(),
    }
}

#[test]
fn tar_archives_are_imported_as_folders_are() {
    let recorded = recorded();
    let expected = imported_from_files(&recorded);
    let archive = archived(&recorded);
    for name in ["polls.tar", "polls.tar.gz", "polls.tgz", "polls.tar.xz", "polls.tar.zst"] {
        let home = Home::new();
        home.write(name, compressed(&archive, name));
        let ended = home.collector(&["import", "--json", name]).with(0);
        assert_eq!(ended.json()["responses"], 12, "{name}");
        assert!(ended.stderr.contains("1767225600.json"), "the link is named: {}", ended.stderr);
        assert_eq!(objects(&home), expected, "{name}");
    }
}

#[test]
fn damaged_tar_archive_is_an_error_before_anything_is_stored() {
    let archive = archived(&recorded());
    for name in ["polls.tar", "polls.tar.gz", "polls.tar.xz", "polls.tar.zst"] {
        let whole = compressed(&archive, name);
        // What a cut or flipped archive holds has no checksum of its own in a plain one.
        let mut flipped = whole.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x40;
        let mut damaged = vec![whole[..whole.len() * 2 / 3].to_vec(), b"not an archive".to_vec()];
        damaged.extend((name != "polls.tar").then_some(flipped));
        for bytes in damaged {
            let home = Home::new();
            home.write(name, bytes);
            let ended = home.collector(&["import", name]).with(2);
            assert!(ended.error_line().contains(&format!("cannot read {name}")), "{}", ended.stderr);
            assert!(!home.path("data").exists(), "{name}");
        }
    }
}

#[test]
fn member_that_is_larger_than_any_response_is_an_error() {
    let mut builder = Builder::new(Vec::new());
    append(&mut builder, "1767225600.json", &vec![b' '; 65 << 20]);
    let home = Home::new();
    home.write("polls.tar.zst", compressed(&builder.into_inner().unwrap(), "polls.tar.zst"));
    let ended = home.collector(&["import", "polls.tar.zst"]).with(2);
    assert!(
        ended.error_line().contains("1767225600.json: it is larger than 67108864 bytes"),
        "{}",
        ended.stderr
    );
}

/// A repository in which commands are run at a given second.
struct Repository<'a>(&'a Path);

impl Repository<'_> {
    fn git(&self, second: i64, arguments: &[&str]) {
        let date = format!("@{second} +0100");
        let mut command = Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]);
        command.args(arguments).current_dir(self.0).env("HOME", self.0);
        command.envs([
            ("GIT_AUTHOR_DATE", "@1000000000 +0000"),
            ("GIT_COMMITTER_DATE", &date),
            ("GIT_CONFIG_NOSYSTEM", "1"),
        ]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn commit(&self, second: i64, body: &[u8]) {
        fs::write(self.0.join("events.json"), body).unwrap();
        self.git(second, &["add", "events.json"]);
        self.git(second, &["commit", "--quiet", "--message", "poll"]);
    }
}

fn git_is_missing() -> bool {
    Command::new("git").arg("--version").output().is_err()
}

#[test]
fn versions_in_a_repository_are_imported_as_files_are() {
    let recorded = recorded();
    let home = Home::new();
    let folder = home.path("a repository");
    fs::create_dir(&folder).unwrap();
    if git_is_missing() {
        let ended = home.collector(&["import", "git:a repository:events.json"]).with(2);
        assert!(ended.error_line().contains("git cannot be started"), "{}", ended.stderr);
        return;
    }
    let repository = Repository(&folder);
    repository.git(0, &["init", "--quiet", "--initial-branch=main"]);
    let (before, rest) = recorded.split_at(4);
    let (aside, rest) = rest.split_at(2);
    let (meanwhile, rest) = rest.split_at(2);
    for (second, body) in before {
        repository.commit(*second, body);
    }
    // Two scrapers committed at the same time; the merge kept one side and is not a recording.
    repository.git(0, &["checkout", "--quiet", "-b", "aside"]);
    for (second, body) in aside {
        repository.commit(*second, body);
    }
    repository.git(0, &["checkout", "--quiet", "main"]);
    for (second, body) in meanwhile {
        repository.commit(*second, body);
    }
    let end = recorded.last().unwrap().0 + 1000;
    repository.git(end, &["merge", "--quiet", "--strategy", "ours", "aside"]);
    repository.git(end, &["rm", "--quiet", "events.json"]);
    repository.git(end, &["commit", "--quiet", "--message", "moved"]);
    for (second, body) in rest {
        repository.commit(*second, body);
    }
    let ended = home.collector(&["import", "--json", "git:a repository:events.json"]).with(0);
    assert_eq!(ended.json()["responses"], 12);
    assert_eq!(objects(&home), imported_from_files(&recorded));

    let ended = home.collector(&["import", "git:a repository:other.json"]).with(2);
    assert!(ended.error_line().contains("no commit changed other.json"), "{}", ended.stderr);
    let ended = home.collector(&["import", "git:nowhere:events.json"]).with(2);
    assert!(
        ended.error_line().contains("cannot read git:nowhere:events.json: git failed"),
        "{}",
        ended.stderr
    );
    let ended = home.collector(&["import", "git:events.json"]).with(2);
    assert!(ended.error_line().contains("git:REPOSITORY:FILE"), "{}", ended.stderr);

    repository
        .git(0, &["clone", "--quiet", "--depth=1", &format!("file://{}", folder.display()), "../shallow"]);
    let ended = home.collector(&["import", "--store", "other", "git:shallow:events.json"]).with(0);
    assert!(ended.stderr.contains("the clone is shallow"), "{}", ended.stderr);
}
