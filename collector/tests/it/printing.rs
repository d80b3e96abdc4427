//! What a feed, a server, a claim or a file states is printed as text and does nothing else.

use std::fs;
use std::io::Write as _;

use collector::text::{csv_cell, is_printable, json_for_terminal, printable, printable_lines, server_text};
use proptest::prelude::*;
use serde_json::{Value, json};
use wiremock::matchers::any as any_request;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::{Ended, Home};

/// Colour, title of the window, cursor, C1, direction, zero width, separators, and a forged line.
const HOSTILE: &str = "=1+1\u{1b}[31m\u{1b}]0;x\u{7}\u{8}\u{9b}2J\u{85}\u{202e}\u{2066}\u{200f}\u{61c}\u{200b}\u{2028}\u{2029}\u{feff}\u{7f}\nerror: forged\r\n";

#[track_caller]
fn assert_printable(text: &str) {
    let wrong: Vec<char> = text.chars().filter(|&it| it != '\n' && !is_printable(it)).collect();
    assert!(wrong.is_empty(), "{wrong:?} in {text:?}");
}

#[track_caller]
fn assert_ended_printable(ended: &Ended) {
    assert_printable(&ended.stdout);
    assert_printable(&ended.stderr);
    // In CSV a line break is a part of its cell.
    let is_csv = ["id,", "section,", "location,"].iter().any(|begin| ended.stdout.starts_with(begin));
    let stdout = if is_csv { "" } else { &ended.stdout };
    let forged = stdout.lines().chain(ended.stderr.lines()).find(|line| line.starts_with("error: forged"));
    assert_eq!(forged, None);
}

/// An archive with an event, a revision and a rejected element, all hostile.
fn hostile_home() -> Home {
    let home = Home::new();
    let event = |summary: &str| {
        json!([{"id": 1, "datetime": "2026-01-02 9:38:09 +01:00", "name": HOSTILE, "summary": summary, "url": HOSTILE,
            "type": HOSTILE, "location": {"name": HOSTILE, "gps": "-33.1,18.2"}}, {"id": HOSTILE}])
    };
    for (second, summary) in [(1_767_362_400, HOSTILE), (1_767_362_401, "@changed")] {
        let path = home.write(&format!("{second}.json"), event(summary).to_string());
        home.collector(&["import", path.to_str().unwrap()]).with(0);
    }
    home
}

#[test]
fn queries_print_no_control_or_direction_characters() {
    let home = hostile_home();
    for arguments in [
        "query",
        "query --fields name,summary,url,gps",
        "query --format csv",
        "query --format json --fields name,summary",
        "query --format jsonl --fields name",
        "query --revisions all --format csv",
        "query --count-by type",
        "query --count-by location --format csv",
        "query --count-by location --format json",
        "query --count-by location --format jsonl",
        "verify",
    ] {
        let ended = home.collector(&arguments.split(' ').collect::<Vec<_>>()).with(0);
        assert!(!ended.stdout.is_empty());
        assert_ended_printable(&ended);
    }
    let table = home.collector(&["query"]).stdout;
    assert_eq!(table.lines().count(), 1);
    // JSON keeps the value.
    let found = home.collector(&["query", "--format", "json", "--fields", "name"]).json();
    assert_eq!(found["events"][0]["name"], HOSTILE);
}

#[test]
fn csv_cells_are_no_formulas() {
    let home = hostile_home();
    let csv = home.collector(&["query", "--format", "csv", "--fields", "id,name,gps"]).with(0).stdout;
    assert!(csv.starts_with("id,name,gps\n1,\"'=1+1\\u{1b}[31m"), "{csv}");
    assert!(csv.ends_with(",\"'-33.1,18.2\"\n"), "{csv}");
    for (text, cell) in [
        ("-5", "-5"),
        ("-0.5e3", "-0.5e3"),
        ("+46 8", "'+46 8"),
        ("@x", "'@x"),
        ("\tx", "'\tx"),
        ("  =x", "'  =x"),
        ("\r=x", "'\\u{d}=x"),
        ("\n=x", "\"'\n=x\""),
        ("＝x", "'＝x"),
        ("a-b", "a-b"),
        ("a\"b,c", "\"a\"\"b,c\""),
    ] {
        assert_eq!(csv_cell(text), cell);
    }
}

