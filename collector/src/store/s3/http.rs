//! The HTTP client that `object_store` calls S3 with, and the checks that an answer is the service's own.
//!
//! An answer is read whole and within bounds before `object_store` sees it.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::{ClientOptions, Error as S3Error};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Method, StatusCode, Url};
use thiserror::Error;
use tracing::{Instrument as _, Span};

use super::listing::parse_page;
use crate::clock::SharedClock;
use crate::http_phases::Call;
use crate::http_span;
use crate::quantity::CallKind;
use crate::store::listing::{MAX_PAGE_BYTES, Page};
use crate::store::remote::{
    BodyError, MAX_MESSAGE_BYTES, MAX_OBJECT_BYTES, Peer, check_object, check_written, http_client, is_html,
    read_bounded,
};

/// What `object_store` reads in place of a page that was read here.
const READ_PAGE: &str = "<ListBucketResult/>";

/// Why an answer is not used. It came from a proxy, a captive portal, or a service of another kind.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct NotTheService(pub(super) String);

impl From<NotTheService> for HttpError {
    /// An error after which the request is not made again.
    fn from(error: NotTheService) -> Self {
        Self::new(HttpErrorKind::Decode, error)
    }
}

/// Calls with our own client, whose proxies and redirects are those of the other stores.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) endpoint: Option<Url>,
    pub(super) peer: Arc<Peer>,
    pub(super) clock: SharedClock,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |reason: String| S3Error::Generic { store: "S3", source: reason.into() };
        let amazon = || Url::parse("https://s3.amazonaws.com").map_err(|error| failed(error.to_string()));
        let address = self.endpoint.clone().map_or_else(amazon, Ok)?;
        let client = http_client(&address).map_err(|error| failed(error.to_string()))?;
        let (peer, clock) = (Arc::clone(&self.peer), Arc::clone(&self.clock));
        Ok(HttpClient::new(Caller { client, peer, clock }))
    }
}

/// Marks what must not be shown, not even in a trace of the connection, and checks what comes back.
#[derive(Debug)]
struct Caller {
    client: reqwest::Client,
    peer: Arc<Peer>,
    clock: SharedClock,
}

#[async_trait]
impl HttpService for Caller {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asked = Asked::of(&request);
        let secret = [AUTHORIZATION.as_str(), "x-amz-security-token"];
        for name in secret {
            if let Some(value) = request.headers_mut().get_mut(name) {
                value.set_sensitive(true);
            }
        }
        let url = Url::parse(&request.uri().to_string()).ok();
        let span = url.map_or_else(Span::none, |url| http_span::of_call(request.method().as_str(), &url, 1));
        let result = self.exchange(request, &asked).instrument(span.clone()).await;
        match &result {
            Ok(response) => http_span::note_answer(&span, response.status().as_u16()),
            Err(error) => http_span::note_error(&span, "no_answer", error),
        }
        result
    }
}

impl Caller {
    async fn exchange(&self, request: HttpRequest, asked: &Asked) -> Result<HttpResponse, HttpError> {
        let receive = async |response: HttpResponse| {
            let (parts, body) = response.into_parts();
            let limit = if parts.status.is_success() { asked.limit() } else { MAX_MESSAGE_BYTES };
            match read_bounded(body.bytes_stream(), limit).await {
                Ok(body) => Ok((parts, body)),
                Err(BodyError::Broken(error)) => Err(error),
                Err(error @ BodyError::TooLarge(_)) => Err(NotTheService(error.to_string()).into()),
            }
        };
        let (mut parts, body) = match asked.kind() {
            Some(kind) => {
                let call = (&self.clock, Call::new(&self.clock));
                self.peer.measure(call, kind, self.client.call(request), receive).await?
            }
            None => receive(self.client.call(request).await?).await?,
        };
        match asked.check(parts.status, &parts.headers, &body) {
            Err(reason) => return Err(NotTheService(reason).into()),
            Ok(Some(page)) => {
                parts.extensions.insert(page);
                self.peer.note(&parts.headers, self.clock.now());
                return Ok(HttpResponse::from_parts(parts, READ_PAGE.to_owned().into()));
            }
            Ok(None) if *asked != Asked::Other => self.peer.note(&parts.headers, self.clock.now()),
            Ok(None) => {}
        }
        Ok(HttpResponse::from_parts(parts, body.into()))
    }
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// A page of the listing of this prefix.
    Page(String),
    Object,
    Head,
    Write,
    /// Credentials, from other services.
    Other,
}

impl Asked {
    fn of(request: &HttpRequest) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let query: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let of_query =
            |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_string());
        let scope = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let is_signed_for_s3 = scope.is_some_and(|scope| scope.contains("/s3/aws4_request"));
        match *request.method() {
            Method::GET if of_query("list-type").is_some() => {
                Self::Page(of_query("prefix").unwrap_or_default())
            }
            _ if !is_signed_for_s3 => Self::Other,
            Method::GET => Self::Object,
            Method::HEAD => Self::Head,
            _ => Self::Write,
        }
    }

    /// What a call of the store is for.
    fn kind(&self) -> Option<CallKind> {
        match self {
            Self::Page(_) => Some(CallKind::StoreList),
            Self::Object | Self::Head => Some(CallKind::StoreRead),
            Self::Write => Some(CallKind::StoreWrite),
            Self::Other => None,
        }
    }

    fn limit(&self) -> u64 {
        match self {
            Self::Page(_) => MAX_PAGE_BYTES,
            Self::Object => MAX_OBJECT_BYTES,
            Self::Head | Self::Write | Self::Other => MAX_MESSAGE_BYTES,
        }
    }

    /// The page, if one was asked for.
    fn check(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<Option<Page>, String> {
        match (self, status.as_u16()) {
            (Self::Other, _) => {}
            (Self::Page(prefix), 200) => return parse_page(body, prefix).map(Some),
            (Self::Object | Self::Head, 200) => check_object(headers, body)?,
            (Self::Write, 200..=299) => check_written(body)?,
            (_, 200..=299) => return Err(format!("HTTP {status}, which is no answer to this request")),
            (_, 300..=399) => {
                return Err(format!("HTTP {status}: the request is redirected, which is not followed"));
            }
            // Nothing may be concluded from what is missing unless the service says so itself. To HEAD it cannot.
            (Self::Head, _) => {}
            (_, 404 | 412) if !is_error_of_s3(body) => {
                let what = if is_html(body) { "with an HTML page" } else { "without an error code" };
                return Err(format!("HTTP {status} {what}, which does not come from the store"));
            }
            _ => {}
        }
        Ok(None)
    }
}

/// Whether a body is the document that S3 describes an error with.
fn is_error_of_s3(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let root = text.trim_start_matches('\u{feff}').trim_start();
    let root = root.strip_prefix("<?xml").and_then(|rest| Some(rest.split_once("?>")?.1)).unwrap_or(root);
    root.trim_start().starts_with("<Error") && text.contains("<Code>") && text.contains("</Error>")
}
