//! A bucket and what may be asked of it.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::answer::Answer;

#[derive(Debug)]
struct Object {
    bytes: Bytes,
    etag: String,
}

/// Counts of authenticated requests, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// GET of an object.
    pub get: u64,
    /// HEAD of an object.
    pub head: u64,
    /// PUT of an object.
    pub put: u64,
    /// Pages of listings.
    pub list: u64,
    /// DELETE of an object.
    pub delete: u64,
}

impl Requests {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        let Self { get, head, put, list, delete } = *self;
        get + head + put + list + delete
    }
}

/// Objects by name.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    objects: BTreeMap<String, Object>,
    written: u64,
    /// Whether conditions are taken and ignored, as some servers of this kind do.
    pub(super) ignores_conditions: bool,
    pub(super) requests: Requests,
}

impl Bucket {
    /// Answers a request on `/n/…/b/…/o` and what follows.
    pub(super) fn answer(
        &mut self,
        method: &Method,
        name: &str,
        query: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Answer {
        let Some(name) = name.strip_prefix('/') else {
            self.requests.list += 1;
            return self.list(query);
        };
        let Ok(name) = percent_decode_str(name).decode_utf8() else {
            return Answer::error(StatusCode::BAD_REQUEST, "InvalidParameter", "the name is not UTF-8");
        };
        match *method {
            Method::GET => {
                self.requests.get += 1;
                self.get(&name)
            }
            Method::HEAD => {
                self.requests.head += 1;
                self.get(&name)
            }
            Method::PUT => {
                self.requests.put += 1;
                self.put(&name, headers, body)
            }
            Method::DELETE => {
                self.requests.delete += 1;
                match self.objects.remove(&*name) {
                    Some(_) => Answer::new(StatusCode::NO_CONTENT),
                    None => no_object(&name),
                }
            }
            _ => Answer::error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "no such operation"),
        }
    }

    fn get(&self, name: &str) -> Answer {
        let Some(object) = self.objects.get(name) else { return no_object(name) };
        let mut answer = Answer::new(StatusCode::OK).with_etag(&object.etag);
        answer.headers.insert("content-type", HeaderValue::from_static("application/octet-stream"));
        answer.body = object.bytes.clone();
        answer
    }

    fn put(&mut self, name: &str, headers: &HeaderMap, body: &Bytes) -> Answer {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if header("content-md5").is_some_and(|md5| md5 != BASE64.encode(Md5::digest(body))) {
            return Answer::error(StatusCode::BAD_REQUEST, "UnmatchedContentMD5", "the body is another one");
        }
        let there = self.objects.get(name);
        let header = |name: &str| header(name).filter(|_| !self.ignores_conditions);
        if header("if-none-match") == Some("*") && there.is_some() {
            let message = format!("the object '{name}' exists");
            return Answer::error(StatusCode::PRECONDITION_FAILED, "IfNoneMatchFailed", &message);
        }
        if let Some(wanted) = header("if-match")
            && there.is_none_or(|object| object.etag != wanted)
        {
            let message = format!("the object '{name}' has another etag");
            return Answer::error(StatusCode::PRECONDITION_FAILED, "IfMatchFailed", &message);
        }
        self.written += 1;
        let etag = format!("{:08x}-simulated", self.written);
        let answer = Answer::new(StatusCode::OK).with_etag(&etag);
        self.objects.insert(name.to_owned(), Object { bytes: body.clone(), etag });
        answer
    }

    fn list(&self, query: &str) -> Answer {
        let parameters: BTreeMap<&str, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name, percent_decode_str(value).decode_utf8_lossy().into_owned()))
            .collect();
        let text = |name: &str| parameters.get(name).map_or("", String::as_str);
        let limit = text("limit").parse().unwrap_or(1_000).clamp(1, 1_000);
        let start = text("start").max(text("prefix"));
        let mut matching = self
            .objects
            .range(start.to_owned()..)
            .take_while(|(name, _)| name.starts_with(text("prefix")))
            .map(|(name, object)| json!({"name": name, "size": object.bytes.len()}));
        let objects: Vec<Value> = matching.by_ref().take(limit).collect();
        let next = matching.next().map(|object| object["name"].clone());
        Answer::new(StatusCode::OK).with_json(&json!({"objects": objects, "nextStartWith": next}))
    }
}

fn no_object(name: &str) -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "ObjectNotFound", &format!("the object '{name}' was not found"))
}
