//! What the collector meets outside, simulated, and the collector in it.

pub mod capacity;
pub mod clock;
pub mod feed;
pub mod latency;
pub mod oci;
mod process;
pub mod reliability;
pub mod report;
pub mod scenario;
pub mod timeline;
