//! What the collector meets outside, simulated: so far Oracle's Object Storage and what belongs to it.

pub mod oci;
