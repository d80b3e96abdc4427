//! Prints events of a type in a place that `collector publish` sends to NATS JetStream, and ends when there are no more:
//!
//! ```text
//! cargo run --features nats --example alerts -- Brand Stockholm [HOST:PORT]
//! ```

use std::error::Error;
use std::time::Duration;
use std::{env, io};

use async_nats::jetstream::consumer::pull::Config;
use futures_util::StreamExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = env::args().skip(1);
    let (Some(wanted), Some(place)) = (arguments.next(), arguments.next()) else {
        return Err("name a type and a place".into());
    };
    let server = arguments.next().unwrap_or_else(|| "127.0.0.1:4222".to_owned());
    let jetstream = async_nats::jetstream::new(async_nats::connect(server).await?);
    let stream = jetstream.stream_by_subject("polisen.events").await?;
    // The durable name keeps the place of this consumer.
    let config = Config { durable_name: Some("alerts".to_owned()), ..Config::default() };
    let mut consumer = jetstream.create_consumer_on_stream(config, stream).await?;
    loop {
        let state = consumer.info().await?;
        if state.num_pending == 0 && state.num_ack_pending == 0 {
            return Ok(());
        }
        let mut messages =
            consumer.fetch().max_messages(1_000).expires(Duration::from_secs(1)).messages().await?;
        while let Some(message) = messages.next().await {
            let message = message?;
            let event: serde_json::Value = serde_json::from_slice(&message.payload)?;
            let is_there = event["location"]["name"].as_str().is_some_and(|name| name.contains(&place));
            if event["type"] == wanted.as_str() && is_there {
                let alert = format!("{} {}\n", event["datetime"], event["summary"]);
                io::Write::write_all(&mut io::stdout(), alert.as_bytes())?;
            }
            message.ack().await?;
        }
    }
}
