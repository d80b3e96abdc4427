//! Exports traces to OpenTelemetry, if the program was built with the feature `otlp` and the environment names an endpoint.
//!
//! The variables are those of <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>: `OTEL_EXPORTER_OTLP_ENDPOINT` (or
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

/// The variables that name the endpoint, in their order of precedence.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// Maximum time for sending what is buffered when the program ends, and for a call.
const TIMEOUT: Duration = Duration::from_secs(5);

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Exports the spans of this library, if the environment names an endpoint.
pub(super) fn layer<S>() -> anyhow::Result<Option<impl Layer<S>>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let is_disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let endpoint = ENDPOINTS.iter().find_map(|name| Some((*name, variable(name)?)));
    let Some((name, endpoint)) = endpoint.filter(|_| !is_disabled) else { return Ok(None) };
    // The value may hold a secret, so it is not printed.
    let Ok(url) = endpoint.parse::<Url>() else { bail!("{name}: not a valid URL") };
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

/// The resource that the environment describes; its service is by default that of this project.
fn resource() -> Resource {
    let described = Resource::builder().build();
    let name = described.get(&Key::from_static_str("service.name")).map(|name| name.to_string());
    if name.is_some_and(|name| !name.starts_with("unknown_service")) {
        return described;
    }
    Resource::builder().with_service_name("polisen-events-collector").build()
}

/// A client for this address, with the same restrictions as all other calls of the program.
fn client_for(url: &Url) -> anyhow::Result<Client> {
    let is_here = crate::feed::is_loopback(url);
    match url.scheme() {
        "https" => {}
        "http" if is_here => {}
        _ => bail!("the address must begin with https://, or http:// on this machine"),
    }
    let mut builder = Client::builder().redirect(Policy::none()).timeout(TIMEOUT);
    if is_here {
        builder = builder.no_proxy();
    }
    if url.scheme() == "http" {
        builder = builder.tls_certs_only([]);
    }
    Ok(builder.build()?)
}

/// Sends what is buffered.
pub(super) fn finish() {
    if let Some(Err(error)) = PROVIDER.get().map(|provider| provider.shutdown_with_timeout(TIMEOUT)) {
        warn!(%error, "not all traces could be sent");
    }
}
