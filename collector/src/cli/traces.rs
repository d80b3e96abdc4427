//! Traces for OpenTelemetry, where the program was built with them (feature `otlp`) and the environment says whereto.
//!
//! What is said and how follows <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>: `OTEL_EXPORTER_OTLP_ENDPOINT` (or
//! `…_TRACES_ENDPOINT`), `…_HEADERS`, `…_PROTOCOL` (`http/protobuf` or `http/json`), `…_TIMEOUT`, `OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SDK_DISABLED`. Without an endpoint nothing is sent.

use std::env;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, bail};
use opentelemetry::Key;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest::Url;
use reqwest::blocking::Client;
use reqwest::redirect::Policy;
use tracing::{Level, Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

/// The variables that say whereto; the first that is set counts.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// A program that ends waits so long for what is not sent yet.
const PATIENCE: Duration = Duration::from_secs(5);

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Sends the spans of this library, if the environment says whereto.
pub(super) fn layer<S>() -> anyhow::Result<Option<impl Layer<S>>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let said = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let is_disabled = said("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let endpoint = ENDPOINTS.iter().find_map(|name| Some((*name, said(name)?)));
    let Some((name, endpoint)) = endpoint.filter(|_| !is_disabled) else { return Ok(None) };
    // What it says may hold a secret and is not repeated.
    let Ok(url) = endpoint.parse::<Url>() else { bail!("{name} is no address") };
    let client = client_for(&url).with_context(|| name.to_owned())?;
    let exporter = SpanExporter::builder().with_http().with_http_client(client).build()?;
    let provider =
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build();
    let tracer = provider.tracer("collector");
    let _ = PROVIDER.set(provider);
    // Not the spans of the libraries: the exporter's own calls would be traced, and sent, and traced.
    let ours = Targets::new().with_target("collector", Level::DEBUG);
    Ok(Some(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(ours)))
}

/// Who we are: as the environment says, or by the project's name.
fn resource() -> Resource {
    let said = Resource::builder().build();
    let name = said.get(&Key::from_static_str("service.name")).map(|name| name.to_string());
    if name.is_some_and(|name| !name.starts_with("unknown_service")) {
        return said;
    }
    Resource::builder().with_service_name("polisen-events-collector").build()
}

/// Calls only this address, by the rules that hold for all calls.
fn client_for(url: &Url) -> anyhow::Result<Client> {
    let is_here = collector::feed::is_loopback(url);
    match url.scheme() {
        "https" => {}
        "http" if is_here => {}
        _ => bail!("the address must begin with https://, or http:// on this machine"),
    }
    let mut builder = Client::builder().redirect(Policy::none()).timeout(PATIENCE);
    if is_here {
        builder = builder.no_proxy();
    }
    if url.scheme() == "http" {
        builder = builder.tls_certs_only([]);
    }
    Ok(builder.build()?)
}

/// Sends what is not sent yet.
pub(super) fn finish() {
    if let Some(Err(error)) = PROVIDER.get().map(|provider| provider.shutdown_with_timeout(PATIENCE)) {
        warn!(%error, "not all traces could be sent");
    }
}
