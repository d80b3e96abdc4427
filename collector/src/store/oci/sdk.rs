//! A second signer: that of `oci-rust-sdk`, which the feature of that name brings in.
//!
//! It signs and does nothing else; its HTTP client is never used. It works on a thread of its own, so that
//! nothing it does can hold up what is asynchronous here. See `docs/decisions/0004-object-storage.md`.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use async_trait::async_trait;
use oci_rust_sdk::auth::{AuthProvider, RequestSigner};
use reqwest::header::{CONTENT_TYPE, DATE, HOST, HeaderMap, HeaderValue};
use tokio::sync::oneshot;
use url::Url;

use super::key::{KeyError, PrivateKey};
use super::signature::{Body, SignError, Signed, Signer, secret_header};

/// Signs with a user's key.
pub struct SdkSigner {
    to_thread: Sender<Job>,
}

impl fmt::Debug for SdkSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SdkSigner")
    }
}

/// A request to be signed, and where the headers are waited for.
struct Job {
    method: String,
    address: Url,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
    answer: oneshot::Sender<Result<HeaderMap, SignError>>,
}

impl SdkSigner {
    /// Starts the thread, which ends with the signer.
    ///
    /// # Errors
    /// [`KeyError`] if the SDK does not take the key.
    pub fn new(key: &PrivateKey) -> Result<Self, KeyError> {
        let user = User { key_id: key.key_id().to_owned(), pem: key.to_pkcs8_pem()? };
        // What it says of a key that it does not take is not passed on.
        let signer = RequestSigner::new(Arc::new(user))
            .map_err(|_| KeyError::Rejected("oci-rust-sdk does not take it".to_owned()))?;
        let (to_thread, jobs) = channel();
        thread::Builder::new()
            .name("oci-rust-sdk".to_owned())
            .spawn(move || work(&signer, &jobs))
            .map_err(|error| KeyError::Rejected(format!("no thread: {error}")))?;
        Ok(Self { to_thread })
    }
}

fn work(signer: &RequestSigner, jobs: &Receiver<Job>) {
    for Job { method, address, mut headers, body, answer } in jobs {
        let result = signer
            .sign_request(&method, &address, &mut headers, body.as_deref())
            .map_err(|_| SignError::Key(KeyError::Rejected("oci-rust-sdk does not sign".to_owned())));
        let _ = answer.send(result.and_then(|()| as_headers_to_send(headers)));
    }
}

/// The client sends host and date itself.
fn as_headers_to_send(mut headers: HeaderMap) -> Result<HeaderMap, SignError> {
    headers.remove(HOST);
    headers.remove(DATE);
    let authorization = headers.remove("authorization").ok_or(SignError::Header)?;
    let secret = secret_header(authorization.to_str().map_err(|_| SignError::Header)?)?;
    headers.insert("authorization", secret);
    Ok(headers)
}

#[async_trait]
impl Signer for SdkSigner {
    async fn sign(&self, request: &Signed<'_>) -> Result<HeaderMap, SignError> {
        let header = |text: &str| HeaderValue::try_from(text).map_err(|_| SignError::Header);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, header(request.host)?);
        headers.insert(DATE, header(request.date)?);
        if let Body::Object(_) = request.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        }
        let address = Url::parse(&format!("https://{}{}", request.host, request.target));
        let (answer, signed) = oneshot::channel();
        let job = Job {
            method: request.method.to_owned(),
            address: address.map_err(|_| SignError::Header)?,
            headers,
            body: request.body.bytes().map(<[u8]>::to_vec),
            answer,
        };
        let gone = || SignError::Key(KeyError::Rejected("the thread of oci-rust-sdk has ended".to_owned()));
        self.to_thread.send(job).map_err(|_| gone())?;
        signed.await.map_err(|_| gone())?
    }
}

/// The key as the SDK asks for it.
struct User {
    key_id: String,
    pem: String,
}

impl AuthProvider for User {
    fn get_key_id(&self) -> String {
        self.key_id.clone()
    }

    fn get_private_key(&self) -> &str {
        &self.pem
    }

    fn get_passphrase(&self) -> Option<&str> {
        None
    }
}
