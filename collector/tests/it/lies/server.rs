//! A bucket behind S3's and Object Storage's API on this machine, whose answers a test can change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::{fs, thread};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::percent_decode_str;

use crate::support::{Ended, Home};

/// Which API the bucket is reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    S3,
    Oci,
}

/// A request on the bucket.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// The object's name in the bucket; empty for a listing.
    pub(super) key: String,
    pub(super) query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    pub(super) fn is_listing(&self) -> bool {
        self.method == "GET" && self.key.is_empty()
    }

    pub(super) fn is_read_of(&self, part: &str) -> bool {
        self.method == "GET" && self.key.contains(part)
    }
}

/// An answer before it is sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// What `Content-Length` states, if not the length of the body.
    pub(super) stated_length: Option<usize>,
}

impl Answer {
    pub(super) fn new(status: u16, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }.with("content-type", media_type)
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// Changes an honest answer, or leaves it as it is.
pub(super) type Lie = Arc<dyn Fn(&Request, Answer) -> Answer + Send + Sync>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, (Vec<u8>, String)>,
    writes: u64,
    lie: Option<Lie>,
    /// Whether writes have no effect, as if something else had taken them.
    swallows_writes: bool,
    /// Objects a page.
    page: usize,
    requests: Vec<String>,
}

/// The bucket and its server, which ends with the test program.
pub(super) struct LyingStore {
    api: Api,
    address: String,
    state: Arc<Mutex<State>>,
}

/// The prefix in the bucket.
const PREFIX: &str = "archive/";

impl LyingStore {
    pub(super) fn start(api: Api) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { page: 1_000, ..State::default() }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(api, &state, stream.unwrap()));
            }
        });
        Self { api, address, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// From now on this is done to every answer.
    pub(super) fn lie(&self, lie: &Lie) {
        self.state().lie = Some(Arc::clone(lie));
    }

    pub(super) fn be_honest(&self) {
        self.state().lie = None;
    }

    pub(super) fn swallow_writes(&self, swallow: bool) {
        self.state().swallows_writes = swallow;
    }

    pub(super) fn set_page(&self, objects: usize) {
        self.state().page = objects;
    }

    pub(super) fn put(&self, key: &str, bytes: &[u8]) {
        self.state().write(format!("{PREFIX}{key}"), bytes);
    }

    pub(super) fn remove(&self, key: &str) {
        self.state().objects.remove(&format!("{PREFIX}{key}"));
    }

    pub(super) fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.state().objects.get(&format!("{PREFIX}{key}")).map(|(bytes, _)| bytes.clone())
    }

    /// The names of all objects.
    pub(super) fn keys(&self) -> Vec<String> {
        self.state().objects.keys().map(|key| key.strip_prefix(PREFIX).unwrap_or(key).to_owned()).collect()
    }

    /// The lines of all objects under `events/`.
    pub(super) fn event_lines(&self) -> usize {
        let state = self.state();
        let events = state.objects.iter().filter(|(key, _)| key.contains("/events/"));
        events.map(|(_, (bytes, _))| String::from_utf8_lossy(bytes).lines().count()).sum()
    }

    /// The requests since this was last asked, as in `GET archive/metadata/last_seen.json`.
    pub(super) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }

    /// `collector ARGUMENTS --store …`.
    pub(super) fn collector(&self, home: &Home, arguments: &[&str]) -> Ended {
        self.command(home, arguments).output().unwrap().into()
    }

    pub(super) fn command(&self, home: &Home, arguments: &[&str]) -> Command {
        let mut command = home.command(arguments);
        match self.api {
            Api::S3 => command
                .args(["--store", "s3://events/archive"])
                .env("AWS_ENDPOINT_URL", &self.address)
                .env("AWS_ACCESS_KEY_ID", "a")
                .env("AWS_SECRET_ACCESS_KEY", "b")
                .env("AWS_REGION", "eu-north-1"),
            Api::Oci => {
                let (key, config) = (home.write("key.pem", private_key()), home.path("config"));
                let text = format!(
                    "[DEFAULT]\nuser=u\ntenancy=t\nfingerprint=aa:bb\nregion=eu-stockholm-1\nkey_file={}\n",
                    key.display()
                );
                home.write("config", text);
                for path in [&key, &config] {
                    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
                }
                command
                    .args(["--store", "oci://ns/events/archive", "--endpoint", &self.address])
                    .env("OCI_CONFIG_FILE", config)
            }
        };
        command
    }
}

/// A key in PEM that signs requests, which the server does not check.
fn private_key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(|| {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let encoded = BASE64.encode(pair.as_der().unwrap().as_ref());
        format!("-----BEGIN PRIVATE KEY-----\n{encoded}\n-----END PRIVATE KEY-----\n")
    })
}

fn serve(api: Api, state: &Mutex<State>, stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(request) = read_request(api, &mut reader) else { return };
    let answer = {
        let mut state = state.lock().unwrap();
        state.requests.push(format!("{} {}", request.method, request.key));
        let honest = state.answer(api, &request);
        match state.lie.clone() {
            Some(lie) => lie(&request, honest),
            None => honest,
        }
    };
    send(&request, &answer, stream);
}

