//! The TLS configuration of every HTTPS client of the collector: feed, stores, monitors.
//!
//! Certificates are verified as the platform does (`SSL_CERT_FILE` and `SSL_CERT_DIR` apply). Root certificates are read once for
//! all clients that exist at the same time, and not before the first handshake needs them. Nothing here weakens a check.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use reqwest::ClientBuilder;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, NamedGroup, SignatureScheme};
use rustls_platform_verifier::Verifier;

use crate::http_phases::note_handshake;

/// Number of servers whose sessions are remembered.
const SESSIONS: usize = 256;

/// Gives a client the configuration.
pub(crate) fn secure(builder: ClientBuilder) -> ClientBuilder {
    match config() {
        Ok(config) => builder.tls_backend_preconfigured(config),
        // The client's own configuration reports what is wrong.
        Err(_) => builder,
    }
}

fn config() -> Result<ClientConfig, Error> {
    let mut config = any_protocol()?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The configuration for another protocol than HTTP.
pub(crate) fn any_protocol() -> Result<ClientConfig, Error> {
    let verifier = SystemVerifier::shared();
    let provider = Arc::clone(&verifier.provider);
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let sessions = MeasuredSessions(ClientSessionMemoryCache::new(SESSIONS));
    config.resumption = Resumption::store(Arc::new(sessions));
    Ok(config)
}

/// The platform's verifier, whose root certificates are read by the first handshake.
struct SystemVerifier {
    provider: Arc<CryptoProvider>,
    loaded: OnceLock<Result<Verifier, Error>>,
}

impl fmt::Debug for SystemVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SystemVerifier")
    }
}

impl SystemVerifier {
    /// The verifier of the clients that exist. After the last one is gone, roots are read again.
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<SystemVerifier>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let verifier = Arc::new(Self { provider: Arc::new(default_provider()), loaded: OnceLock::new() });
            *shared = Arc::downgrade(&verifier);
            verifier
        })
    }

    fn verifier(&self) -> Result<&Verifier, Error> {
        let loaded = self.loaded.get_or_init(|| Verifier::new(Arc::clone(&self.provider)));
        loaded.as_ref().map_err(Clone::clone)
    }
}

impl ServerCertVerifier for SystemVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier()?.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier()?.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Remembers sessions, and notes when a handshake begins: it looks for a session first.
#[derive(Debug)]
struct MeasuredSessions(ClientSessionMemoryCache);

impl ClientSessionStore for MeasuredSessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.0.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        note_handshake();
        self.0.take_tls13_ticket(server_name)
    }
}
