//! Prints events of a type in a place that `collector publish` sends to Kafka, and ends when there are no more:
//!
//! ```text
//! cargo run --features kafka --example alerts_kafka -- Brand Stockholm [HOST:PORT [TOPIC]]
//! ```

use std::error::Error;
use std::time::Duration;
use std::{env, io};

use krafka::Kafka;
use krafka::consumer::{AutoOffsetReset, IsolationLevel};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = env::args().skip(1);
    let (Some(wanted), Some(place)) = (arguments.next(), arguments.next()) else {
        return Err("name a type and a place".into());
    };
    let server = arguments.next().unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "polisen.events".to_owned());
    // The group keeps the place of this consumer. Only what is committed may be read.
    let consumer = Kafka::builder(server).connect().await?.consumer("alerts");
    let consumer = consumer.isolation_level(IsolationLevel::ReadCommitted).enable_auto_commit(false);
    let consumer = consumer.auto_offset_reset(AutoOffsetReset::Earliest).build().await?;
    consumer.subscribe([topic]).await?;
    loop {
        for message in consumer.poll(Duration::from_secs(1)).await? {
            let event: serde_json::Value = serde_json::from_slice(&message.value.unwrap_or_default())?;
            let is_there = event["location"]["name"].as_str().is_some_and(|name| name.contains(&place));
            if event["type"] == wanted.as_str() && is_there {
                let alert = format!("{} {}\n", event["datetime"], event["summary"]);
                io::Write::write_all(&mut io::stdout(), alert.as_bytes())?;
            }
        }
        let lags = consumer.lag().await;
        if !lags.is_empty() {
            consumer.commit().await?;
            if lags.values().all(|it| it.lag == Some(0)) {
                return Ok(consumer.close().await?);
            }
        }
    }
}
