//! What the collector meets outside, simulated, and the collector in it.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "values that are shown: counts, bytes and seconds far below where a double is not exact"
)]

pub mod baseline;
pub mod capacity;
pub mod clock;
pub mod failover;
pub mod feed;
pub mod latency;
pub mod oci;
mod process;
pub mod reliability;
pub mod report;
pub mod scenario;
pub mod service;
pub mod stress;
pub mod timeline;
