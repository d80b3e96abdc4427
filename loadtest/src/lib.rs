//! What the collector meets outside, simulated: so far Oracle's Object Storage.

pub mod oci;
