//! Calls over HTTP as spans, in the words of OpenTelemetry's conventions for HTTP clients
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>). What an address asks for may be secret and is left out.

use std::fmt::Display;

use reqwest::Url;
use tracing::field::Empty;
use tracing::{Span, debug_span};

/// One call; `attempt` counts from 1.
pub(crate) fn of_call(method: &str, url: &Url, attempt: u32) -> Span {
    debug_span!(
        "http",
        otel.name = method,
        otel.kind = "client",
        http.request.method = method,
        http.request.resend_count = attempt.saturating_sub(1),
        server.address = url.host_str(),
        server.port = url.port_or_known_default(),
        url.path = url.path(),
        http.response.status_code = Empty,
        error.type = Empty,
        otel.status_description = Empty
    )
}

/// It was answered.
pub(crate) fn note_answer(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
}

/// It failed. `kind` is a short name, `error` a sentence.
pub(crate) fn note_error(span: &Span, kind: &str, error: &impl Display) {
    span.record("error.type", kind);
    // This also says that it failed.
    span.record("otel.status_description", error.to_string());
}
