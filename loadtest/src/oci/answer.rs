//! An answer before it is sent.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self::new(status).with_json(&json!({"code": code, "message": message}))
    }

    pub(super) fn text(text: String) -> Self {
        Self { body: text.into(), ..Self::new(StatusCode::OK) }
    }

    pub(super) fn with_json(mut self, body: &Value) -> Self {
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.body = body.to_string().into();
        self
    }

    pub(super) fn with_etag(mut self, etag: &str) -> Self {
        self.headers.extend(etag.parse().map(|etag| (header::ETAG, etag)));
        self
    }
}
