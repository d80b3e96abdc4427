//! The service as a program: what the system says to it and hears of it, restarts, and metrics for runs by timer.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use chrono::{DateTime, Utc};
use collector::watch::recorded_runs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{body, get, metrics, monitored};
use crate::support::{Home, fixture};

pub(super) type Log = BufReader<ChildStderr>;

/// A service that was started as its users start it.
pub(super) struct Service(Child);

impl Service {
    /// The service and where its pages are.
    pub(super) fn start(home: &Home, arguments: &[&str]) -> (Self, SocketAddr, Log) {
        let (service, mut log) =
            Self::spawn(home.command(
                &[&["watch", "--listen", "127.0.0.1:0", "--log-format", "json"], arguments].concat(),
            ));
        let address = next_address(&mut log);
        (service, address, log)
    }

    /// The service that a command starts, and its log.
    pub(super) fn spawn(mut command: Command) -> (Self, Log) {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        (Self(child), log)
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    pub(super) fn end(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.0.wait().unwrap().code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the service shows its pages, by the next line of the log that says so.
#[track_caller]
pub(super) fn next_address(log: &mut Log) -> SocketAddr {
    next_line(log, "showing")["address"].as_str().unwrap().parse().unwrap()
}

/// The next line of the log that says this.
#[track_caller]
pub(super) fn next_line(log: &mut impl std::io::BufRead, said: &str) -> Value {
    let mut all = String::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "`{said}` was not said: {all}");
        all += &line;
        let entry: Value = serde_json::from_str(&line).unwrap();
        if entry["message"].as_str().is_some_and(|message| message.contains(said)) {
            return entry;
        }
    }
}

#[test]
fn it_polls_at_once_reads_its_settings_again_and_stops_when_told() {
    let home = Home::new();
    let feed = fixture("response.json");
    home.write("c.toml", format!("feed = {:?}\ninterval = \"24h\"\n", feed.to_str().unwrap()));
    let (service, address, mut log) = Service::start(&home, &["--config", "c.toml"]);
    assert_eq!(next_line(&mut log, "polled")["new"], 500);
    assert_eq!((get(address, "/health").0, get(address, "/ready").0), (200, 200));
    home.write("c.toml", "interval = \"often\"\n");
    service.signal(Signal::SIGHUP);
    let error = next_line(&mut log, "cannot be read again");
    assert!(error["error"].as_str().unwrap().contains("often"), "{error}");
    home.write("c.toml", format!("feed = {:?}\ninterval = \"23h\"\n", feed.to_str().unwrap()));
    service.signal(Signal::SIGHUP);
    assert_eq!(next_line(&mut log, "read again")["every_s"], 82_800.0);
    assert_eq!(service.end(), Some(0));
    assert_eq!(home.records().len(), 1);

    // Started again at once, it does not poll before it is time, and knows of the run before.
    let (service, address, _log) = Service::start(&home, &["--config", "c.toml", "--interval", "24h"]);
    let view: Value = serde_json::from_str(body(&get(address, "/api/runs").1)).unwrap();
    let runs = view["runs"].as_array().unwrap();
    assert_eq!((runs.len(), &runs[0]["new"]), (1, &Value::from(500)));
    assert_eq!((get(address, "/health").0, get(address, "/ready").0), (200, 200));
    let all = metrics(body(&get(address, "/metrics").1));
    assert_eq!(all["polisen_collector_runs_total{result=\"success\"}"], 0.0, "not by this process");
    assert!(all["polisen_collector_last_success_timestamp_seconds"] > 1.7e9, "an alert would ring");
    assert_eq!(service.end(), Some(0));
}

#[test]
fn the_systems_manager_is_told_how_it_stands() {
    let home = Home::new();
    let socket = UnixDatagram::bind(home.path("notify")).unwrap();
    let feed = fixture("response.json");
    let arguments = ["watch", "--listen", "off", "--interval", "24h", "--feed", feed.to_str().unwrap()];
    let mut command = home.command(&arguments);
    command.env("NOTIFY_SOCKET", home.path("notify")).env("WATCHDOG_USEC", "200000").stderr(Stdio::null());
    let service = Service(command.spawn().unwrap());
    let mut messages = Vec::new();
    let mut wait_for = |word: &str| {
        let mut message = [0; 256];
        loop {
            let size = socket.recv(&mut message).unwrap();
            messages.push(String::from_utf8(message[..size].to_vec()).unwrap());
            if messages.last().unwrap().lines().any(|line| line.starts_with(word)) {
                return messages.join(" ");
            }
        }
    };
    wait_for("READY=1");
    // The watchdog is fed for as long as it works.
    wait_for("WATCHDOG=1");
    wait_for("WATCHDOG=1");
    service.signal(Signal::SIGHUP);
    wait_for("RELOADING=1");
    wait_for("READY=1");
    service.signal(Signal::SIGTERM);
    let messages = wait_for("STOPPING=1");
    assert!(messages.contains("MONOTONIC_USEC="), "{messages}");
    assert_eq!(service.end(), Some(0));
}

#[test]
fn after_a_restart_the_runs_of_the_last_month_are_known_and_nothing_else() {
    let home = Home::new();
    home.run(fixture("response.json")).with(0);
    let record = home.records().remove(0);
    let folder = home.path("month");
    fs::create_dir(&folder).unwrap();
    let now: DateTime<Utc> = "2026-03-31T12:00:00Z".parse().unwrap();
    let put = |name: &str, second: i64| {
        let mut record = record.clone();
        record["timestamp"] = Value::from(DateTime::from_timestamp(second, 0).unwrap().to_rfc3339());
        fs::write(folder.join(name), record.to_string()).unwrap();
    };
    let wanted =
        ["metrics_20260301_120000.json", "metrics_20260331_110000.json", "metrics_20260331_110000_02.json"];
    for (second, name) in (1_767_362_401..).zip(wanted) {
        put(name, second);
    }
    for name in [
        "metrics_20200101_000000.json",
        "metrics_20260227_235959.json",
        "metrics_20290101_000000.json",
        "notes.json",
    ] {
        put(name, 1_767_362_409);
    }
    fs::write(folder.join("metrics_20260330_000000.json"), "{").unwrap();
    // A name and a content that disagree: the start decides.
    put("metrics_20260331_115000.json", 1_774_965_600);
    // Who opens it waits for ever.
    nix::unistd::mkfifo(&folder.join("metrics_20260330_010000.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let starts: Vec<i64> =
        recorded_runs::records(&folder, now).map(|record| record.start.timestamp()).collect();
    assert_eq!(starts, [1_767_362_401, 1_767_362_402, 1_767_362_403]);
    assert_eq!(recorded_runs::records(&home.path("absent"), now).count(), 0);
}

#[test]
fn told_to_stop_it_lets_the_poll_at_hand_end() {
    let home = Home::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let feed = format!("http://{}/api/events", listener.local_addr().unwrap());
    let (service, _, mut log) = Service::start(&home, &["--feed", &feed, "--retries", "0"]);
    // The call has arrived, and is answered only after the service received the signal to stop.
    let (mut call, _) = listener.accept().unwrap();
    // An answer before the end of the request is none.
    let mut request = BufReader::new(call.try_clone().unwrap()).lines();
    assert!(request.any(|line| line.unwrap().is_empty()));
    service.signal(Signal::SIGTERM);
    next_line(&mut log, "stopping when the poll at hand is done");
    let body = fs::read(fixture("response.json")).unwrap();
    write!(call, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    call.write_all(&body).unwrap();
    assert_eq!(next_line(&mut log, "polled")["new"], 500);
    next_line(&mut log, "stopped");
    assert_eq!(service.end(), Some(0));
    home.collector(&["verify"]).with(0);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_done() {
    let home = Home::new();
    for wrong in [
        &["--interval", "1s"][..],
        &["--interval", "x"],
        &["--listen", "everywhere"],
        &["--store", "ftp://x"],
        &["--feed", "-"],
        &["--interval", "30s"],
        &["--interval", "10m", "--feed", "http://127.0.0.1:1/", "--max-calls-per-hour", "5"],
    ] {
        home.collector(&[&["watch"], wrong].concat()).with(2).error_line();
    }
    assert!(home.objects().is_empty());
}

#[test]
fn the_file_for_prometheus_counts_on_from_run_to_run() {
    let home = Home::new();
    let run = |feed: &Path, code: i32| {
        let arguments = ["run", "--prometheus-file", "collector.prom", "--feed", feed.to_str().unwrap()];
        home.collector(&arguments).with(code);
        metrics(&fs::read_to_string(home.path("collector.prom")).unwrap())
    };
    let figure = |all: &BTreeMap<String, f64>, name: &str| all[&format!("polisen_collector_{name}")];
    let first = run(&fixture("response.json"), 0);
    assert_eq!(figure(&first, "events_total{kind=\"new\"}"), 500.0);
    // One is named in a description only, two are about the service: its reloads, and what it publishes.
    let others = ["run_failures_total", "config_last_reload_successful", "publishing_healthy"]
        .map(|name| format!("polisen_collector_{name}"));
    let alerted = monitored("alerts.yml").into_iter().filter(|name| !others.contains(name));
    let missing: Vec<String> = alerted.filter(|name| !first.contains_key(name)).collect();
    assert_eq!(missing, [""; 0], "alerts ask for them");
    assert_eq!(figure(&first, "healthy"), 1.0);
    let failed = run(Path::new("absent.json"), 1);
    assert_eq!(figure(&failed, "run_failures_total{kind=\"read\"}"), 1.0);
    // What only a response changes stays as it was.
    for name in [
        "last_success_timestamp_seconds",
        "last_settled_timestamp_seconds",
        "response_events",
        "response_valid_events",
        "ledger_events",
    ] {
        assert_eq!(figure(&failed, name), figure(&first, name), "{name}");
    }
    assert_eq!((figure(&failed, "consecutive_failures"), figure(&failed, "healthy")), (1.0, 0.0));
    let last = run(&fixture("response-next.json"), 0);
    assert_eq!((figure(&last, "consecutive_failures"), figure(&last, "healthy")), (0.0, 1.0));
    let stored = home.lines("events").len();
    #[expect(clippy::cast_precision_loss, reason = "some hundred events")]
    let stored = stored as f64;
    assert_eq!(figure(&last, "events_total{kind=\"new\"}"), stored);
    assert_eq!(figure(&last, "run_failures_total{kind=\"read\"}"), 1.0, "still counted");
    assert_eq!(
        (figure(&last, "runs_total{result=\"success\"}"), figure(&last, "runs_total{result=\"failed\"}")),
        (2.0, 1.0)
    );
    assert_eq!(figure(&last, "build_info{version=\"0.1.0\"}"), 1.0);
    assert!(
        figure(&last, "last_success_timestamp_seconds") >= figure(&first, "last_success_timestamp_seconds")
    );
    let ended: DateTime<Utc> = home.health()["last_run"].as_str().unwrap().parse().unwrap();
    assert!(
        (figure(&last, "last_run_timestamp_seconds") - f64::from(u32::try_from(ended.timestamp()).unwrap()))
            .abs()
            <= 1.0
    );
    assert!(
        !last
            .keys()
            .any(|name| name.contains("bucket") || name.contains("process_") || name.ends_with("_count"))
    );
}
