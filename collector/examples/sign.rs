//! Signs requests, so that other signers can be compared: `sign CONFIG_FILE < requests.jsonl`.
//!
//! A request is a line such as `{"method":"get","target":"/n/","host":"h","date":"…"}`, with `body` where a
//! body of JSON is signed too. The answer is `{"text":"…","authorization":"…"}`.

use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};

use collector::store::oci::credentials::Credentials;
use collector::store::oci::signature::{Body, Signed};
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    method: String,
    target: String,
    host: String,
    date: String,
    body: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let config = std::env::args_os().nth(1).map(PathBuf::from).unwrap_or_default();
    let credentials = Credentials::from_file(&config, "DEFAULT", Path::new("/"))?;
    for line in io::stdin().lock().lines() {
        let Line { method, target, host, date, body } = serde_json::from_str(&line?)?;
        let body = body.as_ref().map_or(Body::Empty, |body| Body::Json(body.as_bytes()));
        let signed = Signed { method: &method, target: &target, host: &host, date: &date, body };
        let (_, text) = signed.text();
        let authorization = credentials.key.authorization(&signed)?;
        writeln!(io::stdout(), "{}", serde_json::json!({"text": text, "authorization": authorization}))?;
    }
    Ok(())
}