fn read_request(api: Api, reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = || {
        let mut text = String::new();
        reader.read_line(&mut text).ok().filter(|&length| length > 0).map(|_| text.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    while let Some((name, value)) = line()?.split_once(':') {
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let base = match api {
        Api::S3 => "/events",
        Api::Oci => "/n/ns/b/events/o",
    };
    let key = decoded(path.strip_prefix(base)?.trim_start_matches('/'));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(name, value)| (name.to_owned(), decoded(&value.replace('+', " ")))).collect();
    Some(Request { method, key, query, headers, body })
}

fn send(request: &Request, answer: &Answer, mut stream: TcpStream) {
    let length = answer.stated_length.unwrap_or(answer.body.len());
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if answer.status != 204 && !answer.headers.iter().any(|(name, _)| name == "transfer-encoding") {
        let _ = write!(head, "content-length: {length}\r\n");
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    if request.method != "HEAD" {
        let _ = stream.write_all(&answer.body);
    }
}

impl State {
    fn write(&mut self, key: String, bytes: &[u8]) -> String {
        self.writes += 1;
        let etag = format!("\"{}\"", self.writes);
        self.objects.insert(key, (bytes.to_vec(), etag.clone()));
        etag
    }

    fn answer(&mut self, api: Api, request: &Request) -> Answer {
        let key = &request.key;
        let there = self.objects.get(key);
        match request.method.as_str() {
            "GET" if key.is_empty() => self.list(api, request),
            "GET" | "HEAD" => match there {
                Some((bytes, etag)) => {
                    Answer::new(200, "application/octet-stream", bytes.clone()).with("etag", etag)
                }
                None => error(api, 404, "NoSuchKey", "ObjectNotFound"),
            },
            "PUT" if self.swallows_writes => Answer { status: 200, ..Answer::default() },
            "PUT" => {
                let header = |name: &str| request.headers.get(name);
                let is_taken = header("if-none-match").is_some() && there.is_some();
                let is_stale =
                    header("if-match").is_some_and(|etag| there.is_none_or(|(_, own)| own != etag));
                if is_taken || is_stale {
                    return error(api, 412, "PreconditionFailed", "IfMatchFailed");
                }
                let etag = self.write(key.clone(), &request.body);
                Answer { status: 200, ..Answer::default() }.with("etag", &etag)
            }
            "DELETE" => match self.objects.remove(key) {
                None if api == Api::Oci => error(api, 404, "NoSuchKey", "ObjectNotFound"),
                _ => Answer { status: 204, ..Answer::default() },
            },
            _ => error(api, 405, "MethodNotAllowed", "MethodNotAllowed"),
        }
    }

    fn list(&self, api: Api, request: &Request) -> Answer {
        let value = |name: &str| request.query.get(name).map_or("", String::as_str);
        let prefix = value("prefix");
        let start = value("start").max(value("continuation-token")).to_owned();
        let mut matching = self.objects.range(start..).filter(|(key, _)| key.starts_with(prefix));
        let page: Vec<_> = matching.by_ref().take(self.page).collect();
        let next = matching.next().map(|(key, _)| key);
        match api {
            Api::Oci => {
                let object = |(key, (bytes, _)): &(&String, &(Vec<u8>, String))| serde_json::json!({"name": key, "size": bytes.len()});
                let objects: Vec<_> = page.iter().map(object).collect();
                let document = serde_json::json!({"objects": objects, "nextStartWith": next});
                Answer::new(200, "application/json", document.to_string())
            }
            Api::S3 => {
                let mut text = format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>events</Name><Prefix>{}</Prefix><KeyCount>{}</KeyCount><IsTruncated>{}</IsTruncated>",
                    escaped(prefix),
                    page.len(),
                    next.is_some()
                );
                for (key, (bytes, etag)) in page {
                    let _ = write!(
                        text,
                        "<Contents><Key>{}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
                        escaped(key),
                        escaped(etag),
                        bytes.len()
                    );
                }
                if let Some(next) = next {
                    let _ = write!(text, "<NextContinuationToken>{}</NextContinuationToken>", escaped(next));
                }
                Answer::new(200, "application/xml", text + "</ListBucketResult>")
            }
        }
    }
}

fn error(api: Api, status: u16, s3: &str, oci: &str) -> Answer {
    match api {
        Api::S3 => Answer::new(
            status,
            "application/xml",
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{s3}</Code><Message>no</Message></Error>"
            ),
        ),
        Api::Oci => Answer::new(status, "application/json", format!(r#"{{"code":"{oci}","message":"no"}}"#)),
    }
}

/// As text of an XML document; also what no XML parser would take raw.
fn escaped(text: &str) -> String {
    let escape = |character: char| match character {
        '&' | '<' | '>' | '"' | '\0'..' ' => format!("&#{};", u32::from(character)),
        _ => character.to_string(),
    };
    text.chars().map(escape).collect()
}
