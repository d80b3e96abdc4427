//! Shows the pages as soon as their address can be listened on. Polls do not wait for that: the port may be in use, or the
//! address not assigned yet.

use std::net::SocketAddr;
use std::time::Duration;

use tracing::{info, warn};

use super::http::{self, Pages};

/// Pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Tries to listen until it succeeds, then shows the pages until it is dropped. Whether they are shown is in the status; `changed`
/// is called when that changes.
pub async fn show(address: SocketAddr, pages: Pages, changed: impl Fn()) {
    let mut pause = FIRST_PAUSE;
    let server = loop {
        let started = http::start(address, pages.clone());
        let error = started.as_ref().err().map(|error| format!("cannot listen on {address}: {error}"));
        let is_news = pages.status.note_listening(error.map_or(Ok(()), Err));
        if is_news {
            changed();
        }
        match started {
            Ok(server) => break server,
            Err(error) if is_news => {
                warn!(%address, %error, "cannot listen; polling without pages, and trying again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    };
    let address = server.address();
    if address.ip().is_loopback() {
        info!(%address, "showing /, /health, /ready, /metrics and /api/runs");
    } else {
        warn!(%address, "showing /, /health, /ready, /metrics and /api/runs to everybody who can reach this address");
    }
    std::future::pending::<()>().await;
}
