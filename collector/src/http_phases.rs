//! Where the time of an HTTP call goes: name, TCP, TLS, request, first byte, body.
//!
//! A [`Call`] measures one call. The parts of a client that [`instrument`] puts in place find the call under way in the task that
//! makes it, so that any number of calls can be under way. The module knows neither the feed nor stores, and changes nothing of
//! what is sent.

#[cfg(feature = "oci")]
mod body;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use reqwest::ClientBuilder;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use tower::{Layer, Service};

use crate::clock::SharedClock;
use crate::quantity::{CallKind, Quantities};

/// Where the time of a call went. Nothing where the phase did not happen: an address needs no look-up, and a connection may be
/// used again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// Finding the address.
    pub dns: Option<Duration>,
    /// Opening the TCP connection, through the tunnel of a proxy if there is one.
    pub connect: Option<Duration>,
    /// The TLS handshake, with the check of the certificate.
    pub tls: Option<Duration>,
    /// Handing over the body of the request. A request without a body is sent at once.
    pub request: Option<Duration>,
    /// From the end of the request to the head of the response.
    pub first_byte: Option<Duration>,
    /// From the head to the end of the body, decompression included.
    pub body: Option<Duration>,
}

impl Phases {
    /// Whether the call opened a connection.
    #[must_use]
    pub fn is_cold(&self) -> bool {
        self.connect.is_some()
    }

    /// Adds the phases to the quantities of a kind of calls.
    pub(crate) fn add_to(&self, quantities: &mut Quantities, kind: CallKind) {
        let Self { dns, connect, tls, request, first_byte, body } = *self;
        let times = [dns, connect, tls, request, first_byte, body];
        for (quantity, time) in kind.phases().into_iter().zip(times) {
            if let (Some(quantity), Some(time)) = (quantity, time) {
                quantities.add(quantity, time);
            }
        }
    }
}

/// The resolver's error, recognisable in the client's.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct DnsFailure(pub(crate) String);

tokio::task_local! {
    static CALL: Call;
}

/// Moments of a call, by [`crate::clock::Clock::elapsed`].
#[derive(Debug, Default)]
struct Moments {
    dns: Option<Duration>,
    connecting: Option<Duration>,
    tls_began: Option<Duration>,
    connected: Option<Duration>,
    sent: Option<Duration>,
}

/// One call, whose phases are measured.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    clock: SharedClock,
    moments: Arc<Mutex<Moments>>,
}

impl Call {
    pub(crate) fn new(clock: &SharedClock) -> Self {
        Self { clock: Arc::clone(clock), moments: Arc::default() }
    }

    /// Sends the request, up to the head of the response.
    pub(crate) async fn send<T>(self, request: impl Future<Output = T>) -> (T, Phases) {
        let began = self.clock.elapsed();
        let result = CALL.scope(self.clone(), request).await;
        let head = self.clock.elapsed();
        let phases = self.change(|moments| moments.phases(began, head));
        (result, phases)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Moments) -> T) -> T {
        change(&mut self.moments.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, note: impl FnOnce(&mut Moments, Duration)) {
        let now = self.clock.elapsed();
        self.change(|moments| note(moments, now));
    }
}

impl Moments {
    fn phases(&self, began: Duration, head: Duration) -> Phases {
        let dns = self.dns;
        let [mut connect, mut tls] = [None; 2];
        if let (Some(connecting), Some(connected)) = (self.connecting, self.connected) {
            let tls_began = self.tls_began.filter(|began| (connecting..=connected).contains(began));
            let opened = tls_began.unwrap_or(connected);
            connect = Some(opened.saturating_sub(connecting + dns.unwrap_or_default()));
            tls = tls_began.map(|began| connected.saturating_sub(began));
        }
        let ready = self.connected.unwrap_or(began).max(began);
        let request = self.sent.map(|sent| sent.saturating_sub(ready));
        let sent = ready + request.unwrap_or_default();
        Phases { dns, connect, tls, request, first_byte: Some(head.saturating_sub(sent)), body: None }
    }
}

/// Lets a client note the phases of its calls.
pub(crate) fn instrument(builder: ClientBuilder) -> ClientBuilder {
    builder.dns_resolver(MeasuredResolver).connector_layer(ConnectorLayer)
}

/// Notes that a TLS handshake begins.
pub(crate) fn note_handshake() {
    let _ = CALL.try_with(|call| call.note(|moments, now| moments.tls_began = Some(now)));
}

/// The system's resolver.
#[derive(Debug)]
struct MeasuredResolver;

impl Resolve for MeasuredResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let call = CALL.try_with(Clone::clone).ok();
            let since = call.as_ref().map(|call| call.clock.elapsed());
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            if let (Some(call), Some(since)) = (call, since) {
                call.note(|moments, now| moments.dns = Some(now.saturating_sub(since)));
            }
            match found {
                Ok(addresses) => Ok(Box::new(addresses.collect::<Vec<SocketAddr>>().into_iter()) as Addrs),
                Err(error) => Err(DnsFailure(error.to_string()).into()),
            }
        })
    }
}

#[derive(Debug, Clone)]
struct ConnectorLayer;

impl<S> Layer<S> for ConnectorLayer {
    type Service = MeasuredConnector<S>;

    fn layer(&self, inner: S) -> MeasuredConnector<S> {
        MeasuredConnector { inner }
    }
}

/// A connector whose time is taken.
#[derive(Debug, Clone)]
struct MeasuredConnector<S> {
    inner: S,
}

impl<S, R> Service<R> for MeasuredConnector<S>
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
        let connection = self.inner.call(request);
        Box::pin(async move {
            let call = CALL.try_with(Clone::clone).ok();
            if let Some(call) = &call {
                call.note(|moments, now| *moments = Moments { connecting: Some(now), ..Moments::default() });
            }
            let connected = connection.await;
            if let Some(call) = call {
                call.note(|moments, now| moments.connected = Some(now));
            }
            connected
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn resolving_a_name_is_measured() {
        let clock: SharedClock = Arc::new(SystemClock::default());
        let name = || "localhost".parse().unwrap();
        let (found, phases) = Call::new(&clock).send(MeasuredResolver.resolve(name())).await;
        assert!(found.is_ok() && phases.dns.is_some());
        // Outside of a call nothing is noted, and the name is found as well.
        assert!(MeasuredResolver.resolve(name()).await.is_ok());
    }

    #[test]
    fn phases_of_a_new_connection_add_up() {
        let moments = Moments {
            dns: Some(MS * 50),
            connecting: Some(MS * 1),
            tls_began: Some(MS * 151),
            connected: Some(MS * 351),
            sent: Some(MS * 361),
        };
        let phases = moments.phases(MS, MS * 1_511);
        let Phases { dns, connect, tls, request, first_byte, .. } = phases;
        assert_eq!(
            [dns, connect, tls, request, first_byte],
            [Some(MS * 50), Some(MS * 100), Some(MS * 200), Some(MS * 10), Some(MS * 1_150)]
        );
        assert!(phases.is_cold());
    }

    #[test]
    fn warm_connection_has_no_phases_before_the_request() {
        let moments = Moments { sent: Some(MS * 12), ..Moments::default() };
        let phases = moments.phases(MS * 10, MS * 30);
        let expected = Phases { request: Some(MS * 2), first_byte: Some(MS * 18), ..Phases::default() };
        assert_eq!(phases, expected);
        assert!(!phases.is_cold());
    }
}
