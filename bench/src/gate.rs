//! The gate: says whether one build is slower than another, and says so only if it is.

pub mod baseline;
pub mod builds;
pub mod calibrate;
pub mod instructions;
pub mod pairs;
pub mod report;
pub mod slices;
pub mod statistics;