/// A hostile claim of another run, in logs of both formats, on stdout, in the record and in the health file.
#[test]
fn hostile_claim_is_printed_as_text() {
    let home = hostile_home();
    let mut ledger = home.ledger();
    let owner = format!("{HOSTILE}{}", "x".repeat(20_000));
    ledger["claim"] = json!({"run": HOSTILE, "owner": owner, "until": 4_102_444_800_u64,
        "objects": [{"key": HOSTILE, "ids": [7]}]});
    let feed = home.write("f.json", r#"[{"id":9,"datetime":"2026-01-02 9:38:09 +01:00"}]"#);
    for format in ["text", "json"] {
        fs::write(home.path("data/metadata/last_seen.json"), ledger.to_string()).unwrap();
        let ended = home.collector(&[
            "run",
            "--feed",
            feed.to_str().unwrap(),
            "--log-format",
            format,
            "--log-level",
            "debug",
        ]);
        assert_ended_printable(&ended);
        assert!(ended.stdout.len() + ended.stderr.len() < 100_000);
        if format == "json" {
            let lines = ended.stderr.lines().filter(|line| !line.starts_with("error: "));
            lines.for_each(|line| assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}"));
        }
    }
    for entry in fs::read_dir(home.path("metrics")).unwrap() {
        let record: Value = serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap();
        let left_to = record["left_to"].as_str().unwrap_or_default();
        assert_printable(left_to);
        assert!(left_to.chars().count() <= 2_000);
    }
    let broken = json!({"seen_ids": HOSTILE}).to_string();
    fs::write(home.path("data/metadata/last_seen.json"), broken).unwrap();
    for arguments in
        [&["run", "--feed", "f.json"][..], &["verify"], &["repair", "--dry-run"], &["health"], &["query"]]
    {
        assert_ended_printable(&home.collector(arguments));
    }
}

#[test]
fn hostile_records_are_reported_as_text() {
    let home = Home::new();
    for minute in 10..40 {
        let start = format!("2026-01-02T10:{minute}:00+00:00");
        let record = json!({"start_time": 1_767_348_000 + 60 * (minute - 10), "timestamp": start, "end_timestamp": start,
            "total_time": 1.0, "timings": {"api_fetch": 1.0, HOSTILE: 2.0}, "counts": {"new_events_count": 1},
            "errors": [{"type": HOSTILE, "message": format!("{HOSTILE}<script>'"), "timestamp": HOSTILE}],
            "status": "failed", "collector_version": HOSTILE, "possible_gap": false});
        home.write(&format!("metrics/metrics_20260102_10{minute}00.json"), record.to_string());
    }
    home.write(
        "metrics/metrics_20260102_\u{1b}[31m\u{202e}.json",
        json!({"total_time": HOSTILE}).to_string(),
    );
    home.write("metrics/metrics_20260103_000000.json", "[");
    let run = |arguments: &[&str]| -> Ended {
        let mut command = home.program(env!("CARGO_BIN_EXE_analyze-metrics"));
        command.args(arguments).output().unwrap().into()
    };
    assert_ended_printable(&run(&[]).with(0));
    for report in ["trends", "bottlenecks", "scalability", "scorecard"] {
        for format in ["text", "json", "markdown", "csv", "html"] {
            let ended = run(&["--report", report, "--format", format]).with(0);
            assert_ended_printable(&ended);
            assert!(
                !ended.stdout.contains("<script>") || matches!(format, "text" | "json" | "csv"),
                "{report} {format}"
            );
            assert!(!ended.stdout.contains("\n=1") && !ended.stdout.contains(",=1"), "{report} {format}");
        }
    }
    home.write("health.json", json!({"last_run": HOSTILE}).to_string());
    assert_ended_printable(&home.collector(&["health"]).with(1));
    let now = chrono::Utc::now().to_rfc3339();
    home.write("health.json", json!({"last_run": now, "status": HOSTILE, "error": HOSTILE}).to_string());
    let ended = home.collector(&["health"]).with(1);
    assert_ended_printable(&ended);
    assert_ended_printable(&home.collector(&["health", "--json"]).with(1));
}

/// Records that would fill the memory: a file without an end, a long line, and one in a small packed file.
#[test]
fn records_beyond_their_bound_are_skipped() {
    let home = Home::new();
    let record = |second: u32| {
        let start = format!("2026-01-02T10:00:{second:02}+00:00");
        json!({"start_time": 1_767_348_000 + second, "timestamp": start, "end_timestamp": start, "total_time": 1.0,
            "timings": {"api_fetch": 1.0}, "counts": {"new_events_count": 1}, "errors": []})
        .to_string()
    };
    home.write("metrics/metrics_20260102_100001.json", record(1));
    std::os::unix::fs::symlink("/dev/zero", home.path("metrics/metrics_20260102_100002.json")).unwrap();
    home.write("metrics/metrics_20260102_100003.json", format!("{}{}", record(3), " ".repeat(1 << 20)));
    home.write("metrics/long.jsonl", format!("{}\n{}\n", record(4), "x".repeat(1 << 21)));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        packed.write_all(&vec![b'x'; 1 << 20]).unwrap();
    }
    home.write("metrics/bomb.jsonl.gz", packed.finish().unwrap());
    let run = |arguments: &[&str]| -> Ended {
        let mut command = home.program(env!("CARGO_BIN_EXE_analyze-metrics"));
        command.args(arguments).output().unwrap().into()
    };
    let documented = run(&[]).with(0).stdout;
    assert!(documented.contains("Total runs analyzed: 1\n"), "{documented}");
    assert_eq!(documented.matches("Error loading").count(), 2, "{documented}");
    let report: Value = run(&["--report", "trends", "--format", "json"]).with(0).json();
    assert_eq!((&report["overview"]["runs"], &report["overview"]["skipped_records"]), (&2.into(), &4.into()));
    let packed = run(&["--archive-older-than", "1d"]).with(0).stdout;
    assert_eq!(packed.matches("left as it is").count(), 2, "{packed}");
    assert!(home.path("metrics/metrics_20260102_100003.json").exists());
}

