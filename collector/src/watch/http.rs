//! The service's pages: health, metrics, a dashboard.
//!
//! Reads what the service did and changes nothing. On a thread of its own, so that no reader delays a poll; connections, headers
//! and times are bounded, so that none costs much.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tracing::debug;

use super::dashboard;
use super::status::{MOST_RUNS, Status};
use crate::clock::SharedClock;
use crate::files::descriptors;
use crate::record::check::HealthCheck;

/// Maximum number of connections; more wait. Fewer where few files may be open, so that polls have enough.
const MOST_CONNECTIONS: usize = 128;
/// A request's line and headers must be there after this.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection ends after this, whatever happens on it.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
const MOST_HEADERS: usize = 64;
/// Most bytes of a request's line and headers.
const HEADER_BYTES: usize = 16 * 1024;
/// Pages take nothing from anywhere.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
);

/// What the pages show.
#[derive(Debug, Clone)]
pub struct Pages {
    /// What the service did.
    pub status: Arc<Status>,
    /// The file with the result of the last run.
    pub health_file: PathBuf,
    /// What time it is.
    pub clock: SharedClock,
}

impl Pages {
    fn verdict(&self) -> HealthCheck {
        self.status.check_health(&self.health_file, self.clock.now())
    }
}

/// Answers on a thread of its own until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Waits for the thread, so that the address can be listened on again.
impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        // A thread that panicked has ended, too.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Starts to answer.
///
/// # Errors
/// If the address cannot be listened on, or the system gives no thread.
pub fn start(address: SocketAddr, pages: Pages) -> io::Result<Server> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("pages".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = serve(listener, Arc::new(pages)) => {}
                _ = stopped => {}
            }
        });
    })?;
    Ok(Server { address, stop: Some(stop), thread: Some(thread) })
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let router = Router::new()
        .route("/", get(show_dashboard))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/runs", get(runs))
        .layer(map_response(secured))
        .with_state(pages);
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS.min(descriptors::spare())));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files, or a connection that is gone already: neither ends the service.
                debug!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_headers(MOST_HEADERS)
                .max_buf_size(HEADER_BYTES);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
                debug!(%error, "a connection ended badly");
            }
            drop(place);
        });
    }
}

/// Nothing of what is answered is kept, framed, or takes anything from elsewhere.
async fn secured(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn show_dashboard(State(pages): State<Arc<Pages>>) -> Html<String> {
    let verdict = pages.verdict();
    Html(dashboard::page(&pages.status, &verdict, pages.clock.now()))
}

async fn health(State(pages): State<Arc<Pages>>) -> Response {
    let verdict = pages.verdict();
    let view = pages.status.view(1);
    let lines: Vec<&str> = verdict.lines.lines().map(str::trim).collect();
    let body = json!({"healthy": verdict.healthy, "lines": lines, "last_success": view.last_success, "plan": view.plan});
    let code = if verdict.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, json_text(&body)).into_response()
}

/// Whether it has polled once, so that what it says means something.
async fn ready(State(pages): State<Arc<Pages>>) -> Response {
    let is_ready = !pages.status.view(1).runs.is_empty();
    let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, json_text(&json!({"ready": is_ready}))).into_response()
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    pages.verdict();
    let text = pages.status.metrics().to_text();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn runs(State(pages): State<Arc<Pages>>) -> Response {
    json_text(&json!(pages.status.view(MOST_RUNS))).into_response()
}

fn json_text(value: &serde_json::Value) -> impl axum::response::IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string() + "\n")
}
