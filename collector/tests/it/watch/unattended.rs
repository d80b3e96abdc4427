//! The service unattended: a port in use, reloads at any moment, few file descriptors.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use super::program::{Service, next_address, next_line};
use super::{body, get, metrics};
use crate::support::{Home, fixture};

/// What `/api/runs` shows.
fn view(address: std::net::SocketAddr) -> Value {
    serde_json::from_str(body(&get(address, "/api/runs").1)).unwrap()
}

fn metric(address: std::net::SocketAddr, name: &str) -> f64 {
    metrics(body(&get(address, "/metrics").1))[&format!("polisen_collector_{name}")]
}

/// The next message to systemd with such a status.
fn next_status(socket: &UnixDatagram, said: &str) -> String {
    loop {
        let mut message = [0; 4096];
        let size = socket.recv(&mut message).unwrap();
        let text = String::from_utf8(message[..size].to_vec()).unwrap();
        if text.lines().any(|line| line.starts_with("STATUS=") && line.contains(said)) {
            return text;
        }
    }
}

#[test]
fn port_in_use_does_not_stop_polls_and_is_listened_on_later() {
    let home = Home::new();
    let socket = UnixDatagram::bind(home.path("notify")).unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, feed) = (holder.local_addr().unwrap(), fixture("response.json"));
    let arguments = ["watch", "--log-format", "json", "--listen", &address.to_string()];
    let mut command = home.command(&arguments);
    command.args(["--feed", feed.to_str().unwrap()]).env("NOTIFY_SOCKET", home.path("notify"));
    let (service, mut log) = Service::spawn(command);
    let refused = next_line(&mut log, "cannot listen");
    assert!(refused["error"].as_str().unwrap().contains("in use"), "{refused}");
    assert_eq!(next_line(&mut log, "polled")["new"], 500);
    next_status(&socket, "pages not available: cannot listen on");
    drop(holder);
    assert_eq!(next_address(&mut log), address);
    assert!(!next_status(&socket, "succeeded: 500 new events").contains("cannot listen"));
    assert_eq!(view(address)["listen_error"], Value::Null);
    assert!(metric(address, "listen_failures_total") >= 1.0);
    assert_eq!(service.end(), Some(0));
}

#[test]
fn refused_reload_is_reported_where_it_is_asked() {
    let home = Home::new();
    let config = |rest: &str| {
        let feed = fixture("response.json");
        home.write("c.toml", format!("feed = {:?}\n{rest}\n", feed.to_str().unwrap()));
    };
    config("");
    let (service, address, mut log) = Service::start(&home, &["--config", "c.toml"]);
    next_line(&mut log, "polled");
    assert_eq!(metric(address, "config_last_reload_successful"), 1.0);
    config("interval = \"often\"");
    service.signal(Signal::SIGHUP);
    next_line(&mut log, "cannot be read again");
    assert_eq!(metric(address, "config_last_reload_successful"), 0.0);
    assert!(view(address)["settings_error"].as_str().unwrap().contains("often"));
    assert!(get(address, "/").1.contains("Reload failed"));
    let checked = home.collector(&["watch", "--check", "--config", "c.toml"]).with(2);
    assert!(checked.error_line().contains("often"), "{}", checked.stderr);
    config("interval = \"1h\"");
    home.collector(&["watch", "--check", "--config", "c.toml"]).with(0);
    service.signal(Signal::SIGHUP);
    next_line(&mut log, "read again");
    assert_eq!(metric(address, "config_last_reload_successful"), 1.0);
    assert_eq!(view(address)["settings_error"], Value::Null);
    assert!(!get(address, "/").1.contains("Reload failed"));
    assert_eq!(home.records().len(), 1, "a check polls nothing");
    assert_eq!(service.end(), Some(0));
}

#[test]
fn reloaded_settings_take_effect_or_are_named() {
    let home = Home::new();
    let config = |rest: &str| {
        let feed = fixture("response.json");
        let text = format!("feed = {:?}\nlog_format = \"json\"\n{rest}", feed.to_str().unwrap());
        home.write("c.toml", text);
    };
    config("listen = \"127.0.0.1:0\"\n");
    let (service, mut log) = Service::spawn(home.command(&["watch", "--config", "c.toml"]));
    let before = next_address(&mut log);
    next_line(&mut log, "polled");
    config(
        "listen = \"[::1]:0\"\nlog_level = \"debug\"\nbuffer_size = 300\nmax_rejected_share = 0.5\n\
         health_file = \"other.json\"\n",
    );
    service.signal(Signal::SIGHUP);
    next_line(&mut log, "read again");
    assert_eq!(next_line(&mut log, "only with a restart")["setting"], "log_level");
    let after = next_address(&mut log);
    assert!(after.is_ipv6());
    assert!(TcpStream::connect(before).is_err(), "the earlier address is still listened on");
    assert_eq!((metric(after, "buffer_size_events"), metric(after, "rejected_share_limit")), (300.0, 0.5));
    let health = get(after, "/health");
    assert!(health.0 == 503 && health.1.contains("other.json"), "{}", health.1);
    assert_eq!(service.end(), Some(0));
}

/// While the settings are read, nothing is set up yet.
#[test]
fn reload_during_the_start_is_heard() {
    let home = Home::new();
    mkfifo(&home.path("c.toml"), Mode::S_IRWXU).unwrap();
    // Opening waits for the program to read.
    let open = || OpenOptions::new().write(true).open(home.path("c.toml")).unwrap();
    let feed = fixture("response.json");
    let text = format!("feed = {:?}\nlisten = \"off\"\nlog_format = \"json\"\n", feed.to_str().unwrap());
    let (service, mut log) = Service::spawn(home.command(&["watch", "--config", "c.toml"]));
    let mut first = open();
    service.signal(Signal::SIGHUP);
    first.write_all(text.as_bytes()).unwrap();
    drop(first);
    next_line(&mut log, "polling");
    open().write_all(text.as_bytes()).unwrap();
    next_line(&mut log, "read again");
    assert_eq!(service.end(), Some(0));
}

/// A reader of the pages must not take the descriptors that a poll needs.
#[test]
fn few_descriptors_are_enough_for_polls_and_readers() {
    for limit in [20, 24, 40] {
        poll_beside_readers(limit);
    }
}

fn poll_beside_readers(limit: u32) {
    let home = Home::new();
    let feed = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/api/events", feed.local_addr().unwrap());
    let mut command = home.program("/bin/sh");
    let limited = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
    command.args(["-c", &limited, env!("CARGO_BIN_EXE_collector")]);
    command.args(["watch", "--listen", "127.0.0.1:0", "--log-format", "json", "--feed", &url]);
    let (service, mut log) = Service::spawn(command);
    let address = next_address(&mut log);
    let (mut call, _) = feed.accept().unwrap();
    let readers: Vec<_> = (0..30).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut request = BufReader::new(call.try_clone().unwrap()).lines();
    assert!(request.any(|line| line.unwrap().is_empty()));
    let response = fs::read(fixture("response.json")).unwrap();
    write!(call, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", response.len()).unwrap();
    call.write_all(&response).unwrap();
    let polled = next_line(&mut log, "poll");
    assert_eq!(polled["new"], 500, "limit {limit}: {polled}");
    drop(readers);
    assert_eq!(get(address, "/health").0, 200);
    assert_eq!(service.end(), Some(0));
}
