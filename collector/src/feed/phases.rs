//! Where the time of a call goes: name, connection, first byte, body.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use tower::{Layer, Service};

use crate::clock::SharedClock;

/// Where the time of a call went. Nothing where the phase did not happen (an address needs no look-up, a
/// connection may be used again).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// Finding the address.
    pub dns: Option<Duration>,
    /// TCP and TLS together: the client's connector does not separate them.
    pub connect_tls: Option<Duration>,
    /// From the connection to the head of the answer.
    pub first_byte: Option<Duration>,
    /// From the head to the end of the body, decompression included.
    pub body: Option<Duration>,
}

/// Takes the times that only the connector knows.
#[derive(Debug, Clone)]
pub(super) struct PhaseRecorder {
    clock: SharedClock,
    measured: Arc<Mutex<Phases>>,
}

/// The resolver's error, recognisable in the client's.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct DnsFailure(pub(super) String);

impl PhaseRecorder {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self { clock, measured: Arc::default() }
    }

    /// What was measured since the last call.
    pub(super) fn take(&self) -> Phases {
        self.change(std::mem::take)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Phases) -> T) -> T {
        change(&mut self.measured.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Resolve for PhaseRecorder {
    fn resolve(&self, name: Name) -> Resolving {
        let recorder = self.clone();
        Box::pin(async move {
            let since = recorder.clock.elapsed();
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let took = recorder.clock.since(since);
            recorder.change(|phases| phases.dns = Some(took));
            match found {
                Ok(addresses) => Ok(Box::new(addresses.collect::<Vec<SocketAddr>>().into_iter()) as Addrs),
                Err(error) => Err(DnsFailure(error.to_string()).into()),
            }
        })
    }
}

impl<S> Layer<S> for PhaseRecorder {
    type Service = TimedConnector<S>;

    fn layer(&self, inner: S) -> TimedConnector<S> {
        TimedConnector { inner, recorder: self.clone() }
    }
}

/// A connector whose time is taken.
#[derive(Debug, Clone)]
pub(super) struct TimedConnector<S> {
    inner: S,
    recorder: PhaseRecorder,
}

impl<S, R> Service<R> for TimedConnector<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let recorder = self.recorder.clone();
        let connection = self.inner.call(request);
        Box::pin(async move {
            let since = recorder.clock.elapsed();
            let connected = connection.await;
            let took = recorder.clock.since(since);
            recorder.change(|phases| {
                phases.connect_tls = Some(took.saturating_sub(phases.dns.unwrap_or_default()));
            });
            connected
        })
    }
}
