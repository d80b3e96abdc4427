//! The feed on wiremock.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use collector::clock::SharedClock;
use wiremock::{Match, Mock, MockServer, Request, Respond, ResponseTemplate};

use super::{Answer, Call, SimulatedFeed};

/// A server that answers as the feed does.
#[derive(Debug)]
pub struct WireServer {
    server: MockServer,
    desk: Desk,
}

impl WireServer {
    /// Starts it. An answer that is to come too late comes after `silence`.
    pub async fn start(feed: SimulatedFeed, clock: SharedClock, silence: Duration) -> Self {
        let server = MockServer::builder().disable_request_recording().start().await;
        let this = Self { server, desk: Desk { feed, clock, silence, answer: Arc::default() } };
        this.mount().await;
        this
    }

    /// Its address.
    #[must_use]
    pub fn uri(&self) -> String {
        self.server.uri()
    }

    /// Forgets the calls so far: wiremock keeps each one with the mock that answered it, about 10 KB a call.
    pub async fn forget_calls(&self) {
        self.server.reset().await;
        self.mount().await;
    }

    async fn mount(&self) {
        // Of the two, the first decides what is answered, and takes the call if that is nothing.
        Mock::given(self.desk.clone())
            .respond_with_err(|_: &Request| io::Error::from(io::ErrorKind::ConnectionReset))
            .with_priority(1)
            .mount(&self.server)
            .await;
        let any = Mock::given(wiremock::matchers::any());
        any.respond_with(self.desk.clone()).with_priority(2).mount(&self.server).await;
    }
}

/// Where calls are answered: the feed, and the answer to the call at hand.
#[derive(Debug, Clone)]
struct Desk {
    feed: SimulatedFeed,
    clock: SharedClock,
    silence: Duration,
    answer: Arc<Mutex<Option<Answer>>>,
}

impl Match for Desk {
    /// Whether the connection is to be cut. wiremock asks once for each call, one after the other.
    fn matches(&self, request: &Request) -> bool {
        let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        let call = Call {
            user_agent: header("user-agent"),
            takes_gzip: header("accept-encoding").is_some_and(|encodings| encodings.contains("gzip")),
            query: request.url.query().unwrap_or_default(),
        };
        let answer = self.feed.answer(call, self.clock.now());
        let cut = answer == Answer::Reset;
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        cut
    }
}

impl Respond for Desk {
    fn respond(&self, _: &Request) -> ResponseTemplate {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        match answer {
            Some(Answer::Events { body, gzip }) => {
                let template = ResponseTemplate::new(200).set_body_raw(body.to_vec(), "application/json");
                if gzip { template.insert_header("content-encoding", "gzip") } else { template }
            }
            Some(Answer::Refused { status, retry_after_s }) => {
                let template = ResponseTemplate::new(status);
                match retry_after_s {
                    Some(seconds) => template.insert_header("retry-after", seconds.to_string()),
                    None => template,
                }
            }
            Some(Answer::Silence) => ResponseTemplate::new(200).set_delay(self.silence),
            Some(Answer::Reset) | None => ResponseTemplate::new(500),
        }
    }
}