/// A store that answers every request with the headers that it was sent.
#[test]
fn secrets_that_a_store_sends_back_are_not_printed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(async {
        let server = MockServer::start().await;
        let echo = |request: &wiremock::Request| {
            let headers: Vec<String> =
                request.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            let body = format!(
                "<Error><Code>Access\u{1b}Denied</Code><Message>{HOSTILE} {} {}?X-Amz-Signature=abc http://u:p@h/?q=s</Message></Error>",
                headers.join("; "),
                request.url
            );
            ResponseTemplate::new(403).set_body_string(body)
        };
        Mock::given(any_request()).respond_with(echo).mount(&server).await;
        server
    });
    let home = Home::new();
    let feed = home.write("f.json", r#"[{"id":9,"datetime":"2026-01-02 9:38:09 +01:00"}]"#);
    let mut command = home.command(&[
        "run",
        "--store",
        "s3://bucket/archive",
        "--feed",
        feed.to_str().unwrap(),
        "--log-level",
        "debug",
    ]);
    command.envs([
        ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "verysecretkey"),
        ("AWS_SESSION_TOKEN", "verysecrettoken"),
        ("AWS_REGION", "eu-north-1"),
        ("AWS_ENDPOINT_URL", &server.uri()),
    ]);
    let ended: Ended = command.output().unwrap().into();
    let ended = ended.with(1);
    assert_ended_printable(&ended);
    assert!(ended.stderr.contains("HTTP 403"), "{}", ended.stderr);
    let record = home.records()[0].to_string();
    let sent = runtime.block_on(server.received_requests()).unwrap();
    let authorization = sent[0].headers["authorization"].to_str().unwrap();
    let (_, signature) = authorization.split_once("Signature=").unwrap();
    for secret in ["verysecret", signature, "abc", "u:p@", "q=s"] {
        assert!(!ended.stderr.contains(secret) && !record.contains(secret), "{secret} in {}", ended.stderr);
    }
}

