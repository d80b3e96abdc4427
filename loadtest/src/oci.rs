//! A simulated Oracle Cloud, on this machine: Object Storage, the Vault, and what an instance needs to
//! authenticate (metadata and federation).
//!
//! It accepts only what is signed by a key it knows, keeps objects in memory, honours the conditions, and
//! can misbehave as the real one was seen to: slow, busy, losing answers, cutting connections, applying late
//! what was given up, reporting that a bucket does not exist.

mod account;
mod answer;
mod connection;
mod faults;
mod instance;
mod latency;
mod objects;
mod signature;
mod vault;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::time::sleep_until;

pub use account::{Account, NoKey};
use answer::Answer;
use connection::{CuttableListener, Line};
pub use faults::{Fault, Faults};
use instance::{FEDERATION_PATH, Instance, METADATA_PATH};
pub use latency::Latency;
use objects::Bucket;
pub use objects::Requests;
use signature::Claimed;
use vault::Vault;

/// Largest body that is taken.
const BODY_LIMIT_BYTES: usize = 256 * 1024 * 1024;
/// Where an instance finds its metadata, below the address of the service.
pub const METADATA_BASE: &str = "/opc/v2";

/// The services: one namespace, one bucket, one instance.
#[derive(Debug)]
pub struct ObjectStorage {
    /// The path of the bucket's objects.
    base: String,
    accounts: Vec<Account>,
    latency: Latency,
    connections: Arc<AtomicU64>,
    state: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    faults: Faults,
    bucket: Bucket,
    vault: Vault,
    instance: Instance,
    late: Vec<Late>,
    served: Option<Vec<Served>>,
}

/// A request that was given up and is still on its way.
#[derive(Debug)]
struct Late {
    /// Requests until it is done.
    due: u32,
    parts: Parts,
    body: Bytes,
}

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// `GET`, `PUT`, ….
    pub method: String,
    /// The path as it was sent.
    pub path: String,
    /// When it came.
    pub began: Instant,
    /// How long the service took.
    pub took: Duration,
}

impl ObjectStorage {
    /// Services with an empty bucket, for these accounts. The first one's secrets are in the Vault.
    ///
    /// # Errors
    /// [`NoKey`] if the library makes no key for the instance.
    pub fn new(
        namespace: &str,
        bucket: &str,
        accounts: Vec<Account>,
        faults: Faults,
    ) -> Result<Arc<Self>, NoKey> {
        Self::slow(namespace, bucket, accounts, faults, Latency::default())
    }

    /// The same, with time to think.
    ///
    /// # Errors
    /// [`NoKey`] if the library makes no key for the instance.
    pub fn slow(
        namespace: &str,
        bucket: &str,
        accounts: Vec<Account>,
        faults: Faults,
        latency: Latency,
    ) -> Result<Arc<Self>, NoKey> {
        let mut vault = Vault::default();
        for (name, secret) in accounts.first().map(Account::secrets).into_iter().flatten() {
            vault.put(&secret_id(name), &secret);
        }
        Ok(Arc::new(Self {
            base: format!("/n/{namespace}/b/{bucket}/o"),
            accounts,
            latency,
            connections: Arc::default(),
            state: Mutex::new(Inner {
                faults,
                bucket: Bucket::default(),
                vault,
                instance: Instance::generate()?,
                late: Vec::new(),
                served: None,
            }),
        }))
    }

