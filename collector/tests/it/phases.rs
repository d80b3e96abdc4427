//! The phases of a call over TLS: each is measured, and together they are no more than the call.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::support::{Ended, Home, fixture};

/// Answers each call with the response, on loopback and with TLS. Returns the address.
fn serve(home: &Home) -> String {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    home.write("certificate.pem", cert.pem());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (config, body) = (Arc::new(config), std::fs::read(fixture("response.json")).unwrap());
    thread::spawn(move || {
        for connection in listener.incoming() {
            let secure = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(secure, connection.unwrap());
            // A client that refuses the certificate ends the connection.
            if stream.read(&mut [0; 4096]).is_ok() {
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    format!("https://127.0.0.1:{port}/api/events")
}

#[test]
fn phases_of_a_call_over_tls_are_distinguished() {
    let home = Home::new();
    let feed = serve(&home);
    let mut command = home.command(&["run", "--json", "--feed", &feed]);
    let record: Value =
        Ended::from(command.env("SSL_CERT_FILE", "certificate.pem").output().unwrap()).with(0).json();
    let timings = &record["timings"];
    let seconds = |phase: &str| timings[phase].as_f64().unwrap_or_else(|| panic!("no {phase}: {timings}"));
    let phases = ["api_connect", "api_tls", "api_first_byte", "api_body"].map(seconds);
    assert!(phases.iter().sum::<f64>() <= seconds("api_fetch"), "{timings}");
    // Signing and checking take time on any machine.
    assert!(seconds("api_tls") > 0.0, "{timings}");
    assert!(timings["api_dns"].is_null() && timings["api_connect_tls"].is_null(), "{timings}");
}

#[test]
fn certificate_of_an_unknown_authority_is_refused() {
    let home = Home::new();
    let feed = serve(&home);
    let ended = home.collector(&["run", "--feed", &feed, "--retries", "0"]).with(1);
    assert!(ended.error_line().contains("no secure connection"), "{}", ended.stderr);
}