#[test]
fn secrets_in_a_servers_text_are_hidden() {
    for (text, shown) in [
        (
            "Authorization failed or requested resource not found.",
            "Authorization failed or requested resource not found.",
        ),
        (
            "The request signature we calculated does not match",
            "The request signature we calculated does not match",
        ),
        ("The provided token has expired.", "The provided token has expired."),
        ("key events/2026/01/02/events-1767362400.jsonl", "key events/2026/01/02/events-1767362400.jsonl"),
        ("see https://u:p@host/path?X=secret now", "see https://***@host/path?*** now"),
        ("see https://host#x, or http://h?a", "see https://host?*** or http://h?***"),
        ("Authorization: Signature version=\"1\",keyId=\"a\"", "Authorization: ***"),
        (r#"{"authorization":"Basic dXNlcjpwYXNz"}"#, r#"{"authorization":"***"#),
        ("sent Bearer abcdef.ghi here", "sent Bearer *** here"),
        ("x-amz-security-token:FwoG next", "x-amz-security-token:*** next"),
        ("<SignatureProvided>abc=</SignatureProvided>", "<SignatureProvided>***</SignatureProvided>"),
        ("password=hunter2&user=x", "password=***&user=x"),
        ("got wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY.", "got ***."),
        ("id 00112233445566778899aabbccddeeff0011223344", "id ***"),
    ] {
        assert_eq!(server_text(text), shown);
    }
    assert!(server_text(&"word ".repeat(100_000)).chars().count() <= 500);
}

#[test]
fn length_is_bounded_by_characters() {
    let long = "ö".repeat(100_000);
    let shown = printable(&long).to_string();
    assert_eq!((shown.chars().count(), shown.chars().last()), (2_000, Some('…')));
    assert_eq!(printable("ö".repeat(1_999)).to_string().chars().count(), 1_999);
}

fn hostile_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        any::<char>().prop_map(String::from),
        prop::sample::select(vec![
            "\u{1b}[2J",
            "\n",
            "\r\n",
            "\u{202e}",
            "\u{85}",
            "=",
            "\"",
            ",",
            "://",
            "@",
            "?",
            "token=",
            "Bearer ",
            "secret: ",
            "å"
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn printed_text_is_printable(text in hostile_text()) {
        for shown in [printable(&text).to_string(), server_text(&text)] {
            prop_assert!(shown.chars().all(is_printable), "{shown:?}");
        }
        let lines = printable_lines(&text);
        prop_assert!(lines.chars().all(|it| it == '\n' || is_printable(it)), "{lines:?}");
        prop_assert_eq!(lines.matches('\n').count(), text.matches('\n').count());
        let plain: String = text.chars().filter(|&it| is_printable(it)).collect();
        prop_assert_eq!(printable(&plain).to_string(), plain);
    }

    #[test]
    fn escaped_json_has_the_same_value(text in hostile_text()) {
        let value = json!({(text.clone()): [text]});
        let escaped = json_for_terminal(&format!("{value:#}")).into_owned();
        prop_assert!(escaped.chars().all(|it| it == '\n' || is_printable(it)), "{escaped:?}");
        prop_assert_eq!(serde_json::from_str::<Value>(&escaped).unwrap(), value);
    }

    /// Read by RFC 4180, a cell is one cell, and no formula unless it is a number.
    #[test]
    fn csv_cell_stays_one_cell(text in hostile_text()) {
        let cell = csv_cell(&text);
        let inside = cell.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
        let value = inside.map_or(cell.clone(), |inside| inside.replace("\"\"", "\""));
        prop_assert!(!inside.unwrap_or("").replace("\"\"", "").contains('"'));
        prop_assert!(inside.is_some() || !cell.contains(['"', ',', '\n', '\r']));
        let is_number = value.parse::<f64>().is_ok();
        prop_assert!(is_number || !value.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']), "{value:?}");
        prop_assert!(cell.chars().all(|it| matches!(it, '\n' | '\t') || is_printable(it)));
    }
}