    /// The identifiers of the four secrets in the Vault, by what they hold.
    #[must_use]
    pub fn secret_ids() -> BTreeMap<&'static str, String> {
        ["user", "tenancy", "fingerprint", "private_key"]
            .into_iter()
            .map(|name| (name, secret_id(name)))
            .collect()
    }

    /// From now on it takes conditions and ignores them, as some servers do that are said to be like it.
    pub fn ignore_conditions(&self) {
        self.inner().bucket.ignores_conditions = true;
    }

    /// How long the sessions of the instance last from now on.
    pub fn set_token_life(&self, life: Duration) {
        self.inner().instance.token_life = life;
    }

    /// From now on no session of the instance is accepted.
    pub fn end_sessions(&self) {
        self.inner().instance.end_sessions();
    }

    /// What was asked of the bucket so far.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.inner().bucket.requests
    }

    /// How many connections were made to it so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// From now on it remembers what it answered.
    pub fn remember(&self) {
        self.inner().served = Some(Vec::new());
    }

    /// The answers since recording was switched on, or since the last call.
    #[must_use]
    pub fn served(&self) -> Vec<Served> {
        self.inner().served.replace(Vec::new()).unwrap_or_default()
    }

    /// From now on nothing goes wrong.
    pub fn calm(&self) {
        self.inner().faults = Faults::none();
    }

    /// Carries out all that is still on its way.
    pub fn deliver_late(&self) {
        let mut inner = self.inner();
        for Late { parts, body, .. } in std::mem::take(&mut inner.late) {
            let _ = self.do_it(&mut inner, &parts, &body);
        }
    }

    /// Listens on a free port of this machine, and serves in the background as long as the runtime lives.
    ///
    /// # Errors
    /// [`io::Error`] if there is no port.
    pub async fn start(self: &Arc<Self>) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(Arc::clone(self).serve(listener));
        Ok(address)
    }

    /// Serves until it is dropped.
    ///
    /// # Errors
    /// [`io::Error`] if the listener fails.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        let connections = Arc::clone(&self.connections);
        let router = Router::new().fallback(handle).with_state(self);
        let service = router.into_make_service_with_connect_info::<Line>();
        axum::serve(CuttableListener { listener, connections }, service).await
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The valid signature of a request, before its body is read; otherwise why it is invalid.
    fn recognize(&self, parts: &Parts) -> Result<Claimed, String> {
        let claimed = Claimed::read(&parts.method, &parts.uri, &parts.headers)?;
        let inner = self.inner();
        let for_federation = parts.uri.path() == FEDERATION_PATH;
        let key = match claimed.key_id.strip_prefix("ST$") {
            _ if for_federation => inner.instance.machine_key(&claimed.key_id),
            Some(token) => inner.instance.session_key(token),
            None => {
                let account = self.accounts.iter().find(|account| account.key_id() == claimed.key_id);
                account.map(Account::public_key)
            }
        };
        let key = key.ok_or("unknown key")?;
        if claimed.is_by(key) { Ok(claimed) } else { Err("the signature does not match".to_owned()) }
    }

    /// Answers an authenticated request. Nothing, if the connection is to be cut.
    fn answer(&self, parts: &Parts, body: &Bytes) -> Option<Answer> {
        let mut inner = self.inner();
        self.do_what_is_due(&mut inner);
        let error = |status, code, message| Some(Answer::error(status, code, message));
        match inner.faults.next() {
            Some(Fault::Busy) => error(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "slow down"),
            Some(Fault::Broken) => error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "try again"),
            Some(Fault::NoBucket) => Some(no_bucket()),
            Some(Fault::LostAnswer) => {
                let _ = self.do_it(&mut inner, parts, body);
                error(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "it may have been done")
            }
            Some(Fault::Reset) => {
                let _ = self.do_it(&mut inner, parts, body);
                None
            }
            Some(Fault::Late) => {
                let due = inner.faults.delay();
                inner.late.push(Late { due, parts: parts.clone(), body: body.clone() });
                None
            }
            None => Some(self.do_it(&mut inner, parts, body)),
        }
    }

    fn do_what_is_due(&self, inner: &mut Inner) {
        for late in &mut inner.late {
            late.due = late.due.saturating_sub(1);
        }
        let (due, waiting) = std::mem::take(&mut inner.late).into_iter().partition(|late| late.due == 0);
        inner.late = waiting;
        let due: Vec<Late> = due;
        for Late { parts, body, .. } in due {
            let _ = self.do_it(inner, &parts, &body);
        }
    }

    fn do_it(&self, inner: &mut Inner, parts: &Parts, body: &Bytes) -> Answer {
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        if path == FEDERATION_PATH && parts.method == Method::POST {
            return inner.instance.federate(body);
        }
        if let Some(id) = path.strip_prefix(vault::PATH) {
            return inner.vault.answer(&parts.method, id, query);
        }
        match path.strip_prefix(&self.base) {
            Some(name) => inner.bucket.answer(&parts.method, name, query, &parts.headers, body),
            None => no_bucket(),
        }
    }
}

fn secret_id(name: &str) -> String {
    format!("ocid1.vaultsecret.oc1..{}", name.replace('_', "-"))
}

fn no_bucket() -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "BucketNotFound", "either the bucket does not exist or you may not")
}

async fn handle(
    State(service): State<Arc<ObjectStorage>>,
    ConnectInfo(line): ConnectInfo<Line>,
    request: Request,
) -> Response {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let is_head = parts.method == Method::HEAD;
    let path = parts.uri.path();
    let answer = if let Some(path) = path.strip_prefix(METADATA_PATH) {
        Some(service.inner().instance.metadata(&parts.method, path, &parts.headers))
    } else {
        match service.recognize(&parts) {
            // The body is not read: a client that sent `Expect: 100-continue` keeps it.
            Err(why) => Some(Answer::error(StatusCode::UNAUTHORIZED, "NotAuthenticated", &why)),
            Ok(claimed) => believe(&service, &claimed, &parts, body, began).await,
        }
    };
    let (method, path) = (parts.method.to_string(), path.to_owned());
    if let Some(served) = &mut service.inner().served {
        served.push(Served { method, path, began, took: began.elapsed() });
    }
    let Some(answer) = answer else {
        line.cut();
        return Response::new(Body::empty());
    };
    send(answer, is_head)
}

async fn believe(
    service: &ObjectStorage,
    claimed: &Claimed,
    parts: &Parts,
    body: Body,
    began: Instant,
) -> Option<Answer> {
    // To read the body is to ask for it, where the client waits to be asked.
    let Ok(body) = to_bytes(body, BODY_LIMIT_BYTES).await else {
        return Some(Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", "too large"));
    };
    if !claimed.covers(&body) {
        return Some(Answer::error(StatusCode::UNAUTHORIZED, "NotAuthenticated", "the body is another one"));
    }
    let answer = service.answer(parts, &body);
    let latency = service.latency.of(&parts.method, parts.uri.path());
    if !latency.is_zero() {
        sleep_until((began + latency).into()).await;
    }
    answer
}

fn send(answer: Answer, is_head: bool) -> Response {
    let Answer { status, mut headers, body } = answer;
    // To a HEAD, an error has no body, so that its code is not sent; the length of an object is.
    if is_head {
        headers.extend(body.len().to_string().parse().map(|length| (CONTENT_LENGTH, length)));
    }
    let mut response = Response::new(if is_head { Body::empty() } else { Body::from(body) });
    *response.status_mut() = status;
    response.headers_mut().extend(headers);
    if let Ok(date) = httpdate::fmt_http_date(SystemTime::now()).parse() {
        response.headers_mut().insert("date", date);
    }
    response
}
