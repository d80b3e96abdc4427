//! What the collector meets outside, simulated, and the collector in it.

pub mod oci;
pub mod timeline;
