//! What it is worth to use connections again: the same requests to the simulated Object Storage, 16 at a time, with and
//! without. On this machine a connection costs little; elsewhere two round trips, and TLS.

use std::io::Write as _;
use std::time::Instant;

use futures_util::stream::{self, StreamExt as _};
use loadtest::oci::{Account, Faults, ObjectStorage};

const REQUESTS: usize = 5_000;
const PARALLEL: usize = 16;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let account = Account::generate("connections").map_err(|_| "no key could be made")?;
    let service = ObjectStorage::new("ns", "events", vec![account], Faults::none()).map_err(|_| "no key")?;
    let url = format!("http://{}/n/ns/b/events/o/absent", service.start().await?);
    let mut times = Vec::new();
    for (name, idle) in [("used again", PARALLEL), ("one a request", 0)] {
        let client = reqwest::Client::builder().pool_max_idle_per_host(idle).no_proxy().build()?;
        let (before, began) = (service.connections(), Instant::now());
        let requests = (0..REQUESTS).map(|_| async { client.get(&url).send().await?.bytes().await });
        let answers: Vec<_> = stream::iter(requests).buffer_unordered(PARALLEL).collect().await;
        let (took, connections) = (began.elapsed().as_secs_f64(), service.connections() - before);
        let answered = answers.iter().filter(|answer| answer.is_ok()).count();
        writeln!(
            std::io::stdout(),
            "{name}: {answered} answers over {connections} connections in {took:.2} s"
        )?;
        times.push(took);
    }
    writeln!(std::io::stdout(), "{:.1} times as fast", times[1] / times[0])?;
    Ok(())
}
