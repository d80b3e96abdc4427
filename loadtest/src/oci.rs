//! A simulated Object Storage of Oracle Cloud Infrastructure, on this machine.
//!
//! It believes only what is signed by a key it knows, keeps objects in memory, honours the conditions, and
//! can misbehave as the real one was seen to: slow, busy, losing answers, claiming that a bucket is not there.

mod account;
mod faults;
mod objects;
mod signature;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use tokio::net::TcpListener;

pub use account::Account;
pub use faults::{Fault, Faults};
pub use objects::Requests;
use objects::{Answer, Bucket};

/// Largest body that is taken.
const BODY_LIMIT_BYTES: usize = 256 * 1024 * 1024;

/// The service: one namespace, one bucket.
#[derive(Debug)]
pub struct ObjectStorage {
    namespace: String,
    bucket_name: String,
    accounts: Vec<Account>,
    faults: Mutex<Faults>,
    bucket: Mutex<Bucket>,
}

impl ObjectStorage {
    /// A service with an empty bucket, for these accounts.
    #[must_use]
    pub fn new(namespace: &str, bucket: &str, accounts: Vec<Account>, faults: Faults) -> Arc<Self> {
        Arc::new(Self {
            namespace: namespace.to_owned(),
            bucket_name: bucket.to_owned(),
            accounts,
            faults: Mutex::new(faults),
            bucket: Mutex::default(),
        })
    }

    /// From now on it takes conditions and ignores them, as some servers do that are said to be like it.
    pub fn ignore_conditions(&self) {
        self.bucket().ignores_conditions = true;
    }

    /// What was asked so far.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.bucket().requests
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
        let router =
            Router::new().fallback(handle).layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES)).with_state(self);
        axum::serve(listener, router).await
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_fault(&self) -> Option<Fault> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Answer {
        if let Err(why) = signature::check(&self.accounts, method, uri, headers) {
            return Answer::error(StatusCode::UNAUTHORIZED, "NotAuthenticated", &why);
        }
        let fault = self.next_fault();
        match fault {
            Some(Fault::Busy) => {
                return Answer::error(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "slow down");
            }
            Some(Fault::Broken) => {
                return Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "try again");
            }
            Some(Fault::NoBucket) => return self.no_bucket(),
            Some(Fault::LostAnswer) | None => {}
        }
        let base = format!("/n/{}/b/{}/o", self.namespace, self.bucket_name);
        let Some(name) = uri.path().strip_prefix(&base) else { return self.no_bucket() };
        let answer = self.bucket().answer(method, name, uri.query().unwrap_or_default(), headers, body);
        if fault == Some(Fault::LostAnswer) {
            return Answer::error(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                "it may have been done",
            );
        }
        answer
    }

    fn no_bucket(&self) -> Answer {
        let message = format!("either the bucket named '{}' does not exist", self.bucket_name);
        Answer::error(StatusCode::NOT_FOUND, "BucketNotFound", &message)
    }
}

async fn handle(
    State(service): State<Arc<ObjectStorage>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Answer { status, headers, body } = service.answer(&method, &uri, &headers, &body);
    // An error to a HEAD has no body, so nobody can tell what is missing.
    let body = if method == Method::HEAD { Body::empty() } else { Body::from(body) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().extend(headers);
    if let Ok(date) = httpdate::fmt_http_date(SystemTime::now()).parse() {
        response.headers_mut().insert("date", date);
    }
    response
}
